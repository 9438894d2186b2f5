/** Size and position of the image in the viewport. */

const LARGEST = 8;
const STEP = 1.25;

/** Event "moved" when size or position change. */
export class Sheet extends EventTarget {
  zoom = 1;
  #element;
  #x = 0;
  #y = 0;

  /** @param {HTMLElement} element contains the image and its overlay; its parent is the viewport */
  constructor(element) {
    super();
    this.#element = element;
    new ResizeObserver(() => this.#lay()).observe(element.parentElement);
  }

  fit() {
    this.zoom = 1;
    this.#lay();
  }

  /**
   * @param {number} direction 1 is larger, -1 smaller
   * @param {{x: number, y: number}} [about] the position in the viewport that stays in place
   */
  scale(direction, about = { x: this.#width / 2, y: this.#height / 2 }) {
    const before = this.zoom;
    this.zoom = Math.min(Math.max(before * STEP ** direction, 1), LARGEST);
    const factor = this.zoom / before;
    this.#x = about.x - (about.x - this.#x) * factor;
    this.#y = about.y - (about.y - this.#y) * factor;
    this.#lay();
  }

  /** @param {number} dx @param {number} dy screen pixels */
  move(dx, dy) {
    this.#x += dx;
    this.#y += dy;
    this.#lay();
  }

  get #width() {
    return this.#element.parentElement.clientWidth;
  }

  get #height() {
    return this.#element.parentElement.clientHeight;
  }

  #lay() {
    const within = (value, size) => Math.min(0, Math.max(value, size - size * this.zoom));
    this.#x = within(this.#x, this.#width);
    this.#y = within(this.#y, this.#height);
    Object.assign(this.#element.style, {
      width: `${this.zoom * 100}%`,
      height: `${this.zoom * 100}%`,
      left: `${this.#x}px`,
      top: `${this.#y}px`,
    });
    this.dispatchEvent(new Event("moved"));
  }
}
