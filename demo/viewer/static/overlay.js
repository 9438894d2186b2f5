/** The lines over the image. Screen readers use the list instead. */

const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

export class Overlay {
  #svg;

  /** @param {SVGSVGElement} svg lies over the image, with the same size */
  constructor(svg) {
    this.#svg = svg;
  }

  /**
   * @param {{clientX: number, clientY: number}} event
   * @returns {{x: number, y: number}} the position in the image, in its pixels
   */
  place(event) {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.#svg.getScreenCTM().inverse());
    return { x, y };
  }

  /**
   * @param {import("./dicom.js").Image|null} image
   * @param {{id: string, line: import("./length.js").Line, label: string, selected: boolean}[]} lines
   * @param {{line: import("./length.js").Line, label: string}|null} draft
   */
  draw(image, lines, draft) {
    if (!image) return this.#svg.replaceChildren();
    this.#svg.setAttribute("viewBox", `0 0 ${image.columns} ${image.rows}`);
    // size of a screen pixel here: letters keep their size
    const pixel = 1 / (this.#svg.getScreenCTM()?.a || 1);
    this.#svg.replaceChildren(
      ...lines.map(({ id, line, label, selected }) => {
        const drawn = group(line, label, pixel, selected ? "line line-selected" : "line");
        drawn.dataset.id = id;
        drawn.dataset.test = "line";
        return drawn;
      }),
      ...(draft ? [group(draft.line, draft.label, pixel, "line line-draft")] : []),
    );
  }
}

function group({ x1, y1, x2, y2 }, label, pixel, kind) {
  const ends = { x1, y1, x2, y2 };
  const right = x1 > x2 ? { x: x1, y: y1 } : { x: x2, y: y2 };
  return shape(
    "g",
    { class: kind },
    shape("line", { ...ends, class: "line-reach" }),
    shape("line", { ...ends, class: "line-edge" }),
    shape("line", { ...ends, class: "line-core" }),
    ...[
      [x1, y1],
      [x2, y2],
    ].map(([x, y]) => cross(x, y, 7 * pixel)),
    ...writing(right.x + 8 * pixel, right.y - 8 * pixel, 15 * pixel, label),
  );
}

function cross(x, y, size) {
  const path = `M${x - size} ${y}H${x + size}M${x} ${y - size}V${y + size}`;
  return shape("g", {}, shape("path", { d: path, class: "line-edge" }), shape("path", { d: path, class: "line-core" }));
}

function writing(x, y, size, label) {
  return ["line-text-edge", "line-text"].map((kind) => shape("text", { x, y, "font-size": size, class: kind }, label));
}
