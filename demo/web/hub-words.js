/** The client's sentences about the hub, in the user's language. */

import { translator } from "./i18n.js";
import { shared } from "./messages.js";

const t = translator(shared);
/** The client's own sentences. Quoted text of the hub stays as it is. */
const SAID = [
  [/hub was not reached: no answer came in time/i, () => t("hub.silent")],
  [/hub was not reached|something else than the hub answered/i, () => t("hub.away")],
  [/there is no access token/i, () => t("hub.no-token")],
  [/content of the context is unknown/i, () => t("hub.no-content")],
  [/hub answered (\d{3})(?::\s*(.+))?/is, ([, status, said]) => join(t("hub.answered", { status }), said)],
];

function join(...parts) {
  return parts.filter(Boolean).join(": ");
}

/** @param {string} why the client's sentence, or a part of it. @returns {string} a part of a sentence */
export function hubWords(why) {
  const [known, words] = SAID.map(([pattern, say]) => [pattern.exec(why), say]).find(([found]) => found) ?? [];
  return known ? words(known) : why.replace(/\.$/, "");
}
