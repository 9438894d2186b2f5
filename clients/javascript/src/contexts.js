/** Which contexts are open here, and which of them is current (FHIRcast 3.0.0, 2.5). No I/O, no clock. */

import { anchorKey } from "./events.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./events.js").Resource} Resource */
/** @typedef {import("./update-bundle.js").Content} Content */

/** Contexts that are kept, as many as the hub keeps; of those that nobody closes the oldest goes. */
export const MOST_CONTEXTS = 64;

/** Something that is open. It does not change: what is newer is another one. */
export class Context {
  /**
   * @param {Event} event The open that opened it.
   * @param {string | null} version The hub's context.versionId; null where it is not known.
   * @param {Content | null} content What is shared in it; null where that is not known.
   */
  constructor(event, version, content) {
    this.anchor = event.anchor;
    this.event = event;
    this.version = version;
    this.content = content;
    Object.freeze(this);
  }

  /**
   * @param {string} keyOrType "study", or "ImagingStudy".
   * @returns {Resource | null} The resource that it was opened with.
   */
  resource(keyOrType) {
    return this.event.resource(keyOrType);
  }
}

/** The opens that were followed or published here and are not closed. */
export class Contexts {
  /** One of the opens. @type {Event | null} */
  current = null;
  /** By anchor, oldest first. @type {Map<string, Event>} */
  opens = new Map();

  /** @param {string} anchor @returns {boolean} Whether the current context is about it. */
  isCurrent(anchor) {
    return this.current?.anchor === anchor;
  }

  /** @param {string} anchor @returns {string} The patient that it was opened with, "Patient/p1"; "" where it is not known. */
  patientOf(anchor) {
    const id = this.opens.get(anchor)?.resource(anchorKey("Patient"))?.id;
    return typeof id === "string" ? `Patient/${id}` : "";
  }

  /** A context is open. @param {Event} event @param {boolean} isOld Whether another one that is newer is current. */
  opened(event, isOld) {
    if (isOld && this.isCurrent(event.anchor)) return;
    this.opens.delete(event.anchor);
    this.opens.set(event.anchor, event);
    if (!isOld) this.current = event;
    else if (this.current) this.#moveToEnd(this.current);
    for (const anchor of this.opens.keys()) {
      if (this.opens.size <= MOST_CONTEXTS) return;
      if (!this.isCurrent(anchor)) this.opens.delete(anchor);
    }
  }

  /** A context is closed. @param {string} anchor @returns {Event | null} Its open; null where none was. */
  closed(anchor) {
    const open = this.opens.get(anchor) ?? null;
    if (this.isCurrent(anchor)) this.current = null;
    this.opens.delete(anchor);
    return open;
  }

  /** Home: no context is current. Those that are open stay open. */
  homeOpened() {
    this.current = null;
  }

  /** @param {Event} event */
  #moveToEnd(event) {
    this.opens.delete(event.anchor);
    this.opens.set(event.anchor, event);
  }
}
