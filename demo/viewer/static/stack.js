/** A series as a stack of images. The canvas shows one of them. */

const AHEAD = 8;
const BEHIND = 3;
const QUIET = 60; // ms without a change before the neighbours are loaded

/**
 * Events: "change" (of the wanted image; `detail.by` is "series", "user", "window" or "cine"), "painted"
 * (`detail.image` is on the canvas; `detail.first`: the first of its study), "failed". The canvas has data-shown
 * "instance/frame", and from its first image on data-ready with the study's UID.
 */
export class Stack extends EventTarget {
  /** @type {import("./dicom.js").Series|null} */
  series = null;
  index = 0;
  /** The user's window; null: each image's own. @type {import("./dicom.js").Window|null} */
  chosen = null;

  /** The painted image; null while the canvas is black. @type {import("./dicom.js").Image|null} */
  painted = null;
  #canvas;
  #archive;
  #frames;
  #direction = 1;
  #timer = 0;
  // The loader of this series. A late answer of the loader before it is not painted.
  #worker = { wanted: null, busy: false };

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {import("./archive.js").Archive} archive
   * @param {import("./frames.js").Frames} frames
   */
  constructor(canvas, archive, frames) {
    super();
    this.#canvas = canvas;
    this.#archive = archive;
    this.#frames = frames;
  }

  get images() {
    return this.series?.images ?? [];
  }

  /** The wanted image, which may not be painted yet. */
  get image() {
    return this.images[this.index] ?? null;
  }

  /** The window that is wanted. */
  get window() {
    return this.chosen ?? this.image?.window ?? null;
  }

  /** @param {import("./dicom.js").Series} series @param {number} [index] */
  show(series, index = 0) {
    this.series = series;
    this.index = index;
    this.chosen = null;
    this.#direction = 1;
    this.#worker = { wanted: null, busy: false };
    if (this.#canvas.dataset.ready !== series.images[0].study) this.#wipe();
    this.#wanted("series");
  }

  /** None: the canvas is black, and the cache is empty. */
  clear() {
    this.series = null;
    this.index = 0;
    this.chosen = null;
    this.#worker = { wanted: null, busy: false };
    clearTimeout(this.#timer);
    this.#frames.clear();
    this.#wipe();
  }

  /** @param {number} index is kept within the stack @param {string} [by] */
  go(index, by = "user") {
    const next = Math.min(Math.max(index, 0), this.images.length - 1);
    if (!this.series || next === this.index) return;
    this.#direction = next > this.index || by === "cine" ? 1 : -1;
    this.index = next;
    this.#wanted(by);
  }

  /** @param {import("./dicom.js").Window|null} window null: each image's own */
  setWindow(window) {
    if (!this.image?.grey) return;
    this.chosen = window;
    this.#wanted("window");
  }

  #wipe() {
    delete this.#canvas.dataset.ready;
    this.#blacken();
  }

  #blacken() {
    this.painted = null;
    delete this.#canvas.dataset.shown;
    this.#canvas.getContext("2d").clearRect(0, 0, this.#canvas.width, this.#canvas.height);
  }

  #wanted(by) {
    this.dispatchEvent(new CustomEvent("change", { detail: { by } }));
    this.#worker.wanted = { image: this.image, url: this.#archive.frameUrl(this.image, this.chosen) };
    clearTimeout(this.#timer);
    if (!this.#worker.busy) this.#work(this.#worker);
  }

  /** Paints the last wanted image, and skips those that were passed while one was loading. */
  async #work(worker) {
    worker.busy = true;
    while (worker.wanted && worker === this.#worker) {
      const { image, url } = worker.wanted;
      worker.wanted = null;
      try {
        const bitmap = await this.#frames.get(url);
        if (worker === this.#worker) this.#paint(image, bitmap);
      } catch {
        if (worker === this.#worker) this.#fail();
      }
    }
    worker.busy = false;
    if (worker === this.#worker) this.#timer = setTimeout(() => this.#prefetch(), QUIET);
  }

  /** The image before must not be taken for the missing one. */
  #fail() {
    this.#blacken();
    this.dispatchEvent(new Event("failed"));
  }

  #paint(image, bitmap) {
    const { dataset } = this.#canvas;
    this.#canvas.width = image.columns;
    this.#canvas.height = image.rows;
    this.#canvas.getContext("2d").drawImage(bitmap, 0, 0, image.columns, image.rows);
    this.painted = image;
    const first = dataset.ready !== image.study;
    dataset.shown = `${image.instance}/${image.frame}`;
    dataset.ready = image.study;
    this.dispatchEvent(new CustomEvent("painted", { detail: { image, first } }));
  }

  #prefetch() {
    const near = [];
    for (let step = 1; step <= AHEAD; step++) near.push(this.index + step * this.#direction);
    for (let step = 1; step <= BEHIND; step++) near.push(this.index - step * this.#direction);
    const images = near.map((index) => this.images[index]).filter(Boolean);
    this.#frames.prefetch(images.map((image) => this.#archive.frameUrl(image, this.chosen)));
  }
}
