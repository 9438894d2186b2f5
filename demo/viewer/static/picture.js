/** The viewport: the image, its lines, and the texts over it. */

import { lengthOf } from "./length.js";
import { setText } from "./text.js";

export class Picture {
  #at;
  #words;
  #say;
  #parts;

  /**
   * @param {(test: string) => HTMLElement} at finds the places on the page
   * @param {import("./words.js").Words} words
   * @param {(text: string) => void} say announces to screen readers
   * @param {object} parts stack, tool, overlay, gestures, sheet, cine and measurements
   */
  constructor(at, words, say, parts) {
    this.#at = at;
    this.#words = words;
    this.#say = say;
    this.#parts = parts;
    const { stack, tool, sheet, gestures } = parts;
    stack.addEventListener("change", ({ detail }) => this.#changed(detail.by));
    stack.addEventListener("painted", () => this.#renderImage());
    stack.addEventListener("failed", () => this.#failed(true));
    tool.addEventListener("draft", () => this.#drafted());
    sheet.addEventListener("moved", () => this.draw());
    gestures.addEventListener("mode", () => this.#renderMode());
  }

  /** Render all texts. */
  render() {
    this.#renderMode();
    this.#renderImage();
  }

  /** The lines of the painted image, which may not be the wanted one yet. */
  draw() {
    const { stack, measurements, overlay, tool } = this.#parts;
    const image = stack.painted;
    const here = measurements.items.filter(
      ({ line }) => image && line?.instance === image.instance && line.frame === image.frame,
    );
    const lines = here.map((item) => ({
      id: item.id,
      line: item.line,
      label: this.#words.length(item),
      selected: item.id === measurements.selected,
    }));
    const { draft } = tool;
    overlay.draw(image, lines, draft && image && { line: draft, label: this.#draftLength() });
  }

  #changed(by) {
    const { stack, tool, cine } = this.#parts;
    if (by !== "window") tool.cancel();
    this.#failed(false);
    if (by === "window") this.#say(this.#words.window(stack.window));
    else if (!cine.playing && document.activeElement !== this.#at("stack")) {
      this.#say(this.#words.image(stack.series, stack.index));
    }
  }

  #renderMode() {
    const { gestures, stack } = this.#parts;
    const key = gestures.mode === "window" && !stack.image?.grey ? "noWindow" : gestures.mode;
    setText(this.#at("mode"), key ? this.#words.t(`mode.${key}`) : "");
    this.#at("viewport").dataset.mode = gestures.mode;
  }

  #renderImage() {
    const { painted, series, images, window } = this.#parts.stack;
    const index = images.indexOf(painted);
    const canvas = this.#at("image");
    if (index >= 0) canvas.setAttribute("aria-label", this.#words.image(series, index));
    else canvas.removeAttribute("aria-label");
    const place = [series?.modality, `${index + 1}/${images.length}`, series && this.#words.series(series)];
    setText(this.#at("corner-left"), index >= 0 ? place.join(" · ") : "");
    setText(this.#at("corner-right"), index >= 0 && painted.grey ? this.#words.window(window) : "");
    this.draw();
  }

  #failed(failed) {
    const text = failed ? this.#words.t("image.failed") : "";
    this.#at("image-failed").hidden = !failed;
    setText(this.#at("image-failed"), text);
    if (!failed) return;
    this.#renderImage();
    this.#say(text);
  }

  #drafted() {
    const { draft } = this.#parts.tool;
    this.draw();
    if (draft?.end === 1) this.#say(this.#words.t("draft.first", { x: draft.x2, y: draft.y2 }));
    else if (draft) this.#say(this.#draftLength());
  }

  #draftLength() {
    const { tool, stack } = this.#parts;
    return this.#words.length(lengthOf(tool.draft, stack.painted.spacing));
  }
}
