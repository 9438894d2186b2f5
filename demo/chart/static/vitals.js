/**
 * @typedef {{minute: number, heartRate: number, systolic: number, diastolic: number, saturation: number}} Point
 * @typedef {{minute: number, drug: string, amount: number, unit: string}} Given `drug` is the key of its name
 * @typedef {{points: Point[], given: Given[]}} Record
 */

const STEP_MINUTES = 5;
const STEPS = 25;

/** Key of the name, minutes after the start, dose per kilogram, largest dose, unit, rounding. */
const MEDICATION = [
  ["fentanyl", 5, 2, 150, "µg", 5],
  ["propofol", 7, 2, 200, "mg", 5],
  ["rocuronium", 8, 0.6, 50, "mg", 1],
  ["cefazolin", 20, 30, 2000, "mg", 50],
  ["ephedrine", 35, 0.1, 10, "mg", 0.5],
  ["fentanyl", 60, 1, 100, "µg", 5],
  ["ondansetron", 100, 0.1, 4, "mg", 0.2],
  ["sugammadex", 112, 2, 200, "mg", 5],
];

/**
 * Two hours of an invented anaesthesia, the same every time for the same patient.
 * @param {string} number the chart's number of the patient
 * @param {number | null} ageYears null: an adult
 * @returns {Record}
 */
export function madeUpRecord(number, ageYears) {
  const random = randomFrom(number);
  const infant = ageYears !== null && ageYears < 1;
  const usual = infant
    ? { heartRate: 135, systolic: 72, diastolic: 42 }
    : { heartRate: 62 + 16 * random(), systolic: 118 + 24 * random(), diastolic: 66 + 12 * random() };
  const start = 60 * (7 + Math.floor(4 * random())) + 15 * Math.floor(4 * random());
  const points = Array.from({ length: STEPS }, (_, step) => pointAt(start, step * STEP_MINUTES, usual, random));
  const kilograms = infant ? 3.4 : 55 + Math.floor(40 * random());
  return { points, given: MEDICATION.map((each) => dose(each, start, kilograms)) };
}

/** Induction lowers the pressure, incision raises it, and at the end the patient is awake. */
function pointAt(start, minute, usual, random) {
  const deep = hump(minute, 16, 12);
  const incision = hump(minute, 45, 10);
  const awake = hump(minute, 122, 12);
  const pressure = 1 - 0.24 * deep + 0.14 * incision + 0.1 * awake;
  const noise = (spread) => spread * (random() - 0.5);
  return {
    minute: start + minute,
    heartRate: Math.round(usual.heartRate * (1 - 0.1 * deep + 0.22 * incision + 0.15 * awake) + noise(5)),
    systolic: Math.round(usual.systolic * pressure + noise(7)),
    diastolic: Math.round(usual.diastolic * pressure + noise(5)),
    saturation: Math.min(100, Math.round(97 + 2 * hump(minute, 50, 45) - 3 * hump(minute, 10, 3) + noise(1.6))),
  };
}

function hump(minute, centre, width) {
  return Math.exp(-(((minute - centre) / width) ** 2));
}

function dose([drug, minute, perKilogram, most, unit, step], start, kilograms) {
  const amount = Math.max(step, Math.round(Math.min(most, perKilogram * kilograms) / step) * step);
  return { minute: start + minute, drug, amount: Number(amount.toFixed(1)), unit };
}

/** Numbers from 0 to 1, always the same for the same text. */
function randomFrom(text) {
  let state = 2166136261;
  for (const character of text) state = Math.imul(state ^ character.codePointAt(0), 16777619);
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** @param {number} minute since midnight @returns {string} such as "08:05" */
export function clockTime(minute) {
  const two = (number) => String(number).padStart(2, "0");
  return `${two(Math.floor(minute / 60) % 24)}:${two(minute % 60)}`;
}
