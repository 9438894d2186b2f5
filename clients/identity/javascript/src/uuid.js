/** UUIDs of a name (RFC 9562, version 5), in the namespace of URLs. */

const NAMESPACE_URL = [0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8];
const LENGTH = 16;

/**
 * @param {string} name
 * @returns {Promise<string>} The same for the same name.
 * @throws {Error} In a page without https: browsers offer no hash functions there.
 */
export async function uuid5(name) {
  if (!globalThis.crypto?.subtle) throw new Error("a page that is not served over https cannot make ids");
  const hashed = new Uint8Array([...NAMESPACE_URL, ...new TextEncoder().encode(name)]);
  const bytes = new Uint8Array(await globalThis.crypto.subtle.digest("SHA-1", hashed)).slice(0, LENGTH);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x50;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const digits = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
