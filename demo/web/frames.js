/** Between a page and the frame in it, each of an origin of its own: the language, and what would be lost with it. */

import { setLanguage } from "./i18n.js";

const LANGUAGE = "fhircast-demo.language";
const LOSSES = "fhircast-demo.losses";

/** @returns {boolean} whether this page is in a frame of another one */
export function isEmbedded() {
  return window.parent !== window;
}

/** The page in a frame follows the language of the page around it. */
export function followLanguageAround() {
  addEventListener("message", ({ source, data }) => {
    if (source === window.parent && data?.kind === LANGUAGE) setLanguage(data.language);
  });
}

/** @param {string} language of all frames in this page */
export function tellFrames(language) {
  for (const frame of document.querySelectorAll("iframe")) {
    frame.contentWindow?.postMessage({ kind: LANGUAGE, language }, new URL(frame.src).origin);
  }
}

/**
 * Tell the page around what would be lost with this one.
 * @param {{unsaved: boolean, any: boolean}} losses whether something is not saved; whether there is anything at all
 * @param {string} around the origin of that page; no other one hears it
 */
export function tellLosses(losses, around) {
  if (isEmbedded()) window.parent.postMessage({ kind: LOSSES, ...losses }, around);
}

/** What would be lost with the page in a frame, as that page says. */
export class FrameLosses {
  unsaved = false;
  any = false;
  #frame = null;

  /** @param {string} origin of the page in the frame */
  constructor(origin) {
    addEventListener("message", (event) => {
      const isIt = event.source === this.#frame?.contentWindow && event.origin === origin;
      if (isIt && event.data?.kind === LOSSES) this.#set(event.data);
    });
  }

  /** @param {HTMLIFrameElement} frame that is new: its page has nothing yet */
  watch(frame) {
    this.#frame = frame;
    this.#set({});
  }

  #set({ unsaved, any }) {
    Object.assign(this, { unsaved: Boolean(unsaved), any: Boolean(any) });
  }
}
