/** Makes elements and icons. Text is inserted as text, never as markup, so that resources cannot inject markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * A new element.
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes] `class`, `data-test`, `aria-...` and so on. A function is a listener
 *   for the event of that name ("click"). true is an attribute without value, false none, except for aria- and data-,
 *   where both are words. null and undefined are left out.
 * @param {...(Node|string|null|undefined|false)} children
 * @returns {HTMLElement}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    const isFlag = typeof value === "boolean" && !/^(aria|data)-/.test(name);
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value != null && !(isFlag && !value)) made.setAttribute(name, isFlag ? "" : String(value));
  }
  made.append(...children.filter((child) => child != null && child !== false));
  return made;
}

/**
 * An icon of the sprite /shared/icons.svg, hidden from screen readers: the text beside it has the same meaning.
 * @param {string} name the id of a symbol
 * @returns {SVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `/shared/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/**
 * A button.
 * @param {string} label its text
 * @param {() => unknown} run
 * @param {{icon?: string, kind?: "primary"|"quiet"|"", test?: string, label?: string, pressed?: boolean}} [options]
 *   `label` is its name for screen readers, where that must be longer than the text
 */
export function button(label, run, options = {}) {
  const kind = options.kind ? ` button-${options.kind}` : "";
  return element(
    "button",
    {
      "type": "button",
      "class": `button${kind}`,
      "click": run,
      "data-test": options.test,
      "aria-label": options.label,
      "aria-pressed": options.pressed,
    },
    options.icon && icon(options.icon),
    element("span", {}, label),
  );
}

/** @param {string} test a name in data-test @returns {HTMLElement|null} the place in the page */
export function place(test) {
  return document.querySelector(`[data-test="${test}"]`);
}

/**
 * Keep the height of an element in a custom property of the page, for elements that stick below it.
 * @param {string} property such as "--header"
 * @param {HTMLElement} of
 */
export function heightAs(property, of) {
  const { style } = document.documentElement;
  new ResizeObserver(() => style.setProperty(property, `${of.offsetHeight}px`)).observe(of, { box: "border-box" });
}
