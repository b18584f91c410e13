"use strict";
// Order and filter of the gallery, and one object large. Without scripts the page shows all.
(() => {
  const find = (id) => document.getElementById(id);
  const gallery = find("gallery");
  const cards = [...gallery.children];
  const [order, name, kind, margin, search] = ["order", "name", "kind", "margin", "find"].map(find);

  function update() {
    const key = order.value.replace("-", "");
    const sign = order.value.startsWith("-") ? -1 : 1;
    const isText = key === "name" || key === "file";
    const words = search.value.trim().toLowerCase();
    const compare = (a, b) => isText
      ? a.dataset[key].localeCompare(b.dataset[key])
      : sign * (Number(a.dataset[key]) - Number(b.dataset[key]));
    let shown = 0;
    for (const card of [...cards].sort(compare)) {
      const data = card.dataset;
      card.hidden = (name.value && data.name !== name.value)
        || (kind.value && data.kind !== kind.value)
        || Number(data.margin) > Number(margin.value)
        || (words && !`${data.file} ${data.name}`.toLowerCase().includes(words));
      shown += card.hidden ? 0 : 1;
      gallery.append(card);
    }
    find("most").value = Number(margin.value).toFixed(2);
    find("shown").textContent = shown ? `${shown} shown` : "No object fits these filters.";
  }

  const dialog = find("large");
  let current = null;

  function show(card) {
    current = card;
    const picture = card.querySelector(".picture").cloneNode(true);
    const lines = [...card.querySelectorAll(".line")].map((line) => line.cloneNode(true));
    const rest = [...card.querySelectorAll(".best, .about")].map((part) => part.cloneNode(true));
    find("content").replaceChildren(picture, ...lines, ...rest);
    if (!dialog.open) dialog.showModal();
  }

  function step(direction) {
    const shown = [...gallery.children].filter((card) => !card.hidden);
    const next = shown[shown.indexOf(current) + direction];
    if (next) show(next);
  }

  gallery.addEventListener("click", (event) => {
    const card = event.target.closest("#gallery > li");
    if (card) show(card);
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") step(1);
    if (event.key === "ArrowLeft") step(-1);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { if (current) current.querySelector("button").focus(); });
  find("close").addEventListener("click", () => dialog.close());
  for (const control of [order, name, kind, margin, search]) control.addEventListener("input", update);
  document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
})();
