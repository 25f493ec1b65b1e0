// Costs of the caller's calls: totals, by day, by model.

import { byId, count, dollars, el, fileName, notify, plural, seconds, svg } from "./dom.js";
import { call } from "./api.js";

const WIDTH = 640;
const HEIGHT = 180;
const DAY_MS = 86_400_000;

/** Wire the view.
 * @param {() => string | null} engine name of the chosen engine */
export function startCosts(engine) {
  const show = () => showCosts(engine()).catch((error) => notify(error.message));
  byId("period").addEventListener("change", show);
  return { show };
}

async function showCosts(engine) {
  const days = byId("period").value;
  const [byModel, byDay] = await Promise.all(["model", "day"].map((by) => call("/costs", { query: { engine, days, by } })));
  const place = byId("costs");
  if (!byModel.total_calls) {
    place.replaceChildren(el("p", { class: "empty" }, "No calls of a model in this period."));
    return;
  }
  place.replaceChildren(
    totals(byModel),
    el("h3", {}, "By day"), dayChart(everyDay(byDay.by, Number(days))),
    el("h3", {}, "By model"), modelTable(byModel.by),
  );
}

function totals(found) {
  const cards = [["Cost", dollars(found.total_cost_usd)], ["Calls", count(found.total_calls)], ["Tokens", count(found.total_tokens)], ["Average time", seconds(found.avg_latency_ms)]];
  if (found.unpriced_calls) cards.push(["Without a price", count(found.unpriced_calls)]);
  return el("dl", { class: "totals" }, ...cards.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** Days without calls are part of the picture. */
function everyDay(rows, days) {
  const known = new Map(rows.map((row) => [row.key, row]));
  const today = Math.floor(Date.now() / DAY_MS);
  return Array.from({ length: days }, (_, place) => {
    const day = new Date((today - days + 1 + place) * DAY_MS).toISOString().slice(0, 10);
    return { day, cost: Number(known.get(day)?.cost_usd ?? 0), calls: known.get(day)?.calls ?? 0 };
  });
}

/** Bars of dollars, or of calls where all of them were free. */
function dayChart(days) {
  const priced = days.some((one) => one.cost > 0);
  const value = (one) => (priced ? one.cost : one.calls);
  const written = (amount) => (priced ? dollars(amount) : count(amount));
  const most = Math.max(...days.map(value));
  const top = days.find((one) => value(one) === most);
  const title = `${priced ? "Cost" : "Calls"} by day, ${days[0].day} to ${days.at(-1).day}; most on ${top.day}: ${written(most)}`;
  const step = WIDTH / days.length;
  const bars = days.map((one, place) => {
    const height = (value(one) / (most || 1)) * HEIGHT;
    const gap = Math.min(6, step * 0.25);
    const hint = svg("title", {}, `${one.day}: ${written(value(one))}, ${plural(one.calls, "call")}`);
    return svg("rect", { x: place * step + gap / 2, y: HEIGHT - height, width: step - gap, height, class: "bar-mark" }, hint);
  });
  const chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": title, class: "chart" }, ...bars);
  const labels = [days[0], days[Math.floor(days.length / 2)], days.at(-1)].map((one) => el("span", {}, one.day.slice(5)));
  const rows = days.filter((one) => one.calls).map((one) => el("tr", {}, el("td", {}, one.day), el("td", { class: "number" }, dollars(one.cost)), el("td", { class: "number" }, count(one.calls))));
  const head = el("tr", {}, el("th", { scope: "col" }, "Day"), el("th", { scope: "col", class: "number" }, "Cost"), el("th", { scope: "col", class: "number" }, "Calls"));
  return el("div", { class: "chart-box" },
    el("p", { class: "chart-top", "aria-hidden": "true" }, written(most)), chart, el("p", { class: "chart-days", "aria-hidden": "true" }, ...labels),
    el("details", {}, el("summary", {}, "As a table"), el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows))));
}

function modelTable(rows) {
  const most = Math.max(...rows.map((row) => Number(row.cost_usd)));
  const lines = rows.map((row) => el("tr", {},
    el("th", { scope: "row", title: row.key || null }, fileName(row.key) || "unknown"),
    el("td", { class: "share" }, share(Number(row.cost_usd), most)),
    el("td", { class: "number" }, row.unpriced_calls === row.calls ? "price unknown" : dollars(row.cost_usd)),
    el("td", { class: "number" }, count(row.calls)),
    el("td", { class: "number tokens" }, count(row.tokens))));
  const names = [["Model", ""], ["Share", "share"], ["Cost", "number"], ["Calls", "number"], ["Tokens", "number tokens"]];
  const head = names.map(([name, kind]) => el("th", { scope: "col", class: kind || null }, name));
  return el("table", { class: "models" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...lines));
}

function share(cost, most) {
  const width = most ? (cost / most) * 100 : 0;
  const bar = svg("rect", { x: 0, y: 0, width, height: 8, rx: 2, class: "bar-mark" });
  const percent = `${Math.round(width)} % of the dearest model`;
  return svg("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", role: "img", "aria-label": percent, class: "share-bar" }, bar);
}
