// Markdown of an answer as elements: paragraphs, headings, lists, tables, code, emphasis. Links and images stay text, since
// where they lead was written by a model; HTML stays text, too.

import { el } from "./dom.js";

const INLINE = /(`+)([^`]|[^`].*?[^`])\1(?!`)|\*\*(?=\S)(.+?\S?)\*\*|__(?=\S)(.+?\S?)__(?!\w)|\*(?=\S)([^*]+?)\*|\[(\d{1,6})\]/gs;
const FENCE = /^\s*(`{3,}|~{3,})/;
const ITEM = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/;
const HEADING = /^(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

/** Elements of a text.
 * @param {string} text
 * @param {(number: number) => Node} citation makes what stands for `[number]` */
export function rendered(text, citation) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    const [block, next] = blockAt(lines, at, citation);
    if (block) blocks.push(block);
    at = next;
  }
  return blocks;
}

function blockAt(lines, at, citation) {
  const line = lines[at];
  if (!line.trim()) return [null, at + 1];
  if (FENCE.test(line)) return fenceAt(lines, at);
  const heading = HEADING.exec(line);
  if (heading) return [el("h3", {}, ...inline(heading[2], citation)), at + 1];
  if (ITEM.test(line)) return listAt(lines, at, citation);
  if (line.includes("|") && at + 1 < lines.length && RULE.test(lines[at + 1]) && lines[at + 1].includes("-")) {
    return tableAt(lines, at, citation);
  }
  return paragraphAt(lines, at, citation);
}

function fenceAt(lines, at) {
  const mark = FENCE.exec(lines[at])[1];
  let end = at + 1;
  while (end < lines.length && !lines[end].trim().startsWith(mark)) end += 1;
  return [el("pre", { tabindex: "0" }, el("code", {}, lines.slice(at + 1, end).join("\n"))), end + 1];
}

function listAt(lines, at, citation) {
  const [, , first] = ITEM.exec(lines[at]);
  const list = el(first ? "ol" : "ul", first && first !== "1" ? { start: first } : {});
  let end = at;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    if (!item || Boolean(item[2]) !== Boolean(first)) break;
    const more = [];
    while (end + 1 < lines.length && /^\s{2,}\S/.test(lines[end + 1]) && !ITEM.test(lines[end + 1])) more.push(lines[(end += 1)].trim());
    const attributes = item[1].length >= 2 ? { class: "nested" } : {};
    list.append(el("li", attributes, ...inline([item[3], ...more].join(" "), citation)));
    end += 1;
    if (end + 1 < lines.length && !lines[end].trim() && ITEM.test(lines[end + 1])) end += 1;
  }
  return [list, end];
}

function tableAt(lines, at, citation) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const row = (tag, line) => el("tr", {}, ...cells(line).map((cell) => el(tag, {}, ...inline(cell, citation))));
  let end = at + 2;
  const rows = [];
  while (end < lines.length && lines[end].includes("|")) rows.push(row("td", lines[end++]));
  const table = el("table", {}, el("thead", {}, row("th", lines[at])), el("tbody", {}, ...rows));
  return [el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table" }, table), end];
}

function paragraphAt(lines, at, citation) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !FENCE.test(lines[end]) && !HEADING.test(lines[end]) && !ITEM.test(lines[end])) end += 1;
  const paragraph = el("p");
  lines.slice(at, end).forEach((line, place) => {
    if (place) paragraph.append(el("br"));
    paragraph.append(...inline(line, citation));
  });
  return [paragraph, end];
}

function inline(text, citation, depth = 0) {
  if (depth > 4) return [text];
  const parts = [];
  let last = 0;
  for (const match of text.matchAll(INLINE)) {
    const before = text.slice(last, match.index);
    const part = emphasized(match, citation, depth);
    const word = match[6] === undefined ? null : /\S{1,24} ?$/.exec(before); // a number is never alone on a line
    if (word) parts.push(before.slice(0, word.index), el("span", { class: "keep" }, word[0], part));
    else parts.push(before, part);
    last = match.index + match[0].length;
  }
  parts.push(text.slice(last));
  return parts.filter((part) => part !== "");
}

function emphasized(match, citation, depth) {
  const [, , code, strong, underlined, emphasis, number] = match;
  if (code !== undefined) return el("code", {}, code);
  if (number !== undefined) return citation(Number(number));
  if (emphasis !== undefined) return el("em", {}, ...inline(emphasis, citation, depth + 1));
  return el("strong", {}, ...inline(strong ?? underlined, citation, depth + 1));
}
