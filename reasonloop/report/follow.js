// Asks the server that serves this page whether there is a newer one, and reloads without losing the reader's place.
"use strict";

{
  const KEY = "reasonloop-follow";
  const SECONDS = 3;
  const status = document.getElementById("following");
  const fields = () => [...document.querySelectorAll("select[id]")];
  const folds = () => [...document.querySelectorAll("details")];

  function remember() {
    const place = {
      scroll: scrollY,
      filters: Object.fromEntries(fields().map((field) => [field.id, field.value])),
      focus: document.activeElement?.id || "",
      open: folds().map((fold) => fold.open),
      shown: document.querySelectorAll("#rollouts > *").length,
    };
    try { sessionStorage.setItem(KEY, JSON.stringify(place)); } catch { /* a browser that stores nothing: the page starts at its top */ }
  }

  function restore() {
    let place = null;
    try { place = JSON.parse(sessionStorage.getItem(KEY)); sessionStorage.removeItem(KEY); } catch { return; }
    if (!place) return;
    for (const field of fields()) {
      const value = place.filters[field.id];
      if (value && [...field.options].some((option) => option.value === value)) {
        field.value = value;
        field.dispatchEvent(new Event("change"));
      }
    }
    folds().forEach((fold, i) => { fold.open = Boolean(place.open[i]); });
    const more = document.getElementById("more");
    while (more && !more.hidden && document.querySelectorAll("#rollouts > *").length < place.shown) more.click();
    if (place.focus) document.getElementById(place.focus)?.focus({ preventScroll: true });
    history.scrollRestoration = "manual";
    scrollTo(0, place.scroll);
  }

  let touched = 0;
  for (const event of ["pointerdown", "keydown"]) addEventListener(event, () => { touched = Date.now(); }, { passive: true });

  async function poll() {
    try {
      const answer = await fetch("version", { cache: "no-store" });
      const state = await answer.json();
      const newer = state.version !== status.dataset.version;
      status.textContent = state.done ? "The run is done." : "The run goes on; this page keeps up with it.";
      // Not while the reader is at work on the page or has text selected: an open list and the selection would be gone.
      const busy = Date.now() - touched < 6000 || String(getSelection()) !== "";
      if (newer && !busy && !document.hidden) {
        remember();
        location.reload();
        return;
      }
    } catch {
      status.textContent = "Nothing serves this page any more: it stays as it is.";
    }
    setTimeout(poll, SECONDS * 1000);
  }

  restore();
  poll();
}
