import { Refuse } from "/fhircast-client/index.js";

/** Reasons for not following. Other applications show these texts, so they are in the language of the wire. */
export const UNSAVED = "unsaved notes";

/**
 * @typedef {object} Shown the patient on the screen
 * @property {string} anchor of the FHIRcast context, such as "Patient/p1"
 * @property {string} number the chart's own patient number
 * @property {object} patient FHIR resource
 *
 * @typedef {object} Behind where the session is, and the chart is not
 * @property {string} anchor
 * @property {object | null} patient null: the session has no patient
 * @property {"notes" | "unknown"} why
 * @property {Error | null} refusal of the IdentityMap
 */

/** The patient that the chart shows, and why it does not show the session's patient. */
export class Following {
  /** @type {Shown | null} */ shown = null;
  /** @type {Behind | null} */ behind = null;
  #notes;
  #changed;

  /**
   * @param {import("./notes.js").Notes} notes
   * @param {() => void} changed called after every change
   */
  constructor(notes, changed) {
    this.#notes = notes;
    this.#changed = changed;
  }

  /**
   * Patient-open; `event.local` is the chart's number.
   * @throws {Refuse} while the notes of another patient are not saved
   */
  open(event) {
    const patient = event.resource("patient");
    const number = event.local;
    if (number !== this.shown?.number) this.#refuseWhileUnsaved(event.anchor, patient);
    this.shown = { anchor: event.anchor, number, patient };
    this.#inStep();
  }

  /**
   * Patient-close, of any patient.
   * @throws {Refuse} while the notes are not saved
   */
  close(event) {
    if (![this.shown?.anchor, this.behind?.anchor].includes(event.anchor)) return;
    this.leave(event);
  }

  /**
   * No patient is current in the session.
   * @throws {Refuse} while the notes are not saved
   */
  leave(event) {
    this.#refuseWhileUnsaved(event.anchor, null);
    this.shown = null;
    this.#inStep();
  }

  /** The session's patient is not known in the chart. */
  unknown(event, refusal) {
    this.behind = { anchor: event.anchor, patient: event.resource("patient"), why: "unknown", refusal };
    this.#changed();
  }

  #refuseWhileUnsaved(anchor, patient) {
    if (!this.shown || !this.#notes.unsaved(this.shown.number)) return;
    this.behind = { anchor, patient, why: "notes", refusal: null };
    this.#changed();
    throw new Refuse(UNSAVED);
  }

  #inStep() {
    this.behind = null;
    this.#changed();
  }
}
