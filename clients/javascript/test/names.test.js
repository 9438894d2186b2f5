import assert from "node:assert/strict";
import { test } from "node:test";

import { nothing, setUp } from "./fake.js";

/** @param {import("node:test").TestContext} t @param {string} name @returns {string[]} What was warned of. */
function warned(t, name) {
  const warn = t.mock.method(console, "warn", nothing);
  setUp(t, { handlers: { [name]: nothing } });
  return warn.mock.calls.map(({ arguments: [text] }) => text);
}

for (const [name, meant] of /** @type {[string, string][]} */ ([
  ["Patient-opne", "Patient-open"],
  ["patient-open ", "Patient-open"],
  ["Pateint-close", "Patient-close"],
  ["DiagnosticReports-update", "DiagnosticReport-update"],
  ["ImagingStudy-zoom", "ImagingStudy-open"],
  ["Logout", "UserLogout"],
  ["switch-patient-chart", "Patient-open"],
  ["Condition-opened", ""],
  ["org.example.my-own", ""],
])) {
  test(`CLT-33 a misspelt name is said when the handler is given: "${name}"`, (t) => {
    const better = meant ? `: did you mean ${meant}?` : "; a name is such as Patient-open";
    const said = `fhircast-client: unknown event name "${name}"${better}`;
    assert.deepEqual(warned(t, name), [said]);
  });
}

for (const name of [
  ...["Patient-open", "PATIENT-CLOSE", "imagingstudy-select", "DiagnosticReport-update", "Home-open"],
  ...["userlogout", "UserHibernate", "SyncError", "heartbeat", "com.example.zoomed"],
  ...["Parameters-open", "Media-open", "ResearchStudy-open", "ImagingSelection-select", "Person-update"],
]) {
  test(`CLT-33 a name that events may have is not mentioned: ${name}`, (t) => {
    assert.deepEqual(warned(t, name), []);
  });
}
