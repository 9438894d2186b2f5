/** Comma-separated values, RFC 4180. */

const BYTE_ORDER_MARK = "\uFEFF";

/**
 * @param {string} text
 * @param {string} delimiter One character.
 * @returns {string[][]} Rows of cells. A cell in quotes may hold delimiters, line ends and doubled quotes.
 */
export function parse(text, delimiter) {
  const content = text.startsWith(BYTE_ORDER_MARK) ? text.slice(1) : text;
  const rows = [];
  let row = [];
  let at = 0;
  while (at < content.length) {
    const cell = content[at] === '"' ? quoted(content, at) : plain(content, at, delimiter);
    row.push(cell.value);
    at = cell.end;
    if (at < content.length && ![delimiter, "\r", "\n"].includes(content.charAt(at))) {
      throw new RangeError("this is no CSV: something follows a closing quote");
    }
    if (content[at] === delimiter) {
      at += 1;
      if (at < content.length && content[at] !== "\r" && content[at] !== "\n") continue;
      row.push("");
    }
    if (content.startsWith("\r\n", at)) at += 1;
    at += 1;
    rows.push(row);
    row = [];
  }
  return rows;
}

/**
 * @param {string} content
 * @param {number} start
 * @param {string} delimiter
 */
function plain(content, start, delimiter) {
  let end = start;
  while (end < content.length && ![delimiter, "\r", "\n"].includes(content.charAt(end))) end += 1;
  return { value: content.slice(start, end), end };
}

/**
 * @param {string} content
 * @param {number} start Where the quote stands.
 */
function quoted(content, start) {
  let end = content.indexOf('"', start + 1);
  while (end >= 0 && content[end + 1] === '"') end = content.indexOf('"', end + 2);
  if (end < 0) throw new RangeError("this is no CSV: a quote is not closed");
  return { value: content.slice(start + 1, end).replaceAll('""', '"'), end: end + 1 };
}
