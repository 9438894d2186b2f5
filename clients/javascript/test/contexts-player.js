/**
 * Plays messages to the contexts of the fake hub, one on each line of the input; a line of the output says what came of it.
 * Versions are told by number: "v3" is the fourth one that was given.
 */

import { createInterface } from "node:readline";

import { FakeContexts } from "../src/fake-contexts.js";

const VERSION = "context.versionId";
let contexts = new FakeContexts(true);
/** @type {string[]} */
let versions = [];

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(seen(JSON.parse(line)))}\n`);
}

/** @param {any} message Null begins anew. */
function seen(message) {
  if (message === null) {
    contexts = new FakeContexts(true);
    versions = [];
    return null;
  }
  let status = 202;
  let told = null;
  try {
    told = contexts.accept(withVersion(message));
    const version = told?.event[VERSION];
    if (version && !versions.includes(version)) versions.push(version);
  } catch (/** @type {any} */ error) {
    ({ status } = error);
  }
  const { [VERSION]: version, ...current } = contexts.current();
  return numbered({ status, told, current, version: versions.includes(version) ? version : "", replay: contexts.replay() });
}

/** @param {any} message */
function withVersion(message) {
  const number = message.event[VERSION];
  if (number === undefined) return message;
  return { ...message, event: { ...message.event, [VERSION]: versions[number.slice(1)] ?? "none" } };
}

/** @param {object} value */
function numbered(value) {
  const text = versions.reduce((all, version, index) => all.replaceAll(version, `v${index}`), JSON.stringify(value));
  return JSON.parse(text);
}
