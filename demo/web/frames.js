/** Between a page and the frame in it, each of an origin of its own: the language, the logout, and what would be lost. */

import { setLanguage } from "./i18n.js";

const LANGUAGE = "fhircast-demo.language";
const LOGOUT = "fhircast-demo.logout";
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
  post({ kind: LANGUAGE, language });
}

/**
 * The user of this page has left, and so has that of its frames: they may not hear of it from the hub.
 * @param {number} patience milliseconds that a frame has to answer
 * @returns {Promise<void>} once the logins of all frames have ended
 */
export async function logOutFrames(patience) {
  const answers = [...document.querySelectorAll("iframe")].map(
    ({ contentWindow }) =>
      new Promise((answered) => {
        addEventListener("message", ({ source, data }) => source === contentWindow && data?.kind === LOGOUT && answered());
      }),
  );
  post({ kind: LOGOUT });
  await Promise.race([Promise.all(answers), new Promise((over) => setTimeout(over, patience))]);
}

function post(message) {
  for (const frame of document.querySelectorAll("iframe")) {
    frame.contentWindow?.postMessage(message, new URL(frame.src).origin);
  }
}

/**
 * The user of a page in a frame leaves with that of the page around it.
 * @param {string} around the origin of that page; no other one is heard
 * @param {() => Promise<unknown>} follow until the logins have ended
 */
export function followLogoutAround(around, follow) {
  if (!isEmbedded()) return;
  addEventListener("message", async ({ source, origin, data }) => {
    if (source !== window.parent || origin !== around || data?.kind !== LOGOUT) return;
    await follow();
    window.parent.postMessage({ kind: LOGOUT }, around);
  });
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
