/** English and Norwegian: the current language, and its texts. */

export const LANGUAGES = ["en", "no"];
const KEPT = "language";

let language = chosen();
document.documentElement.lang = htmlLanguage(language);

/** @returns {"en"|"no"} the current language */
export function currentLanguage() {
  return language;
}

/** The tag for Intl and for `lang`: Norwegian here is bokmål. */
export function htmlLanguage(of = language) {
  return of === "no" ? "nb" : "en-GB";
}

/**
 * Change the language. `document` gets the event "language", and components render again.
 * @param {string} next one of LANGUAGES; other values are ignored
 */
export function setLanguage(next) {
  if (!LANGUAGES.includes(next) || next === language) return;
  language = next;
  sessionStorage.setItem(KEPT, next);
  document.documentElement.lang = htmlLanguage(next);
  document.dispatchEvent(new CustomEvent("language", { detail: next }));
}

/**
 * @param {{en: Record<string, string>, no: Record<string, string>}} messages
 * @param {string} [fixed] the language; left out: the current one at the time of the call
 * @returns {(key: string, values?: Record<string, unknown>) => string} "{name}" in a text is replaced by values.name. A
 *   key without text is returned, so that missing texts are seen.
 */
export function translator(messages, fixed) {
  return (key, values = {}) => {
    const text = messages[fixed ?? language]?.[key] ?? messages.en[key] ?? key;
    return text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
  };
}

/** Merges two sets of texts; the later one wins. */
export function merged(...all) {
  return Object.fromEntries(LANGUAGES.map((each) => [each, Object.assign({}, ...all.map((one) => one?.[each]))]));
}

/**
 * Put the texts into static HTML: `data-t` is the content, `data-t-label`, `data-t-title` and `data-t-placeholder` the
 * attributes.
 * @param {(key: string) => string} t
 * @param {ParentNode} [root]
 */
export function translatePage(t, root = document) {
  for (const each of root.querySelectorAll("[data-t]")) each.textContent = t(each.dataset.t);
  for (const [data, attribute] of [
    ["label", "aria-label"],
    ["title", "title"],
    ["placeholder", "placeholder"],
  ]) {
    for (const each of root.querySelectorAll(`[data-t-${data}]`)) {
      each.setAttribute(attribute, t(each.getAttribute(`data-t-${data}`)));
    }
  }
}

function chosen() {
  const asked = new URLSearchParams(location.search).get("lang");
  if (LANGUAGES.includes(asked)) sessionStorage.setItem(KEPT, asked);
  const kept = sessionStorage.getItem(KEPT);
  if (LANGUAGES.includes(kept)) return kept;
  return /^(no|nb|nn)\b/i.test(navigator.language) ? "no" : "en";
}
