/** The buttons above and below the image. */

import { button, element, icon } from "/shared/dom.js";
import { presets } from "./window.js";

const STEP = 0.1; // part of a window, for each press

/** Shows the state of the parts, and handles the buttons. Call `render` after a change of language or series. */
export class Tools {
  #bar;
  #at;
  #t;
  #stack;
  #sheet;
  #gestures;
  #cine;

  /**
   * @param {HTMLElement} bar
   * @param {(test: string) => HTMLElement} at finds the parts below the image
   * @param {(key: string, values?: object) => string} t
   * @param {{stack: import("./stack.js").Stack, sheet: import("./sheet.js").Sheet, gestures: import("./gestures.js").Gestures,
   *   cine: import("./cine.js").Cine}} parts
   */
  constructor(bar, at, t, { stack, sheet, gestures, cine }) {
    this.#bar = bar;
    this.#at = at;
    this.#t = t;
    this.#stack = stack;
    this.#sheet = sheet;
    this.#gestures = gestures;
    this.#cine = cine;
    at("previous").addEventListener("click", () => stack.go(stack.index - 1));
    at("next").addEventListener("click", () => stack.go(stack.index + 1));
    at("stack").addEventListener("input", ({ target }) => stack.go(Number(target.value) - 1));
    at("cine").addEventListener("click", () => cine.toggle());
    stack.addEventListener("change", ({ detail }) => (detail.by === "series" ? this.render() : this.#place()));
    cine.addEventListener("playing", () => this.#play());
    gestures.addEventListener("mode", () => this.#pressed());
  }

  render() {
    const gestures = this.#gestures;
    this.#bar.replaceChildren(
      this.#length(),
      this.#presets(),
      this.#window("☀", ["darker", () => gestures.window(-STEP, 0)], ["brighter", () => gestures.window(STEP, 0)]),
      this.#window("◐", ["less", () => gestures.window(0, -STEP)], ["more", () => gestures.window(0, STEP)]),
      this.#zoom(),
    );
    this.#step("previous", "stack.previous", "‹");
    this.#step("next", "stack.next", "›");
    this.#play();
    this.#place();
  }

  #length() {
    const options = { icon: "ruler", test: "length", pressed: this.#gestures.mode === "length" };
    return button(this.#t("tools.length"), () => this.#gestures.toggle("length"), options);
  }

  /** Two buttons that change the window, with a sign between them. */
  #window(sign, [lesser, lessen], [greater, raise]) {
    return element(
      "span",
      { "class": "pair", "data-grey": true },
      this.#small(lesser, "−", lessen),
      element("span", { "class": "pair-sign", "aria-hidden": "true" }, sign),
      this.#small(greater, "+", raise),
    );
  }

  #zoom() {
    return element(
      "span",
      { class: "pair" },
      this.#small("out", "−", () => this.#sheet.scale(-1)),
      button(this.#t("tools.fit"), () => this.#sheet.fit(), { test: "fit" }),
      this.#small("in", "+", () => this.#sheet.scale(1)),
    );
  }

  #small(name, sign, run) {
    const label = this.#t(`tools.${name}`);
    const made = button(sign, run, { label, test: name });
    made.title = label;
    return made;
  }

  #presets() {
    const { series, image } = this.#stack;
    const options = [["own", null], ...presets(series?.modality ?? "").map(({ name, of }) => [name, of])];
    const select = element(
      "select",
      { id: "preset", "data-test": "preset", change: () => this.#preset(select.value, options) },
      ...options.map(([name]) => element("option", { value: name }, this.#t(`preset.${name}`))),
      element("option", { value: "hand", hidden: true }, this.#t("preset.hand")),
    );
    return element(
      "span",
      { class: "preset", "data-grey": true, hidden: !image?.grey },
      element("label", { for: "preset" }, this.#t("tools.preset")),
      select,
    );
  }

  #preset(name, options) {
    const of = options.find(([each]) => each === name)?.[1];
    this.#stack.setWindow(of ? of(this.#stack.image.window) : null);
  }

  /** The position in the stack, and its window. */
  #place() {
    const { images, index, image, chosen } = this.#stack;
    const said = this.#t("image.of", { number: index + 1, count: images.length });
    const slider = this.#at("stack");
    slider.max = Math.max(images.length, 1);
    slider.value = index + 1;
    slider.disabled = images.length < 2;
    slider.setAttribute("aria-valuetext", said);
    this.#at("count").textContent = `${index + 1} / ${images.length}`;
    this.#at("previous").disabled = index === 0;
    this.#at("next").disabled = index >= images.length - 1;
    for (const each of this.#bar.querySelectorAll("[data-grey]")) each.hidden = !image?.grey;
    const select = this.#bar.querySelector("select");
    if (select && image) select.value = this.#named(chosen, image);
  }

  #named(chosen, image) {
    if (!chosen) return "own";
    const same = ({ of }) => of(image.window).center === chosen.center && of(image.window).width === chosen.width;
    return presets(this.#stack.series.modality).find(same)?.name ?? "hand";
  }

  #step(test, key, sign) {
    const made = this.#at(test);
    made.setAttribute("aria-label", this.#t(key));
    made.title = this.#t(key);
    made.textContent = sign;
  }

  #play() {
    const { playing } = this.#cine;
    const made = this.#at("cine");
    made.hidden = this.#stack.images.length < 2;
    made.dataset.playing = String(playing);
    made.replaceChildren(
      icon(playing ? "pause" : "play"),
      element("span", {}, this.#t(playing ? "cine.pause" : "cine.play")),
    );
  }

  #pressed() {
    this.#bar.querySelector("[data-test=length]")?.setAttribute("aria-pressed", String(this.#gestures.mode === "length"));
  }
}
