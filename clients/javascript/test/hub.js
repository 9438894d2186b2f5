/** The real hub, in a process of its own, and a network between it and each client that can be cut. */

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

import { WebSocket } from "ws";

import { freePort } from "./ports.js";

export const PYTHON = process.env.PYTHON ?? new URL("../../../.venv/bin/python", import.meta.url).pathname;
const MODULE = "fhircast_hub";
/** Seconds until what should have come is missing, also on a machine that is busy with other things. */
export const PATIENCE = 20;
const STEP = 0.01;

/**
 * @param {string} what
 * @param {() => unknown} isSo
 * @param {number} [within] In seconds.
 */
export async function until(what, isSo, within = PATIENCE) {
  for (const end = Date.now() + within * 1000; !isSo(); await sleep(STEP * 1000)) {
    if (Date.now() > end) throw new Error(`expected within ${within} s: ${what}`);
  }
}

/**
 * @param {Record<string, string | number>} settings Without FHIRCAST_.
 * @returns {Promise<{port: number, token: string, stop: () => Promise<void>}>}
 */
export async function startHub(settings) {
  const folder = await mkdtemp(path.join(tmpdir(), "hub-"));
  const port = await freePort();
  /** @type {Record<string, string | undefined>} */
  const env = { ...process.env, XDG_RUNTIME_DIR: folder, FHIRCAST_LOG_FORMAT: "json" };
  for (const [name, value] of Object.entries(settings)) env[`FHIRCAST_${name}`] = String(value);
  const hub = spawn(PYTHON, ["-m", MODULE, "dev", "--port", `${port}`], { env, stdio: "ignore" });
  const kill = () => hub.kill("SIGKILL");
  process.on("exit", kill);
  const stop = async () => {
    process.off("exit", kill);
    kill();
    if (hub.exitCode === null && hub.signalCode === null) await once(hub, "exit");
    await rm(folder, { recursive: true });
  };
  try {
    await ready(port, hub);
    const { stdout } = await promisify(execFile)(PYTHON, ["-m", MODULE, "token"], { env });
    return { port, token: stdout.trim(), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** A network of one client's own: what it sends to the proxy's port arrives at the hub's. */
export class Network {
  #server;
  /** @type {Set<net.Socket>} */
  #sockets = new Set();
  #isCut = false;
  #isSilent = false;
  #port = 0;

  /** @param {number} hub Its port. */
  constructor(hub) {
    this.#server = net.createServer((near) => this.#connect(near, hub));
  }

  /** @param {number} hub */
  static async start(hub) {
    const network = new Network(hub);
    network.#server.listen(0, "127.0.0.1");
    await once(network.#server, "listening");
    network.#port = /** @type {net.AddressInfo} */ (network.#server.address()).port;
    return network;
  }

  get hubUrl() {
    return `http://127.0.0.1:${this.#port}/api/hub`;
  }

  /** A WebSocket that goes through here, wherever the endpoint is. */
  get WebSocket() {
    const port = this.#port;
    return class extends WebSocket {
      /** @param {string} endpoint */
      constructor(endpoint) {
        const url = new URL(endpoint);
        url.host = `127.0.0.1:${port}`;
        super(url);
      }
    };
  }

  /** @param {{silently?: boolean}} [how] Silently: connections stay open and nothing passes; else they break. */
  cut({ silently = false } = {}) {
    this.#isCut = true;
    this.#isSilent = silently;
    if (silently) for (const socket of this.#sockets) socket.pause();
    else this.#break();
  }

  restore() {
    if (this.#isSilent) this.#break(); // what was lost on the way does not come after all
    this.#isCut = this.#isSilent = false;
  }

  stop() {
    this.#server.close();
    this.#break();
  }

  #break() {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** @param {net.Socket} near @param {number} hub */
  #connect(near, hub) {
    if (this.#isCut && !this.#isSilent) return near.destroy();
    this.#keep(near);
    if (this.#isCut) return near.pause();
    const far = net.connect(hub, "127.0.0.1");
    this.#keep(far);
    for (const [from, to] of /** @type {const} */ ([
      [near, far],
      [far, near],
    ])) {
      from.on("data", (data) => to.write(data));
      from.on("close", () => to.destroy());
    }
    return near;
  }

  /** @param {net.Socket} socket */
  #keep(socket) {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("error", () => {});
    socket.on("close", () => this.#sockets.delete(socket));
  }
}

/** @param {number} port @param {import("node:child_process").ChildProcess} hub */
async function ready(port, hub) {
  for (const end = Date.now() + PATIENCE * 1000; ; await sleep(50)) {
    const response = await fetch(`http://127.0.0.1:${port}/health/ready`).catch(() => null);
    await response?.body?.cancel();
    if (response?.ok && hub.exitCode === null) return;
    if (hub.exitCode !== null || Date.now() > end) throw new Error(`the hub did not start (exit code ${hub.exitCode})`);
  }
}
