/** Subscribers that did not follow, for clinicians: what is out of sync, what the others show, what can be done. */

import { button, element, icon } from "/shared/dom.js";
import { conceptText, humanName } from "/shared/fhir.js";
import { stateOf } from "./session.js";

const SYSTEM = "https://fhircast.hl7.org/events/syncerror/";
/** By words of the hub. Reports without any of these words count as refused. */
const KINDS = [
  { kind: "lost", said: /lost its connection|was unsubscribed/ },
  { kind: "silent", said: /did not acknowledge/ },
  { kind: "failed", said: /could not follow/ },
];

/**
 * @param {object|null} outcome the OperationOutcome of a SyncError
 * @returns {{name: string, id: string, kind: "refused"|"failed"|"silent"|"lost", reason: string}[]} the subscriber, the
 *   event, and the subscriber's own reason ("" without one)
 */
export function reportsOf(outcome) {
  return (outcome?.issue ?? []).map(({ diagnostics = "", details }) => {
    const code = (name) => details?.coding?.find((coding) => coding.system === SYSTEM + name)?.code ?? "";
    const kind = KINDS.find(({ said }) => said.test(diagnostics))?.kind ?? "refused";
    return {
      name: code("subscribername") || code("subscriber") || "unnamed",
      id: code("eventid"),
      kind,
      reason: reasonIn(diagnostics),
    };
  });
}

/** The subscriber's own words follow the first colon, after those of the hub or the client. */
function reasonIn(diagnostics) {
  const own = diagnostics
    .replace(/: it was not delivered\b/, "")
    .split(/:\s+/)
    .slice(1)
    .join(": ")
    .trim();
  return own.replace(/\.$/, ""); // a part of a sentence
}

/** Reasons in SyncErrors of subscribers that are behind, and the dismissed ones. */
class Behind {
  #client;
  #participants;
  /** By name of the subscriber. @type {Map<string, {id: string, kind: string, reason: string, at: number}>} */
  #reports = new Map();
  #dismissed = new Set();

  constructor(client, participants) {
    this.#client = client;
    this.#participants = participants;
  }

  /** @param {object|null} outcome as of reportsOf */
  report(outcome) {
    for (const { name, ...report } of reportsOf(outcome)) this.#reports.set(name, { ...report, at: performance.now() });
  }

  dismiss() {
    for (const { name, id } of this.all) this.#dismissed.add(`${name} ${id}`);
  }

  /** The reports to show to the user. */
  get all() {
    const unsaid = { id: "", kind: "refused", reason: "", at: Infinity };
    return this.#client.status.behind
      .map((name) => ({ name, ...(this.#reports.get(name) ?? unsaid) }))
      .filter(({ name, id, at }) => !this.#dismissed.has(`${name} ${id}`) && !this.#isBack(name, at));
  }

  #isBack(name, at) {
    const { all, asked } = this.#participants;
    const named = asked > at ? all.filter((one) => one.name === name) : [];
    return named.length > 0 && named.every((one) => stateOf(one.state).follows);
  }
}

/** The panel. It shows the subscribers that are behind, until they follow or the user dismisses it. */
export function showRefusals(app, desk, participants) {
  const place = document.querySelector("[data-test=refusals]");
  const behind = new Behind(app.client, participants);
  let shown = "";
  const render = () => {
    const [all, what] = [behind.all, shownByOthers(app, desk)];
    const now = JSON.stringify([app.language, all, what]);
    if (now === shown) return; // announced once, not at every update
    shown = now;
    place.replaceChildren(...(all.length ? [panel(app, desk, all, what, dismiss)] : []));
  };
  const dismiss = () => {
    behind.dismiss();
    render();
    document.querySelector("[data-test=search]").focus();
  };
  app.client.on("SyncError", (event) => {
    behind.report(event.resource("operationoutcome"));
    render();
  });
  app.client.onStatus(render);
  for (const each of [participants, desk]) each.addEventListener("change", render);
  document.addEventListener("language", render);
}

function panel(app, desk, behind, what, dismiss) {
  const sentences = behind.map((one) =>
    element("strong", { "data-test": "refusal", "data-name": one.name }, `${sentence(app, one)}.`),
  );
  const others = what ? app.t("refusal.others", { what }) : app.t("refusal.nothing");
  return element(
    "div",
    { "class": "alert", "data-test": "refusal-panel" },
    icon("warn"),
    element("div", { class: "alert-text" }, ...sentences, element("span", { "data-test": "refusal-others" }, others)),
    element(
      "div",
      { class: "toolbar" },
      what && button(app.t("refusal.again"), () => desk.openAgain(), { icon: "again", test: "refusal-again" }),
      button(app.t("refusal.dismiss"), dismiss, { kind: "quiet", test: "refusal-dismiss" }),
    ),
  );
}

function sentence(app, { name, kind, reason }) {
  return app.t(kind === "refused" && reason ? "refusal.because" : `refusal.${kind}`, { name: app.titled(name), reason });
}

/** @returns {string} the name of the current context; "" for none */
function shownByOthers(app, desk) {
  const event = app.client.context?.event;
  if (!event) return "";
  const sent = event.resource("patient");
  const patient = humanName(desk.patients.find(({ id }) => id === sent?.id) ?? sent);
  const part = event.resource("report") ?? event.resource("study");
  if (!part) return patient;
  return app.t("refusal.study", { study: part.description ?? conceptText(part.code ?? part.modality), patient });
}
