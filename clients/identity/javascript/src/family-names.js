/**
 * Whether two family names are spellings of the same name.
 *
 * Case, diacritics, blanks, hyphens and apostrophes do not matter. Some letters may be written with two: å/aa/a,
 * ø/ö/oe/o, æ/ä/ae, ü/ue/u. So Østby matches Oestby and Ostby. But Oestby and Ostby, or Haas and Has, do not match each
 * other.
 */

/**
 * Spellings of a letter. For other letters, the base letter is used.
 * @type {Map<string, string[]>}
 */
const SPELLINGS = new Map([
  ["å", ["a", "aa"]],
  ["ä", ["a", "ae"]],
  ["æ", ["ae"]],
  ["ø", ["o", "oe"]],
  ["ö", ["o", "oe"]],
  ["œ", ["oe"]],
  ["ü", ["u", "ue"]],
  ["đ", ["d"]],
  ["ŋ", ["n"]],
  ["ŧ", ["t"]],
  ["ð", ["d"]],
  ["ł", ["l"]],
  ["þ", ["th"]],
  ["\u0131", ["i"]],
  ["ß", ["ss"]],
  ["ς", ["σ"]],
]);
/** Limit for names in events: each letter with two spellings doubles the number of spellings. */
const MOST = 64;
/** Letters that are compared. */
const LETTERS = 100;
const NEITHER_LETTER_NOR_DIGIT = /[^\p{L}\p{N}]/gu;

/**
 * @param {string} name
 * @returns {Set<string>} All spellings of a name, folded. Empty for a name without letters and digits.
 */
export function spellings(name) {
  let forms = [""];
  for (const letter of name.slice(0, LETTERS).normalize("NFKC").toLowerCase().normalize("NFKC")) {
    let ways = SPELLINGS.get(letter) ?? [base(letter)];
    if (forms.length * ways.length > MOST) ways = ways.slice(0, 1);
    forms = [...new Set(forms.flatMap((form) => ways.map((way) => form + way)))];
  }
  return new Set(forms.filter(Boolean));
}

/** @param {string} letter */
function base(letter) {
  return letter.normalize("NFKD").toLowerCase().replace(NEITHER_LETTER_NOR_DIGIT, "");
}
