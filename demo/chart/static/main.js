import { startApp } from "/shared/app.js";
import { tellLosses } from "/shared/frames.js";
import { ChartPage } from "./chart-page.js";
import { Following, UNSAVED } from "./following.js";
import { chartNumbers } from "./identity.js";
import { messages } from "./messages.js";
import { Notes } from "./notes.js";

const EVENTS = "Patient-open Patient-close Home-open SyncError UserLogout heartbeat";
const WRITTEN = ["fhircast/SyncError.write", "fhircast/UserLogout.write"];
const HUB_SCOPE = EVENTS.split(" ").map((name) => `fhircast/${name}.read`);

/** The chart's answers to the session's events: which patient to show, and when to refuse. */
function setUp(app) {
  const notes = new Notes();
  const tell = () => tellLosses({ unsaved: notes.anyUnsaved, any: notes.any }, app.config.apps.ehr);
  notes.addEventListener("change", tell);
  const following = new Following(notes, () => page.render());
  const page = new ChartPage(app, following, notes);
  const numbers = chartNumbers((event, refusal) => following.unknown(event, refusal));
  app.client.on("Patient-open", (event) => following.open(event), { ids: numbers });
  app.client.on("Patient-close", (event) => following.close(event));
  app.client.on("Home-open", (event) => following.leave(event));
  app.unsaved = () => notes.anyUnsaved;
  app.syncStatus.reworded = (reason) => (reason === UNSAVED ? app.t("notesHold") : "");
  tell();
  page.render();
}

await startApp({
  messages,
  name: "Anaesthesia chart",
  scope: ["openid", "fhirUser", "online_access", "launch", "user/*.read", ...HUB_SCOPE].join(" "),
  hubScope: ["openid", "fhirUser", "online_access", ...HUB_SCOPE, ...WRITTEN].join(" "),
  setUp,
});
