/** The access token: asked for when it is needed, and once more when the hub does not take it. */

import { HubError, TokenError } from "./errors.js";

/** @typedef {string | null | (() => string | Promise<string>)} TokenSource */

/** What a header can hold; fetch, given anything else, may complain with the token in its text. */
const CAN_BE_SENT = /^[\x21-\x7e]+$/;
const UNSENDABLE = "expected a token of visible ASCII characters";

export class Token {
  #source;
  /** @type {string | null} */
  #current = null;
  /**
   * The question on its way: whoever asks meanwhile waits for the same answer.
   * @type {Promise<string | null> | null}
   */
  #asking = null;

  /** @param {TokenSource} source The token, a function that returns one, or null for none. */
  constructor(source) {
    if (!["string", "function"].includes(typeof source) && source !== null && source !== undefined) {
      throw new TypeError(`expected a token, or a function that returns one, got ${typeof source}`);
    }
    if (typeof source === "string" && source !== "" && !CAN_BE_SENT.test(source)) throw new TypeError(UNSENDABLE);
    this.#source = source;
  }

  /** @returns {Promise<string | null>} @throws {HubError} As `fresh`. */
  async get() {
    return this.#current ?? this.fresh();
  }

  /**
   * @returns {Promise<string | null>} A new one, if the source is a function.
   * @throws {HubError} TokenError when the function says that there will be none; with status 0 when it fails, which
   *     may pass.
   */
  fresh() {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }

  /** Whether there may be another token than the one in use. */
  get changes() {
    return typeof this.#source === "function";
  }

  /**
   * @param {string | null} refused That the hub did not take.
   * @returns {Promise<string | null>} Another one, where there is one.
   * @throws {HubError} As `fresh`.
   */
  async instead(refused) {
    return this.#current === refused ? this.fresh() : this.#current;
  }

  async #ask() {
    if (typeof this.#source !== "function") return (this.#current = this.#source);
    try {
      const token = await this.#source();
      if (typeof token !== "string" || !CAN_BE_SENT.test(token)) throw new TypeError(UNSENDABLE);
      return (this.#current = token);
    } catch (error) {
      if (error instanceof TokenError) throw error;
      // Its text may hold what is secret.
      throw new HubError(0, `No access token could be had: ${error instanceof Error ? error.name : typeof error}`);
    }
  }
}
