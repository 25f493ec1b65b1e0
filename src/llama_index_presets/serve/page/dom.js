// Elements. Every text goes through text nodes: nothing of a document or a model becomes markup.

const SVG = "http://www.w3.org/2000/svg";

/** Element of the page by its id. */
export const byId = (id) => document.getElementById(id);

/** Make an element; children are elements or texts, a function as an attribute is an event's listener. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** Make an SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Tell a screen reader; said again when the text is the same. */
export function announce(text) {
  const place = byId("announcer");
  place.textContent = "";
  setTimeout(() => (place.textContent = text), 30);
}

let noticeTimer = 0;

/** Show a failure for some seconds, above everything. */
export function notify(text) {
  const place = byId("notice");
  place.textContent = text;
  place.hidden = false;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => (place.hidden = true), 8000);
}

/** Last part of a path. */
export const fileName = (source) => String(source).replace(/\/+$/, "").split("/").pop() || String(source);

/** Dollars with two significant digits below one cent. */
export function dollars(amount) {
  if (amount === null || amount === undefined) return "price unknown";
  const value = Number(amount);
  if (value === 0 || value >= 0.01) return `$${value.toFixed(2)}`;
  return `$${value.toFixed(Math.min(8, 1 - Math.floor(Math.log10(value))))}`;
}

/** Milliseconds as seconds. */
export const seconds = (ms) => `${(Number(ms) / 1000).toFixed(Number(ms) < 100 ? 2 : 1)} s`;

/** Whole number with separators. */
export const count = (value) => Number(value).toLocaleString("en-US");

/** "1 page", "2 pages". */
export const plural = (value, word) => `${count(value)} ${word}${Number(value) === 1 ? "" : "s"}`;
