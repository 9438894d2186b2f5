/** The series of the study, each with a small picture of its middle. */

import { element } from "/shared/dom.js";

const SMALL = 96; // pixels of the longer side

export class SeriesList {
  #list;
  #words;
  #stack;
  #archive;
  #frames;
  #series = [];

  /**
   * @param {HTMLElement} list
   * @param {import("./words.js").Words} words
   * @param {{stack: import("./stack.js").Stack, archive: import("./archive.js").Archive,
   *   frames: import("./frames.js").Frames}} parts
   */
  constructor(list, words, { stack, archive, frames }) {
    this.#list = list;
    this.#words = words;
    this.#stack = stack;
    this.#archive = archive;
    this.#frames = frames;
    // the first image of the study comes first
    stack.addEventListener("change", ({ detail }) => detail.by === "series" && this.#mark());
    stack.addEventListener("painted", ({ detail }) => detail.first && this.#paint());
  }

  /** @param {import("./dicom.js").Series[]} series */
  render(series) {
    const focus = [...this.#list.querySelectorAll("button")].indexOf(document.activeElement);
    const kept = series === this.#series ? [...this.#list.querySelectorAll("canvas")] : [];
    this.#series = series;
    this.#list.replaceChildren(...series.map((each, index) => this.#row(each, kept[index])));
    this.#mark();
    this.#list.querySelectorAll("button")[focus]?.focus();
  }

  /** The shown series. */
  #mark() {
    for (const [index, each] of [...this.#list.querySelectorAll("button")].entries()) {
      each.setAttribute("aria-current", String(this.#series[index] === this.#stack.series));
    }
  }

  #row(series, picture) {
    const count = series.images.length;
    const key = count === 1 ? "series.one" : series.multiFrame ? "series.frames" : "series.count";
    return element(
      "li",
      {},
      element(
        "button",
        {
          type: "button",
          class: "series-choice",
          "data-test": "series",
          "data-series": series.uid,
          click: () => series !== this.#stack.series && this.#stack.show(series),
        },
        picture ?? element("canvas", { width: 1, height: 1, "aria-hidden": "true" }),
        element(
          "span",
          { class: "series-text" },
          element("span", { class: "series-title" }, this.#words.series(series)),
          element("span", { class: "series-count" }, `${series.modality} · ${this.#words.t(key, { count })}`),
        ),
      ),
    );
  }

  async #paint() {
    const rows = [...this.#list.querySelectorAll("canvas")];
    for (const [index, { images }] of this.#series.entries()) {
      const image = images[Math.floor(images.length / 2)];
      const bitmap = await this.#frames.get(this.#archive.frameUrl(image)).catch(() => null);
      if (bitmap && rows[index]?.isConnected) small(rows[index], bitmap, image);
    }
  }
}

function small(canvas, bitmap, { rows, columns }) {
  const scale = Math.min(1, SMALL / Math.max(rows, columns));
  canvas.width = Math.max(1, Math.round(columns * scale));
  canvas.height = Math.max(1, Math.round(rows * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}
