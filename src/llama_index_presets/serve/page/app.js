// The page: views, engines, theme, key.

import { byId, el, notify } from "./dom.js";
import { call, hasKey, onKeyNeeded, setKey } from "./api.js";
import { startChat } from "./chat.js";
import { startCosts } from "./costs.js";
import { startDocuments } from "./documents.js";
import { startPassage } from "./passage.js";

const VIEWS = ["chat", "documents", "costs"];
const RETRY_MS = 1000;
const engine = () => byId("engine").value || null;
let listed = false; // once the first attempt has ended

const chat = startChat(engine);
const documents = startDocuments(engine);
const costs = startCosts(engine);
startPassage();
startKeyDialog();
startConfirmDialog();
startTheme();
byId("engine").addEventListener("change", () => {
  chat.clear();
  documents.reset();
  showView();
});
addEventListener("hashchange", () => {
  showView();
  byId("main").focus({ preventScroll: true });
});
await listEngines();
listed = true;
showView();
byId("question").focus();

function showView() {
  const named = location.hash.slice(1);
  if (named === "main") return; // the skip link
  const view = VIEWS.includes(named) ? named : "chat";
  for (const name of VIEWS) byId(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = { chat: "Ask your documents", documents: "Documents", costs: "Costs" }[view];
  if (view !== "chat") byId("passage").dispatchEvent(new Event("close-passage"));
  if (view === "documents") documents.show();
  if (view === "costs") costs.show();
}

/** Names of the engines; waits for a server that is still starting. */
async function listEngines() {
  for (;;) {
    try {
      const { engines, caller } = await call("/engines");
      documents.readOnly = caller.read_only;
      if (engines.length) {
        const options = engines.map((one) => el("option", { value: one.name, title: one.use_case }, one.name));
        const chosen = engine();
        byId("engine").replaceChildren(...options);
        if (engines.some((one) => one.name === chosen)) byId("engine").value = chosen;
        byId("engine-field").hidden = engines.length < 2;
        byId("notice").hidden = true;
        return;
      }
      notify("The server is starting…");
    } catch (error) {
      if (error.status !== 503) return notify(error.message);
      notify("The server is starting…");
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

function startKeyDialog() {
  const dialog = byId("key-dialog");
  const forget = byId("forget-key");
  forget.hidden = !hasKey();
  onKeyNeeded((reason) => {
    byId("key-reason").textContent = reason;
    byId("key").value = "";
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
  });
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setKey(byId("key").value);
    byId("key").value = "";
    forget.hidden = !hasKey();
    dialog.close("yes");
    if (listed) listEngines(); // another caller, perhaps, and perhaps no list yet
  });
  byId("key-cancel").addEventListener("click", () => dialog.close(""));
  forget.addEventListener("click", () => {
    setKey("");
    location.reload(); // nothing of the caller stays on the page
  });
}

function startConfirmDialog() {
  const dialog = byId("confirm-dialog");
  byId("confirm-form").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close("yes");
  });
  byId("confirm-cancel").addEventListener("click", () => dialog.close(""));
}

function startTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const tell = () => byId("theme").setAttribute("aria-pressed", String(isDark()));
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("llama-presets-theme", root.dataset.theme);
    } catch {
      // kept until the page is left
    }
    tell();
  });
  system.addEventListener("change", tell);
  tell();
}
