/** Event names that can never match: a hub may grant them, but no event will come (FHIRcast 3.0.0, 2.3). No I/O. */

const TYPES = ["Patient", "Encounter", "ImagingStudy", "DiagnosticReport"];
/** The catalogue of events, and the hub's own heartbeat. */
export const CATALOGUE = [
  ...TYPES.flatMap((type) => ["open", "close", "update", "select"].map((verb) => `${type}-${verb}`)),
  ...["SyncError", "UserLogout", "UserHibernate", "Home-open", "heartbeat"],
];
const KNOWN = new Map(CATALOGUE.map((name) => [name.toLowerCase(), name]));
/** A name counts as misspelt where at most this share of its letters is wrong. */
const WRONG = 0.4;
/** Wrong letters in a type that count as misspelt. No other FHIR type is as similar to one of the catalogue. */
const WRONG_IN_TYPE = 2;

/**
 * "EventName ::= FHIRresource '-' ( 'open' | 'close' | 'update' | 'select' )", or reverse-domain notation, which "SHALL NOT
 * contain a dash" (2.3).
 */
const NAME = /^([a-z]+-(open|close|update|select)|[a-z0-9_]+(\.[a-z0-9_]+)+)$/i;
/** Event names of 2018, and the resource type for each. */
const OF_2018 = /^(open|switch|close)-(patient-chart|imaging-study)$/;
const RESOURCES = /** @type {Record<string, string>} */ ({ "patient-chart": "Patient", "imaging-study": "ImagingStudy" });
const USER = /** @type {Record<string, string>} */ ({ "logout-user": "UserLogout", "hibernate-user": "UserHibernate" });

/** @param {string} name @returns {boolean} Whether no event can ever have this name. */
export function neverMatches(name) {
  return !KNOWN.has(name.toLowerCase()) && !NAME.test(name);
}

/** @param {string} name @returns {string} The similar name of the catalogue; "" where none is similar. */
export function meant(name) {
  const lower = name.toLowerCase();
  const [, verb, resource = ""] = OF_2018.exec(lower) ?? [];
  if (verb) return `${RESOURCES[resource]}-${verb === "close" ? "close" : "open"}`;
  let [near = "", best = Infinity] = /** @type {[string?, number?]} */ ([]);
  for (const known of KNOWN.keys()) {
    const found = wrong(lower, known);
    if (found < best) [near, best] = [known, found];
  }
  const isLike = best <= WRONG * Math.max(lower.length, near.length);
  return USER[lower] ?? (isLike ? (KNOWN.get(near) ?? "") : "");
}

/**
 * @param {string} name
 * @returns {string} The fault in the name of a handler, as a sentence; "" where events may have the name.
 */
export function misspelt(name) {
  const type = name.toLowerCase().split("-", 1)[0] ?? "";
  const isNear = TYPES.map((known) => wrong(type, known.toLowerCase())).some((one) => one > 0 && one <= WRONG_IN_TYPE);
  if (!isNear && !neverMatches(name)) return "";
  const better = meant(name);
  return `unknown event name "${name}"${better ? `: did you mean ${better}?` : "; a name is such as Patient-open"}`;
}

/**
 * @param {string} one
 * @param {string} other
 * @returns {number} Letters to change, add or remove to turn one text into the other (Levenshtein).
 */
function wrong(one, other) {
  let row = Array.from({ length: other.length + 1 }, (_, place) => place);
  for (const [number, letter] of [...one].entries()) {
    const next = [number + 1];
    for (const [place, its] of [...other].entries()) {
      const changed = (row[place] ?? 0) + (letter === its ? 0 : 1);
      next.push(Math.min((row[place + 1] ?? 0) + 1, (next[place] ?? 0) + 1, changed));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}
