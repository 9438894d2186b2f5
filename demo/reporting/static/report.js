/**
 * DiagnosticReport resources as published (FHIR R4; FHIRcast 3.0.0, 3.6): new ones, and those with text and status. The
 * findings, for which the resource has no member, are an Observation of their own.
 */

import { FINDINGS, isFindings } from "/shared/observations.js";

const LOINC = "http://loinc.org";
const ACCESSION = "ACSN";
const SIGNED = ["final", "amended", "corrected", "appended"];

/** @param {object|null|undefined} report @returns {boolean} whether the report is signed */
export function isSigned(report) {
  return SIGNED.includes(report?.status);
}

/**
 * @param {object} report
 * @param {object} observation
 * @returns {boolean} whether the Observation is one of the report's results
 */
export function isResult({ result = [] }, { id }) {
  return result.some(({ reference }) => reference === `Observation/${id}`);
}

/**
 * A new report. Its status is "partial" until it is shared or signed.
 * @param {object} study ImagingStudy
 * @param {object} patient
 * @param {string} id globally unique: the report is not stored on the FHIR server
 */
export function newReport(study, patient, id) {
  const accession = study.identifier?.find((each) => each.type?.coding?.some(({ code }) => code === ACCESSION));
  return {
    resourceType: "DiagnosticReport",
    id,
    identifier: [{ use: "official", system: "urn:ietf:rfc:3986", value: `urn:uuid:${id}` }],
    ...(accession && { basedOn: [{ type: "ServiceRequest", identifier: accession }] }),
    status: "partial",
    code: {
      coding: [{ system: LOINC, code: "18748-4", display: "Diagnostic imaging study" }],
      text: study.description ?? study.modality?.[0]?.code ?? "Diagnostic imaging study",
    },
    subject: { reference: `Patient/${patient.id}` },
    imagingStudy: [{ reference: `ImagingStudy/${study.id}` }],
  };
}

/**
 * A report's new status and text, as the resources of a DiagnosticReport-update. "A reporting application may enable a
 * clinician to sign the report. ... this change in status could become final and would be communicated through a
 * DiagnosticReport-update event prior to the DiagnosticReport context being closed" (profile for open events).
 * @param {object} report as it is now
 * @param {object} text
 * @param {string} text.status
 * @param {string} text.findings
 * @param {string} text.conclusion
 * @param {Date} text.at time of the change
 * @param {{name: string, fhirUser?: string}} text.user who makes the change
 * @param {object[]} content shared with it
 * @returns {{report: object, changes: (object | string)[]}} the new report, and the changes for `client.update`
 */
export function written(report, text, content) {
  const id = findingsId(report);
  const others = content.filter((each) => each.resourceType === "Observation" && each.id !== id);
  const findings = text.findings.trim() ? [findingsOf(report, text)] : [];
  const shown = content.some((each) => each.resourceType === "Observation" && each.id === id);
  const gone = shown && !findings.length ? [`Observation/${id}`] : [];
  const result = [...others, ...findings].map((each) => ({ reference: `Observation/${each.id}` }));
  const { conclusion: _, result: __, ...rest } = report;
  const next = {
    ...rest,
    status: text.status,
    issued: text.at.toISOString(),
    resultsInterpreter: [interpreter(text.user)],
    ...(result.length && { result }),
    ...(text.conclusion.trim() && { conclusion: text.conclusion.trim() }),
  };
  return { report: next, changes: [...findings, ...gone, next] };
}

/** Always the same id, so that a second sharing replaces the first. FHIR allows 64 characters. */
function findingsId(report) {
  return `${report.id.slice(0, 55)}-findings`;
}

function findingsOf(report, { status, findings, at, user }) {
  return {
    resourceType: "Observation",
    id: findingsId(report),
    status: status === "final" ? "final" : "preliminary",
    code: { coding: [FINDINGS], text: "Findings" },
    subject: report.subject,
    issued: at.toISOString(),
    performer: [interpreter(user)],
    valueString: findings.trim(),
  };
}

function interpreter({ name, fhirUser }) {
  return { ...(fhirUser && { reference: fhirUser }), display: name };
}

/**
 * @param {object} report
 * @param {object[]} content shared with it
 * @returns {{findings: string, conclusion: string}}
 */
export function sharedText(report, content) {
  const findings = content.find((each) => each.resourceType === "Observation" && isFindings(each));
  return { findings: findings?.valueString ?? "", conclusion: report.conclusion ?? "" };
}
