import { isRefusal, Refuse } from "/fhircast-client/index.js";
import { IdentityMap, Table, TypeCode } from "/fhircast-identity/index.js";

/** The medical record number of the hospital whose EHR opens the session. Numbers of other hospitals must not match. */
const RECORD_NUMBER = new TypeCode("MR", "http://hospital.example/mrn");

/**
 * The chart's own patient numbers, for `client.on(..., {ids})`.
 * @param {(event: object, refusal: Error) => void} refused called when no certain patient is found
 * @returns {{find(event: object): Promise<string>}} throws Refuse, with the reason as a sentence
 */
export function chartNumbers(refused) {
  let numbers = null;
  return {
    async find(event) {
      try {
        numbers ??= await readNumbers();
        return (await numbers.find(event)).id;
      } catch (error) {
        if (isRefusal(error)) refused(event, error);
        throw error;
      }
    },
  };
}

async function readNumbers() {
  const answer = await fetch("/patients.json").catch(() => null);
  if (!answer?.ok) throw new Refuse("The chart's patient numbers cannot be read now.");
  const table = Table.fromRows(await answer.json(), { identifiers: { mrn: RECORD_NUMBER } });
  return new IdentityMap({ Patient: [RECORD_NUMBER] }, [table]);
}
