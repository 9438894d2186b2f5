/** Mouse, pen, finger and keys on the image. */

import { changed } from "./window.js";

const NOTCH = 50; // wheel movement for one image; smaller ones are added up
const ROUGH = 1 / 250; // part of a window, for each screen pixel
const FINE = 0.05; // part of a window, for each key
const FINGER = 24; // screen pixels for one image
const FAR = 5;
const STEPS = {
  ArrowUp: -1,
  ArrowLeft: -1,
  ArrowDown: 1,
  ArrowRight: 1,
  PageUp: -FAR,
  PageDown: FAR,
  Home: -Infinity,
  End: Infinity,
};
const WINDOW_KEYS = { ArrowUp: [FINE, 0], ArrowDown: [-FINE, 0], ArrowRight: [0, FINE], ArrowLeft: [0, -FINE] };

/** Event "mode" when `mode` has changed. */
export class Gestures extends EventTarget {
  /** The action of the arrow keys and the left button. @type {""|"window"|"length"} */
  mode = "";
  #viewport;
  #stack;
  #sheet;
  #tool;
  #overlay;
  #cine;
  #pick;
  #turned = 0;
  /** The action of the pressed button. @type {((dx: number, dy: number, event: PointerEvent) => void)|null} */
  #drag = null;
  #last = { x: 0, y: 0 };

  /**
   * @param {HTMLElement} viewport
   * @param {{stack: import("./stack.js").Stack, sheet: import("./sheet.js").Sheet, cine: import("./cine.js").Cine,
   *   tool: import("./length.js").LengthTool, overlay: import("./overlay.js").Overlay, pick: (id: string) => void}}
   *   parts `pick` gets the clicked line
   */
  constructor(viewport, { stack, sheet, tool, overlay, cine, pick }) {
    super();
    this.#viewport = viewport;
    this.#stack = stack;
    this.#sheet = sheet;
    this.#tool = tool;
    this.#overlay = overlay;
    this.#cine = cine;
    this.#pick = pick;
    viewport.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    viewport.addEventListener("pointerdown", (event) => this.#down(event));
    viewport.addEventListener("pointermove", (event) => this.#move(event));
    viewport.addEventListener("pointerup", (event) => this.#up(event));
    viewport.addEventListener("pointercancel", () => this.#let());
    viewport.addEventListener("contextmenu", (event) => event.preventDefault());
    viewport.addEventListener("keydown", (event) => this.#key(event));
  }

  /** @param {"window"|"length"} mode is switched on, or off where it is on */
  toggle(mode) {
    this.use(mode === this.mode ? "" : mode);
  }

  /** @param {""|"window"|"length"} mode */
  use(mode) {
    this.mode = mode;
    if (this.mode === "length") this.#cine.pause();
    this.#tool.use(this.mode === "length");
    this.dispatchEvent(new Event("mode"));
  }

  /** Change the window by parts of its width. @param {number} brighter @param {number} contrast */
  window(brighter, contrast) {
    const { window } = this.#stack;
    if (window) this.#stack.setWindow(changed(window, brighter, contrast));
  }

  #wheel(event) {
    event.preventDefault();
    const rough = event.deltaMode !== WheelEvent.DOM_DELTA_PIXEL || Math.abs(event.deltaY) >= NOTCH;
    this.#turned = rough ? Math.sign(event.deltaY) * NOTCH : this.#turned + event.deltaY;
    const step = Math.trunc(this.#turned / NOTCH);
    if (!step) return;
    this.#turned = 0;
    if (event.ctrlKey) this.#sheet.scale(-step, this.#inside(event));
    else this.#stack.go(this.#stack.index + step);
  }

  #down(event) {
    if (!this.#stack.image) return;
    this.#last = { x: event.clientX, y: event.clientY };
    this.#viewport.setPointerCapture(event.pointerId);
    if (event.button === 2 || event.shiftKey) this.#drag = this.#windowing();
    else if (event.button === 1) this.#drag = (dx, dy) => this.#sheet.move(dx, dy);
    else if (this.mode === "length") this.#drag = this.#drawing(event);
    else if (event.target.closest?.("[data-id]")) this.#pick(event.target.closest("[data-id]").dataset.id);
    else this.#drag = this.#sheet.zoom > 1 ? (dx, dy) => this.#sheet.move(dx, dy) : this.#scrolling();
  }

  #move(event) {
    if (!this.#drag) return this.#tool.move(this.#overlay.place(event));
    const { clientX: x, clientY: y } = event;
    this.#drag(x - this.#last.x, y - this.#last.y, event);
    this.#last = { x, y };
  }

  #up(event) {
    if (this.mode === "length") this.#tool.release(this.#overlay.place(event), { x: event.clientX, y: event.clientY });
    this.#let();
  }

  #let() {
    this.#drag = null;
  }

  /** Relative to the window at the button's press, because the steps between are rounded. */
  #windowing() {
    const from = this.#stack.window;
    let [across, down] = [0, 0];
    return (dx, dy) => {
      across += dx;
      down += dy;
      if (from) this.#stack.setWindow(changed(from, -down * ROUGH, -across * ROUGH));
    };
  }

  #drawing(event) {
    this.#tool.press(this.#overlay.place(event), { x: event.clientX, y: event.clientY });
    return (_dx, _dy, moved) => this.#tool.move(this.#overlay.place(moved));
  }

  #scrolling() {
    const from = this.#stack.index;
    let down = 0;
    return (_dx, dy) => {
      down += dy;
      this.#stack.go(from + Math.trunc(down / FINGER));
    };
  }

  #key(event) {
    if (event.target !== this.#viewport || event.ctrlKey || event.altKey || event.metaKey || !this.#stack.image) return;
    if (this.#byMode(event) || this.#always(event)) event.preventDefault();
  }

  #byMode(event) {
    if (this.mode === "length") return this.#tool.key(event);
    const change = this.mode === "window" && WINDOW_KEYS[event.key];
    if (change) this.window(...change);
    return Boolean(change);
  }

  #always({ key }) {
    if (key in STEPS) return this.#stack.go(this.#stack.index + STEPS[key]) ?? true;
    const act = {
      w: () => this.toggle("window"),
      l: () => this.toggle("length"),
      f: () => this.#sheet.fit(),
      "+": () => this.#sheet.scale(1),
      "-": () => this.#sheet.scale(-1),
      " ": () => this.#cine.toggle(),
      Escape: () => this.#escape(),
    }[key.length === 1 ? key.toLowerCase() : key];
    act?.();
    return Boolean(act);
  }

  /** Cancels the line that is being drawn, else the mode. */
  #escape() {
    if (this.#tool.draft) this.#tool.cancel();
    else this.use("");
  }

  #inside(event) {
    const { left, top } = this.#viewport.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }
}
