/**
 * A hospital's FHIR server on a free loopback port: search by identifier and $ihe-pix, and what can go wrong with both.
 */

import { createServer } from "node:http";

/** @param {string} code */
export function outcome(code) {
  return { resourceType: "OperationOutcome", issue: [{ severity: "error", code }] };
}

/**
 * @param {string} parameter
 * @param {string} sign
 */
function split(parameter, sign) {
  return parameter.split(new RegExp(`(?<!\\\\)\\${sign}`));
}

/** @param {string} part */
function plain(part) {
  return part.replace(/\\(.)/g, "$1");
}

/**
 * `resources` are searched, `links` are what $ihe-pix answers by source identifier. `asked` is every request. `instead`
 * replaces all answers: a status and a body; `silent` makes it say nothing at all.
 */
export class Hospital {
  /** @type {any[]} */
  resources = [];
  /** @type {Record<string, any[]>} */
  links = {};
  more = {};
  /** @type {{path: string, parameters: [string, string][]}[]} */
  asked = [];
  /** @type {[number, any] | null} */
  instead = null;
  silent = false;
  base = "";

  /** @param {import("node:test").TestContext} context Ends it with the test. */
  static async open(context) {
    const hospital = new Hospital();
    const server = createServer((request, response) => hospital.#serve(request, response));
    await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(null)));
    context.after(() => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    });
    hospital.base = `http://127.0.0.1:${/** @type {any} */ (server.address()).port}/fhir`;
    return hospital;
  }

  /**
   * @param {import("node:http").IncomingMessage} request
   * @param {import("node:http").ServerResponse} response
   */
  #serve(request, response) {
    const url = new URL(request.url ?? "", "http://x");
    this.asked.push({ path: url.pathname, parameters: [...url.searchParams] });
    if (this.silent) return;
    const [status, body] = this.#answer(url.pathname, Object.fromEntries(url.searchParams));
    const moved = status === 302 ? { Location: `/elsewhere${url.search}` } : {};
    response.writeHead(status, { Connection: "close", ...moved });
    response.end(status === 204 ? undefined : typeof body === "string" ? body : JSON.stringify(body));
  }

  /**
   * @param {string} path
   * @param {any} parameters
   * @returns {[number, any]}
   */
  #answer(path, parameters) {
    if (path === "/elsewhere") return [200, this.#search("Patient", parameters)];
    if (this.instead) return this.instead;
    if (path !== "/fhir/Patient/$ihe-pix") return [200, this.#search(path.replace("/fhir/", ""), parameters)];
    const parameter = this.links[parameters.sourceIdentifier];
    return parameter ? [200, { resourceType: "Parameters", parameter }] : [404, outcome("not-found")];
  }

  /**
   * @param {string} type
   * @param {any} parameters
   */
  #search(type, parameters) {
    const found = this.resources.filter((each) => each.resourceType === type && matches(each, parameters));
    const entry = found.map((resource) => ({ resource, search: { mode: "match" } }));
    if (parameters._include === "ImagingStudy:patient") {
      const wanted = found.map((each) => each.subject?.reference);
      const people = this.resources.filter((each) => wanted.includes(`${each.resourceType}/${each.id}`));
      entry.push(...people.map((resource) => ({ resource, search: { mode: "include" } })));
    }
    return { resourceType: "Bundle", type: "searchset", entry, ...this.more };
  }
}

/**
 * @param {any} resource
 * @param {any} parameters
 */
function matches(resource, parameters) {
  if (parameters._id) return resource.id === plain(parameters._id);
  return split(parameters.identifier, ",").some((wanted) => {
    const [system = "", value = ""] = split(wanted, "|").map(plain);
    return resource.identifier.some(
      (/** @type {any} */ each) => (each.system ?? "") === system && each.value.toLowerCase() === value.toLowerCase(),
    );
  });
}
