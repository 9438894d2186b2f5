/** Refusals: why no local id was found, in sentences for users. No sentence contains a value of the patient. */

/** @type {Record<string, [string, string]>} */
const NOUNS = { Patient: ["patient", "patients"], ImagingStudy: ["study", "studies"] };
const UNCERTAIN = "It is not certain which one is meant.";
/** The mark by which fhircast-client recognizes a refusal, so that neither package imports the other. */
const REFUSAL = Symbol.for("fhircast.refusal");

/** The event is not followed. The client answers with 409, and other applications are shown the message. */
export class Refusal extends Error {
  name = "Refusal";

  get [REFUSAL]() {
    return true;
  }
}

/** No local id has the identifier, or the event has no identifier that a rule selects. */
export class NoMatch extends Refusal {
  name = "NoMatch";
}

/** The event means several patients or studies, or may mean several. */
export class SeveralMatches extends Refusal {
  name = "SeveralMatches";
}

/** Found by the identifier, but the demographics differ. */
export class Mismatch extends Refusal {
  name = "Mismatch";

  /**
   * @param {string} reason
   * @param {string[]} differing Of family name, birth date, gender.
   */
  constructor(reason, differing) {
    super(reason);
    this.differing = differing;
  }
}

/** The lookup failed. This says nothing about the patient. `cause`: the error. */
export class LookupFailed extends Refusal {
  name = "LookupFailed";

  /**
   * @param {string} reason
   * @param {unknown} [cause]
   */
  constructor(reason, cause) {
    super(reason);
    this.cause = cause;
  }
}

/**
 * @param {string} type
 * @returns {string} A clinician's word for a resource type.
 */
export function noun(type) {
  return NOUNS[type]?.[0] ?? type;
}

/** @param {string} type */
function nouns(type) {
  return NOUNS[type]?.[1] ?? `${type} records`;
}

/** @param {string} type */
export function noRule(type) {
  return new NoMatch(`This application does not look up any ${noun(type)}.`);
}

/** @param {string} type */
export function notNamed(type) {
  return new NoMatch(`The message names no ${noun(type)}.`);
}

export function notSent() {
  return new NoMatch("The message has no patient or study to look up.");
}

/** @param {string} type */
export function severalNamed(type) {
  return new SeveralMatches(`The message names several ${nouns(type)}. ${UNCERTAIN}`);
}

/**
 * @param {string} type
 * @param {string[]} labels
 */
export function noIdentifier(type, labels) {
  const sentence = `The ${noun(type)} was sent without an identifier that is understood here.`;
  return new NoMatch(`${sentence} Send ${labels.join(" or ")}.`);
}

/**
 * @param {string} type
 * @param {string} label
 */
export function unknown(type, label) {
  return new NoMatch(`No ${noun(type)} here has the ${label} that was sent.`);
}

/**
 * @param {string} type
 * @param {string} label
 */
export function several(type, label) {
  return new SeveralMatches(`Several ${nouns(type)} here have the ${label} that was sent. ${UNCERTAIN}`);
}

/**
 * @param {string} type
 * @param {string} label
 */
export function conflicting(type, label) {
  const many = nouns(type);
  return new SeveralMatches(
    `Several values were sent as ${label}, and they lead to different ${many} here. ${UNCERTAIN}`,
  );
}

/**
 * @param {string} type
 * @param {string} label
 */
export function partlyKnown(type, label) {
  return new SeveralMatches(
    `Several values were sent as ${label}, and only some of them lead to a ${noun(type)} here. ${UNCERTAIN}`,
  );
}

/**
 * @param {string} type
 * @param {string} label
 */
export function tooMany(type, label) {
  return new SeveralMatches(`The ${noun(type)} was sent with too many values as ${label}. ${UNCERTAIN}`);
}

/**
 * @param {string} type
 * @param {string[]} differing
 */
export function differ(type, differing) {
  const what = listed(differing);
  const here = type === "Patient" ? "the patient found here" : `the patient of the ${noun(type)} found here`;
  const verb = differing.length === 1 ? "differs" : "differ";
  const sentence = `${what} ${verb} between the patient that was sent and ${here}.`;
  return new Mismatch(sentence.charAt(0).toUpperCase() + sentence.slice(1), differing);
}

/** @param {string} type */
export function anotherSubject(type) {
  return new Mismatch(`The ${noun(type)} that was sent belongs to another patient than the one sent with it.`, []);
}

/**
 * @param {string} type
 * @param {string[]} differing
 */
export function sourcesDiffer(type, differing) {
  return new Mismatch(`The sources here do not agree on the ${listed(differing)} of this ${noun(type)}.`, differing);
}

/** @param {string} type */
export function severalKnown(type) {
  return new SeveralMatches(`Several ${nouns(type)} here have this id. ${UNCERTAIN}`);
}

/** @param {string} type */
export function notHere(type) {
  return new NoMatch(`This ${noun(type)} is not known here, so it cannot be shared.`);
}

/**
 * @param {string} type
 * @param {string} source
 * @param {unknown} cause
 */
export function failed(type, source, cause) {
  const reason = `The ${noun(type)} could not be looked up: ${source} gave no usable answer. Try again later.`;
  return new LookupFailed(reason, cause);
}

/**
 * @param {string[]} words
 * @returns {string} `a`, `a and b`, `a, b and c`.
 */
function listed(words) {
  const last = words[words.length - 1] ?? "";
  return words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${last}` : last;
}

/**
 * @param {unknown} error
 * @returns {boolean} Whether the error is a refusal: of this package, or a resolver's own, such as the client's
 *   `Refuse`.
 */
export function isRefusal(error) {
  return /** @type {any} */ (error)?.[REFUSAL] === true;
}
