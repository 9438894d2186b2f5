/** Finds the archive's study of an event. The viewer follows only a certain study. */

import { IdentityMap, QidoRs, StudyUid, TypeCode } from "/fhircast-identity/index.js";

const HOSPITAL_ACCESSION = "http://hospital.example/accession";

/**
 * For `client.on(..., {ids})`: `find` and `findStudy` return a Local, whose id is a Study Instance UID, or throw
 * Refuse.
 */
export class Studies {
  #map;
  #began;
  #refused;

  /**
   * @param {string} dicomweb the archive
   * @param {typeof fetch} fetch with the user's token
   * @param {{began: (event: object) => void, refused: (event: object, reason: Error) => void}} callbacks
   */
  constructor(dicomweb, fetch, { began, refused }) {
    this.#map = new IdentityMap({ ImagingStudy: [new StudyUid(), new TypeCode("ACSN", HOSPITAL_ACCESSION)] }, [
      new QidoRs(dicomweb, fetch, { accessionSystem: HOSPITAL_ACCESSION }),
    ]);
    this.#began = began;
    this.#refused = refused;
  }

  /** @param {object} event an ImagingStudy-open */
  find(event) {
    return this.#found(event, () => this.#map.find(event));
  }

  /** @param {object} event with a study in its context */
  findStudy(event) {
    return this.#found(event, () => this.#map.findResource(event.resource("study"), event.resource("patient")));
  }

  async #found(event, find) {
    this.#began(event);
    try {
      return await find();
    } catch (reason) {
      this.#refused(event, reason);
      throw reason;
    }
  }
}
