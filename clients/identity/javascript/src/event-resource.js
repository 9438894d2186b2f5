/** The resource of an event that is looked up. */

import { isObject, text } from "./local.js";
import { severalNamed } from "./refusals.js";

/** @typedef {import("./local.js").Json} Json */

/**
 * For an item with only a reference, the resource has only type and id.
 * @param {Json[]} context An event's context.
 * @param {string} type
 * @returns {{resource: Json | null, url: string}} The resource of a type, with its absolute address ("" without one);
 *   null where the context has no resource of the type.
 * @throws {import("./refusals.js").SeveralMatches} Where there are several: ids of two servers may be the same by
 *   chance.
 */
export function namedIn(context, type) {
  const found = context.filter(isObject).map(named).filter(({ resource }) => resource?.resourceType === type);
  const whole = found.filter(({ resource }) => Object.keys(resource ?? {}).length > 2);
  const full = new Map((whole.length > 0 ? whole : found).map((each) => [canonical(each.resource), each.resource]));
  const ids = new Set(found.map(({ resource }) => text(resource?.id)));
  const urls = new Set(found.map(({ url }) => url).filter(Boolean));
  if (full.size > 1 || ids.size > 1 || urls.size > 1) throw severalNamed(type);
  const [resource = null] = full.values();
  const [url = ""] = urls;
  return { resource, url };
}

/**
 * @param {Json} item
 * @returns {{resource: Json | null, url: string}} An item's resource, and its absolute address from `fullUrl` or
 *   `reference`.
 */
function named(item) {
  const { reference, resource } = item;
  const given = text(isObject(reference) ? reference.reference : reference) || text(item.fullUrl);
  const [address = ""] = given.split("/_history/");
  const url = address.includes("://") ? address : "";
  if (isObject(resource)) return { resource, url };
  const [resourceType, id] = address.split("/").slice(-2);
  return { resource: resourceType && id ? { resourceType, id } : null, url };
}

/**
 * @param {unknown} value
 * @returns {string} JSON that does not depend on the order of members.
 */
function canonical(value) {
  return JSON.stringify(value, (_name, inner) =>
    isObject(inner) ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1))) : inner,
  );
}
