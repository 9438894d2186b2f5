/** Window and level: presets by modality, and the steps of mouse and keys. */

/** @typedef {import("./dicom.js").Window} Window */

/** HU. */
const CT = [
  ["brain", 40, 80],
  ["stroke", 35, 35],
  ["soft", 40, 400],
  ["lung", -600, 1500],
  ["liver", 70, 160],
  ["bone", 500, 2000],
].map(([name, center, width]) => ({ name, of: () => ({ center, width }) }));

/** Values of other modalities have no fixed scale: their presets start from the image's own window. */
const RELATIVE = [
  { name: "contrast", of: ({ center, width }) => tidy(center, width * 0.6) },
  { name: "flat", of: ({ center, width }) => tidy(center, width * 1.6) },
  { name: "light", of: ({ center, width }) => tidy(center - width * 0.25, width) },
];

/**
 * @param {string} modality
 * @returns {{name: string, of: (own: Window) => Window}[]} in addition to the image's own window
 */
export function presets(modality) {
  return modality === "CT" ? CT : RELATIVE;
}

/**
 * @param {Window} window
 * @param {number} brighter @param {number} contrast both in widths: 0.1 is a tenth of the window
 * @returns {Window} of whole numbers, at least 1 wide
 */
export function changed({ center, width }, brighter, contrast) {
  return tidy(center - width * brighter, width * (1 - contrast));
}

function tidy(center, width) {
  return { center: Math.round(center), width: Math.max(1, Math.round(width)) };
}
