/**
 * Whether two family names are spellings of one.
 *
 * Case, diacritics, blanks, hyphens and apostrophes make no difference. A letter that is written with two where a
 * keyboard lacks it may be written either way: å/aa/a, ø/ö/oe/o, æ/ä/ae, ü/ue/u. So Østby is Oestby and Ostby, while
 * Oestby and Ostby, Haas and Has, stay different names.
 */

/**
 * The ways in which a letter is written; of a letter not listed, its base letter.
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
/** A name comes from outside, and each letter with two spellings doubles their number. */
const MOST = 64;
/** So many letters are compared. */
const LETTERS = 100;
const NEITHER_LETTER_NOR_DIGIT = /[^\p{L}\p{N}]/gu;

/**
 * @param {string} name
 * @returns {Set<string>} All spellings of a name, folded; the empty set where it has neither letter nor digit.
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
