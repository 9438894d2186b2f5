/** The viewer's own image archive, over DICOMweb: QIDO-RS for searches, WADO-RS for images. */

import { seriesOf, seriesUid, studyOf } from "./dicom.js";

/** The archive gave no usable answer. `status` 0: it was not reached. */
export class ArchiveError extends Error {
  /** @param {number} status */
  constructor(status) {
    super(status ? `The image archive answered with status ${status}.` : "The image archive does not answer.");
    this.name = "ArchiveError";
    this.status = status;
  }
}

/**
 * @param {import("/shared/smart.js").Smart} smart
 * @returns {typeof fetch} with the user's token, and with a new one after a 401
 */
export function authorized(smart) {
  const asked = (url, options, token) =>
    fetch(url, { ...options, headers: { ...options.headers, Authorization: `Bearer ${token}` } });
  return async (url, options = {}) => {
    const answer = await asked(url, options, await smart.accessToken());
    return answer.status === 401 ? asked(url, options, await smart.freshToken()) : answer;
  };
}

export class Archive {
  #base;
  #fetch;

  /** @param {string} base the URL of its DICOMweb service @param {typeof fetch} fetch with the user's token */
  constructor(base, fetch) {
    this.#base = base.replace(/\/$/, "");
    this.#fetch = fetch;
  }

  /**
   * @param {string} uid Study Instance UID
   * @returns {Promise<{study: import("./dicom.js").Study, series: import("./dicom.js").Series[]}>} Throws ArchiveError.
   */
  async study(uid) {
    const [studies, series] = await Promise.all([
      this.#query(`/studies?StudyInstanceUID=${uid}`),
      this.#query(`/studies/${uid}/series`),
    ]);
    const instances = await Promise.all(
      series.map((each) => this.#query(`/studies/${uid}/series/${seriesUid(each)}/instances`)),
    );
    if (studies.length !== 1 || !instances.flat().length) throw new ArchiveError(404);
    return { study: studyOf(studies[0]), series: seriesOf(instances.flat()) };
  }

  /**
   * The address of a frame's picture.
   * @param {import("./dicom.js").Image} image
   * @param {import("./dicom.js").Window|null} [window] null: the image's own
   */
  frameUrl({ study, series, instance, frame, grey }, window = null) {
    const query = window && grey ? `?window=${window.center},${window.width},linear` : "";
    return `${this.#base}/studies/${study}/series/${series}/instances/${instance}/frames/${frame}/rendered${query}`;
  }

  /**
   * @param {string} url of frameUrl
   * @param {AbortSignal} signal
   * @returns {Promise<ImageBitmap>} the picture, without loss. Throws ArchiveError.
   */
  async picture(url, signal) {
    const answer = await this.#asked(url, { signal, headers: { Accept: "image/png" } });
    return createImageBitmap(await answer.blob());
  }

  async #query(path) {
    const answer = await this.#asked(this.#base + path, { headers: { Accept: "application/dicom+json" } });
    return answer.status === 204 ? [] : answer.json();
  }

  async #asked(url, options) {
    let answer;
    try {
      answer = await this.#fetch(url, options);
    } catch {
      throw new ArchiveError(0);
    }
    if (!answer.ok) throw new ArchiveError(answer.status);
    return answer;
  }
}
