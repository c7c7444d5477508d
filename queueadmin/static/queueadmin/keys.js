// Lists by keyboard: j and k go down and up, x selects, Enter opens, / searches. Everything
// that a key does has a link, box or field of its own.
"use strict";

const rows = () => [...document.querySelectorAll("#result_list tbody tr")];
const linkOf = (row) => row.querySelector("th a, td a");

function step(distance) {
  const all = rows();
  const here = all.findIndex((row) => row.contains(document.activeElement));
  const next = here < 0 ? (distance > 0 ? 0 : all.length - 1) : here + distance;
  linkOf(all[Math.max(0, Math.min(next, all.length - 1))])?.focus();
}

const keys = {
  j: () => step(1),
  k: () => step(-1),
  x: () =>
    rows()
      .find((row) => row.contains(document.activeElement))
      ?.querySelector("input.action-select")
      ?.click(),
  "/": () => document.getElementById("searchbar")?.focus(),
};

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input:not([type=checkbox]), textarea, select");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) {
    return;
  }
  event.preventDefault();
  keys[event.key]();
});
