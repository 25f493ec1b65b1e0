// Runs before the page is drawn, so that a chosen theme does not flash. A private window may refuse to store.
"use strict";
try {
  const chosen = localStorage.getItem("llama-presets-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch {
  // the system's theme stays
}
