/** The length of a line on an image, and the tool that draws one: by two clicks, by a stroke, or by keys. */

const STROKE = 6; // screen pixels: a press with more movement is a stroke, not a click
const BIG_STEP = 10;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** @typedef {{x1: number, y1: number, x2: number, y2: number}} Line in pixels from the upper left */

/**
 * @param {Line} line
 * @param {number[]|null} spacing mm between rows and between columns
 * @returns {{value: number, unit: "mm"|"px"}} to a tenth
 */
export function lengthOf({ x1, y1, x2, y2 }, spacing) {
  const [down, across] = spacing ?? [1, 1];
  const value = Math.round(Math.hypot((x2 - x1) * across, (y2 - y1) * down) * 10) / 10;
  return { value, unit: spacing ? "mm" : "px" };
}

/** Events: "draft" (the line that is being drawn has changed), "done" (`detail` is the line), "active". */
export class LengthTool extends EventTarget {
  active = false;
  /** @type {(Line & {end: 1|2})|null} `end` is the one that moves */
  draft = null;
  #image = () => null;
  #pressed = null;

  /** @param {() => import("./dicom.js").Image|null} image to draw on */
  constructor(image) {
    super();
    this.#image = image;
  }

  /** @param {boolean} active */
  use(active) {
    if (active === this.active) return;
    this.active = active;
    this.dispatchEvent(new Event("active"));
    this.cancel();
  }

  /** Discard the line that is being drawn. */
  cancel() {
    this.#pressed = null;
    if (!this.draft) return;
    this.#set(null);
  }

  /** @param {{x: number, y: number}} point on the image @param {{x: number, y: number}} screen */
  press(point, screen) {
    if (!this.#image()) return;
    if (this.draft?.end === 2) {
      this.move(point);
      return this.#done();
    }
    this.#pressed = screen;
    const { x, y } = this.#within(point);
    this.#set({ x1: x, y1: y, x2: x, y2: y, end: 2 });
  }

  move(point) {
    if (this.draft?.end !== 2) return;
    const { x, y } = this.#within(point);
    this.#set({ ...this.draft, x2: x, y2: y });
  }

  release(point, screen) {
    const stroke = this.#pressed && Math.hypot(screen.x - this.#pressed.x, screen.y - this.#pressed.y) > STROKE;
    this.#pressed = null;
    if (!stroke) return;
    this.move(point);
    this.#done();
  }

  /** @param {KeyboardEvent} event @returns {boolean} whether the tool handled the key */
  key(event) {
    if (!this.#image()) return false;
    if (event.key === "Enter") return this.#enter();
    const arrow = ARROWS[event.key];
    if (!arrow) return false;
    const step = event.shiftKey ? BIG_STEP : 1;
    const [dx, dy] = arrow.map((each) => each * step);
    const draft = this.draft ?? this.#middle();
    const { x, y } = this.#within({ x: draft.x2 + dx, y: draft.y2 + dy });
    this.#set(draft.end === 1 ? { x1: x, y1: y, x2: x, y2: y, end: 1 } : { ...draft, x2: x, y2: y });
    return true;
  }

  #enter() {
    if (!this.draft) this.#set(this.#middle());
    else if (this.draft.end === 1) this.#set({ ...this.draft, end: 2 });
    else this.#done();
    return true;
  }

  #done() {
    const { x1, y1, x2, y2 } = this.draft;
    if (x1 === x2 && y1 === y2) return;
    this.#set(null);
    this.dispatchEvent(new CustomEvent("done", { detail: { x1, y1, x2, y2 } }));
  }

  #middle() {
    const { rows, columns } = this.#image();
    const [x, y] = [Math.round(columns / 2), Math.round(rows / 2)];
    return { x1: x, y1: y, x2: x, y2: y, end: 1 };
  }

  #within({ x, y }) {
    const { rows, columns } = this.#image();
    const kept = (value, most) => Math.round(Math.min(Math.max(value, 0), most) * 10) / 10;
    return { x: kept(x, columns), y: kept(y, rows) };
  }

  #set(draft) {
    this.draft = draft;
    this.dispatchEvent(new Event("draft"));
  }
}
