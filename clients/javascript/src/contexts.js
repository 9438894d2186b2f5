/** Open contexts, and which of them is current (FHIRcast 3.0.0, 2.5). No I/O, no clock. */

import { anchorKey } from "./events.js";

/** @typedef {import("./events.js").Event} Event */
/** @typedef {import("./events.js").Resource} Resource */
/** @typedef {import("./update-bundle.js").Content} Content */

/** Contexts that are kept, as many as the hub keeps. Beyond that, the oldest is dropped. */
export const MOST_CONTEXTS = 64;

/** An open context. The object does not change: a newer state is a new object. */
export class Context {
  /**
   * @param {Event} event The open event.
   * @param {string | null} version The hub's context.versionId; null where unknown.
   * @param {Content | null} content The shared content; null where unknown.
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
   * @returns {Resource | null} A resource of the open event.
   */
  resource(keyOrType) {
    return this.event.resource(keyOrType);
  }
}

/** Opens that were followed or published here and are not closed. */
export class Contexts {
  /** The current open, null where no context is current. @type {Event | null} */
  current = null;
  /** By anchor, oldest first. @type {Map<string, Event>} */
  opens = new Map();

  /** @param {string} anchor @returns {boolean} Whether the current context has this anchor. */
  isCurrent(anchor) {
    return this.current?.anchor === anchor;
  }

  /**
   * @param {string} anchor
   * @returns {string} Reference of the patient in a context's open, "Patient/p1"; "" where unknown.
   */
  patientOf(anchor) {
    const id = this.opens.get(anchor)?.resource(anchorKey("Patient"))?.id;
    return typeof id === "string" ? `Patient/${id}` : "";
  }

  /** A context is open. @param {Event} event @param {boolean} isOld Whether a newer context is current. */
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

  /**
   * A context is closed.
   * @param {string} anchor
   * @returns {Event | null} Its open; null where the context was not open.
   */
  closed(anchor) {
    const open = this.opens.get(anchor) ?? null;
    if (this.isCurrent(anchor)) this.current = null;
    this.opens.delete(anchor);
    return open;
  }

  /** Home-open: no context is current. Open contexts stay open. */
  homeOpened() {
    this.current = null;
  }

  /** @param {Event} event */
  #moveToEnd(event) {
    this.opens.delete(event.anchor);
    this.opens.set(event.anchor, event);
  }
}
