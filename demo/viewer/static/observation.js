/** A measurement for the session: a FHIR Observation with the image of its line. */

const LINE = "urn:fhircast-hub:image-line";
const UCUM = "http://unitsofmeasure.org";
const CODES = { mm: "mm", px: "{pixels}" };
const COORDINATES = ["x1", "y1", "x2", "y2"];

/**
 * @typedef {import("./length.js").Line & {instance: string, frame: number}} ImageLine
 *   `instance` is the SOP Instance UID; `frame` counts from 1
 * @typedef {{id: string, value: number, unit: string, line: ImageLine|null, by: string}} Measurement
 */

/**
 * @param {Measurement} measurement
 * @param {{study: string, patient: string|null, user: {name: string, fhirUser?: string}, device: string,
 *   issued: string}} about `study` and `patient` are references ("ImagingStudy/s1"), `device` is this viewer's name,
 *   `issued` a FHIR instant
 * @returns {object} Observation (R4). The code is DICOM's for a length (PS3.16 CID 7470)
 */
export function toObservation({ id, value, unit, line }, { study, patient, user, device, issued }) {
  return {
    resourceType: "Observation",
    id,
    extension: [lineExtension(line)],
    partOf: [{ reference: study }],
    status: "preliminary",
    category: [{ coding: [{ system: "http://terminology.hl7.org/CodeSystem/observation-category", code: "imaging" }] }],
    code: {
      coding: [{ system: "http://snomed.info/sct", code: "410668003", display: "Length" }],
      text: "Length",
    },
    ...(patient && { subject: { reference: patient } }),
    issued,
    performer: [{ ...(user.fhirUser && { reference: user.fhirUser }), display: user.name }],
    valueQuantity: { value, unit, system: UCUM, code: CODES[unit] },
    device: { display: device },
    derivedFrom: [{ reference: study }],
  };
}

/**
 * @param {object} observation of any application, with a quantity
 * @returns {Measurement} `line` is null where the Observation names no image
 */
export function fromObservation(observation) {
  const { value, unit, code } = observation.valueQuantity;
  return {
    id: observation.id,
    value,
    unit: unit ?? code ?? "",
    line: readLine(observation),
    by: [observation.performer?.[0]?.display, observation.device?.display].filter(Boolean).join(" · "),
  };
}

function lineExtension(line) {
  return {
    url: LINE,
    extension: [
      { url: "instance", valueOid: `urn:oid:${line.instance}` },
      { url: "frame", valuePositiveInt: line.frame },
      ...COORDINATES.map((url) => ({ url, valueDecimal: line[url] })),
    ],
  };
}

function readLine(observation) {
  const parts = observation.extension?.find((each) => each.url === LINE)?.extension;
  if (!Array.isArray(parts)) return null;
  const part = (url) => parts.find((each) => each.url === url) ?? {};
  const line = Object.fromEntries(COORDINATES.map((url) => [url, part(url).valueDecimal]));
  const instance = part("instance").valueOid?.replace(/^urn:oid:/, "");
  const frame = part("frame").valuePositiveInt ?? 1;
  return instance && COORDINATES.every((url) => Number.isFinite(line[url])) ? { ...line, instance, frame } : null;
}
