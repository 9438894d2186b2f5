/** Rendered frames in a cache, with the neighbours of the shown frame loaded in advance. */

const KEPT = 160;
const AT_ONCE = 2;

export class Frames {
  /** By URL, the most recently used last. @type {Map<string, Promise<ImageBitmap>>} */
  #kept = new Map();
  #abort = new AbortController();
  #round = 0;
  #archive;

  /** @param {import("./archive.js").Archive} archive */
  constructor(archive) {
    this.#archive = archive;
  }

  /** @param {string} url @returns {Promise<ImageBitmap>} rejects where the archive fails */
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

  /** Load these in order, two at a time. Earlier requests that have not begun are dropped. */
  prefetch(urls) {
    const round = ++this.#round;
    const waiting = urls.filter((url) => !this.#kept.has(url));
    const work = async () => {
      while (waiting.length && round === this.#round) await this.get(waiting.shift()).catch(() => {});
    };
    for (let each = 0; each < AT_ONCE; each++) work();
  }

  /** Empty the cache, and cancel all requests. */
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
