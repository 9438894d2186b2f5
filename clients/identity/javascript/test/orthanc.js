/** A real image archive: Debian's Orthanc with its DICOMweb plugin, on a loopback port, with files of its own. */

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../../../javascript/test/ports.js";

const PROGRAM = ["/usr/sbin/Orthanc", "/usr/local/sbin/Orthanc", "/usr/bin/Orthanc"].find(existsSync);
const PLUGIN = ["/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins"]
  .filter(existsSync)
  .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
  .find((path) => path.includes("libOrthancDicomWeb.so"));
/** Milliseconds until Orthanc must answer. */
const PATIENCE = 20_000;

/** @returns {Promise<{base: string, store: (tags: object) => Promise<void>, stop: () => Promise<void>}>} */
export async function archive() {
  if (!PROGRAM || !PLUGIN) throw new Error("expected Orthanc: apt-get install orthanc orthanc-dicomweb");
  const folder = mkdtempSync(join(tmpdir(), "orthanc-"));
  const port = await freePort();
  const settings = {
    HttpPort: port,
    DicomServerEnabled: false,
    RemoteAccessAllowed: false,
    AuthenticationEnabled: false,
    StorageDirectory: join(folder, "storage"),
    IndexDirectory: join(folder, "index"),
    Plugins: [PLUGIN],
    DicomWeb: { Enable: true, Root: "/dicom-web/" },
  };
  writeFileSync(join(folder, "orthanc.json"), JSON.stringify(settings));
  const child = spawn(PROGRAM, [join(folder, "orthanc.json")], { cwd: folder, stdio: "ignore" });
  const ended = new Promise((resolve) => child.once("close", resolve));
  const origin = `http://127.0.0.1:${port}`;
  const stop = async () => {
    child.kill();
    await ended;
    rmSync(folder, { recursive: true });
  };
  try {
    await answers(`${origin}/dicom-web/studies`, child);
  } catch (error) {
    await stop();
    throw error;
  }
  return { base: `${origin}/dicom-web`, store: (tags) => store(origin, tags), stop };
}

/**
 * @param {string} address
 * @param {import("node:child_process").ChildProcess} child
 */
async function answers(address, child) {
  for (const end = Date.now() + PATIENCE; Date.now() < end && child.exitCode === null; ) {
    try {
      await (await fetch(address)).text();
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  throw new Error("Orthanc did not answer");
}

/**
 * Orthanc makes an instance with these tags, and keeps it.
 * @param {string} origin
 * @param {object} tags
 */
async function store(origin, tags) {
  const body = JSON.stringify({ Tags: { SpecificCharacterSet: "ISO_IR 192", ...tags }, Force: true });
  const answer = await fetch(`${origin}/tools/create-dicom`, { method: "POST", body });
  if (!answer.ok) throw new Error(await answer.text());
}
