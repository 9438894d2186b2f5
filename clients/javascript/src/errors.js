/** The errors of the library. */

/** Client errors that may pass; every other one stays. */
const PASSING = new Set([408, 409, 425, 429]);
const CONFLICT = 409;
/** Characters of another's words that are passed on. */
const MOST_WORDS = 300;
/** What an ingress answers while the hub is away, some of them with a text like the hub's. */
const AWAY = new Set([404, 405]);
/** Marks a refusal that comes from elsewhere too: from fhircast-identity, or from a second copy of this package in one page. */
const REFUSAL = Symbol.for("fhircast.refusal");

/** Raised by a handler that does not want to follow an event: the hub is told 409, and everybody else the reason. */
export class Refuse extends Error {
  /** @param {string} reason For people, without data of patients: other applications show it. */
  constructor(reason) {
    super(reason);
    this.name = "Refuse";
  }

  get [REFUSAL]() {
    return true;
  }
}

/** @param {unknown} error @returns {boolean} Whether a handler, or who finds local ids for it, refuses by this. */
export function isRefusal(error) {
  return /** @type {any} */ (error)?.[REFUSAL] === true;
}

/** What the hub answered to a request that it did not accept. */
export class HubError extends Error {
  /**
   * @param {number} status HTTP status; 0 when the hub was not reached.
   * @param {string} message
   * @param {number} [retryAfter] Seconds after which the hub wants to be asked again; 0 when it did not say.
   * @param {boolean} [isHubs] False where something between answered for the hub, such as an ingress while the hub restarts.
   */
  constructor(status, message, retryAfter = 0, isHubs = true) {
    super(message);
    this.name = "HubError";
    this.status = status;
    this.retryAfter = retryAfter;
    this.isHubs = isHubs;
  }

  /** Whether the hub says never: asking again the same brings the same. */
  get isFinal() {
    return this.status >= 400 && this.status < 500 && !PASSING.has(this.status);
  }

  /** Whether it is certain that the hub itself refused, and nothing between. */
  get isFromHub() {
    return this.isHubs && !AWAY.has(this.status);
  }

  /** Whether the hub does not take what was published; else the hub may have it, or take it later. */
  get isRefusal() {
    return this.isFromHub && (this.isFinal || this.status === CONFLICT);
  }
}

/**
 * No token is good: the hub refused a second one. A token function raises it to say that there will be none any more.
 */
export class TokenError extends HubError {
  /** @param {string} message @param {boolean} [isHubs] */
  constructor(message, isHubs = true) {
    super(401, message, 0, isHubs);
    this.name = "TokenError";
  }
}

/**
 * @param {unknown} error Whatever was thrown.
 * @returns {string} What it says, in one line.
 */
export function said(error) {
  return inOneLine(error instanceof Error ? error.message : String(error)) || "no reason was given";
}

/**
 * Say on the console that something failed: by the name of its error only, for its text may name a patient.
 * @param {string} what "the handler of Patient-open failed".
 * @param {unknown} error
 * @param {boolean} debug Whether the error is printed whole, with its stack.
 */
export function complain(what, error, debug) {
  console.error(`fhircast-client: ${what}: ${nameOf(error)}`, ...(debug ? [error] : []));
}

/** @param {unknown} error */
export function nameOf(error) {
  return error instanceof Error ? error.name : typeof error;
}

/** @param {string} words @returns {string} What a hub says, as a part of a sentence: one line, of 300 characters at most. */
export function inOneLine(words) {
  return words.trim().split(/\s+/).join(" ").slice(0, MOST_WORDS);
}
