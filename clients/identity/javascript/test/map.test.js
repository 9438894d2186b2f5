/** Local ids: resolvers in their order, answers that are kept, and what goes wrong with functions. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Refuse } from "fhircast-client";
import { IdentityMap, Local, System, Table } from "../src/index.js";
import { MRN, patient, refusal } from "./cases.js";

const RULES = { Patient: [new System(MRN, "number")] };

/** Counts what it is asked. `answer` is what it says, or the error it throws; it waits for `may`. */
class Register {
  /** @type {string[]} */
  asked = [];
  may = Promise.resolve();

  /** @param {any[]} answer */
  constructor(...answer) {
    /** @type {any} */
    this.answer = answer;
  }

  /** @param {{value: string}} query */
  async find({ value }) {
    this.asked.push(value);
    await this.may;
    if (this.answer instanceof Error) throw this.answer;
    return this.answer;
  }
}

/**
 * @param {any[]} resolvers
 * @param {object} [options]
 */
function mapOf(resolvers, options) {
  return new IdentityMap(RULES, resolvers, options);
}

test("IDM-2 the first that knows answers", async () => {
  const registers = [new Register(), new Register({ id: "b" }), new Register({ id: "c" })];
  assert.equal((await mapOf(registers).findResource(patient())).id, "b");
  assert.deepEqual(registers.map((each) => each.asked.length), [1, 1, 0]);
});

test("IDM-2 IDM-4 several of one are not settled by the next", async () => {
  const later = new Register({ id: "a" });
  const ids = mapOf([new Register({ id: "a" }, { id: "b" }), later]);
  await assert.rejects(ids.findResource(patient()), refusal("SeveralMatches"));
  assert.deepEqual(later.asked, []);
});

test("IDM-3 IDM-4 every answer about the one is checked", async () => {
  const ids = mapOf([new Register({ id: "a", gender: "female" }, { id: "a", gender: "male" })]);
  await assert.rejects(ids.findResource(patient("1", { gender: "female" })), refusal("Mismatch", /^Gender differs/));
});

/** @type {[string, any][]} */
const WRONG = [
  ["a function that throws at once", () => { throw new Error("no"); }],
  ["a function that rejects", async () => { throw new Error("no"); }],
  ["a string", async () => "a"],
  ["one object in place of a list", async () => ({ id: "a" })],
  ["another type", async () => [new Local({ id: "a", type: "ImagingStudy" })]],
  ["a strange date", async () => [{ id: "a", birthDate: "13.05.1970" }]],
  ["an id that is a number", async () => [{ id: 17 }]],
];
for (const [name, lookup] of WRONG) {
  test(`IDM-2 IDM-4 whatever goes wrong is no answer: ${name}`, async () => {
    const later = new Register({ id: "b" });
    const reason = "The patient could not be looked up: the lookup gave no usable answer. Try again later.";
    await assert.rejects(mapOf([lookup, later]).findResource(patient()), refusal("LookupFailed", reason));
    assert.deepEqual(later.asked, []);
  });
}

test("IDM-2 nothing is nobody, and a refusal of its own stands", async () => {
  const nobody = async () => undefined;
  const refuses = async () => { throw new Refuse("The archive is closed for today."); };
  const unknown = refusal("NoMatch", "No patient here has the number that was sent.");
  await assert.rejects(mapOf([nobody]).findResource(patient()), unknown);
  await assert.rejects(mapOf([nobody, refuses]).findResource(patient()), refusal("Refuse", /closed for today/));
});

test("IDM-2 IDM-4 a resolver that does not answer is told that nobody waits", async () => {
  /** @type {any} */
  let told;
  const slow = (/** @type {any} */ _query, /** @type {AbortSignal} */ signal) => new Promise(() => { told = signal; });
  await assert.rejects(mapOf([slow], { askSeconds: 0.01 }).findResource(patient()), refusal("LookupFailed"));
  assert.equal(told.aborted, true);
});

test("IDM-2 an answer is kept for its time", async () => {
  let now = 0;
  const register = new Register({ id: "a" });
  const ids = mapOf([register], { cacheSeconds: 60, clock: () => now });
  for (const [elapsed, asked] of [[0, 1], [59, 1], [2, 2]]) {
    now += elapsed ?? 0;
    assert.equal((await ids.findResource(patient())).id, "a");
    assert.equal(register.asked.length, asked);
  }
});

test("IDM-2 what leads to a refusal is kept for moments", async () => {
  let now = 0;
  const register = new Register();
  const ids = mapOf([register], { clock: () => now });
  for (const [elapsed, asked] of [[0, 1], [2, 1], [2, 2]]) {
    now += elapsed ?? 0;
    await assert.rejects(ids.findResource(patient()), refusal("NoMatch"));
    assert.equal(register.asked.length, asked);
  }
});

test("IDM-2 IDM-3 a mismatch is asked about again when the record may be repaired", async () => {
  let now = 0;
  const register = new Register({ id: "a", gender: "male" });
  const ids = mapOf([register], { clock: () => now });
  assert.equal((await ids.findResource(patient())).id, "a");
  const female = patient(undefined, { gender: "female" });
  for (let time = 0; time < 2; time += 1) await assert.rejects(ids.findResource(female), refusal("Mismatch"));
  assert.equal(register.asked.length, 1);
  register.answer = [{ id: "a", gender: "female" }];
  now += 4;
  assert.equal((await ids.findResource(female)).id, "a");
});

test("IDM-2 a failure is not kept", async () => {
  const register = new Register();
  const ids = mapOf([register]);
  register.answer = new Error("broken");
  await assert.rejects(ids.findResource(patient()), (/** @type {any} */ error) => error.cause === register.answer);
  register.answer = [{ id: "a" }];
  assert.equal((await ids.findResource(patient())).id, "a");
});

test("IDM-2 the one used longest ago goes first", async () => {
  const register = new Register({ id: "a" });
  const ids = mapOf([register], { cacheSize: 2 });
  for (const value of ["1", "2", "1", "3", "1", "2"]) await ids.findResource(patient(value));
  assert.deepEqual(register.asked, ["1", "2", "3", "2"]);
});

test("IDM-2 nothing is asked twice at once", async () => {
  const register = new Register({ id: "a" });
  let go = () => {};
  register.may = new Promise((resolve) => { go = () => resolve(); });
  const ids = mapOf([register]);
  const all = [1, 2, 3].map(() => ids.findResource(patient()));
  go();
  assert.deepEqual((await Promise.all(all)).map((local) => local.id), ["a", "a", "a"]);
  assert.deepEqual(register.asked, ["4438001"]);
});

test("IDM-5 IDM-4 a source that tells of another is not published", async () => {
  const index = { find: async () => [], known: async () => [{ id: "l2" }] };
  const ids = mapOf([new Table({ 1: "l1" }), index]);
  const several = refusal("SeveralMatches", /^Several patients here have this id\./);
  await assert.rejects(ids.publishable("Patient", "l1"), several);
});

test("IDM-5 IDM-2 what is known of one id by several", async () => {
  const old = { system: "urn:old", value: "1", use: "old" };
  const same = { system: MRN, value: "4438001" };
  const index = {
    find: async () => [],
    known: async (/** @type {string} */ type, /** @type {string} */ id) => [
      { id, type, family: "OESTBY", identifiers: [old, same, { system: "urn:more", value: "2" }] },
    ],
  };
  /** @type {Map<any, any>} */
  const records = new Map();
  records.set([MRN, "4438001"], { localId: "l1", family: "Østby" }).set("77", { localId: "l2", family: "Haas" });
  const ids = mapOf([new Table(records), new Register({ id: "other" }), index]);
  const [resource] = await ids.publishable("Patient", "l1");
  assert.deepEqual(resource?.identifier.map((/** @type {any} */ each) => each.value), ["4438001", "2"]);
  assert.deepEqual(resource?.name, [{ family: "Østby" }]);
  const reason = "The sources here do not agree on the family name of this patient.";
  await assert.rejects(ids.publishable("Patient", "l2"), refusal("Mismatch", reason));
});
