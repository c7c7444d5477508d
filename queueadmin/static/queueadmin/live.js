// Pages that follow what happens: quiet on a hidden tab, and honest when they are stale.
"use strict";

document.addEventListener("htmx:beforeRequest", (event) => {
    if (document.hidden && event.target.matches("[data-qa-live]")) {
        event.preventDefault();
    }
});

for (const failure of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
    document.addEventListener(failure, () => {
        for (const note of document.querySelectorAll(".qa-stale")) {
            note.hidden = false;
        }
    });
}
