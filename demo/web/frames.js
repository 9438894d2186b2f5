/** Messages between a page and the frame in it, of different origins: language, logout, and unsaved data. */

import { setLanguage } from "./i18n.js";

const LANGUAGE = "fhircast-demo.language";
const LOGOUT = "fhircast-demo.logout";
const LOSSES = "fhircast-demo.losses";

/** @returns {boolean} whether this page is in a frame of another one */
export function isEmbedded() {
  return window.parent !== window;
}

/** The page in a frame follows the language of the outer page. */
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
 * The user of this page and of its frames has logged out. The frames may not hear of it from the hub.
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
 * The user of a page in a frame logs out with the user of the outer page.
 * @param {string} around origin of the outer page; messages of other origins are ignored
 * @param {() => Promise<unknown>} follow resolves once the logins have ended
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
 * Tell the outer page which data would be lost with this one.
 * @param {{unsaved: boolean, any: boolean}} losses whether there is unsaved data, and whether there is any data
 * @param {string} around origin of the outer page; no other origin receives it
 */
export function tellLosses(losses, around) {
  if (isEmbedded()) window.parent.postMessage({ kind: LOSSES, ...losses }, around);
}

/** The data that would be lost with the page in a frame, as that page reports it. */
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

  /** @param {HTMLIFrameElement} frame a new one: its page has no data yet */
  watch(frame) {
    this.#frame = frame;
    this.#set({});
  }

  #set({ unsaved, any }) {
    Object.assign(this, { unsaved: Boolean(unsaved), any: Boolean(any) });
  }
}
