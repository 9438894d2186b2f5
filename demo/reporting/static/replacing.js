/**
 * Replaces the items of a list. The keyboard focus stays at the same control of the same item.
 * @param {HTMLElement} list with items that are identified by data-id, and controls by data-test
 * @param {HTMLElement[]} items
 */
export function replaceItems(list, items) {
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  list.replaceChildren(...items);
  const id = focused?.closest("[data-id]")?.dataset.id;
  if (id) list.querySelector(`[data-id="${CSS.escape(id)}"] [data-test="${focused.dataset.test}"]`)?.focus();
}
