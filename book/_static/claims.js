/* The claims page: a filter over its rows, and links to a row that open it. Without this script all rows are there. */
"use strict";
(() => {
  const form = document.querySelector("form.claims-filter");
  if (!form) return;
  const fields = ["chapter", "verdict", "family"], rows = [...document.querySelectorAll("details.claim")];
  const shown = (row) => !row.hidden;
  const any = (place) => [...place.querySelectorAll("details.claim")].some(shown);
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

  function filter() {
    const text = form.elements.text.value.trim().toLowerCase();
    const wanted = fields.filter((name) => form.elements[name].value);
    const active = Boolean(text || wanted.length);
    for (const row of rows) {
      row.hidden = !(wanted.every((name) => row.dataset[name] === form.elements[name].value) &&
        (!text || words.get(row).includes(text)));
    }
    const found = rows.filter(shown).length;
    for (const below of document.querySelectorAll("details.claim-controls")) {
      const some = any(below);
      below.hidden = !some;
      below.open = active && some;
      // The test that a question qualifies stays above it, to be understood.
      if (active && some) below.parentElement.querySelector("details.claim").hidden = false;
    }
    for (const list of document.querySelectorAll(".claims-list")) {
      const section = list.closest("section");
      (section && !section.querySelector("h1") ? section : list).hidden = !any(list);
    }
    form.elements.count.value = active ? `${found} of ${rows.length} claims` : `${rows.length} claims`;
  }

  /** Opens the row that the address names, and what it is folded in. */
  function openNamed() {
    const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!named || !named.matches("details.claim")) return;
    if (named.hidden) {
      form.reset();
      filter();
    }
    for (let place = named; place; place = place.parentElement?.closest("details")) place.open = true;
    named.scrollIntoView();
  }

  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", openNamed);
  filter();
  openNamed();
})();
