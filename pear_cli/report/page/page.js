"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const data = JSON.parse(get("data").textContent);
  const body = document.querySelector("#table tbody");
  const rows = data.rows.map((_, number) => get(`row-${number}`));
  const marks = data.rows.map(() => []);
  for (const link of document.querySelectorAll(".chart a")) {
    const number = (link.getAttribute("href") || link.getAttribute("xlink:href") || "").replace("#row-", "");
    if (marks[number]) marks[number].push(link);
  }

  // Light or dark: what the system says, until the reader says otherwise.
  const root = document.documentElement;
  const remember = (theme) => { try { localStorage.setItem("pear-theme", theme); } catch { /* a file may not store */ } };
  try { const kept = localStorage.getItem("pear-theme"); if (kept) root.dataset.theme = kept; } catch { /* the same */ }
  get("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    remember(root.dataset.theme);
  });

  // Filters: every word must be in the row.
  const dataset = get("dataset");
  const filter = () => {
    const words = get("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const only = dataset ? dataset.value : "";
    let shown = 0;
    rows.forEach((row, number) => {
      const text = row.textContent.toLowerCase();
      const stays = (!only || row.dataset.dataset === only) && words.every((word) => text.includes(word));
      row.hidden = !stays;
      shown += stays;
      for (const mark of marks[number]) mark.classList.toggle("off", !stays);
    });
    for (const part of document.querySelectorAll(".dataset")) part.hidden = Boolean(only) && part.dataset.dataset !== only;
    get("count").textContent = shown === rows.length ? "" : shown ? `${shown} of ${rows.length}` : "nothing matches";
  };
  get("find").addEventListener("input", filter);
  if (dataset) dataset.addEventListener("change", filter);

  // Sorting: numbers by value, what has none last; a second click turns the order around.
  const heads = [...document.querySelectorAll("#table thead th")];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const numeric = head.classList.contains("number");
    const first = numeric ? "descending" : "ascending";
    const order = head.ariaSort === first ? (numeric ? "ascending" : "descending") : first;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const of = (row) => row.cells[column];
    const empty = (row) => numeric && of(row).dataset.value === "";
    const compare = (a, b) => numeric
      ? of(a).dataset.value - of(b).dataset.value
      : of(a).textContent.localeCompare(of(b).textContent, undefined, { numeric: true });
    body.append(...[...rows].sort((a, b) => empty(a) - empty(b) || sign * compare(a, b)));
  }));

  // Differences, paired by seed, with a forest plot; the baseline can be chosen.
  const estimate = (values) => {
    const n = values.length;
    const mean = values.reduce((sum, value) => sum + value, 0) / n;
    if (n < 2) return { mean, half: null };
    const spread = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1));
    return { mean, half: (data.t[n - 2] * spread) / Math.sqrt(n) };
  };
  const apart = (a, b) => Object.keys(a).filter((name) => name in b && a[name] !== b[name]);
  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(2)}`;
  const add = (parent, kind, left, width) => {
    const mark = document.createElement("i");
    mark.className = kind;
    if (left !== undefined) mark.style.left = `${left}%`;
    if (width !== undefined) mark.style.width = `${width}%`;
    parent.append(mark);
  };
  const differ = (name) => {
    const found = data.rows.map((row) => {
      const number = name ? data.rows.findIndex((o) => o.dataset === row.dataset && o.name === name) : row.baseline;
      const base = data.rows[number ?? -1];
      if (!base) return null;
      if (base === row) return { base: true };
      const others = apart(row.protocol, base.protocol);
      if (others.some((name) => name === "dataset" || name.startsWith("data."))) return { base: true, foreign: true };
      const pairs = Object.keys(row.seeds).filter((seed) => seed in base.seeds);
      if (!pairs.length) return null;
      return { ...estimate(pairs.map((seed) => row.seeds[seed] - base.seeds[seed])), n: pairs.length, apart: others, name: base.name };
    });
    const most = Math.max(1e-9, ...found.map((one) => one && !one.base ? Math.abs(one.mean) + Math.min(one.half ?? 0, 2 * Math.abs(one.mean) + 0.02) : 0));
    rows.forEach((row, number) => {
      const cell = row.querySelector('[data-name="difference"]');
      if (!cell) return;
      const [said, forest] = cell.children;
      const one = found[number];
      said.textContent = !one ? "" : one.foreign ? "≠ other images" : one.base ? "baseline" : `${one.apart.length ? "≠ " : ""}${signed(one.mean)}${one.half === null ? "" : ` ± ${(100 * one.half).toFixed(2)}`}`;
      forest.replaceChildren();
      cell.title = !one || one.base ? "" : `${one.n} pair${one.n === 1 ? "" : "s"} with ${one.name}${one.apart.length ? `; not comparable: ${one.apart.join(", ")}` : ""}`;
      cell.dataset.value = one && !one.base ? one.mean : "";
      cell.classList.remove("up", "down", "level");
      if (!one || one.base) { cell.classList.add("level"); return; }
      const half = one.half ?? 0;
      const sure = one.half !== null && Math.abs(one.mean) > half;
      cell.classList.add(sure ? (one.mean > 0 ? "up" : "down") : "level");
      const place = (value) => Math.min(100, Math.max(0, 50 + (50 * value) / most));
      add(forest, "zero");
      if (one.half !== null) add(forest, "bar", place(one.mean - half), place(one.mean + half) - place(one.mean - half));
      add(forest, "dot", place(one.mean));
    });
  };
  const choice = get("baseline");
  for (const name of new Set(data.rows.map((row) => row.name))) choice.add(new Option(name, name));
  choice.addEventListener("change", () => {
    document.body.classList.toggle("asked", Boolean(choice.value));  // charts show the baselines as reported
    differ(choice.value);
    filter();
  });
  differ("");

  // A row and its marks light up together; a mark says what it is.
  rows.forEach((row, number) => {
    row.addEventListener("pointerenter", () => marks[number].forEach((mark) => mark.classList.add("lit")));
    row.addEventListener("pointerleave", () => marks[number].forEach((mark) => mark.classList.remove("lit")));
    for (const mark of marks[number]) {
      mark.addEventListener("pointerenter", () => row.classList.add("lit"));
      mark.addEventListener("pointerleave", () => row.classList.remove("lit"));
    }
  });
  const tip = get("tip");
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest?.('.chart [role="graphics-symbol"][aria-label]:not([aria-roledescription="axis"]):not([aria-roledescription="legend"])');
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.getAttribute("aria-label");
    const box = mark.getBoundingClientRect();
    const left = Math.min(innerWidth - tip.offsetWidth - 8, Math.max(8, box.x + box.width / 2 - tip.offsetWidth / 2));
    tip.style.left = `${left}px`;
    tip.style.top = `${box.y > tip.offsetHeight + 12 ? box.y - tip.offsetHeight - 6 : box.bottom + 6}px`;
  });
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
})();
