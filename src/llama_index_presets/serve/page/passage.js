// The passage beside the answer, with the cited words marked; of a PDF, its page.

import { byId, el, fileName } from "./dom.js";
import { request } from "./api.js";

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
 * @param {object} citation as the server gives it, with `number` and `engine`
 * @param {HTMLElement} from gets the focus back */
export async function openPassage(citation, from) {
  const turn = (shown += 1);
  opener?.removeAttribute("aria-expanded");
  opener = from;
  opener.setAttribute("aria-expanded", "true");
  byId("passage-title").textContent = `${citation.number ? `[${citation.number}] ` : ""}${fileName(citation.source)}`;
  byId("passage-place").textContent = [citation.page && `Page ${citation.page}`, citation.heading?.replaceAll(" > ", " › ")].filter(Boolean).join(" · ");
  const text = el("div", { class: "passage-text" }, ...marked(citation.text ?? "", citedPlaces(citation)));
  byId("passage-body").replaceChildren(text);
  byId("passage").hidden = false;
  byId("passage-body").scrollTop = 0;
  cover();
  from.scrollIntoView({ block: "nearest" }); // the conversation is narrower now
  byId("passage-title").focus();
  text.querySelector("mark")?.scrollIntoView({ block: "center" });
  if (citation.page && /\.pdf$/i.test(citation.source)) await addPage(citation, turn);
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
async function addPage(citation, turn) {
  const boxes = citation.boxes ?? [];
  const page = String(boxes[0]?.page ?? citation.page);
  let response;
  try {
    response = await request("/document-page", { method: "POST", body: { document: citation.source, page, engine: citation.engine } });
  } catch (error) {
    if (turn === shown) byId("passage-body").append(el("p", { class: "muted small" }, `The page is not shown: ${error.message}`));
    return;
  }
  const blob = await response.blob();
  if (turn !== shown) return; // another passage was opened meanwhile
  URL.revokeObjectURL(picture);
  picture = URL.createObjectURL(blob);
  const size = { width: Number(response.headers.get("page-width")), height: Number(response.headers.get("page-height")) };
  const image = el("img", { src: picture, alt: `Page ${page} of ${fileName(citation.source)}` });
  const marks = boxes.filter((box) => String(box.page) === page).map((box) => boxMark(box, size));
  const figure = el("figure", { class: "pdf" }, image, ...marks);
  byId("passage-body").prepend(figure);
  await image.decode();
  (marks[0] ?? figure).scrollIntoView({ block: marks.length ? "center" : "start" });
}

function boxMark({ x0, y0, x1, y1 }, page) {
  const mark = el("span", { class: "box", "aria-hidden": "true" });
  const edges = { left: x0 / page.width, top: y0 / page.height, width: (x1 - x0) / page.width, height: (y1 - y0) / page.height };
  for (const [name, share] of Object.entries(edges)) mark.style[name] = `${share * 100}%`;
  return mark;
}

/** Start and end of the cited words in a citation's text. */
function citedPlaces({ text, quote, spans }) {
  if (!text || !quote) return [];
  const places = (spans ?? []).map(({ start, end }) => [start, end]).sort((one, other) => one[0] - other[0]);
  const inText = places.length && text.slice(places[0][0], Math.max(...places.map(([, end]) => end))) === quote;
  if (inText) return places; // else the text has been merged or cut, and its offsets are others
  const words = quote.replace(/ …$/, "").trim().split(/\s+/).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const found = new RegExp(words.join("\\s+")).exec(text);
  return found ? [[found.index, found.index + found[0].length]] : [];
}

/** A text with places marked, which are in order. */
function marked(text, places) {
  const parts = [];
  let last = 0;
  for (const [start, end] of places) {
    if (end <= last) continue;
    parts.push(text.slice(last, Math.max(start, last)), el("mark", {}, text.slice(Math.max(start, last), end)));
    last = end;
  }
  return [...parts, text.slice(last)].filter((part) => part !== "");
}
