/** The notes of each patient, by local number, while the page is open. Each change is an event "change". */
export class Notes extends EventTarget {
  #drafts = new Map();
  #saved = new Map();

  /** @param {string} number @returns {string} the text in the field */
  text(number) {
    return this.#drafts.get(number) ?? this.#saved.get(number)?.text ?? "";
  }

  /** @param {string} number @param {string} text written, and not saved yet */
  write(number, text) {
    if (text === (this.#saved.get(number)?.text ?? "")) this.#drafts.delete(number);
    else this.#drafts.set(number, text);
    this.#changed();
  }

  /** @param {string} number @returns {boolean} */
  unsaved(number) {
    return this.#drafts.has(number);
  }

  /** @param {string} number @returns {Date | null} */
  savedAt(number) {
    return this.#saved.get(number)?.at ?? null;
  }

  /** @param {string} number @param {Date} at */
  save(number, at) {
    if (!this.unsaved(number)) return;
    this.#saved.set(number, { text: this.text(number), at });
    this.#drafts.delete(number);
    this.#changed();
  }

  /** @param {string} number */
  discard(number) {
    this.#drafts.delete(number);
    this.#changed();
  }

  /** @returns {boolean} whether notes of any patient would be lost with the page */
  get anyUnsaved() {
    return this.#drafts.size > 0;
  }

  /** @returns {boolean} whether there are notes, saved or not */
  get any() {
    return this.anyUnsaved || this.#saved.size > 0;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
