/** Modal questions. */

import { element } from "./dom.js";

/**
 * Ask, and wait for the answer. Escape is a no, and so is Enter at once.
 * @param {{title: string, texts: string[], yes: string, no: string, test: string}} question `yes` and `no` are the
 *   labels of the buttons
 * @returns {Promise<boolean>} whether the answer is yes
 */
export function confirmed({ title, texts, yes, no, test }) {
  const heading = element("h2", { id: `${test}-title` }, title);
  const said = element("div", { id: `${test}-said` }, ...texts.map((text) => element("p", {}, text)));
  const answers = [
    element("button", { "value": "yes", "class": "button button-primary", "data-test": `${test}-yes` }, yes),
    element("button", { "value": "no", "class": "button", "autofocus": true, "data-test": `${test}-no` }, no),
  ];
  const dialog = element(
    "dialog",
    { "aria-labelledby": heading.id, "aria-describedby": said.id, "data-test": test },
    heading,
    said,
    element("form", { method: "dialog", class: "toolbar" }, ...answers),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((answered) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      answered(dialog.returnValue === "yes");
    });
  });
}
