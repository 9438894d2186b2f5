/** The EHR: the entry of the demo, where the user chooses patients. */

import { startApp } from "/shared/app.js";
import { Desk } from "./desk.js";
import { showChart, showLaunches } from "./launching.js";
import { messages } from "./messages.js";
import { showPatients } from "./patients.js";
import { showRecord } from "./record.js";
import { showRefusals } from "./refusals.js";
import { Participants, showParticipants } from "./session.js";
import { showUnsent } from "./unsent.js";

async function setUp(app) {
  const { client } = app;
  const desk = new Desk(app);
  await desk.load();
  for (const type of ["Patient", "Encounter", "ImagingStudy", "DiagnosticReport"]) {
    client.on(`${type}-open`, (event) => desk.follow(event));
    client.on(`${type}-close`, (event) => desk.followClose(event));
  }
  client.on("DiagnosticReport-update", (event) => desk.followUpdate(event));
  client.on("Home-open", () => desk.followHome());
  // the open contexts are known once an event has been followed, which its acknowledgement shows
  client.onWire(({ kind }) => kind === "acknowledgement" && desk.changed());
  client.onStatus(() => desk.changed());

  const participants = new Participants(app);
  showPatients(app, desk);
  showRecord(app, desk);
  showParticipants(app, participants);
  showRefusals(app, desk, participants);
  showUnsent(app, desk);
  showLaunches(app, desk);
  showChart(app, desk);
  showHelp(app);
  document.querySelector("[data-test=home]").addEventListener("click", () => desk.goHome());
}

function showHelp(app) {
  const dialog = document.querySelector("[data-test=help]");
  document.querySelector("[data-test=help-open]").addEventListener("click", () => dialog.showModal());
  for (const link of dialog.querySelectorAll("[data-switches]"))
    link.href = `${app.config.apps[link.dataset.switches]}/switches`;
}

await startApp({
  messages,
  name: "Hospital record",
  scope: "openid profile fhirUser online_access user/*.read fhircast/*.read fhircast/*.write",
  setUp,
});
