/**
 * Loopback ports for servers that the tests start in other processes.
 *
 * Such a server listens some time after the test has chosen the port. So the ports lie below those that the kernel gives to outgoing
 * connections, and below those of tests/ports.py.
 */

import { once } from "node:events";
import net from "node:net";

const FIRST = 12_000;
const COUNT = 8_000;

/** @returns {Promise<number>} A port on which nobody listens. */
export async function freePort() {
  for (let tries = 0; tries < 100; tries++) {
    const port = FIRST + Math.floor(Math.random() * COUNT);
    const server = net.createServer();
    const listening = once(server, "listening");
    server.listen(port, "127.0.0.1");
    try {
      await listening;
    } catch {
      continue;
    }
    server.close();
    await once(server, "close");
    return port;
  }
  throw new Error(`expected a free port from ${FIRST} to ${FIRST + COUNT - 1}, found none`);
}
