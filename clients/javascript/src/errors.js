/** The errors of the library. */

/** Client errors that may pass. All others are final. */
const PASSING = new Set([408, 409, 425, 429]);
const CONFLICT = 409;
/** Characters of the hub's text that are kept. */
const MOST_WORDS = 300;
/** Answers of an ingress while the hub is away. Some of their texts look like the hub's. */
const AWAY = new Set([404, 405]);
/** Marks a refusal of another package: of fhircast-identity, or of a second copy of this package in one page. */
const REFUSAL = Symbol.for("fhircast.refusal");

/**
 * Thrown by a handler that does not follow an event. The event is answered with 409, and other applications are shown
 * the reason.
 */
export class Refuse extends Error {
  /** @param {string} reason For users, without patient data: other applications show it. */
  constructor(reason) {
    super(reason);
    this.name = "Refuse";
  }

  get [REFUSAL]() {
    return true;
  }
}

/** @param {unknown} error @returns {boolean} Whether the error is a refusal of a handler or of its `ids`. */
export function isRefusal(error) {
  return /** @type {any} */ (error)?.[REFUSAL] === true;
}

/** The hub refused a request, or could not be reached. */
export class HubError extends Error {
  /**
   * @param {number} status HTTP status; 0 without an answer.
   * @param {string} message
   * @param {number} [retryAfter] Seconds that the hub asks to wait; 0 where it does not.
   * @param {boolean} [isHubs] False where a proxy or an ingress answered instead of the hub.
   */
  constructor(status, message, retryAfter = 0, isHubs = true) {
    super(message);
    this.name = "HubError";
    this.status = status;
    this.retryAfter = retryAfter;
    this.isHubs = isHubs;
  }

  /** Whether the refusal is final: another request gets the same answer. */
  get isFinal() {
    return this.status >= 400 && this.status < 500 && !PASSING.has(this.status);
  }

  /** Whether the hub itself refused, and certainly no proxy or ingress. */
  get isFromHub() {
    return this.isHubs && !AWAY.has(this.status);
  }

  /** Whether the hub refused a published event. Otherwise the hub may have the event, or accept it later. */
  get isRefusal() {
    return this.isFromHub && (this.isFinal || this.status === CONFLICT);
  }
}

/**
 * No token is good: the hub refused a second one. A token function raises TokenError when there will be no token any
 * more.
 */
export class TokenError extends HubError {
  /** @param {string} message @param {boolean} [isHubs] */
  constructor(message, isHubs = true) {
    super(401, message, 0, isHubs);
    this.name = "TokenError";
  }
}

/**
 * @param {unknown} error Any thrown value.
 * @returns {string} Its text, in one line.
 */
export function said(error) {
  return inOneLine(error instanceof Error ? error.message : String(error)) || "no reason was given";
}

/**
 * Print a failure on the console, with the name of the error only: its text may name a patient.
 * @param {string} what "the handler of Patient-open failed".
 * @param {unknown} error
 * @param {boolean} debug Whether to print the error with text and stack.
 */
export function complain(what, error, debug) {
  console.error(`fhircast-client: ${what}: ${nameOf(error)}`, ...(debug ? [error] : []));
}

/** @param {unknown} error */
export function nameOf(error) {
  return error instanceof Error ? error.name : typeof error;
}

/**
 * @param {string} words
 * @returns {string} The hub's text as a part of a sentence: one line of at most 300 characters.
 */
export function inOneLine(words) {
  return words.trim().split(/\s+/).join(" ").slice(0, MOST_WORDS);
}
