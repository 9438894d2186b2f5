/** Local ids of studies, found in a real image archive over QIDO-RS. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { IdentityMap, QidoRs, StudyUid, System, Table, TypeCode } from "../src/index.js";
import { accession, MRN, NIN, refusal, study } from "./cases.js";
import { archive } from "./orthanc.js";

const OSTBY = { PatientName: "Østby^Kari", PatientID: "4438001", PatientBirthDate: "19700513", PatientSex: "F" };
const HAAS = { PatientName: "HAAS^Ola", PatientID: "4438002", PatientBirthDate: "19810102", PatientSex: "M" };
const SENT = { resourceType: "Patient", name: [{ family: "OESTBY" }], birthDate: "1970-05-13", gender: "female" };

describe("an image archive", () => {
  /** @type {Awaited<ReturnType<typeof archive>>} */
  let orthanc;
  /** @type {IdentityMap} */
  let ids;

  before(async () => {
    orthanc = await archive();
    await orthanc.store({ ...OSTBY, StudyInstanceUID: "1.2.840.99.1", AccessionNumber: "ACC1" });
    await orthanc.store({ ...HAAS, StudyInstanceUID: "1.2.840.99.2", AccessionNumber: "ACC2" });
    await orthanc.store({ ...HAAS, StudyInstanceUID: "1.2.840.99.3", AccessionNumber: "ACC2" });
    const resolver = new QidoRs(orthanc.base, undefined, { patientSystem: MRN });
    // A test may wait for a busy machine; how long a question may take is proven elsewhere.
    ids = new IdentityMap({ ImagingStudy: [new StudyUid(), new TypeCode("ACSN")] }, [resolver], { askSeconds: 20 });
  });
  after(async () => orthanc?.stop());

  test("IDM-1 IDM-2 by Study Instance UID", async () => {
    const local = await ids.findResource(study("1.2.840.99.1"));
    assert.equal(local.id, "1.2.840.99.1");
    assert.equal(local.source, "the image archive");
    assert.deepEqual(local.patient?.name, [{ family: "Østby", given: ["Kari"] }]);
    assert.equal(local.patient?.birthDate, "1970-05-13");
    assert.equal(local.patient?.gender, "female");
  });

  test("IDM-1 IDM-2 IDM-4 by accession number", async () => {
    assert.equal((await ids.findResource(accession("ACC1"))).id, "1.2.840.99.1");
    const several = refusal("SeveralMatches", /^Several studies here have the accession number that was sent\./);
    await assert.rejects(ids.findResource(accession("ACC2")), several);
  });

  for (const number of ["*", "?CC1", "ACC?", "ACC1*", "acc1", "ACC1\\ACC2", "ACC9", "A&StudyDate=*"]) {
    test(`IDM-2 IDM-4 what is not exactly there is not found: ${number}`, async () => {
      await assert.rejects(ids.findResource(accession(number)), refusal("NoMatch"));
    });
  }

  test("IDM-2 IDM-4 a study that is not there", async () => {
    const reason = "No study here has the Study Instance UID that was sent.";
    await assert.rejects(ids.findResource(study("1.2.840.99.9")), refusal("NoMatch", reason));
  });

  test("IDM-3 the patient that was sent is compared", async () => {
    assert.equal((await ids.findResource(study("1.2.840.99.1"), SENT)).id, "1.2.840.99.1");
    const mismatch = refusal("Mismatch", /^Family name, birth date and gender differ between/);
    await assert.rejects(ids.findResource(study("1.2.840.99.2"), SENT), mismatch);
  });

  test("IDM-5 publishing a study", async () => {
    /** @type {any[]} */
    const [resource, patient] = await ids.publishable("ImagingStudy", "1.2.840.99.1");
    const values = resource.identifier.map((/** @type {any} */ each) => each.value);
    assert.deepEqual(values, ["urn:oid:1.2.840.99.1", "ACC1"]);
    assert.deepEqual(resource.subject, { reference: `Patient/${patient.id}` });
    assert.deepEqual([patient.identifier[0].system, patient.identifier[0].value], [MRN, "4438001"]);
    assert.equal((await ids.findResource(resource, patient)).id, "1.2.840.99.1");
  });

  test("IDM-5 publishing a study whose patient is known elsewhere", async () => {
    /** @type {Map<any, string>} */
    const records = new Map([[[MRN, "4438001"], "l17"], [[NIN, "13057000001"], "l17"]]);
    const resolver = new QidoRs(orthanc.base, undefined, { patientSystem: MRN });
    const both = new IdentityMap({ Patient: [new System(MRN)] }, [new Table(records), resolver], { askSeconds: 20 });
    const [, patient] = await both.publishable("ImagingStudy", "1.2.840.99.1");
    const values = patient?.identifier.map((/** @type {any} */ each) => each.value);
    assert.deepEqual(values, ["4438001", "13057000001"]);
  });
});
