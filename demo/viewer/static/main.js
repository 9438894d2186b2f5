import { startApp } from "/shared/app.js";
import { Archive, authorized } from "./archive.js";
import { Cine } from "./cine.js";
import { Following } from "./following.js";
import { Frames } from "./frames.js";
import { Gestures } from "./gestures.js";
import { LengthTool, lengthOf } from "./length.js";
import { Measurements } from "./measurements.js";
import { messages } from "./messages.js";
import { Overlay } from "./overlay.js";
import { Page } from "./page.js";
import { Sheet } from "./sheet.js";
import { Stack } from "./stack.js";
import { Studies } from "./studies.js";

const READ = [
  ...["Patient-open", "Patient-close", "ImagingStudy-open", "ImagingStudy-close", "DiagnosticReport-open"],
  ...[
    "DiagnosticReport-close",
    "DiagnosticReport-update",
    "DiagnosticReport-select",
    "Home-open",
    "SyncError",
    "UserLogout",
    "heartbeat",
  ],
];
const WRITTEN = ["DiagnosticReport-update", "DiagnosticReport-select", "SyncError", "UserLogout"];
const SCOPE = [
  ...["openid", "fhirUser", "online_access", "launch", "user/Observation.rs"],
  ...READ.map((name) => `fhircast/${name}.read`),
  ...WRITTEN.map((name) => `fhircast/${name}.write`),
].join(" ");

/** Makes the parts of the page, and connects them. */
function setUp(app) {
  const fetch = authorized(app.smart);
  const archive = new Archive(app.config.dicomweb, fetch);
  const frames = new Frames(archive);
  const viewport = document.querySelector(".viewport");
  const stack = new Stack(viewport.querySelector("canvas"), archive, frames);
  const sheet = new Sheet(viewport.querySelector(".sheet"));
  const overlay = new Overlay(viewport.querySelector(".overlay"));
  const cine = new Cine(stack);
  const tool = new LengthTool(() => stack.painted);
  const callbacks = {
    show: (shown) => page.show(shown),
    loading: (event) => page.loading(event),
    refuse: (event, reason) => page.refuse(event, reason),
  };
  const studies = new Studies(app.config.dicomweb, fetch, { began: begin, refused: callbacks.refuse });
  const following = new Following(archive, studies, callbacks);
  const measurements = new Measurements(app.client, following, app.fhir, {
    user: app.user,
    device: app.config.title.en,
  });
  const gestures = new Gestures(viewport, { stack, sheet, tool, overlay, cine, pick: (id) => measurements.select(id) });
  const page = new Page(app, { stack, sheet, tool, overlay, gestures, cine, frames, archive, measurements, following });
  tool.addEventListener("done", ({ detail }) => measurements.add(measured(detail, stack.painted)));
  stack.addEventListener("painted", ({ detail }) => detail.first && end(detail.image.study));
  follow(app.client, studies, following, measurements, () => page.renderMeasurements());
  page.render();
}

/** The handlers. The content of a report is read after its handler, once the client has taken in the event. */
function follow(client, studies, following, measurements, render) {
  const refresh = () =>
    setTimeout(() => {
      measurements.refresh();
      render();
    });
  const on = (name, handle, options) =>
    client.on(
      name,
      async (event) => {
        await handle(event);
        refresh();
      },
      options,
    );
  on("Patient-open", (event) => following.openPatient(event));
  on("Patient-close", (event) => following.closePatient(event));
  on("ImagingStudy-open", (event) => following.openStudy(event), { ids: studies });
  on("ImagingStudy-close", (event) => following.closeStudy(event));
  on("DiagnosticReport-open", (event) => following.openReport(event));
  on("DiagnosticReport-close", (event) => following.closeReport(event));
  on("DiagnosticReport-update", (event) => measurements.updated(event));
  on("DiagnosticReport-select", (event) => measurements.chosen(event));
  on("Home-open", () => following.closeAll());
  client.onStatus(refresh);
}

function measured(line, image) {
  const { value, unit } = lengthOf(line, image.spacing);
  const { instance, frame } = image;
  return { id: crypto.randomUUID(), value, unit, line: { ...line, instance, frame }, by: "" };
}

/** From an event to the first image of its study on the screen, as the browser's measure "study". */
function begin() {
  performance.mark("study-event");
}

function end(study) {
  performance.mark("study-painted", { detail: { study } });
  performance.measure("study", { start: "study-event", end: "study-painted", detail: { study } });
}

const config = await fetch("/config.json")
  .then((answer) => answer.json())
  .catch(() => null);
await startApp({ messages, scope: SCOPE, name: config?.title?.en ?? "Viewer", setUp });
