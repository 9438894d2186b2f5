/** An image archive over DICOMweb: QIDO-RS, DICOM PS3.18 section 10.6. */

import { isObject, isoDate, Local, sex } from "./local.js";
import { bareUid, DICOM_UID, fhirIdentifier } from "./rules.js";
import { ask, trimmed, UnusableAnswer, usualFetch } from "./http-json.js";

/** @typedef {import("./local.js").Json} Json */
/** @typedef {import("./local.js").Query} Query */

/**
 * Warnings of an archive that leaves out studies: "There are <remaining> additional results that can be requested"
 * (PS3.18 8.3.4.4), and before 2021 "The number of results exceeded the maximum supported by the server".
 */
const MORE = ["additional results", "exceeded"];
const STUDY_UID = "0020000D";
const ACCESSION = "00080050";
const PATIENT = { name: "00100010", id: "00100020", birthDate: "00100030", sex: "00100040" };
const PADDING = /^[ \0]+|[ \0]+$/g;

/**
 * `GET base/studies?StudyInstanceUID=...` or `AccessionNumber=...`; the local id is the Study Instance UID.
 *
 * A study must have exactly the requested value: archives read `*` and `?` as wildcards, and some ignore case.
 * Published identifiers get the systems that are given here.
 */
export class QidoRs {
  name = "the image archive";
  #base;
  #http;
  #patientSystem;
  #accessionSystem;

  /**
   * @param {string} base
   * @param {typeof globalThis.fetch} [http] Adds headers that the server needs, such as a token.
   * @param {{patientSystem?: string, accessionSystem?: string}} [options]
   */
  constructor(base, http = usualFetch(), { patientSystem = "", accessionSystem = "" } = {}) {
    this.#base = trimmed(base);
    this.#http = http;
    this.#patientSystem = patientSystem.trim();
    this.#accessionSystem = accessionSystem.trim();
  }

  /**
   * @param {Query} asked
   * @param {AbortSignal} [signal]
   * @returns {Promise<Local[]>} The studies with this Study Instance UID or accession number.
   */
  async find(asked, signal) {
    if (asked.type !== "ImagingStudy" || asked.logical) return [];
    if (asked.system === DICOM_UID) return this.#search("StudyInstanceUID", STUDY_UID, asked.value, signal);
    if (asked.codes.includes("ACSN") && ["", asked.system].includes(this.#accessionSystem)) {
      return this.#search("AccessionNumber", ACCESSION, asked.value, signal);
    }
    return [];
  }

  /**
   * @param {string} type
   * @param {string} localId
   * @param {AbortSignal} [signal]
   * @returns {Promise<Local[]>} The study of a Study Instance UID.
   */
  async known(type, localId, signal) {
    if (type !== "ImagingStudy" || !bareUid(localId)) return [];
    return this.#search("StudyInstanceUID", STUDY_UID, localId, signal);
  }

  /**
   * @param {string} parameter
   * @param {string} tag
   * @param {string} value
   * @param {AbortSignal} [signal]
   */
  async #search(parameter, tag, value, signal) {
    const address = `${this.#base}/studies`;
    const accept = "application/dicom+json";
    const { status, answer, warning } = await ask(this.#http, address, [[parameter, value]], accept, signal);
    if (status === 204) return [];
    if (status !== 200 || !Array.isArray(answer)) {
      throw new UnusableAnswer(`the answer must be status 200 and a list of studies, and this one is status ${status}`);
    }
    const studies = answer.filter((study) => isObject(study) && first(study, tag) === value);
    if (studies.length <= 1 && MORE.some((words) => warning.toLowerCase().includes(words))) {
      throw new UnusableAnswer("the list is not complete");
    }
    return studies.map((study) => this.#local(study));
  }

  /** @param {Json} study */
  #local(study) {
    const uid = bareUid(first(study, STUDY_UID));
    if (!uid) throw new UnusableAnswer("a study has no Study Instance UID");
    const accession = first(study, ACCESSION);
    const identifiers = [
      fhirIdentifier(uid, DICOM_UID),
      ...(accession ? [fhirIdentifier(accession, this.#accessionSystem, "ACSN")] : []),
    ];
    const resource = { resourceType: "ImagingStudy", identifier: identifiers, status: "unknown" };
    const patient = this.#patient(study);
    return new Local({ id: uid, type: "ImagingStudy", source: this.name, identifiers, resource, patient });
  }

  /** @param {Json} study */
  #patient(study) {
    const [alphabetic = ""] = first(study, PATIENT.name).split("=");
    const [family = "", ...others] = alphabetic.split("^").map((part) => part.trim());
    const given = others.slice(0, 2).filter(Boolean);
    const number = first(study, PATIENT.id);
    const gender = sex(first(study, PATIENT.sex));
    const birthDate = isoDate(first(study, PATIENT.birthDate));
    /** @type {Json} */
    const patient = { resourceType: "Patient" };
    if (number) patient.identifier = [fhirIdentifier(number, this.#patientSystem, "MR")];
    if (family || given.length > 0) {
      patient.name = [{ ...(family ? { family } : {}), ...(given.length > 0 ? { given } : {}) }];
    }
    if (gender) patient.gender = gender;
    if (birthDate) patient.birthDate = birthDate;
    return patient;
  }
}

/**
 * @param {Json} study
 * @param {string} tag
 * @returns {string} The first value of an attribute, for a name its alphabetic form; "" where there is none.
 */
function first(study, tag) {
  const values = isObject(study[tag]) ? study[tag].Value : null;
  const value = Array.isArray(values) ? values[0] : null;
  const plain = isObject(value) ? value.Alphabetic : value;
  return typeof plain === "string" ? plain.replace(PADDING, "") : "";
}
