/**
 * Writing the same text into a live region makes screen readers repeat it.
 * @param {Element} place
 * @param {string} text
 */
export function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
