/** DICOM JSON of the archive (PS3.18 F), as studies, series and images of this page. */

/**
 * @typedef {{center: number, width: number}} Window centre and width in the image's units (HU for CT)
 * @typedef {object} Image one frame
 * @property {string} study
 * @property {string} series
 * @property {string} instance the UIDs
 * @property {number} frame from 1
 * @property {number} rows
 * @property {number} columns
 * @property {number[]|null} spacing mm between rows and between columns, null where unknown
 * @property {boolean} grey whether it has a window
 * @property {Window} window the image's own
 * @typedef {object} Series
 * @property {string} uid
 * @property {number} number
 * @property {string} modality
 * @property {string} description
 * @property {Image[]} images in their order
 * @property {boolean} multiFrame whether one instance has several frames
 * @property {number|null} frameTime ms for each frame
 * @typedef {object} Study
 * @property {string} uid
 * @property {string} localId
 * @property {string} description
 * @property {string} date in FHIR's form
 * @property {string} accession
 * @property {object} patient a FHIR Patient
 */

const SEXES = { M: "male", F: "female", O: "other" };
const RECORD_NUMBER = {
  coding: [{ system: "http://terminology.hl7.org/CodeSystem/v2-0203", code: "MR" }],
};

function values(dataset, tag) {
  return dataset[tag]?.Value ?? [];
}

function text(dataset, tag) {
  return String(values(dataset, tag)[0] ?? "").trim();
}

function number(dataset, tag) {
  const value = values(dataset, tag)[0];
  return value == null || value === "" || Number.isNaN(Number(value)) ? null : Number(value);
}

function isoDate(written) {
  return /^\d{8}$/.test(written) ? `${written.slice(0, 4)}-${written.slice(4, 6)}-${written.slice(6)}` : "";
}

/** @param {object} dataset a study. @returns {object} its patient as a FHIR Patient */
export function patientOf(dataset) {
  const [family, given = "", middle = ""] = (values(dataset, "00100010")[0]?.Alphabetic ?? "").split("^");
  const patient = { resourceType: "Patient", name: [{ family, given: [given, middle].filter(Boolean) }] };
  const born = isoDate(text(dataset, "00100030"));
  const sex = SEXES[text(dataset, "00100040")];
  const id = text(dataset, "00100020");
  if (born) patient.birthDate = born;
  if (sex) patient.gender = sex;
  if (id) patient.identifier = [{ type: RECORD_NUMBER, value: id }];
  return patient;
}

/** @param {object} dataset QIDO-RS's answer for a study. @returns {Study} */
export function studyOf(dataset) {
  return {
    uid: text(dataset, "0020000D"),
    localId: text(dataset, "00200010"),
    description: text(dataset, "00081030"),
    date: isoDate(text(dataset, "00080020")),
    accession: text(dataset, "00080050"),
    patient: patientOf(dataset),
  };
}

/**
 * @param {object[]} datasets QIDO-RS's answer for all instances of a study.
 * @returns {Series[]} in the order of their numbers
 */
export function seriesOf(datasets) {
  const byUid = new Map();
  for (const each of datasets) byUid.set(seriesUid(each), [...(byUid.get(seriesUid(each)) ?? []), each]);
  return [...byUid].map(([uid, instances]) => oneSeries(uid, instances)).sort((a, b) => a.number - b.number);
}

/** @param {object} dataset a series or an image. @returns {string} */
export function seriesUid(dataset) {
  return text(dataset, "0020000E");
}

function oneSeries(uid, instances) {
  const ordered = instances.sort((a, b) => (number(a, "00200013") ?? 0) - (number(b, "00200013") ?? 0));
  const head = ordered[0];
  return {
    uid,
    number: number(head, "00200011") ?? 0,
    modality: text(head, "00080060"),
    description: text(head, "0008103E"),
    images: ordered.flatMap(framesOf),
    multiFrame: ordered.some((each) => (number(each, "00280008") ?? 1) > 1),
    frameTime: number(head, "00181063"),
  };
}

function framesOf(dataset) {
  const spacing = values(dataset, "00280030").map(Number);
  const image = {
    study: text(dataset, "0020000D"),
    series: seriesUid(dataset),
    instance: text(dataset, "00080018"),
    rows: number(dataset, "00280010"),
    columns: number(dataset, "00280011"),
    spacing: spacing.length === 2 && spacing.every((each) => each > 0) ? spacing : null,
    grey: text(dataset, "00280004").startsWith("MONOCHROME"),
    window: ownWindow(dataset),
  };
  const count = number(dataset, "00280008") ?? 1;
  return Array.from({ length: count }, (_, index) => ({ ...image, frame: index + 1 }));
}

/** The image's own window, else one over all values of its bits. */
function ownWindow(dataset) {
  const center = number(dataset, "00281050");
  const width = number(dataset, "00281051");
  if (center != null && width) return { center, width };
  const range = 2 ** (number(dataset, "00280101") ?? 8) * (number(dataset, "00281053") ?? 1);
  return { center: range / 2 + (number(dataset, "00281052") ?? 0), width: range };
}
