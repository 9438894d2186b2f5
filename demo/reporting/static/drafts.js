/** @typedef {{findings: string, conclusion: string}} Text */

/** What was written in each report and not shared yet, by the report's id, for as long as the page lives. */
export class Drafts {
  /** @type {Map<string, Partial<Text>>} */
  #texts = new Map();

  /** @param {string} id @param {Text} shared what the report holds already @returns {Text} */
  text(id, shared) {
    return { ...shared, ...this.#texts.get(id) };
  }

  /** @param {string} id @param {keyof Text} name @param {string} text */
  write(id, name, text) {
    this.#texts.set(id, { ...this.#texts.get(id), [name]: text });
  }

  /** @param {string} id its text is given up */
  forget(id) {
    this.#texts.delete(id);
  }

  /** @param {string} id @param {Text} text is shared now; what was written meanwhile stays a draft */
  shared(id, text) {
    const still = Object.entries(this.#texts.get(id) ?? {}).filter(([name, draft]) => draft !== text[name]);
    if (still.length) this.#texts.set(id, Object.fromEntries(still));
    else this.#texts.delete(id);
  }

  /** @returns {string[]} the ids of the reports that have one */
  get ids() {
    return [...this.#texts.keys()];
  }

  /**
   * A report is signed: nothing can be added to it.
   * @param {string} id
   * @param {Text} signed its text
   * @returns {string[]} what was written and is not in it
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

  /** @returns {boolean} whether anything would be lost with the page */
  get any() {
    return this.#texts.size > 0;
  }
}
