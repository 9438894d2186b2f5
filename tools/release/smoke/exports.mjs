// Imports all that a package exports, and looks for its types. Runs where the package is installed.
import { existsSync, readFileSync } from "node:fs";

const name = process.argv[2];
const folder = `node_modules/${name}`;
const manifest = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
let tried = 0;
for (const [path, target] of Object.entries(manifest.exports)) {
  const specifier = name + path.slice(1);
  if (typeof target === "string" && target.endsWith(".json")) {
    const file = await import(specifier, { with: { type: "json" } });
    if (file.default.version !== manifest.version) throw new Error(`${specifier} must be the package's own`);
    continue;
  }
  if (Object.keys(await import(specifier)).length === 0) throw new Error(`${specifier} must export something`);
  if (!existsSync(`${folder}/${target.types}`)) throw new Error(`${specifier} must have types: ${target.types} is missing`);
  tried += 1;
}
if (tried === 0) throw new Error(`${name} must export a module`);
