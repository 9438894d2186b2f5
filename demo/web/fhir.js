/** Reads FHIR R4, writes signed resources, and formats a patient's data for clinicians. */

import { element } from "./dom.js";
import { currentLanguage, htmlLanguage, translator } from "./i18n.js";
import { shared } from "./messages.js";

const t = translator(shared);
const MEDICAL_RECORD_NUMBER = "MR";
/** The text for a status of the server. */
const REFUSALS = { 401: "fhir.unauthorized", 404: "fhir.none" };
const NOT_KEPT = {
  0: "fhir.no-answer",
  401: "fhir.unauthorized",
  403: "fhir.not-allowed",
  409: "fhir.conflict",
  412: "fhir.conflict",
};
/** The first status of a failure. */
const FAILURE = 500;
/** Milliseconds that the server has to answer. */
const PATIENCE = 10_000;
const DAY = 24 * 3600 * 1000;
/** Days up to which an age is shown in days. */
const NEWBORN = 31;

/** The FHIR server gave no usable answer. `message` is a sentence for the user; `status` 0: not reached. */
export class FhirError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.name = "FhirError";
    this.status = status;
  }
}

class FhirServer {
  #smart;

  constructor(base, smart) {
    this.base = base;
    this.#smart = smart;
  }

  /** @param {string} reference "Patient/p1". @returns {Promise<object>} Throws FhirError. */
  async read(reference) {
    const answer = await this.#ask(reference);
    if (!answer.ok)
      throw new FhirError(answer.status, t(REFUSALS[answer.status] ?? "fhir.refused", { status: answer.status }));
    return answer.json();
  }

  /**
   * Write all of it, or nothing. A resource that is kept already without a difference is no error.
   * @param {{resource: object, before?: object|null}[]} changes `before`: the version that the resource is based on,
   *   null for a new one; left out: any version
   * @throws {FhirError} with status 0 where it is unknown whether the resources are kept
   */
  async keep(changes) {
    const body = JSON.stringify({ resourceType: "Bundle", type: "transaction", entry: changes.map(entryOf) });
    const headers = { "Content-Type": "application/fhir+json" };
    const answer = await this.#ask("", { method: "POST", body, headers }).catch((error) => {
      throw error instanceof FhirError ? new FhirError(0, t(NOT_KEPT[0])) : error;
    });
    if (!answer.ok) throw await notKept(answer);
  }

  /**
   * @param {string} type
   * @param {Record<string, string>} [parameters]
   * @returns {Promise<object[]>} the matching resources of all pages. Throws FhirError.
   */
  async search(type, parameters = {}) {
    const found = [];
    let path = `${type}?${new URLSearchParams(parameters)}`;
    while (path) {
      const bundle = await this.read(path);
      found.push(...(bundle.entry ?? []).map((entry) => entry.resource).filter((each) => each.resourceType === type));
      const next = bundle.link?.find((link) => link.relation === "next")?.url;
      path = next?.startsWith(`${this.base}/`) ? next.slice(this.base.length + 1) : "";
    }
    return found;
  }

  async #ask(path, options) {
    const url = `${this.base}/${path}`;
    const answer = await asked(url, await this.#smart.accessToken(), options);
    return answer.status === 401 ? asked(url, await this.#smart.freshToken(), options) : answer;
  }
}

/**
 * @param {string} base the server's URL
 * @param {{accessToken(): Promise<string>, freshToken(): Promise<string>}} smart
 */
export function fhirServer(base, smart) {
  return new FhirServer(base, smart);
}

function entryOf({ resource, before }) {
  const request = { method: "PUT", url: `${resource.resourceType}/${resource.id}` };
  if (before) request.ifMatch = `W/"${before.meta?.versionId ?? 1}"`;
  else if (before === null) request.ifNoneMatch = "*";
  return { resource, request };
}

/** A failure of a gateway is not the server's answer: the server may have kept the resources. */
async function notKept(answer) {
  const { status } = answer;
  const outcome = await answer.json().catch(() => null);
  if (status >= FAILURE && outcome?.resourceType !== "OperationOutcome") return new FhirError(0, t(NOT_KEPT[0]));
  const why = outcome?.issue?.[0]?.diagnostics ?? "";
  return new FhirError(status, t(NOT_KEPT[status] ?? "fhir.not-kept", { status, why }));
}

async function asked(url, token, { headers = {}, ...options } = {}) {
  try {
    const added = { Accept: "application/fhir+json", Authorization: `Bearer ${token}`, ...headers };
    return await fetch(url, { signal: AbortSignal.timeout(PATIENCE), ...options, headers: added });
  } catch {
    throw new FhirError(0, t("fhir.away"));
  }
}

/**
 * @param {object|null|undefined} patient
 * @returns {string} the official name, else the first. As written in its text, where it has one (family names come
 *   first in many countries), else given and family name
 */
export function humanName(patient) {
  const names = patient?.name ?? [];
  const name = names.find((each) => each.use === "official") ?? names[0];
  if (!name) return t(patient ? "patient.nameless" : "patient.none");
  return name.text ?? ([...(name.given ?? []), name.family].filter(Boolean).join(" ") || t("patient.nameless"));
}

/**
 * @param {string|undefined} date "1978-11-03", "1978-11" or "1978".
 * @returns {string} in the form of the language, "" for none
 */
export function birthDate(date, language = currentLanguage()) {
  return dateText(date?.slice(0, 10), language);
}

/**
 * @param {string|undefined} value a FHIR date or dateTime
 * @returns {string} in the form of the language, with the time where it has one; "" for none
 */
export function dateText(value, language = currentLanguage()) {
  if (!value) return "";
  const [, month, day] = value.slice(0, 10).split("-");
  const timed = value.includes("T");
  const options = { year: "numeric", month: month && "short", day: day && "numeric" };
  if (timed) Object.assign(options, { hour: "2-digit", minute: "2-digit" });
  else options.timeZone = "UTC"; // a day is the same in every time zone
  const date = new Date(value);
  return Number.isNaN(date.getTime()) ? value : new Intl.DateTimeFormat(htmlLanguage(language), options).format(date);
}

/**
 * @param {string|undefined} born
 * @param {Date} [now]
 * @returns {string} "47 years", "5 months", "4 days"; "" where unknown
 */
export function age(born, now = new Date()) {
  if (!born) return "";
  const [year, month = 1, day = 1] = born.split("-").map(Number);
  const days = Math.floor((now - new Date(year, month - 1, day)) / DAY);
  if (days < NEWBORN) return t(days === 1 ? "age.day" : "age.days", { count: Math.max(days, 0) });
  const months = (now.getFullYear() - year) * 12 + now.getMonth() + 1 - month - (now.getDate() < day ? 1 : 0);
  const years = Math.floor(months / 12);
  if (years >= 2) return t("age.years", { count: years });
  return t(months === 1 ? "age.month" : "age.months", { count: months });
}

/** @returns {string} the value of the identifier with this type code (MR, ACSN) or system; "" for none */
export function identifier(resource, typeOrSystem = MEDICAL_RECORD_NUMBER) {
  const found = (resource?.identifier ?? []).find(
    (each) => each.system === typeOrSystem || each.type?.coding?.some((coding) => coding.code === typeOrSystem),
  );
  return found?.value ?? "";
}

/** @returns {string} the text of a CodeableConcept (or the first of several, or a Coding) */
export function conceptText(concept) {
  const one = Array.isArray(concept) ? concept[0] : concept;
  return one?.text ?? one?.coding?.[0]?.display ?? one?.display ?? one?.coding?.[0]?.code ?? one?.code ?? "";
}

/** @returns {string} male, female and so on in words; "" where unknown */
export function genderText(gender) {
  return gender ? t(`gender.${gender}`) : "";
}

/** `<patient-banner>`: identifies the patient. `.patient` is the resource, or null for none. */
class PatientBanner extends HTMLElement {
  #patient = null;
  #render = () => this.#show();

  connectedCallback() {
    this.dataset.test ??= "patient-banner";
    document.addEventListener("language", this.#render);
    this.#show();
  }

  disconnectedCallback() {
    document.removeEventListener("language", this.#render);
  }

  get patient() {
    return this.#patient;
  }

  set patient(patient) {
    this.#patient = patient;
    if (this.isConnected) this.#show();
  }

  #show() {
    const patient = this.#patient;
    this.classList.toggle("empty", !patient);
    this.dataset.patient = patient?.id ?? "";
    if (!patient) return this.replaceChildren(element("p", { class: "banner-name" }, t("patient.none")));
    const facts = [
      [t("patient.born"), [birthDate(patient.birthDate), age(patient.birthDate)].filter(Boolean).join(" · ")],
      [t("patient.gender"), genderText(patient.gender)],
      [t("patient.mrn"), identifier(patient)],
    ].filter(([, value]) => value);
    this.replaceChildren(
      element("p", { "class": "banner-name", "data-test": "patient-name" }, humanName(patient)),
      element(
        "dl",
        { class: "banner-facts" },
        ...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
      ),
    );
  }
}

customElements.define("patient-banner", PatientBanner);
