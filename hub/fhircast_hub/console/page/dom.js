/** Tables and facts that change in place: only what differs is touched, so that focus, selection and scroll position stay. */

import { locale, t } from "./words.js";

/** @param {string} id @returns {HTMLElement} */
export function by(id) {
  return document.getElementById(id);
}

/** Characters that are not seen, and change the direction of the text around them. */
const TURNING = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** Text of a client may turn no other text. @param {Element} node @param {string} text */
export function setText(node, text) {
  const shown = text.replace(TURNING, "\ufffd");
  if (node.textContent !== shown) node.textContent = shown;
}

/** @param {Element} node @param {boolean} shown */
export function show(node, shown) {
  node.toggleAttribute("hidden", !shown);
}

/** @param {string} tag @param {string} [name] its class @returns {HTMLElement} */
export function make(tag, name = "") {
  const made = document.createElement(tag);
  if (name) made.className = name;
  return made;
}

/**
 * The child of this class, made where it is missing.
 * @param {Element} parent @param {string} tag @param {string} name
 */
export function child(parent, tag, name) {
  return parent.querySelector(`:scope > .${name}`) ?? parent.appendChild(make(tag, name));
}

/** Formatters by kind, language and options: to make one costs more than to use it a hundred times. */
const formatters = new Map();

/** @param {"NumberFormat"|"DateTimeFormat"|"RelativeTimeFormat"} kind @param {object} options */
function formatter(kind, options) {
  const key = `${kind} ${locale()} ${JSON.stringify(options)}`;
  if (!formatters.has(key)) formatters.set(key, new Intl[kind](locale(), options));
  return formatters.get(key);
}

/** A number in the reader's spelling. @param {number} value @param {number} [digits] */
export function number(value, digits = 0) {
  return formatter("NumberFormat", { maximumFractionDigits: digits }).format(value);
}

/** Bytes as people read them. @param {number} bytes */
export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  while (value >= 1024 && units.length > 1) {
    value /= 1024;
    units.shift();
  }
  return `${number(value, value < 10 ? 1 : 0)} ${units[0]}`;
}

const STEPS = [
  ["second", 60],
  ["minute", 60],
  ["hour", 24],
  ["day", Infinity],
];

/** A duration in its largest unit. @param {number} seconds */
export function duration(seconds) {
  let [value, index] = [Math.max(0, seconds), 0];
  while (value >= STEPS[index][1]) value /= STEPS[index++][1];
  const style = { style: "unit", unit: STEPS[index][0], unitDisplay: "short" };
  return formatter("NumberFormat", style).format(Math.floor(value));
}

/** The time of day, with the date where it is not today's. @param {number} at epoch seconds @param {number} now */
function moment(at, now) {
  const [then, today] = [new Date(at * 1000), new Date(now * 1000)];
  const isToday = then.toDateString() === today.toDateString();
  const style = isToday ? { timeStyle: "medium" } : { dateStyle: "short", timeStyle: "medium" };
  return formatter("DateTimeFormat", style).format(then);
}

/**
 * A time, relative and absolute.
 * @param {Element} node its place @param {number|null} at epoch seconds; null: never @param {number} now
 */
export function setTime(node, at, now) {
  if (at == null) {
    setText(node, t("never"));
    return;
  }
  if (node.firstChild?.nodeType === Node.TEXT_NODE) node.textContent = "";
  const time = child(node, "time", "time");
  const iso = new Date(at * 1000).toISOString();
  if (time.getAttribute("datetime") !== iso) time.setAttribute("datetime", iso);
  const relative = formatter("RelativeTimeFormat", { numeric: "always", style: "short" });
  let [value, index] = [Math.max(0, now - at), 0];
  while (value >= STEPS[index][1]) value /= STEPS[index++][1];
  setText(child(time, "span", "relative"), relative.format(-Math.floor(value), STEPS[index][0]));
  setText(child(time, "span", "absolute"), moment(at, now));
}

/** @param {Element} node @param {string} text @param {string} kind ok, warn, bad or plain */
export function setBadge(node, text, kind) {
  const badge = child(node, "span", "badge");
  setText(badge, text);
  if (badge.dataset.kind !== kind) badge.dataset.kind = kind;
}

/**
 * Terms with values.
 * @param {HTMLElement} list a dl @param {[string, (node: Element) => void][]} facts the word's key, and what fills the value
 */
export function setFacts(list, facts) {
  for (const [key, fill] of facts) {
    const name = key.replace(/\W/g, "-");
    const fact = child(list, "div", `fact-${name}`);
    fact.dataset.fact = key;
    setText(child(fact, "dt", "term"), t(key));
    fill(child(fact, "dd", "value"));
  }
  const known = new Set(facts.map(([key]) => key));
  for (const each of [...list.children]) if (!known.has(each.dataset.fact)) each.remove();
}

/**
 * @typedef {object} Column
 * @property {string} head the word's key
 * @property {(cell: HTMLElement, item: any) => void} fill
 * @property {boolean} [leads] whether the cell is the heading of its row
 * @property {boolean} [slim] whether the column needs little room
 * @property {boolean} [whole] whether its words are short, and stay on one line
 */

/** A table whose rows are kept by key. */
export class Table {
  /**
   * @param {HTMLElement} table @param {Column[]} columns @param {(item: any) => string} key
   * @param {{holds?: boolean}} [options] `holds`: rows keep their places while the reader is among them
   */
  constructor(table, columns, key, { holds = false } = {}) {
    [this.table, this.columns, this.key, this.holds] = [table, columns, key, holds];
    /** @type {Map<string, HTMLElement>} */
    this.rows = new Map();
    const head = table.appendChild(make("thead"));
    this.heads = head.appendChild(make("tr"));
    for (const _ of columns) this.heads.appendChild(make("th")).scope = "col";
    this.body = table.appendChild(make("tbody"));
    // The layout of narrow windows is none of a table; the roles stay.
    table.setAttribute("role", "table");
    for (const each of [head, this.body]) each.setAttribute("role", "rowgroup");
    this.heads.setAttribute("role", "row");
    for (const each of this.heads.children) each.setAttribute("role", "columnheader");
    this.empty = make("p", "hint");
    table.after(this.empty);
  }

  /** @param {any[]} items in their order */
  update(items) {
    this.columns.forEach((column, index) => setText(this.heads.children[index], t(column.head)));
    const wanted = items.map((item) => this.key(item));
    this.#drop(new Set(wanted));
    for (const [index, item] of items.entries()) {
      if (!this.rows.has(wanted[index])) this.#add(wanted[index]);
      const row = this.rows.get(wanted[index]);
      this.columns.forEach((column, place) => {
        const cell = row.children[place];
        if (cell.dataset.label !== t(column.head)) cell.dataset.label = t(column.head);
        column.fill(cell, item);
      });
    }
    this.#order(wanted);
    show(this.table, items.length > 0);
    setText(this.empty, items.length ? "" : t("none"));
  }

  #add(key) {
    const row = make("tr");
    row.setAttribute("role", "row");
    row.dataset.key = key;
    for (const column of this.columns) {
      const cell = row.appendChild(make(column.leads ? "th" : "td", column.slim ? "slim" : column.whole ? "whole" : ""));
      if (column.leads) cell.scope = "row";
      cell.setAttribute("role", column.leads ? "rowheader" : "cell");
    }
    this.rows.set(key, row);
    if (this.#isHeld()) this.body.prepend(row);
    else this.body.append(row);
  }

  #drop(wanted) {
    for (const [key, row] of this.rows) {
      if (wanted.has(key)) continue;
      if (row.contains(document.activeElement)) {
        const next = row.nextElementSibling ?? row.previousElementSibling;
        next?.querySelector("button")?.focus({ preventScroll: true });
      }
      row.remove();
      this.rows.delete(key);
    }
  }

  #isHeld() {
    return this.holds && (this.body.matches(":hover") || this.body.contains(document.activeElement));
  }

  /** Order the rows. The row with the focus is not moved, but all others around it: a moved element would lose the focus. */
  #order(wanted) {
    const present = [...this.body.children].map((row) => row.dataset.key);
    if (this.#isHeld() || present.every((key, index) => key === wanted[index])) return;
    const fixed = this.body.contains(document.activeElement) ? document.activeElement.closest("tr") : null;
    let before = fixed;
    for (const key of wanted) {
      const row = this.rows.get(key);
      if (row === fixed) before = null;
      else this.body.insertBefore(row, before);
    }
  }
}
