import { element } from "/shared/dom.js";
import { htmlLanguage } from "/shared/i18n.js";
import { drawing } from "./graph.js";
import { clockTime, madeUpRecord } from "./vitals.js";

const LEGEND = [
  ["heartRate", "●", "perMinute"],
  ["bloodPressure", "▼▲", "mmHg"],
  ["saturation", "◆", "%"],
];
const MILLISECONDS_A_YEAR = 365.25 * 86_400_000;
const LEAST_WIDTH = 320;

/** The vital signs and the medication of one patient, drawn and as text. */
export class RecordView {
  #root;
  #t;
  #record = null;
  #key = "";

  /** @param {HTMLElement} root contains the places, by data-test @param {(key: string, values?: object) => string} t */
  constructor(root, t) {
    this.#root = root;
    this.#t = t;
    new ResizeObserver(() => this.#draw()).observe(this.#place("graph"));
  }

  /** @param {import("./following.js").Shown} shown */
  show({ number, patient }) {
    const born = Date.parse(patient.birthDate ?? "");
    const age = Number.isNaN(born) ? null : (Date.now() - born) / MILLISECONDS_A_YEAR;
    this.#record = madeUpRecord(number, age);
    const key = `${number} ${document.documentElement.lang}`;
    if (key === this.#key) return;
    this.#key = key;
    this.#place("legend").replaceChildren(...this.#legend());
    this.#place("given").replaceChildren(...this.#record.given.map((each) => this.#given(each)));
    this.#place("as-table").querySelector(".table-frame").replaceChildren(this.#table());
    this.#draw();
  }

  #place(test) {
    return this.#root.querySelector(`[data-test="${test}"]`);
  }

  #draw() {
    const place = this.#place("graph");
    if (!this.#record || !place.clientWidth) return;
    const { points } = this.#record;
    const last = points.at(-1);
    const [from, to] = [points[0], last].map((point) => clockTime(point.minute));
    const title = this.#t("graphTitle", { from, to });
    const text = this.#t("graphText", { ...last, to });
    place.replaceChildren(drawing(this.#record, Math.max(LEAST_WIDTH, place.clientWidth), { title, text }));
  }

  #legend() {
    return LEGEND.map(([name, sign, unit]) =>
      element(
        "li",
        { class: name },
        element("span", { "aria-hidden": "true" }, sign),
        ` ${this.#t(name)} (${this.#t(unit)})`,
      ),
    );
  }

  #given(given) {
    return element(
      "li",
      {},
      `${clockTime(given.minute)} ${this.#t(given.drug)} `,
      element("strong", {}, amountText(given)),
    );
  }

  #table() {
    const t = this.#t;
    const heads = [
      t("time"),
      `${t("heartRate")} (${t("perMinute")})`,
      `${t("systolic")} (mmHg)`,
      `${t("diastolic")} (mmHg)`,
    ];
    heads.push(`${t("saturation")} (%)`, t("medication"));
    const { points, given } = this.#record;
    const rows = points.map((point, index) => {
      const until = points[index + 1]?.minute ?? Infinity;
      const now = given.filter((each) => each.minute >= point.minute && each.minute < until);
      const cells = [point.heartRate, point.systolic, point.diastolic, point.saturation];
      cells.push(now.map((each) => `${t(each.drug)} ${amountText(each)}`).join(", "));
      const values = cells.map((cell) => element("td", {}, String(cell)));
      return element("tr", {}, element("th", { scope: "row" }, clockTime(point.minute)), ...values);
    });
    return element(
      "table",
      {},
      element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
      element("tbody", {}, ...rows),
    );
  }
}

function amountText({ amount, unit }) {
  return `${new Intl.NumberFormat(htmlLanguage(), { useGrouping: false }).format(amount)} ${unit}`;
}
