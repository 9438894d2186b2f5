/** The access token: asked for when it is needed, and again after a 401. */

import { HubError, TokenError } from "./errors.js";

/** @typedef {string | null | (() => string | Promise<string>)} TokenSource */

/** Characters that a header can hold. fetch may quote other tokens in its error. */
const CAN_BE_SENT = /^[\x21-\x7e]+$/;
const UNSENDABLE = "token must consist of visible ASCII characters";

export class Token {
  #source;
  /** @type {string | null} */
  #current = null;
  /**
   * The pending request for a token, shared by all callers.
   * @type {Promise<string | null> | null}
   */
  #asking = null;

  /** @param {TokenSource} source The token, a function that returns one, or null for none. */
  constructor(source) {
    if (!["string", "function"].includes(typeof source) && source !== null && source !== undefined) {
      throw new TypeError(`token must be a text or a function, not ${typeof source}`);
    }
    if (typeof source === "string" && source !== "" && !CAN_BE_SENT.test(source)) throw new TypeError(UNSENDABLE);
    this.#source = source;
  }

  /** @returns {Promise<string | null>} @throws {HubError} The same as `fresh`. */
  async get() {
    return this.#current ?? this.fresh();
  }

  /**
   * @returns {Promise<string | null>} A new token, if the source is a function.
   * @throws {HubError} TokenError when the function says that there will be no token. Status 0 when the function failed
   *     for another reason.
   */
  fresh() {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }

  /** Whether the source may give another token. */
  get changes() {
    return typeof this.#source === "function";
  }

  /**
   * @param {string | null} refused The token that got a 401.
   * @returns {Promise<string | null>} Another token, where there is one.
   * @throws {HubError} The same as `fresh`.
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
      // The text may contain secrets.
      throw new HubError(0, `There is no access token: ${error instanceof Error ? error.name : typeof error}`);
    }
  }
}
