/** A cache of answers. Concurrent callers share one request. */

import { keyOf } from "./rules.js";

/** @typedef {import("./local.js").Local} Local */
/** @typedef {import("./local.js").Query} Query */

/** Seconds for which an answer is kept that leads to a refusal: somebody may be about to correct the data. */
export const REFUSED_SECONDS = 3;

/** At most `size` answers, each for `seconds`. The least recently used one is dropped. Failures are not kept. */
export class Answers {
  #seconds;
  #size;
  #clock;
  /** @type {Map<string, {answer: Local[], until: number}>} */
  #kept = new Map();
  /** @type {Map<string, Promise<Local[]>>} */
  #asked = new Map();

  /**
   * @param {number} seconds
   * @param {number} size
   * @param {() => number} clock Monotonic seconds.
   */
  constructor(seconds, size, clock) {
    this.#seconds = seconds;
    this.#size = size;
    this.#clock = clock;
  }

  /**
   * @param {Query} query
   * @param {(query: Query) => Promise<Local[]>} ask
   * @returns {Promise<Local[]>} The answer to `query`. Calls `ask` where the answer is unknown.
   */
  get(query, ask) {
    const key = keyOf(query);
    const kept = this.#kept.get(key);
    if (kept && kept.until > this.#clock()) {
      this.#keep(key, kept);
      return Promise.resolve(kept.answer);
    }
    let asked = this.#asked.get(key);
    if (!asked) {
      asked = this.#ask(key, query, ask).finally(() => this.#asked.delete(key));
      this.#asked.set(key, asked);
    }
    return asked;
  }

  /**
   * Keep this answer only for a short time, because it has led to a refusal.
   * @param {Query} query
   */
  expireSoon(query) {
    const kept = this.#kept.get(keyOf(query));
    if (kept) kept.until = Math.min(kept.until, this.#clock() + REFUSED_SECONDS);
  }

  /**
   * @param {string} key
   * @param {Query} query
   * @param {(query: Query) => Promise<Local[]>} ask
   */
  async #ask(key, query, ask) {
    const answer = await ask(query);
    const certain = new Set(answer.map((local) => local.id)).size === 1;
    const seconds = certain ? this.#seconds : Math.min(this.#seconds, REFUSED_SECONDS);
    this.#keep(key, { answer, until: this.#clock() + seconds });
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= this.#size) break;
      this.#kept.delete(oldest);
    }
    return answer;
  }

  /**
   * A Map keeps the order of insertion.
   * @param {string} key
   * @param {{answer: Local[], until: number}} kept
   */
  #keep(key, kept) {
    this.#kept.delete(key);
    this.#kept.set(key, kept);
  }
}
