import { clockTime } from "./vitals.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 40, right: 12 };
const LABEL_MINUTES = 15;
/** Pixels from the top: SpO₂, heart rate and pressure, and medication, one below the other. */
const SATURATION = { top: 10, bottom: 74, low: 85, high: 100, ticks: [85, 90, 95, 100] };
const PRESSURE = { top: 96, bottom: 276, low: 40, high: 180, ticks: [40, 60, 80, 100, 120, 140, 160, 180] };
const GIVEN = { middle: 298, radius: 9 };
const AXIS_TEXT = 330;
const HEIGHT = 338;
/** Smallest distance between two numbers in the medication row. */
const APART = 2 * GIVEN.radius + 2;

/**
 * The vital signs as a drawing: SpO₂ as diamonds, heart rate as dots, systolic and diastolic pressure as two arrowheads
 * with a bar between, medication as numbers on the time axis. Shapes distinguish them, not only colours.
 * @param {import("./vitals.js").Record} record
 * @param {number} width pixels
 * @param {{title: string, text: string}} words for screen readers
 * @returns {SVGElement}
 */
export function drawing({ points, given }, width, { title, text }) {
  const first = points[0].minute;
  const last = points.at(-1).minute;
  const x = (minute) =>
    MARGIN.left + ((minute - first) / (last - first)) * (width - MARGIN.left - MARGIN.right - 6) + 6;
  const svg = shape("svg", {
    viewBox: `0 0 ${width} ${HEIGHT}`,
    height: HEIGHT,
    role: "img",
    "aria-labelledby": "graph-title graph-text",
  });
  svg.append(
    words("title", { id: "graph-title" }, title),
    words("desc", { id: "graph-text" }, text),
    ...times(first, last, x),
    ...scale(SATURATION, width, "%"),
    ...scale(PRESSURE, width, ""),
    ...line(points, x, height(SATURATION), "saturation", diamond),
    ...pressures(points, x, height(PRESSURE)),
    ...line(points, x, height(PRESSURE), "heartRate", dot),
    ...medication(given, x),
  );
  return svg;
}

function height({ top, bottom, low, high }) {
  return (value) => bottom - ((Math.min(Math.max(value, low), high) - low) / (high - low)) * (bottom - top);
}

function times(first, last, x) {
  const marks = [];
  for (let minute = first; minute <= last; minute += LABEL_MINUTES) {
    marks.push(
      shape("line", { class: "grid", x1: x(minute), x2: x(minute), y1: SATURATION.top, y2: GIVEN.middle + 16 }),
    );
    const anchor = minute + LABEL_MINUTES > last ? "end" : "middle";
    marks.push(
      words(
        "text",
        { x: x(minute) + (anchor === "end" ? 6 : 0), y: AXIS_TEXT, "text-anchor": anchor },
        clockTime(minute),
      ),
    );
  }
  return marks;
}

function scale(panel, width, unit) {
  const y = height(panel);
  return panel.ticks.flatMap((value) => [
    shape("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
    words("text", { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, `${value}${unit}`),
  ]);
}

function line(points, x, y, name, mark) {
  const path = points.map((point) => `${x(point.minute).toFixed(1)},${y(point[name]).toFixed(1)}`).join(" ");
  return [
    shape("polyline", { class: `line ${name}`, points: path }),
    ...points.map((point) => mark(x(point.minute), y(point[name]), name)),
  ];
}

function dot(cx, cy, name) {
  return shape("circle", { class: `mark ${name}`, cx, cy, r: 3.5 });
}

function diamond(cx, cy, name) {
  return shape("path", { class: `mark ${name}`, d: `M${cx} ${cy - 4.5}l4.5 4.5l-4.5 4.5l-4.5 -4.5z` });
}

function pressures(points, x, y) {
  return points.flatMap(({ minute, systolic, diastolic }) => {
    const [at, high, low] = [x(minute), y(systolic), y(diastolic)];
    return [
      shape("line", { class: "bar bloodPressure", x1: at, x2: at, y1: high, y2: low }),
      shape("path", { class: "head bloodPressure", d: `M${at - 4.5} ${high - 6}l4.5 6l4.5 -6z` }),
      shape("path", { class: "head bloodPressure", d: `M${at - 4.5} ${low + 6}l4.5 -6l4.5 6z` }),
    ];
  });
}

function medication(given, x) {
  let before = 0;
  return given.flatMap(({ minute }, index) => {
    const at = Math.max(x(minute), before + APART);
    before = at;
    return [
      shape("circle", { class: "dose", cx: at, cy: GIVEN.middle, r: GIVEN.radius }),
      words("text", { class: "dose-number", x: at, y: GIVEN.middle + 4, "text-anchor": "middle" }, index + 1),
    ];
  });
}

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function words(tag, attributes, text) {
  const made = shape(tag, attributes);
  made.textContent = text;
  return made;
}
