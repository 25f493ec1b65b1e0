// Documents: upload with progress, list, delete.

import { announce, byId, count, el, fileName, notify, plural } from "./dom.js";
import { call, upload } from "./api.js";

const SHOWN = 100;
const POLL_MS = 700;
const SLOWEST_POLL_MS = 5000;
const PATIENCE_MS = 600_000; // with a server that restarts, or says that it was asked too often
const OPEN = ["queued", "running", "waiting"];

/** Wire the view.
 * @param {() => string | null} engine name of the chosen engine */
export function startDocuments(engine) {
  const view = new Documents(engine);
  const drop = byId("drop");
  byId("files").addEventListener("change", (event) => {
    view.send([...event.target.files]);
    event.target.value = "";
  });
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // else the browser would leave the page for the file
    drop.classList.remove("over");
    location.hash = "documents";
    view.send([...event.dataTransfer.files]);
  });
  byId("filter").addEventListener("input", () => view.draw());
  byId("more-documents").addEventListener("click", () => view.more());
  return view;
}

class Documents {
  #engine;
  #all = [];
  #most = SHOWN;
  /** Job → its row; a job that is listed before the reply to its upload is here has one, too. */
  #followed = new Map();
  #readOnly = false;

  constructor(engine) {
    this.#engine = engine;
  }

  /** Whether the caller may only ask. */
  set readOnly(value) {
    this.#readOnly = value;
    byId("drop").hidden = value;
  }

  /** Read the list, and follow uploads that are under way. */
  async show() {
    try {
      const { documents } = await call("/documents", { query: { engine: this.#engine() } });
      this.#all = documents.sort((one, other) => other.ingested_at.localeCompare(one.ingested_at));
      this.draw();
      const { jobs } = await call("/ingest", { query: { engine: this.#engine() } });
      for (const job of jobs.filter((one) => OPEN.includes(one.status))) {
        if (!this.#followed.has(job.id)) this.#follow(job, new Row(plural(job.total, "document")), this.#engine());
      }
    } catch (error) {
      notify(error.message);
    }
  }

  /** Another engine was chosen. */
  reset() {
    this.#all = [];
    this.#most = SHOWN;
    byId("filter").value = "";
    this.draw();
  }

  /** Show more of the list. */
  more() {
    this.#most += SHOWN;
    this.draw();
  }

  /** Draw the list. */
  draw() {
    const wanted = byId("filter").value.trim().toLowerCase();
    const found = this.#all.filter((one) => one.id.toLowerCase().includes(wanted));
    byId("documents").replaceChildren(...found.slice(0, this.#most).map((one) => this.#row(one)));
    byId("document-table").hidden = !found.length;
    byId("more-documents").hidden = found.length <= this.#most;
    const of = wanted ? `${count(found.length)} of ` : "";
    byId("document-count").textContent = this.#all.length ? `${of}${plural(this.#all.length, "document")}` : "No documents yet";
  }

  #row(one) {
    const name = fileName(one.id);
    const folder = one.id.slice(0, one.id.lastIndexOf(name)).replace(/\/$/, "");
    const remove = el("button", { type: "button", class: "link danger-text", "aria-label": `Delete ${name}`, click: () => this.#delete(one) }, "Delete");
    return el("tr", {},
      el("td", { class: "name" }, el("span", { class: "file-name" }, name), folder ? el("span", { class: "muted small path" }, folder) : null),
      el("td", { class: "number", "data-label": one.chunks === 1 ? "passage" : "passages" }, count(one.chunks)),
      el("td", { class: "day" }, el("time", { datetime: one.ingested_at }, one.ingested_at.slice(0, 10))),
      el("td", { class: "action" }, this.#readOnly ? null : remove));
  }

  async #delete(one) {
    if (!(await confirmed(`“${one.id}” leaves the index; an uploaded file leaves the disk.`))) return;
    try {
      await call(`/documents/${encodeURIComponent(one.id)}`, { method: "DELETE", query: { engine: this.#engine() } });
      this.#all = this.#all.filter((other) => other !== one);
      this.draw();
      announce(`${fileName(one.id)} is deleted`);
      byId("filter").focus();
    } catch (error) {
      notify(error.message);
    }
  }

  /** Send files, then follow their job. */
  async send(files) {
    if (!files.length) return;
    if (this.#readOnly) return notify("This key may ask, not change the index.");
    const row = new Row(files.length === 1 ? files[0].name : plural(files.length, "file"));
    const engine = this.#engine();
    try {
      const job = await upload(files, engine, (share) => row.progress("Sending", share));
      this.#followed.get(job.id)?.element.remove();
      await this.#follow(job, row, engine);
    } catch (error) {
      row.failed(error.message);
    }
  }

  async #follow(first, row, engine) {
    this.#followed.set(first.id, row);
    row.cancellable(async () => {
      await call(`/ingest/${first.id}`, { method: "DELETE", query: { engine } }).catch((error) => notify(error.message));
    });
    try {
      let job = first;
      for (let wait = POLL_MS; OPEN.includes(job.status); wait = Math.min(wait * 1.2, SLOWEST_POLL_MS)) {
        row.progress(job.error || `Reading ${count(job.finished)} of ${count(job.total)}`, job.progress);
        await new Promise((resolve) => setTimeout(resolve, wait));
        job = await patiently(() => call(`/ingest/${first.id}`, { query: { engine } }));
        if (this.#followed.get(first.id) !== row) return; // the upload's own row follows it
      }
      row.ended(job);
    } catch (error) {
      row.failed(error.message);
    }
    await this.show();
  }
}

/** Ask until the server answers; a job goes on meanwhile. */
async function patiently(ask) {
  const until = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (![0, 429, 503].includes(error.status) || Date.now() > until) throw error;
      await new Promise((resolve) => setTimeout(resolve, SLOWEST_POLL_MS / 2));
    }
  }
}

/** One upload in the list. */
class Row {
  constructor(name) {
    this.bar = el("progress", { max: "1", value: "0", "aria-label": name });
    this.state = el("span", { class: "job-state", role: "status" }, "Sending");
    this.button = el("button", { type: "button", class: "link", hidden: true }, "Cancel");
    this.details = el("ul", { class: "job-details" });
    this.element = el("li", { class: "job" }, el("span", { class: "job-name" }, name), this.state, this.button, this.bar, this.details);
    byId("jobs").prepend(this.element);
  }

  progress(text, share) {
    this.state.textContent = text;
    this.bar.value = share;
  }

  cancellable(cancel) {
    this.button.hidden = false;
    this.button.addEventListener("click", cancel, { once: true });
  }

  ended(job) {
    const failed = job.report.failed ?? [];
    if (job.status !== "done") return this.failed(job.status === "cancelled" ? "Cancelled" : job.error || "Failed", failed);
    this.#close(failed.length ? `Read, ${plural(failed.length, "file")} could not be` : "Read", failed.length > 0);
    this.#list(failed);
  }

  failed(text, failed = []) {
    this.#close(text, true);
    this.#list(failed);
  }

  #list(failed) {
    this.details.replaceChildren(...failed.map((one) => el("li", {}, `${fileName(one.source)}: ${one.error}`)));
  }

  #close(text, bad) {
    this.state.textContent = text;
    this.bar.remove();
    this.element.classList.add(bad ? "bad" : "good");
    const fresh = el("button", { type: "button", class: "link", "aria-label": "Remove from this list", click: () => this.element.remove() }, "Dismiss");
    this.button.replaceWith(fresh);
  }
}

/** Whether the reader confirms. */
function confirmed(text) {
  const dialog = byId("confirm-dialog");
  byId("confirm-text").textContent = text;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}
