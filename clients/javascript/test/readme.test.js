/** README.md: its examples run as they stand there, against a real hub, with an application around them. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";

import { WebSocket } from "ws";

import { FHIRcastClient, TIMINGS } from "../src/index.js";
import { OBSERVATION, OTHER, PATIENT, REPORT } from "./fake.js";
import { startHub, until } from "./hub.js";

const README = readFileSync(new URL("../README.md", import.meta.url), "utf-8");
const FOLDER = fileURLToPath(new URL("..", import.meta.url));

/** @param {string} section @returns {string} The JavaScript of a section. */
function example(section) {
  const [, text = ""] = README.split(`\n## ${section}\n`);
  const [, code = ""] = /^```js\n([^]*?)^```/m.exec(text) ?? [];
  assert.ok(code, section);
  return code;
}

describe("the examples of the README", () => {
  /** @type {Awaited<ReturnType<typeof startHub>>} */
  let hub;
  before(async () => {
    hub = await startHub({});
  });
  after(() => hub?.stop());

  /** @param {string} topic @param {string} name */
  const clientOf = (topic, name) =>
    new FHIRcastClient(`http://127.0.0.1:${hub.port}/api/hub`, topic, { token: hub.token, name, WebSocket });

  /**
   * Run an example, behind what the reader's application has before it.
   * @param {import("node:test").TestContext} t
   * @param {string} topic
   * @param {string} application
   * @param {string} section
   */
  function program(t, topic, application, section) {
    const given = `
      import { WebSocket } from "ws";
      globalThis.WebSocket = WebSocket;
      const [topic, token] = [${JSON.stringify(topic)}, () => ${JSON.stringify(hub.token)}];
      ${application}`;
    const url = `http://127.0.0.1:${hub.port}/api/hub`;
    const source = `${given}\n${example(section).replace("https://hub.example.org/api/hub", url)}`;
    const run = spawn(process.execPath, ["--input-type=module", "--eval", source], { cwd: FOLDER });
    t.after(() => run.kill("SIGKILL"));
    const said = { out: "", err: "" };
    run.stdout.on("data", (data) => (said.out += data));
    run.stderr.on("data", (data) => (said.err += data));
    return { run, said, lines: () => said.out.split("\n").filter(Boolean) };
  }

  it("CLT-2 CLT-13 the one that follows", async (t) => {
    const topic = randomUUID();
    const ehr = clientOf(topic, "ehr");
    t.after(() => ehr.stop());
    await ehr.start();
    const application = `
      const editor = { hasUnsavedNotes: false };
      const showPatient = ({ id }) => { console.log("shows", id); editor.hasUnsavedNotes = true; };
      const showNothing = () => { console.log("shows nothing"); editor.hasUnsavedNotes = false; };
      const showBanner = (text) => console.log(("banner " + text).trim());`;
    const { said, lines } = program(t, topic, application, "Follow");
    await until("it is in sync", () => lines().includes("banner") || said.err);
    await ehr.open(PATIENT);
    await until("the patient is shown", () => lines().includes("shows p1") || said.err);
    await ehr.open(OTHER);
    await until("the refusal is shown", () => said.out.includes("unsaved notes") || said.err);
    await until("the others know", () => ehr.status.behind.includes("Viewer"));
    await ehr.close(PATIENT);
    await until("it is closed", () => lines().includes("shows nothing") || said.err);
    assert.ok(!lines().includes("shows p2"));
    assert.equal(said.err, "");
  });

  it("CLT-7 CLT-8 the one that drives", async (t) => {
    const topic = randomUUID();
    const viewer = clientOf(topic, "viewer");
    t.after(() => viewer.stop());
    /** @type {any[]} */
    const heard = [];
    for (const verb of ["open", "select", "close"]) viewer.on(`DiagnosticReport-${verb}`, () => heard.push(verb));
    viewer.on("DiagnosticReport-update", () => heard.push(Object.keys(viewer.context?.content ?? {}).sort()));
    await viewer.start();
    const application = `
      const [report, patient, measurement] = ${JSON.stringify([REPORT, PATIENT, OBSERVATION])};
      const render = () => { throw new Error("nobody else shares"); };
      const merge = (content) => [{ resourceType: "Observation", id: "o" + (Object.keys(content).length + 1) }];`;
    const { run, said } = program(t, topic, application, "Drive");
    const [code] = await once(run, "exit");
    assert.deepEqual([code, said.err], [0, ""]);
    const [one, two] = ["Observation/o1", "Observation/o2"];
    const expected = ["open", [one], [one, two], "select", [two], "close"];
    await until("all is heard", () => heard.length >= expected.length);
    assert.deepEqual(heard, expected);
  });

  it("CLT-27 the one that tests an application", async (t) => {
    const application = `
      class Chart {
        #notes = "";
        constructor(client) {
          client.on("Patient-open", () => { if (this.#notes) throw new Refuse("unsaved notes"); });
        }
        write(text) { this.#notes = text; }
      }`;
    const { run, said } = program(t, "", `import { Refuse } from "fhircast-client"; ${application}`, "Testing your application");
    const [code] = await once(run, "exit");
    assert.equal(code, 0, said.out + said.err);
    assert.match(said.out, /unsaved notes are kept/);
  });
});

it("the timings of the README are timings", () => {
  const [, written = ""] = /timings: \{ (\w+): \d+ \}/.exec(README) ?? [];
  assert.ok(written in TIMINGS);
});
