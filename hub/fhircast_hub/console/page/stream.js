/** The stream of the hub's state: server-sent events, read by fetch, because EventSource sends no token. */

/** Milliseconds until the first try to connect again, and the most. Each try waits twice as long as the one before. */
const [FIRST, MOST] = [500, 15_000];
/** Milliseconds without any byte after which the connection counts as dead: the hub writes each second. */
const SILENCE = 15_000;

/** A stream that connects again by itself. */
export class Stream {
  #controller = new AbortController();
  #ended;

  /**
   * @param {string} url @param {string} token
   * @param {{part: (name: string, value: any) => void, state: (state: "wait"|"on"|"off"|"full"|"taken", why?: string) => void,
   *   refused: (status: number, why: string) => void}} listener `refused`: the token counts no more, or does not suffice.
   *   "full": the hub has no place now, and says why. "taken": a newer page of this operator has the place; this stream is over.
   */
  constructor(url, token, listener) {
    [this.url, this.token, this.listener] = [url, token, listener];
    this.#ended = this.#run();
  }

  /** End it for good. @returns {Promise<void>} when its connection is closed, and its place at the hub is free */
  stop() {
    this.#controller.abort();
    return this.#ended;
  }

  async #run() {
    const { signal } = this.#controller;
    let pause = FIRST;
    this.listener.state("wait");
    while (!signal.aborted) {
      try {
        const came = await this.#read(signal);
        if (came === "over") return;
        if (typeof came === "number") {
          await sleep(came * 1000, signal);
          continue;
        }
        if (came === "some") pause = FIRST;
      } catch {
        // the network, or a cut answer: try again
      }
      if (signal.aborted) return;
      this.listener.state("off");
      await sleep(pause * (0.75 + Math.random() / 2), signal);
      pause = Math.min(2 * pause, MOST);
    }
  }

  /** Read until the answer ends. @returns {Promise<"some"|"none"|"over"|number>} what came; or seconds to wait for a place */
  async #read(signal) {
    const own = new AbortController();
    const abort = () => own.abort();
    signal.addEventListener("abort", abort, { once: true });
    let [timer, came] = [setTimeout(abort, SILENCE), "none"];
    try {
      const headers = { Authorization: `Bearer ${this.token}`, Accept: "text/event-stream" };
      const answer = await fetch(this.url, { headers, signal: own.signal, cache: "no-store", credentials: "omit" });
      if (answer.status === 401 || answer.status === 403) {
        this.listener.refused(answer.status, (await answer.text()).trim());
        return "over";
      }
      if (answer.status === 429) {
        this.listener.state("full", (await answer.text()).trim());
        return Number(answer.headers.get("Retry-After")) || MOST / 1000;
      }
      if (!answer.ok) return came;
      this.listener.state("on");
      for await (const { name, value } of events(answer.body)) {
        clearTimeout(timer);
        timer = setTimeout(abort, SILENCE);
        came = "some";
        if (name === "end" && value.reason === "token") {
          this.listener.refused(401, value.message ?? "");
          return "over";
        }
        if (name === "end" && value.reason === "taken") {
          this.listener.state("taken");
          return "over";
        }
        if (name && name !== "end") this.listener.part(name, value);
      }
      return came;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
    }
  }
}

/** The events of an answer. A comment is an event without a name. @param {ReadableStream<Uint8Array>} body */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      yield event(text.slice(0, end));
      text = text.slice(end + 2);
    }
  }
}

/** @param {string} block */
function event(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
  }
  return { name: fields.event ?? "", value: fields.data ? JSON.parse(fields.data) : null };
}

function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
