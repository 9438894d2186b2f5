/** Plays a stack as a film. */

const USUAL = 100; // ms a frame where the images do not tell
const FASTEST = 33;
const CALM = 500; // for users whose system asks for less motion

/** @returns {boolean} whether the user's system asks for less motion */
export function lessMotion() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** Event "playing" whenever `playing` changes. The user's changes of the stack stop the film. */
export class Cine extends EventTarget {
  playing = false;
  #stack;
  #timer = 0;
  #due = 0;

  /** @param {import("./stack.js").Stack} stack */
  constructor(stack) {
    super();
    this.#stack = stack;
    stack.addEventListener("painted", () => this.playing && this.#next());
    stack.addEventListener("failed", () => this.pause());
    stack.addEventListener("change", ({ detail }) => {
      if (detail.by !== "cine" && detail.by !== "window") this.pause();
    });
  }

  play() {
    if (this.playing || this.#stack.images.length < 2) return;
    this.#set(true);
    this.#due = performance.now();
    this.#next();
  }

  pause() {
    clearTimeout(this.#timer);
    if (this.playing) this.#set(false);
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  #set(playing) {
    this.playing = playing;
    this.dispatchEvent(new Event("playing"));
  }

  /** The next frame follows when this one is painted, so that a slow archive causes no queue. */
  #next() {
    const step = Math.max(this.#stack.series.frameTime ?? USUAL, lessMotion() ? CALM : FASTEST);
    const now = performance.now();
    this.#due = Math.max(this.#due + step, now);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => this.#stack.go((this.#stack.index + 1) % this.#stack.images.length, "cine"),
      this.#due - now,
    );
  }
}
