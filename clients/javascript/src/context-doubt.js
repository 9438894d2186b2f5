/**
 * What is open at the hub, where nobody has told: the hub is asked until that is known (FHIRcast 3.0.0, 2.9). No I/O, no
 * clock.
 */

export const UNREAD = "A message of the hub could not be read, and what is open at the hub is being found out";
export const DOUBT = "Several contexts were opened or closed at once, and what is open at the hub is being found out";
export const UNCERTAIN =
  "The connection was lost while something was published, and what is open at the hub is being found out";
export const NO_ECHO = "The hub does not tell what is published here, and what is open at the hub is being found out";
const ASKING = "The connection is back, and what is open at the hub is being found out";
const UNTOLD = "The connection was lost for a while, and the hub does not tell what is open: the next open will show it";
const OTHER = "Another context is open at the hub, which this application does not follow";

/** Whether the hub has told what is open, and whether it must be asked. */
export class ContextDoubt {
  /** Whether something came since the connection was made that says what is open. */
  isAnswered = false;
  /** The hub is to be asked, though the connection was not lost. The asker resets this flag. */
  mustAsk = false;
  #sync;
  #order;
  /** The moment since which it is asked. */
  #askedAt = 0;
  /** Whether what is shown may have been left while the connection was lost. */
  #mayDiffer = false;

  /**
   * @param {import("./status.js").Sync} sync Learns of doubts and of their end.
   * @param {import("./event-order.js").Order} order
   */
  constructor(sync, order) {
    this.#sync = sync;
    this.#order = order;
  }

  /**
   * The connection was made.
   * @param {boolean} mayDiffer Whether what is shown may have been left meanwhile.
   * @param {boolean} followsOpens
   */
  connected(mayDiffer, followsOpens) {
    this.#askedAt = this.#order.moment;
    this.#mayDiffer = mayDiffer;
    this.isAnswered = !followsOpens;
    if (mayDiffer && followsOpens) this.#sync.contextUnknown(ASKING, this.#askedAt);
  }

  /** What is open is not known any more. @param {string} why A sentence. */
  raiseDoubt(why) {
    this.isAnswered = false;
    this.#mayDiffer = true;
    this.mustAsk = true;
    this.#askedAt = this.#order.moment;
    this.#sync.contextUnknown(why, this.#askedAt);
  }

  /** The hub accepted what is shown here. @param {import("./event-order.js").Mark} mark */
  accepted(mark) {
    this.isAnswered ||= mark.heard > this.#askedAt;
  }

  /** The hub said what is open. @param {boolean} agrees Whether this application shows the same, or was handed the same. */
  resolved(agrees) {
    this.#sync.contextUnknown(agrees ? "" : OTHER, this.#askedAt);
  }

  /** The hub does not tell what is open. @param {boolean} isFinal Whether asking again brings the same. */
  unanswered(isFinal) {
    this.#mayDiffer ||= !isFinal;
    this.#sync.contextUnknown(this.#mayDiffer ? UNTOLD : "", this.#askedAt);
  }

  /** Whether it matters that the hub did not tell what is open. */
  get mustAskAgain() {
    return this.#mayDiffer && !this.isAnswered;
  }
}
