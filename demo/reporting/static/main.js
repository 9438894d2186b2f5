import { startApp } from "/shared/app.js";
import { messages } from "./messages.js";
import { ReportingPage } from "./page.js";

const READS = ["Patient-open", "Patient-close", "ImagingStudy-open", "ImagingStudy-close", "Home-open"];
const BOTH = [
  "DiagnosticReport-open",
  "DiagnosticReport-close",
  "DiagnosticReport-update",
  "DiagnosticReport-select",
  "SyncError",
  "UserLogout",
];
const SCOPE = [
  ..."openid fhirUser online_access launch user/*.read user/DiagnosticReport.cu user/Observation.cu".split(" "),
  ...[...READS, ...BOTH, "heartbeat"].map((name) => `fhircast/${name}.read`),
  ...BOTH.map((name) => `fhircast/${name}.write`),
];

/** Events of the session change the desk. */
function setUp(app) {
  const page = new ReportingPage(app);
  const { desk } = page;
  app.client.on("Patient-open", (event) => desk.openPatient(event));
  app.client.on("Patient-close", (event) => desk.closePatient(event));
  app.client.on("ImagingStudy-open", (event) => desk.openStudy(event));
  app.client.on("ImagingStudy-close", (event) => desk.closeStudy(event));
  app.client.on("DiagnosticReport-open", (event) => desk.openReport(event));
  app.client.on("DiagnosticReport-close", (event) => {
    desk.closeReport(event);
    page.reportClosed();
  });
  app.client.on("DiagnosticReport-update", () => page.render());
  app.client.on("DiagnosticReport-select", (event) => desk.select(event));
  app.client.on("Home-open", () => desk.clear());
  app.unsaved = () => page.unsaved;
  page.render();
}

await startApp({ messages, name: "Reporting", scope: SCOPE.join(" "), setUp });
