/** Why a study is not shown, in the user's language. Other applications get the reason's own sentence. */

/**
 * @param {(key: string, values?: object) => string} t
 * @param {Error & {differing?: string[]}} reason
 * @param {string} viewer the name of this viewer
 * @returns {string} a sentence
 */
export function refusalText(t, reason, viewer) {
  return t("refused.said", { viewer, why: refusalWords(t, reason) });
}

/**
 * @param {(key: string, values?: object) => string} t
 * @param {Error & {differing?: string[]}} reason
 * @returns {string} the reason as a part of a sentence; an unknown reason is quoted
 */
export function refusalWords(t, reason) {
  if (reason.name === "Mismatch" && !reason.differing?.length) return t("refused.subject");
  const key = `refused.${reason.name}`;
  const what = (reason.differing ?? []).map((each) => t(`what.${each}`)).join(t("what.and"));
  return t(t(key) === key ? "refused.wire" : key, { what, reason: reason.message });
}
