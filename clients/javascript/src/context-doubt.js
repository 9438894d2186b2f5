/**
 * Whether the hub's current context is known here, and whether the client must ask for it (FHIRcast 3.0.0, 2.9). No
 * I/O, no clock.
 */

export const UNREAD = "A message of the hub could not be read, so the hub is asked what is open";
export const DOUBT = "Several contexts were opened or closed at once, so the hub is asked what is open";
export const UNCERTAIN =
  "The connection was lost while an event was published, so the hub is asked what is open";
export const NO_ECHO = "An own event did not come back from the hub, so the hub is asked what is open";
const ASKING = "The connection is back, and the hub is asked what is open";
const UNTOLD = "The connection was lost for a while, and the hub does not tell what is open. Wait for the next open";
const OTHER = "Another context is open at the hub, which this application does not follow";

/** Whether the hub's current context is known, and whether the client must ask for it. */
export class ContextDoubt {
  /** Whether an event since the connection was made tells the current context. */
  isAnswered = false;
  /**
   * Whether to send "Get Current Context", though the connection was not lost. The sender of the request resets this
   * flag.
   */
  mustAsk = false;
  #sync;
  #order;
  /** The moment of the request. */
  #askedAt = 0;
  /** Whether the shown context may have been left while the connection was lost. */
  #mayDiffer = false;

  /**
   * @param {import("./status.js").Sync} sync Shows doubts to the user.
   * @param {import("./event-order.js").Order} order
   */
  constructor(sync, order) {
    this.#sync = sync;
    this.#order = order;
  }

  /**
   * The connection was made.
   * @param {boolean} mayDiffer Whether the shown context may have been left meanwhile.
   * @param {boolean} followsOpens
   */
  connected(mayDiffer, followsOpens) {
    this.#askedAt = this.#order.moment;
    this.#mayDiffer = mayDiffer;
    this.isAnswered = !followsOpens;
    if (mayDiffer && followsOpens) this.#sync.contextUnknown(ASKING, this.#askedAt);
  }

  /** The current context is not known any more. @param {string} why A sentence. */
  raiseDoubt(why) {
    this.isAnswered = false;
    this.#mayDiffer = true;
    this.mustAsk = true;
    this.#askedAt = this.#order.moment;
    this.#sync.contextUnknown(why, this.#askedAt);
  }

  /** The hub accepted the context that is shown here. @param {import("./event-order.js").Mark} mark */
  accepted(mark) {
    this.isAnswered ||= mark.lastSeen > this.#askedAt;
  }

  /**
   * The hub's answer came.
   * @param {boolean} agrees Whether this application shows the hub's context, or was handed it.
   */
  resolved(agrees) {
    this.#sync.contextUnknown(agrees ? "" : OTHER, this.#askedAt);
  }

  /**
   * The hub does not tell the current context.
   * @param {boolean} isFinal Whether another request gets the same answer.
   */
  unanswered(isFinal) {
    this.#mayDiffer ||= !isFinal;
    this.#sync.contextUnknown(this.#mayDiffer ? UNTOLD : "", this.#askedAt);
  }

  /** Whether the missing answer matters. */
  get mustAskAgain() {
    return this.#mayDiffer && !this.isAnswered;
  }
}
