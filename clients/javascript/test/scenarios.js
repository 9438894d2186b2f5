/** Runs the scenarios that all client libraries share: clients/scenarios.json, whose verbs are explained beside it. */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { makeEvent } from "../src/events.js";
import { FHIRcastClient, HubError, Refuse } from "../src/index.js";
import { updateContext } from "../src/update-bundle.js";
import { FakeHub } from "../src/testing.js";
import { Network, PATIENCE, until } from "./hub.js";

/** @typedef {any} Behaviour "ok", "raise", {"refuse": why} or {"slow": seconds, "then": behaviour} */
/** @typedef {Record<string, any>} Step */

/** Seconds in which nothing more may come, where exactly something is expected. */
const QUIET = 0.3;
const ACCEPTED = 202;

/**
 * Where the applications of a scenario meet.
 * @typedef {object} Place
 * @property {string} topic
 * @property {boolean} tells Whether the hub tells who comes back what is open; one of STU2 does not.
 * @property {(name: string, options: any) => Promise<{client: FHIRcastClient, network: Connection}>} client
 * @property {(message: object) => Promise<number>} post The status with which the hub answers another application.
 * @property {() => void} stop
 */
/** @typedef {{cut: (how: {silently?: boolean}) => void, restore: () => void, stop: () => void}} Connection */

/** A session of its own at the real hub. @param {{port: number, token: string}} hub @returns {Place} */
export function realPlace({ port, token }) {
  const topic = randomUUID();
  const headers = { "Authorization": `Bearer ${token}`, "Content-Type": "application/json" };
  return {
    topic,
    tells: true,
    client: async (name, options) => {
      const network = await Network.start(port);
      const given = { ...options, token, name, WebSocket: network.WebSocket };
      return { client: new FHIRcastClient(network.hubUrl, topic, given), network };
    },
    post: async (message) => {
      const init = { method: "POST", headers, body: JSON.stringify(message) };
      return (await fetch(`http://127.0.0.1:${port}/api/hub`, init)).status;
    },
    stop: () => {},
  };
}

/** A fake hub. @param {"STU3" | "STU2"} version In whose manner. @returns {Place} */
export function fakePlace(version) {
  const hub = new FakeHub({ version });
  return {
    topic: hub.topic,
    tells: version === "STU3",
    client: async (name, options) => ({
      client: hub.client(name, options),
      network: { cut: (how) => hub.cut(name, how), restore: () => hub.restore(name), stop: () => {} },
    }),
    post: async (message) => {
      try {
        await hub.publish(/** @type {any} */ (message));
        return ACCEPTED;
      } catch (error) {
        return /** @type {HubError} */ (error).status;
      }
    },
    stop: () => hub.stop(),
  };
}

/** One application in a scenario. */
class Application {
  /** What the handlers were called with. @type {string[]} */
  heard = [];
  /** What was acknowledged. @type {string[]} */
  acknowledged = [];
  wasCut = false;
  /** @type {Record<string, Behaviour>} */
  #behaviours;
  /** @type {Map<string, string>} */
  #names = new Map();

  /** @param {Connection} network @param {FHIRcastClient} client @param {Record<string, Behaviour>} behaviours */
  constructor(network, client, behaviours) {
    this.network = network;
    this.client = client;
    this.#behaviours = { ...behaviours };
    for (const name of Object.keys(behaviours)) client.on(name, (event) => this.#handle(name, event));
    client.onWire((message) => this.#see(message));
  }

  /** @param {string} event @param {Behaviour} behaviour */
  behave(event, behaviour) {
    this.#behaviours[event] = behaviour;
  }

  async end() {
    await this.client.stop();
    this.network.stop();
  }

  /** @param {string} name @param {import("../src/events.js").Event} event */
  #handle(name, event) {
    this.heard.push(`${event.name} ${event.anchor.split("/")[1] ?? ""}`.trim());
    return act(this.#behaviours[name]);
  }

  /** @param {import("../src/hub.js").WireMessage} message */
  #see({ kind, body, status }) {
    const message = /** @type {any} */ (body);
    if (kind === "event") this.#names.set(message.id, message.event["hub.event"]);
    const name = kind === "acknowledgement" ? (this.#names.get(message.id) ?? "") : "";
    if (name && !["syncerror", "heartbeat"].includes(name.toLowerCase())) this.acknowledged.push(`${name} ${status}`);
  }
}

/** @param {Behaviour} behaviour @returns {Promise<void>} */
async function act(behaviour) {
  if (behaviour === "raise") throw new Error("the handler failed");
  if (behaviour.refuse) throw new Refuse(behaviour.refuse);
  if (behaviour.slow) {
    await sleep(behaviour.slow * 1000);
    await act(behaviour.then);
  }
}

/** One scenario on its way. */
export class Run {
  /** @type {Map<string, Application>} */
  #applications = new Map();
  #place;
  #resources;

  /**
   * @param {Place} place
   * @param {Record<string, import("../src/events.js").Resource>} resources By name.
   */
  constructor(place, resources) {
    this.#place = place;
    this.#resources = resources;
  }

  /** @param {Step[]} steps */
  async run(steps) {
    try {
      for (const [index, step] of steps.entries()) {
        await this.#step(step).catch((error) => {
          throw new Error(`step ${index + 1} ${JSON.stringify(step)}: ${error.message}`, { cause: error });
        });
      }
    } finally {
      await Promise.all([...this.#applications.values()].map((application) => application.end()));
      this.#place.stop();
    }
  }

  /** @param {Step} step */
  async #step(step) {
    const [verb = "", who] = Object.entries(step)[0] ?? [];
    if (verb === "start") return this.#start(who, step);
    if (verb === "wait") return sleep(who * 1000);
    const application = this.#applications.get(who);
    const perform = this.#verbs[verb];
    assert.ok(application && perform, `expected a verb that is known and an application that was started`);
    return perform(application, step);
  }

  /** @type {Record<string, (application: Application, step: Step) => any>} */
  #verbs = {
    behave: (application, { event, as }) => application.behave(event, as),
    open: ({ client }, { resources, fails }) => answered(client.open(...this.#named(resources)), fails),
    close: ({ client }, { resources, fails }) => answered(client.close(...this.#named(resources)), fails),
    publish: (application, step) => this.#publish(application, step),
    update: (application, step) => this.#update(application, step),
    share: (application, step) => this.#share(application, step),
    select: ({ client }, { anchor, items, fails }) =>
      answered(client.select(this.#changes(items), { anchor: this.#resources[anchor] ?? null }), fails),
    catch_up: async ({ client }, { followed }) => assert.equal(await client.catchUp(), followed),
    heard: (application, step) => this.#heard(application, step),
    acknowledged: async (application, { statuses, within }) => {
      await came(() => application.acknowledged, statuses, within);
      application.acknowledged = [];
    },
    context: ({ client }, { is, within }) => came(() => client.context?.anchor ?? null, is, within),
    content: ({ client }, { anchor, is, within }) => {
      const of = () => client.contexts.get(this.#reference(anchor))?.content;
      return came(() => Object.keys(of() ?? { unknown: true }).sort(), [...is].sort(), within);
    },
    status: ({ client, wasCut }, step) => {
      // It cannot know whether something was opened meanwhile, and says so, until the next open.
      return hasStatus(client, wasCut && !this.#place.tells ? { ...step, in_sync: false } : step);
    },
    cut: async (application, { seconds = 0, silently = false, stays = false }) => {
      const { network } = application;
      application.wasCut = true;
      network.cut({ silently });
      await sleep(seconds * 1000);
      if (!stays) network.restore();
    },
    restore: ({ network }) => network.restore(),
    stop: ({ client }) => client.stop(),
  };

  /** @param {string} name @param {Step} step */
  async #start(name, { handlers = {}, options = {} }) {
    const { client, network } = await this.#place.client(name, camel(options));
    const application = new Application(network, client, handlers);
    this.#applications.set(name, application);
    await application.client.start();
  }

  /** @param {Application} application @param {Step} step */
  #publish({ client }, { event, resources, seconds_ago: ago = 0, fails }) {
    const context = this.#named(resources).map((resource) => ({ key: resource.resourceType.toLowerCase(), resource }));
    const timestamp = new Date(Date.now() - ago * 1000).toISOString();
    return answered(client.publish(event, context, { timestamp }), fails);
  }

  /** @param {Application} application @param {Step} step */
  #update({ client }, { anchor, changes, by_function: byFunction = false, fails }) {
    const list = this.#changes(changes);
    return answered(client.update(byFunction ? () => list : list, { anchor: this.#resources[anchor] ?? null }), fails);
  }

  /** What an application without this library posts. @param {Application} application @param {Step} step */
  async #share({ client }, { anchor, entries, fails = 202 }) {
    const where = this.#reference(anchor);
    const version = client.contexts.get(where)?.version ?? "";
    const context = updateContext(where, [], "");
    /** @type {any} */ (context.at(-1)).resource.entry = entries.map((/** @type {any} */ entry) => this.#entry(entry));
    const { body } = makeEvent(this.#place.topic, `${where.split("/", 1)[0]}-update`, context, { version });
    assert.equal(await this.#place.post(body), fails);
  }

  /** @param {{fullUrl: string, put?: string, delete?: string}} entry */
  #entry({ fullUrl, put = "", delete: url }) {
    if (url !== undefined) return { fullUrl, request: { method: "DELETE", url } };
    return { fullUrl, request: { method: "PUT", url: this.#reference(put) }, resource: this.#resource(put) };
  }

  /** @param {Application} application @param {Step} step */
  async #heard(application, { events, within }) {
    await until(`${events.length} events heard`, () => application.heard.length >= events.length, patience(within));
    await sleep(QUIET * 1000);
    assert.deepEqual(application.heard, events);
    application.heard = [];
  }

  /** @param {string[]} names */
  #named(names) {
    return names.map((name) => this.#resource(name));
  }

  /** @param {string} name */
  #resource(name) {
    const found = this.#resources[name];
    assert.ok(found, `there is no resource ${name}`);
    return found;
  }

  /** @param {string} name */
  #reference(name) {
    const { resourceType, id } = this.#resource(name);
    return `${resourceType}/${id}`;
  }

  /** @param {string[]} names Of resources, or references. */
  #changes(names) {
    return names.map((name) => (name.includes("/") ? name : this.#resource(name)));
  }
}

/** @param {Promise<unknown>} request @param {number} [fails] The status with which the hub refuses it. */
async function answered(request, fails) {
  if (fails) await assert.rejects(request, { status: fails });
  else await request;
}

/** @param {FHIRcastClient} client @param {Step} step */
async function hasStatus(client, { connection, in_sync: inSync, why, behind, within }) {
  const isSo = () => {
    const { status } = client;
    return (
      (connection === undefined || status.connection === connection) &&
      (inSync === undefined || status.inSync === inSync) &&
      (why === undefined || status.why.includes(why)) &&
      (behind === undefined || JSON.stringify(status.behind) === JSON.stringify(behind))
    );
  };
  await until("that status", isSo, patience(within)).catch((error) => {
    throw new Error(`${error.message}; it is ${JSON.stringify(client.status)}`);
  });
}

/** @param {() => unknown} is @param {unknown} expected @param {number} [within] */
async function came(is, expected, within) {
  const isSo = () => JSON.stringify(is()) === JSON.stringify(expected);
  await until(JSON.stringify(expected), isSo, patience(within)).catch(() => assert.deepEqual(is(), expected));
}

/** @param {number} [within] What a scenario says is for a machine with nothing else to do. */
function patience(within = 0) {
  return Math.max(within, PATIENCE);
}

/** @param {any} options With names in snake case. @returns {any} */
function camel(options) {
  if (typeof options !== "object" || options === null) return options;
  const renamed = Object.entries(options).map(([name, value]) => {
    return [name.replace(/_(.)/g, (_, letter) => letter.toUpperCase()), camel(value)];
  });
  return Object.fromEntries(renamed);
}
