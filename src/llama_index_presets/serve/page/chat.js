// The conversation: a question, its streamed answer, what it cites, what it cost.

import { announce, byId, dollars, el, fileName, notify, plural, seconds, svg } from "./dom.js";
import { events, request } from "./api.js";
import { rendered } from "./markdown.js";
import { openPassage } from "./passage.js";

const REMEMBERED = 12; // messages that are sent along, so that a question may refer back

/** Wire the view.
 * @param {() => string | null} engine name of the chosen engine */
export function startChat(engine) {
  const chat = new Chat(engine);
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    chat.ask(byId("question").value);
  });
  byId("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("composer").requestSubmit();
  });
  byId("question").addEventListener("input", grow);
  byId("stop").addEventListener("click", () => chat.stop());
  byId("new-chat").addEventListener("click", () => chat.clear());
  return chat;
}

function grow() {
  const field = byId("question");
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight + 2, 220)}px`;
}

class Chat {
  #engine;
  #history = [];
  #stopping = null;
  #turns = 0;

  constructor(engine) {
    this.#engine = engine;
  }

  /** Ask, and show the answer as it comes. */
  async ask(text) {
    const question = text.trim();
    if (!question || this.#stopping) return;
    byId("question").value = "";
    grow();
    byId("welcome").hidden = true;
    const turn = new Turn(question, (this.#turns += 1), () => this.#again(question));
    this.#busy(new AbortController());
    announce("Searching the documents");
    try {
      await this.#read(turn, question);
    } catch (error) {
      if (error.name === "AbortError") turn.stopped();
      else turn.failed(error);
    } finally {
      this.#busy(null);
    }
  }

  async #read(turn, question) {
    const body = { question, history: this.#history.slice(-REMEMBERED) };
    if (this.#engine()) body.engine = this.#engine();
    let answer = null;
    for await (const { name, data } of events("/query/stream", { body, signal: this.#stopping.signal })) {
      if (name === "sources") turn.sources(data.sources);
      else if (name === "text") turn.text(data.text);
      else if (name === "bill") turn.finished((answer = data));
    }
    if (!answer) throw new Error("The answer broke off. Ask again.");
    this.#history.push({ role: "user", content: question }, { role: "assistant", content: answer.answer });
  }

  #again(question) {
    byId("question").value = question;
    grow();
    byId("question").focus();
  }

  #busy(stopping) {
    const focused = document.activeElement;
    const moved = focused === byId("send") || focused === byId("stop");
    this.#stopping = stopping;
    byId("send").hidden = Boolean(stopping);
    byId("stop").hidden = !stopping;
    byId("new-chat").hidden = Boolean(stopping);
    if (moved) byId(stopping ? "stop" : "question").focus(); // the focused button is gone
  }

  /** Give up the answer that is being written. */
  stop() {
    this.#stopping?.abort();
  }

  /** Forget the conversation. */
  clear() {
    this.stop();
    this.#history = [];
    byId("conversation").replaceChildren();
    byId("welcome").hidden = false;
    byId("new-chat").hidden = true;
    byId("passage").dispatchEvent(new Event("close-passage"));
    byId("question").focus();
  }
}

class Turn {
  #text = "";
  #frame = 0;
  #again;

  constructor(question, number, again) {
    this.#again = again;
    this.state = el("p", { class: "state" }, "Searching the documents…");
    this.body = el("div", { class: "body" });
    this.answer = el("div", { class: "answer", "aria-busy": "true" }, this.state, this.body);
    const title = el("h3", { class: "question", id: `question-${number}` }, question);
    this.element = el("article", { class: "turn", "aria-labelledby": title.id }, title, this.answer);
    byId("conversation").append(this.element);
    this.element.scrollIntoView({ block: "end" });
  }

  /** The passages have been found. */
  sources(passages) {
    this.state.textContent = passages.length ? `Reading ${plural(passages.length, "passage")}…` : "Nothing close was found…";
  }

  /** A piece of the text. */
  text(piece) {
    this.#text += piece;
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw((number) => el("sup", { class: "cite pending" }, String(number)));
    });
  }

  #draw(citation) {
    const scroll = byId("conversation-scroll");
    const follows = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
    this.state.hidden = this.#text !== "";
    this.body.replaceChildren(...rendered(this.#text, citation));
    if (follows) scroll.scrollTop = scroll.scrollHeight;
  }

  #end() {
    cancelAnimationFrame(this.#frame);
    this.state.remove();
    this.answer.setAttribute("aria-busy", "false");
  }

  /** The bill has come: numbers can be opened. */
  finished(answer) {
    this.#end();
    this.#text = answer.answer;
    const citations = new Map((answer.citations || []).filter((one) => one.valid !== false).map((one) => [one.n, one]));
    this.#draw((number) => citationButton(number, citations.get(number), answer));
    if (!answer.known) this.#unknown(answer);
    else if (citations.size) this.answer.append(sourceList([...citations.values()], answer));
    const doubtful = (answer.unsupported || []).filter((one) => one.missing.length);
    if (doubtful.length) this.answer.append(doubts(doubtful));
    this.answer.append(facts(answer));
    announce(`${answer.known ? "Answer" : "No answer"}: ${this.body.textContent}`);
    if (!byId("passage").contains(document.activeElement)) this.element.scrollIntoView({ block: "nearest" });
  }

  #unknown(answer) {
    this.answer.classList.add("unknown");
    this.answer.prepend(el("p", { class: "badge" }, answer.degraded ? "No answer now" : "No answer found"));
    if (!answer.closest?.length) return;
    const rows = answer.closest.map((one) => el("li", {}, sourceButton(null, one, answer), el("p", { class: "muted small" }, one.quote)));
    this.answer.append(el("section", { class: "closest", "aria-label": "Closest passages" }, el("p", {}, "Closest passages"), el("ul", { class: "sources" }, ...rows)));
  }

  /** The reader has stopped it. */
  stopped() {
    this.#end();
    this.#draw((number) => el("sup", { class: "cite pending" }, String(number)));
    this.answer.append(el("p", { class: "facts" }, "Stopped"));
    announce("Stopped");
  }

  /** It was refused, or broke off. */
  failed(error) {
    this.#end();
    this.answer.classList.add("failed");
    const title = { 402: "The budget is used up", 429: "Too many questions", 401: "No valid API key", 403: "Not allowed", 503: "The server is busy" }[error.status];
    const again = el("button", { type: "button", class: "secondary", click: this.#again }, "Ask again");
    this.answer.append(
      el("div", { class: "problem", role: "alert" }, el("p", { class: "problem-title" }, title || "No answer"), el("p", {}, error.message)),
      again,
    );
    this.element.scrollIntoView({ block: "end" });
  }
}

function citationButton(number, citation, answer) {
  if (!citation) return document.createTextNode(`[${number}]`);
  return el("button", {
    type: "button", class: "cite", "aria-label": `Citation ${number}: ${place(citation)}`, "aria-controls": "passage",
    click: (event) => opened(event.currentTarget, number, citation, answer),
  }, String(number));
}

/** Sentences with figures that are not in what they cite. */
function doubts(sentences) {
  return el("ul", { class: "doubts", "aria-label": "Figures to check" }, ...sentences.map((one) => el("li", {},
    el("strong", {}, `Not in what it cites: ${one.missing.join(", ")}`), ` (“${one.text}”)`)));
}

function sourceList(citations, answer) {
  return el("ul", { class: "sources", "aria-label": "Sources" }, ...citations.map((one) => el("li", {}, sourceButton(one.n, one, answer))));
}

function sourceButton(number, citation, answer) {
  return el("button", { type: "button", class: "source", "aria-controls": "passage", click: (event) => opened(event.currentTarget, number, citation, answer) },
    number === null ? null : el("span", { class: "source-number" }, String(number)),
    el("span", { class: "source-name" }, fileName(citation.source)),
    citation.page ? el("span", { class: "muted" }, `p. ${citation.page}`) : null);
}

function opened(button, number, citation, answer) {
  const shown = { number, engine: answer?.engine ?? (byId("engine").value || null), ...citation };
  openPassage(shown, button).catch((error) => notify(error.message));
}

const place = (citation) => `${fileName(citation.source)}${citation.page ? `, page ${citation.page}` : ""}`;

function facts(answer) {
  const parts = [seconds(answer.latency_ms ?? 0), dollars(answer.cost_usd)];
  if (answer.known && typeof answer.confidence === "number") parts.push(`${Math.round(answer.confidence * 100)} % confident`);
  if (answer.finish_reason === "length") parts.push("cut off at the model's limit");
  if (answer.cached) parts.push("from the cache");
  if (answer.suspicious?.length) parts.push(`${plural(answer.suspicious.length, "passage")} with instructions to the model`);
  return el("p", { class: "facts" }, ...parts.map((part) => el("span", {}, part)), ...(answer.query_id ? thumbs(answer) : []));
}

/** A thumb, drawn: not every machine has a font with it. */
const thumb = (rating) => svg("svg", { viewBox: "0 0 24 24", class: `sign ${rating}`, "aria-hidden": "true" },
  svg("path", { d: "M3 10h4v11H3zM9 10l4-8a3 3 0 0 1 3 3l-1 4h5a2 2 0 0 1 2 2.4l-1.6 8a2 2 0 0 1-2 1.6H9z" }));

/** Two buttons that say what an answer was worth; the last one pressed counts. */
function thumbs(answer) {
  const buttons = [["up", "Good answer"], ["down", "Bad answer"]].map(([rating, label]) =>
    el("button", { type: "button", class: "thumb", "aria-label": label, title: label, "aria-pressed": "false", click: (event) => rated(event.currentTarget, rating) }, thumb(rating)));
  const rated = async (pressed, rating) => {
    try {
      await request("/feedback", { method: "POST", body: { query_id: answer.query_id, rating, engine: answer.engine ?? null } });
      for (const button of buttons) button.setAttribute("aria-pressed", String(button === pressed));
    } catch (error) {
      notify(error.message);
    }
  };
  return buttons;
}
