/** README.md: its examples run as they stand there, against a real hub, with an application around them. */

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";

import { WebSocket } from "ws";

import { FHIRcastClient, TIMINGS } from "../src/index.js";
import { OBSERVATION, OTHER, PATIENT, REPORT } from "./fake.js";
import { startHub, until } from "./hub.js";

const README = readFileSync(new URL("../README.md", import.meta.url), "utf-8");
const FOLDER = fileURLToPath(new URL("..", import.meta.url));
const MODULES = fileURLToPath(new URL("../../node_modules", import.meta.url));
/** What this Node runs as it is: since 22 it has a WebSocket, since 22.18 it takes TypeScript. */
const { typescript } = /** @type {any} */ (process.features);
const RUNS = [...("WebSocket" in globalThis ? ["follow.mjs"] : []), ...(typescript ? ["follow.mts"] : [])];
const TSC = path.join(MODULES, ".bin", "tsc");

/** @param {string} section @returns {string} The JavaScript of a section. */
function example(section) {
  const [, text = ""] = README.split(`\n## ${section}\n`);
  const [, code = ""] = /^```(?:js|tsx)\n([^]*?)^```/m.exec(text) ?? [];
  assert.ok(code, section);
  return code;
}

/**
 * @param {import("node:test").TestContext} t
 * @param {Record<string, string>} files By path.
 * @returns {string} A folder with these files, and with the packages of this repository's tests.
 */
function project(t, files) {
  const folder = mkdtempSync(path.join(tmpdir(), "project-"));
  t.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(path.join(folder, "node_modules"));
  for (const name of readdirSync(MODULES)) symlinkSync(path.join(MODULES, name), path.join(folder, "node_modules", name));
  for (const [name, text] of Object.entries({ "package.json": '{"type": "module"}', ...files })) {
    mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    writeFileSync(path.join(folder, name), text);
  }
  return folder;
}

/**
 * @param {import("node:test").TestContext} t
 * @param {string[]} given Arguments of Node.
 * @param {string} cwd
 * @param {NodeJS.ProcessEnv} [env]
 */
function running(t, given, cwd, env = process.env) {
  const run = spawn(process.execPath, given, { cwd, env });
  t.after(() => run.kill("SIGKILL"));
  const said = { out: "", err: "" };
  run.stdout.on("data", (data) => (said.out += data));
  run.stderr.on("data", (data) => (said.err += data));
  return { run, said, lines: () => said.out.split("\n").filter(Boolean) };
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
    return running(t, ["--input-type=module", "--eval", source], FOLDER);
  }

  for (const name of RUNS) {
    it(`the first program, as ${name}`, async (t) => {
      const topic = randomUUID();
      const folder = project(t, { [name]: example("Try") });
      const env = { ...process.env, FHIRCAST_HUB: `http://127.0.0.1:${hub.port}/api/hub`, FHIRCAST_TOPIC: topic, FHIRCAST_TOKEN: hub.token };
      const { run, said, lines } = running(t, ["--no-warnings", name], folder, env);
      await until("it is in sync", () => lines().length > 1 || said.err);
      const ehr = clientOf(topic, "ehr");
      t.after(() => ehr.stop());
      await ehr.open(PATIENT);
      await ehr.close(PATIENT);
      await until("it follows", () => lines().length > 3 || said.err);
      run.kill("SIGINT");
      assert.deepEqual(await once(run, "exit"), [0, null]);
      assert.equal(said.err, "");
      assert.deepEqual(lines(), ["Connecting to the hub", "in sync", "shows Patient/p1", "shows nobody", "Stopped"]);
    });
  }

  it("the first program is TypeScript", async (t) => {
    const folder = project(t, { "follow.mts": example("Try") });
    const command = /^npx tsc (.*)$/m.exec(README)?.[1] ?? "";
    const { run, said } = running(t, [TSC, ...command.split(" ")], folder);
    assert.deepEqual(await once(run, "exit"), [0, null], said.out);
  });

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

  it("the one after a SMART launch", async (t) => {
    const topic = randomUUID();
    const ehr = clientOf(topic, "ehr");
    t.after(() => ehr.stop());
    await ehr.open(PATIENT);
    const response = { "hub.url": `http://127.0.0.1:${hub.port}/api/hub`, "hub.topic": topic };
    const folder = project(t, {
      "node_modules/fhirclient/package.json": '{"type": "module", "exports": "./index.js"}',
      "node_modules/fhirclient/index.js": `
        const state = { tokenResponse: ${JSON.stringify(response)} };
        const refreshIfNeeded = async () => void (state.tokenResponse.access_token = ${JSON.stringify(hub.token)});
        const getState = (path) => path.split(".").reduce((found, name) => found[name], state);
        export default { oauth2: { ready: async () => ({ getState, refreshIfNeeded }) } };`,
      "page.js": `
        import { WebSocket } from "ws";
        globalThis.WebSocket = WebSocket;
        ${example("After a SMART launch")}
        client.on("Patient-open", ({ anchor }) => console.log("shows", anchor));
        await client.start();`,
    });
    const { said, lines } = running(t, ["page.js"], folder);
    await until("the patient is shown", () => lines().includes("shows Patient/p1") || said.err);
    assert.equal(said.err, "");
  });

  it("the hook of React, also where StrictMode runs each effect twice", async (t) => {
    const topic = randomUUID();
    const ehr = clientOf(topic, "ehr");
    t.after(() => ehr.stop());
    await ehr.start();
    const folder = project(t, {
      "hook.tsx": example("In React"),
      "page.js": `
        import { Window } from "happy-dom";
        import { WebSocket } from "ws";
        const window = new Window();
        Object.assign(globalThis, { window, document: window.document, WebSocket });
        const { createElement, StrictMode, useState } = await import("react");
        const { createRoot } = await import("react-dom/client");
        const { usePatient } = await import("./hook.js");
        const token = () => ${JSON.stringify(hub.token)};
        function Page() {
          const [topic, setTopic] = useState(${JSON.stringify(topic)});
          globalThis.leave = () => setTopic(${JSON.stringify(`${topic}-next`)});
          const { patient, status } = usePatient("http://127.0.0.1:${hub.port}/api/hub", topic, token);
          console.log(patient?.id ?? "nobody", status?.inSync);
          return null;
        }
        createRoot(document.body).render(createElement(StrictMode, null, createElement(Page)));
        process.stdin.on("data", () => globalThis.leave());`,
    });
    const options = ["--module", "esnext", "--moduleResolution", "bundler", "--target", "es2022", "--jsx", "react-jsx"];
    execFileSync(TSC, ["hook.tsx", "--ignoreConfig", "--noCheck", ...options], { cwd: folder });
    const { run, said, lines } = running(t, ["page.js"], folder);
    await until("it is in step", () => lines().at(-1) === "nobody true" || said.err);
    await ehr.open(PATIENT);
    await until("the patient is shown", () => lines().at(-1) === "p1 true" || said.err);
    await ehr.open(OTHER);
    await until("another is", () => lines().at(-1) === "p2 true" || said.err);
    await ehr.close(PATIENT);
    await ehr.close(OTHER);
    await until("nobody is", () => lines().at(-1) === "nobody true" || said.err);
    await ehr.open(PATIENT);
    await until("the patient is shown again", () => lines().at(-1) === "p1 true" || said.err);
    run.stdin.write("leave\n");
    await until("another session has nobody", () => lines().at(-1) === "nobody true" || said.err);
    assert.deepEqual([ehr.status.behind, said.err], [[], ""]);
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

it("the options of the README are the options", () => {
  const [, table = ""] = /\n## Options\n([^]*?)\n## /.exec(README) ?? [];
  const written = [...table.matchAll(/^\| `(\w+)`/gm)].map(([, name]) => name);
  const source = readFileSync(new URL("../src/session.js", import.meta.url), "utf-8");
  const [typedef = ""] = /@typedef \{object\} Options[^]*?\*\//.exec(source) ?? [];
  const options = [...typedef.matchAll(/@property \{.*\} \[(\w+)\]/g)].map(([, name]) => name);
  assert.deepEqual(written.sort(), options.sort());
});

it("the timings of the README are timings", () => {
  const [, written = ""] = /timings` .*\{ (\w+): \d+ \}/.exec(README) ?? [];
  assert.ok(written in TIMINGS);
});
