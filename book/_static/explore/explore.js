/* Curves of every recorded base seed, and every OOD hand by step. Text enters the page as text only. */
"use strict";
(() => {
  const curves = document.getElementById("explore-curves"), field = document.getElementById("explore-atlas");
  if (!curves || !field) return;
  const { el, percent } = Play, data = globalThis.Explored;
  if (!data || data.note) {
    for (const root of [curves, field]) root.replaceChildren(el("p", {}, data?.note ?? "The data did not arrive. Reload the page."));
    return;
  }
  const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7b61a8"];
  const number = (value) => value.toLocaleString("en");
  const known = (values) => values.filter((value) => value !== null);
  const mean = (values) => (known(values).length ? known(values).reduce((sum, value) => sum + value, 0) / known(values).length : null);
  const choice = (label, options) => {
    const select = el("select", {}, ...options.map(([value, text]) => el("option", { value }, text)));
    return { select, label: el("label", {}, el("span", {}, label), select) };
  };

  // --- curves

  const study = choice("Study", Object.keys(data.studies).map((name) => [name, name]));
  const measure = choice("Measure", Object.entries(data.measures)), split = choice("Hands", Object.entries(data.splits));
  const after = el("input", { type: "checkbox" }), seeds = el("fieldset", { class: "explore-seeds" });
  const status = el("p", { role: "status", "aria-live": "polite" }), plot = el("div", {}), numbers = el("details", {});
  const W = curves.clientWidth < 500 ? 380 : 660, H = 320, LEFT = 44, RIGHT = 22, BOTTOM = 34, TOP = 8;
  let shown = new Set();

  function chooseSeeds() {
    const { seeds: all } = data.studies[study.select.value];
    shown = new Set(all);
    seeds.replaceChildren(el("legend", {}, "Base seeds"), ...all.map((seed, at) => {
      const box = el("input", { type: "checkbox" });
      box.checked = true;
      box.addEventListener("change", () => { shown[box.checked ? "add" : "delete"](seed); draw(); });
      return el("label", {}, box, el("i", { style: `background:${COLORS[at % COLORS.length]}` }), ` ${seed}`);
    }));
    after.disabled = study.select.value !== Object.keys(data.studies)[0] || !data.rl.length;
    draw();
  }

  function draw() {
    const one = data.studies[study.select.value], { steps } = one, rows = one[measure.select.value][split.select.value];
    const mine = one.seeds.map((seed, at) => [seed, at]).filter(([seed]) => shown.has(seed));
    const runs = after.checked && !after.disabled ? data.rl.filter(({ seed, start }) => shown.has(seed) && steps.includes(start)) : [];
    const found = (run) => run[measure.select.value]?.[split.select.value] ?? null;
    const most = Math.max(...mine.flatMap(([, place]) => known(rows[place])), ...known(runs.map(found)), 0);
    const top = [0.1, 0.2, 0.4, 0.6, 0.8, 1].find((value) => most <= value) ?? 1;
    const x = (at) => LEFT + (W - LEFT - RIGHT) * (steps.length > 1 ? at / (steps.length - 1) : 0.5);
    const y = (value) => TOP + (H - TOP - BOTTOM) * (1 - value / top);
    const name = `${data.measures[measure.select.value]}, ${data.splits[split.select.value]}`;
    const svg = el("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", class: "explore-plot" });
    for (const tick of [0, top / 2, top]) svg.append(el("line", { x1: LEFT, x2: W - RIGHT, y1: y(tick), y2: y(tick), class: "explore-grid" }),
      el("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, percent(tick)));
    const every = Math.ceil(steps.length / (W / 60));
    steps.forEach((step, at) => { if (at === steps.length - 1 || (at % every === 0 && at <= steps.length - 1 - every)) svg.append(
      el("text", { x: x(at), y: H - 16, "text-anchor": "middle" }, number(step))); });
    svg.append(el("text", { x: (LEFT + W) / 2, y: H - 2, "text-anchor": "middle" }, "SFT step"));
    const line = (values) => values.map((value, at) => (value === null ? "" : `${at && values[at - 1] !== null ? "L" : "M"}${x(at)} ${y(value)}`)).join("");
    for (const [seed, place] of mine) {
      const color = COLORS[place % COLORS.length];
      svg.append(el("path", { d: line(rows[place]), stroke: color, class: "explore-seed" }, el("title", {}, `base seed ${seed}`)));
      rows[place].forEach((value, at) => { if (value !== null) svg.append(el("rect", { x: x(at) - 2, y: y(value) - 2, width: 4, height: 4, fill: color },
        el("title", {}, `base seed ${seed}, SFT step ${number(steps[at])}: ${percent(value)}`))); });
    }
    const middle = steps.map((_, at) => mean(mine.map(([, place]) => rows[place][at])));
    svg.append(el("path", { d: line(middle), class: "explore-mean" }));
    for (const run of runs) {
      const value = found(run), at = steps.indexOf(run.start);
      if (value === null) continue;
      const color = COLORS[one.seeds.indexOf(run.seed) % COLORS.length];
      svg.append(el("path", { d: `M${x(at) + 4} ${y(value) - 5}l5 9h-10z`, fill: "none", stroke: color, "stroke-width": 1.5 },
        el("title", {}, `base seed ${run.seed}, RL from SFT step ${number(run.start)}, RL seed ${run.run}: ${percent(value)}`)));
    }
    const best = middle.reduce((top, value, at) => (value !== null && (top < 0 || value > middle[top]) ? at : top), -1);
    const said = best < 0 ? `${name}: no data here.` : `${name}, mean of ${mine.length} base seed${mine.length === 1 ? "" : "s"}: ${percent(middle[0] ?? 0)} at step `
      + `${number(steps[0])}, highest at step ${number(steps[best])} (${percent(middle[best])}), ${percent(middle.at(-1) ?? 0)} at step ${number(steps.at(-1))}.`;
    status.textContent = said;
    svg.setAttribute("aria-label", said);
    plot.replaceChildren(svg);
    const head = el("tr", {}, ...["base seed", ...steps.map(number)].map((text) => el("th", { scope: "col" }, text)));
    const body = mine.map(([seed, place]) => el("tr", {}, el("th", { scope: "row" }, String(seed)),
      ...rows[place].map((value) => el("td", {}, value === null ? "" : percent(value)))));
    numbers.replaceChildren(el("summary", {}, "These numbers as a table"), el("div", { class: "explore-wide" }, el("table", {}, head, ...body)));
  }

  study.select.addEventListener("change", chooseSeeds);
  for (const { select } of [measure, split]) select.addEventListener("change", draw);
  after.addEventListener("change", draw);
  curves.replaceChildren(el("div", { class: "explore-controls" }, study.label, measure.label, split.label,
    el("label", { class: "explore-check" }, after, " after RL (triangles at its start)")), seeds, status, plot, numbers);
  chooseSeeds();

  // --- the atlas

  const { hands, sft, rl = [] } = data.atlas, COLUMN = 14;
  const columns = [...sft.map((one) => ({ ...one, name: `SFT step ${number(one.at)}` })), ...(rl.length ? [null] : []),
    ...rl.map((one) => ({ ...one, name: `after RL from SFT step ${number(one.at)}` }))];
  const canvas = el("canvas", { width: columns.length * COLUMN, height: hands.length, tabindex: 0, role: "application",
    "aria-label": `${hands.length} OOD hands as rows, evaluations as columns. Arrow keys move; what is there is told below.` });
  const told = el("p", { role: "status", "aria-live": "polite" }, "Point at the picture, or focus it and use the arrow keys.");
  const brush = canvas.getContext("2d");
  columns.forEach((one, at) => { if (one) [...one.tenths].forEach((tenth, row) => {
    brush.fillStyle = `rgba(0, 135, 104, ${Number(tenth) / 9})`;
    brush.fillRect(at * COLUMN, row, COLUMN - 1, 1);
  }); });
  let row = 0, column = 0;
  function tell() {
    const one = columns[column];
    if (!one) return;
    const tenth = Number(one.tenths[row]), share = tenth === 9 ? "90 % or more" : tenth ? `at least ${10 * tenth} %` : "less than 10 %";
    told.textContent = `${hands[row].join(" ")}, ${one.name}: solved in ${share} of the evaluations.`;
  }
  canvas.addEventListener("mousemove", (event) => {
    const { left, top, width, height } = canvas.getBoundingClientRect(), inside = (value, count) => Math.max(0, Math.min(count - 1, Math.floor(value * count)));
    column = inside((event.clientX - left) / width, columns.length);
    row = inside((event.clientY - top) / height, hands.length);
    tell();
  });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1], PageDown: [0, 50], PageUp: [0, -50] }[event.key];
    if (!by) return;
    event.preventDefault();
    column = Math.max(0, Math.min(columns.length - 1, column + by[0]));
    if (!columns[column]) column += by[0];
    row = Math.max(0, Math.min(hands.length - 1, row + by[1]));
    tell();
  });
  const ends = [sft[0], sft.at(-1), ...(rl.length ? [rl[0], rl.at(-1)] : [])].map(({ at }) => number(at));
  field.replaceChildren(told, canvas, el("p", { class: "explore-axis" }, `Columns, from left: SFT steps ${ends[0]} to ${ends[1]}`
    + (rl.length ? `; then, after the gap, RL from SFT steps ${ends[2]} to ${ends[3]}.` : ".")));
})();
