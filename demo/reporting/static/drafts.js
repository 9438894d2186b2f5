/** @typedef {{findings: string, conclusion: string}} Text */

/** Text that was written in a report and not shared yet, by the report's id, while the page is open. */
export class Drafts {
  /** @type {Map<string, Partial<Text>>} */
  #texts = new Map();

  /** @param {string} id @param {Text} shared the report's text already @returns {Text} */
  text(id, shared) {
    return { ...shared, ...this.#texts.get(id) };
  }

  /** @param {string} id @param {keyof Text} name @param {string} text */
  write(id, name, text) {
    this.#texts.set(id, { ...this.#texts.get(id), [name]: text });
  }

  /** @param {string} id of the report whose text is given up */
  forget(id) {
    this.#texts.delete(id);
  }

  /** @param {string} id @param {Text} text is shared now. Text that was written meanwhile stays a draft */
  shared(id, text) {
    const still = Object.entries(this.#texts.get(id) ?? {}).filter(([name, draft]) => draft !== text[name]);
    if (still.length) this.#texts.set(id, Object.fromEntries(still));
    else this.#texts.delete(id);
  }

  /** @returns {string[]} ids of the reports with a draft */
  get ids() {
    return [...this.#texts.keys()];
  }

  /**
   * A report is signed: no text can be added.
   * @param {string} id
   * @param {Text} signed its text
   * @returns {string[]} written text that is missing in it
   */
  setAside(id, signed) {
    const written = Object.entries(this.#texts.get(id) ?? {});
    this.#texts.delete(id);
    return written.filter(([name, text]) => text.trim() !== signed[name].trim()).map(([, text]) => text);
  }

  /** @param {string} id @returns {boolean} */
  has(id) {
    return this.#texts.has(id);
  }

  /** @returns {boolean} whether text would be lost with the page */
  get any() {
    return this.#texts.size > 0;
  }
}
