/** Rendered frames, fetched once and kept; the neighbours of what is shown before anybody scrolls to them. */

const KEPT = 160;
const AT_ONCE = 2;

export class Frames {
  /** By URL, the one used last at the end. @type {Map<string, Promise<ImageBitmap>>} */
  #kept = new Map();
  #abort = new AbortController();
  #round = 0;
  #archive;

  /** @param {import("./archive.js").Archive} archive */
  constructor(archive) {
    this.#archive = archive;
  }

  /** @param {string} url @returns {Promise<ImageBitmap>} rejects where the archive does not give it */
  get(url) {
    const frame = this.#kept.get(url) ?? this.#fetched(url);
    this.#kept.delete(url);
    this.#kept.set(url, frame);
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= KEPT) break;
      this.#forget(oldest);
    }
    return frame;
  }

  /** Fetch these in their order, two at a time; what an earlier call asked for and has not begun is left. */
  prefetch(urls) {
    const round = ++this.#round;
    const waiting = urls.filter((url) => !this.#kept.has(url));
    const work = async () => {
      while (waiting.length && round === this.#round) await this.get(waiting.shift()).catch(() => {});
    };
    for (let each = 0; each < AT_ONCE; each++) work();
  }

  /** Forget all, and stop what is on its way. */
  clear() {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#round++;
    for (const url of [...this.#kept.keys()]) this.#forget(url);
  }

  #fetched(url) {
    const frame = this.#archive.picture(url, this.#abort.signal);
    frame.catch(() => this.#kept.get(url) === frame && this.#kept.delete(url));
    return frame;
  }

  #forget(url) {
    this.#kept.get(url).then(
      (bitmap) => bitmap.close(),
      () => {},
    );
    this.#kept.delete(url);
  }
}
