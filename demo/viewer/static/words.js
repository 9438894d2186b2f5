/** Words for an image, a window and a measurement, in the current language. */

import { htmlLanguage } from "/shared/i18n.js";

export class Words {
  /** @param {(key: string, values?: object) => string} t */
  constructor(t) {
    this.t = t;
  }

  /** @param {{value: number, unit: string}} measured @returns {string} such as "12.5 mm" */
  length({ value, unit }) {
    return `${new Intl.NumberFormat(htmlLanguage(), { maximumFractionDigits: 1 }).format(value)} ${unit}`;
  }

  /** @param {import("./dicom.js").Series} series @returns {string} */
  series(series) {
    return series.description || this.t("series.nameless", { number: series.number });
  }

  /** @param {import("./dicom.js").Series} series @param {number} index @returns {string} in place of an image */
  image(series, index) {
    const key = `modality.${series.modality}`;
    const modality = this.t(key) === key ? series.modality : this.t(key);
    const [number, count] = [index + 1, series.images.length];
    return this.t("image.alt", { modality, series: this.series(series), number, count });
  }

  /** @param {import("./dicom.js").Window} window @returns {string} */
  window(window) {
    return this.t("image.window", window);
  }

  /** @param {{series: import("./dicom.js").Series, index: number}|null} found the image of a measurement */
  place(found) {
    if (!found) return this.t("measurement.elsewhere");
    return this.t("measurement.place", { series: this.series(found.series), number: found.index + 1 });
  }
}
