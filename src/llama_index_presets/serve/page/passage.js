// The passage beside the answer, with the cited words marked; of a PDF, its page.

import { byId, el, fileName } from "./dom.js";
import { call } from "./api.js";

let opener = null;
let picture = "";
let shown = 0;

/** Wire the panel. */
export function startPassage() {
  byId("close-passage").addEventListener("click", closePassage);
  byId("passage").addEventListener("close-passage", closePassage);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !byId("passage").hidden && !document.querySelector("dialog[open]")) closePassage();
  });
  matchMedia("(max-width: 900px)").addEventListener("change", cover);
}

/** Show a citation.
 * @param {object} citation as the server gives it, with `engine`
 * @param {string} answer whose words are looked for where the citation names none
 * @param {HTMLElement} from gets the focus back */
export async function openPassage(citation, answer, from) {
  const turn = (shown += 1);
  opener?.removeAttribute("aria-expanded");
  opener = from;
  opener.setAttribute("aria-expanded", "true");
  byId("passage-title").textContent = `${citation.number ? `[${citation.number}] ` : ""}${fileName(citation.source)}`;
  byId("passage-place").textContent = [citation.page && `Page ${citation.page}`, citation.heading?.replaceAll(" > ", " › ")].filter(Boolean).join(" · ");
  const wanted = quotes(citation, answer);
  const text = el("div", { class: "passage-text" }, ...marked(citation.text ?? "", wanted));
  byId("passage-body").replaceChildren(text);
  byId("passage").hidden = false;
  byId("passage-body").scrollTop = 0;
  cover();
  from.scrollIntoView({ block: "nearest" }); // the conversation is narrower now
  byId("passage-title").focus();
  text.querySelector("mark")?.scrollIntoView({ block: "center" });
  if (citation.page && /\.pdf$/i.test(citation.source)) await addPage(citation, wanted, turn);
}

function closePassage() {
  if (byId("passage").hidden) return;
  shown += 1;
  byId("passage").hidden = true;
  byId("passage-body").replaceChildren();
  URL.revokeObjectURL(picture);
  cover();
  opener?.removeAttribute("aria-expanded");
  if (opener?.isConnected) opener.focus();
  opener = null;
}

/** On a narrow window the panel covers the rest, which then takes no focus. */
function cover() {
  const covers = !byId("passage").hidden && matchMedia("(max-width: 900px)").matches;
  byId("main").inert = covers;
  document.querySelector(".bar").inert = covers;
}

/** The page as a picture above the text, the cited words marked; without one the text stays alone. */
async function addPage(citation, wanted, turn) {
  const known = (citation.boxes ?? []).map((box) => (Array.isArray(box) ? box : [box.page, ...box.box]));
  const body = { document: citation.source, page: String(known[0]?.[0] ?? citation.page), quotes: wanted.slice(0, 50), engine: citation.engine };
  let page;
  try {
    page = await call("/document-page", { method: "POST", body });
  } catch (error) {
    if (turn === shown) byId("passage-body").append(el("p", { class: "muted small" }, `The page is not shown: ${error.message}`));
    return;
  }
  if (turn !== shown) return; // another passage was opened meanwhile
  URL.revokeObjectURL(picture);
  picture = URL.createObjectURL(new Blob([Uint8Array.from(atob(page.png), (letter) => letter.charCodeAt(0))], { type: "image/png" }));
  const image = el("img", { src: picture, alt: `Page ${page.page} of ${fileName(citation.source)}` });
  const own = known.filter((box) => String(box[0]) === page.page).map((box) => box.slice(1));
  const marks = (own.length ? own : page.boxes).map((box) => boxMark(box, page));
  const figure = el("figure", { class: "pdf" }, image, ...marks);
  byId("passage-body").prepend(figure);
  await image.decode();
  (marks[0] ?? figure).scrollIntoView({ block: marks.length ? "center" : "start" });
}

function boxMark([x0, y0, x1, y1], page) {
  const mark = el("span", { class: "box", "aria-hidden": "true" });
  const edges = { left: x0 / page.width, top: y0 / page.height, width: (x1 - x0) / page.width, height: (y1 - y0) / page.height };
  for (const [name, share] of Object.entries(edges)) mark.style[name] = `${share * 100}%`;
  return mark;
}

/** What is marked: the citation's own words, else the answer's statements before its number. */
function quotes(citation, answer) {
  if (citation.quote) return [citation.quote].flat();
  const statements = answer.matchAll(/((?:(?!\[\d+\])[^\n])+)((?:\s*\[\d+\])+)/g);
  return [...statements].filter(([, , numbers]) => numbers.includes(`[${citation.number}]`))
    .map(([, statement]) => statement.replace(/^[\s.;,]+|^\s*(?:[-*+]|\d+[.)])\s+/g, "").trim())
    .filter((statement) => statement.length > 2);
}

/** A text with the places of quotes marked, whatever the blanks between their words. */
export function marked(text, wanted) {
  const places = wanted.map((quote) => find(text, quote)).filter(Boolean).sort((one, other) => one[0] - other[0]);
  const parts = [];
  let last = 0;
  for (const [start, end] of places) {
    if (end <= last) continue;
    parts.push(text.slice(last, Math.max(start, last)), el("mark", {}, text.slice(Math.max(start, last), end)));
    last = end;
  }
  return [...parts, text.slice(last)].filter((part) => part !== "");
}

function find(text, quote) {
  const words = quote.trim().split(/\s+/).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const match = words[0] ? new RegExp(words.join("\\s+")).exec(text) : null;
  return match && [match.index, match.index + match[0].length];
}
