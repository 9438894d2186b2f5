/** `<wire-panel>`: the messages between this page and the hub, newest first, for learning FHIRcast. */

import { button, element, icon } from "./dom.js";
import { htmlLanguage, translator } from "./i18n.js";
import { shared } from "./messages.js";

const t = translator(shared);
const MOST = 200;
const OPEN = "wire.open";
/** Answers of the hub over HTTP. Its own messages come over the socket. */
const ANSWERED = new Set(["subscribe", "unsubscribe", "publish", "context", "discovery"]);

/** A message in one line: the anchor of an event, the status of an answer. @returns {string} */
export function summary({ kind, body, status }) {
  if (kind === "acknowledgement") return [body?.status, body?.reason].filter(Boolean).join(" ");
  const context = body?.event?.context ?? body?.context;
  if (Array.isArray(context)) return [status, subjects(context)].filter(Boolean).join(" · ");
  const events = [body?.["hub.events"] ?? []].flat().join(",").split(",").filter(Boolean).join(", ");
  return [status, body?.["hub.reason"], events].filter(Boolean).join(" · ");
}

function subjects(context) {
  const outcome = context.find((item) => item.key === "operationoutcome")?.resource?.issue?.[0];
  if (outcome) return outcome.diagnostics ?? "";
  return context
    .map((item) => item.reference?.reference ?? reference(item.resource))
    .filter(Boolean)
    .join(" ");
}

function reference(resource) {
  if (!resource) return "";
  if (resource.resourceType === "Bundle") return (resource.entry ?? []).map(changed).join(" ");
  return `${resource.resourceType}/${resource.id}`;
}

function changed(entry) {
  return `${entry.request?.method ?? ""} ${reference(entry.resource) || entry.request?.url || entry.fullUrl}`.trim();
}

/** `.client` provides the messages. The panel has a button that shows and hides it. */
class WirePanel extends HTMLElement {
  #messages = [];
  #waiting = [];
  /** Names of received events, by id: an acknowledgement has only the id. */
  #names = new Map();
  #paused = false;
  #list = element("ol", { "class": "wire-list", "data-test": "wire-list" });
  #toggle = element("button", {
    "type": "button",
    "class": "button button-quiet wire-toggle",
    "data-test": "wire-toggle",
    "click": () => this.toggle(),
  });
  #panel = element("aside", { "class": "wire-drawer", "id": "wire-drawer", "data-test": "wire-panel" });
  #tools = element("div", { class: "toolbar" });
  #remove = () => {};
  #render = () => this.#frame();

  connectedCallback() {
    this.#panel.addEventListener("keydown", (event) => event.key === "Escape" && this.toggle(false));
    this.append(this.#toggle);
    document.body.append(this.#panel);
    document.addEventListener("language", this.#render);
    this.toggle(sessionStorage.getItem(OPEN) === "yes", { focus: false });
    this.#frame();
  }

  disconnectedCallback() {
    this.#panel.remove();
    document.removeEventListener("language", this.#render);
  }

  set client(client) {
    this.#remove();
    const remove = client.onWire((message) => this.#take({ ...message, at: new Date() }));
    if (typeof remove === "function") this.#remove = remove;
  }

  /** @param {boolean} [open] */
  toggle(open = this.#panel.hidden, { focus = true } = {}) {
    this.#panel.hidden = !open;
    document.body.classList.toggle("wire-open", open);
    sessionStorage.setItem(OPEN, open ? "yes" : "no");
    this.#toggle.setAttribute("aria-expanded", String(open));
    this.#toggle.setAttribute("aria-controls", "wire-drawer");
    if (focus) (open ? this.#panel.querySelector("button") : this.#toggle).focus();
  }

  #take(message) {
    const { kind, body } = message;
    if (kind === "event") this.#names.set(body.id, body.event["hub.event"]);
    if (this.#names.size > MOST) this.#names.delete(this.#names.keys().next().value);
    message.about = kind === "acknowledgement" ? (this.#names.get(body.id) ?? "") : (body?.event?.["hub.event"] ?? "");
    if (this.#paused) {
      this.#waiting = [message, ...this.#waiting].slice(0, MOST);
      this.#tools.querySelector(".hint").textContent = t("wire.paused", { count: this.#waiting.length });
      return;
    }
    this.#add(message);
  }

  #add(message) {
    if (!this.#messages.length) this.#list.replaceChildren();
    this.#messages = [message, ...this.#messages].slice(0, MOST);
    this.#list.prepend(row(message));
    while (this.#list.children.length > MOST) this.#list.lastElementChild.remove();
  }

  #pause() {
    this.#paused = !this.#paused;
    if (!this.#paused) for (const message of this.#waiting.splice(0).reverse()) this.#add(message);
    this.#toolbar();
    this.#tools.querySelector("[data-test=wire-pause]").focus();
  }

  #clear() {
    this.#messages = [];
    this.#waiting = [];
    this.#frame();
    this.#tools.querySelector("[data-test=wire-clear]").focus();
  }

  /** Render all: the texts change with the language. */
  #frame() {
    this.#toggle.replaceChildren(icon("wire"), element("span", {}, t("wire.title")));
    this.#panel.setAttribute("aria-label", t("wire.show"));
    const close = button(t("wire.close"), () => this.toggle(false), {
      icon: "close",
      kind: "quiet",
      test: "wire-close",
    });
    this.#list.replaceChildren(...this.#messages.map(row));
    if (!this.#messages.length) this.#list.append(element("li", { class: "hint" }, t("wire.empty")));
    this.#panel.replaceChildren(
      element("div", { class: "wire-head" }, element("h2", {}, t("wire.show")), close),
      element("p", { class: "hint" }, t("wire.about")),
      this.#tools,
      this.#list,
    );
    this.#toolbar();
  }

  #toolbar() {
    const [says, shows] = this.#paused ? ["wire.resume", "play"] : ["wire.pause", "pause"];
    this.#tools.replaceChildren(
      button(t(says), () => this.#pause(), { test: "wire-pause", icon: shows }),
      button(t("wire.clear"), () => this.#clear(), { test: "wire-clear", icon: "clear" }),
      element("span", { class: "hint" }, this.#paused ? t("wire.paused", { count: this.#waiting.length }) : ""),
    );
  }
}

function row(message) {
  const { direction, kind, body, status, at, about: name } = message;
  const isAnswer = direction === "in" && ANSWERED.has(kind);
  const failed =
    status >= 400 || Number.parseInt(body?.status, 10) >= 400 || (kind === "event" && /^syncerror$/i.test(name));
  const time = new Intl.DateTimeFormat(htmlLanguage(), {
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
  }).format(at);
  const head = element(
    "summary",
    {},
    element(
      "span",
      { "class": "wire-way", "data-way": direction, "title": t(`wire.${direction}`) },
      icon(direction === "in" ? "in" : "out"),
      element("span", { class: "visually-hidden" }, t(`wire.${direction}`)),
    ),
    element("span", { class: "wire-name" }, name || t(`wire.${kind}`)),
    element("span", { class: "wire-kind" }, name ? t(`wire.${kind}`) : isAnswer ? t("wire.answer") : ""),
    element("time", {}, time),
    element("span", { class: "wire-summary" }, summary(message)),
  );
  const json = element("pre", { tabindex: 0 });
  const details = element("details", {}, head, json);
  // the JSON of two hundred messages is made only for those that are opened
  details.addEventListener("toggle", () => (json.textContent ||= JSON.stringify(body, null, 2)));
  return element(
    "li",
    {
      "class": failed ? "wire-item wire-failed" : "wire-item",
      "data-test": "wire-item",
      "data-kind": kind,
      "data-event": name,
    },
    details,
  );
}

customElements.define("wire-panel", WirePanel);
