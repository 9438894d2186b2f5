/** Why a study is not shown, in the user's language. What goes to the others is the reason's own sentence. */

/**
 * @param {(key: string, values?: object) => string} t
 * @param {Error & {differing?: string[]}} reason
 * @param {string} viewer the name of this viewer
 * @returns {string}
 */
export function refusalText(t, reason, viewer) {
  if (reason.name === "Mismatch" && !reason.differing?.length) return t("refused.subject", { viewer });
  const key = `refused.${reason.name}`;
  const what = (reason.differing ?? []).map((each) => t(`what.${each}`)).join(t("what.and"));
  return t(t(key) === key ? "refused.other" : key, { viewer, what, reason: reason.message });
}
