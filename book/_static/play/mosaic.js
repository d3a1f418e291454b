/* The mosaic: every OOD hand a square, coloured by how a checkpoint answered it in the fresh run's evaluation. */
"use strict";
(() => {
  const root = document.getElementById("play-mosaic");
  if (!root) return;
  const { el, percent, button } = Play, COLUMNS = root.clientWidth < 560 ? 20 : 40, SIDE = 10;
  const known = new Map();
  /** What a script of attempts calls: by hand, its attempts as [formula] or [null, words]. */
  Play.attempted = (key, hands) => known.set(key, hands);

  if (!Play.mosaic || !Play.mosaic.checkpoints.length) {
    root.replaceChildren(el("p", {}, "There is no full evaluation to show here."));
    return;
  }
  const { outcomes, hands, checkpoints } = Play.mosaic;
  const ofSft = checkpoints.filter(({ rl }) => !rl), ofRl = checkpoints.filter(({ rl }) => rl);
  const steps = (some) => some.map(({ step }) => step.toLocaleString("en")).join(", ");
  const rlOf = (one) => ofRl.find(({ step }) => step === one.step);

  // --- what is shown

  const slider = el("input", { type: "range", min: 0, max: ofSft.length - 1, value: 0, step: 1, id: "mosaic-step" });
  const after = el("input", { type: "checkbox" });
  const status = el("p", { role: "status", "aria-live": "polite", class: "play-status" });
  const legend = el("ul", { class: "mosaic-legend" });
  const detail = el("div", { class: "mosaic-detail", role: "region", "aria-label": "one hand" });
  const rows = Math.ceil(hands.length / COLUMNS);
  const squares = hands.map((hand, at) => el("rect", { x: SIDE * (at % COLUMNS), y: SIDE * Math.floor(at / COLUMNS),
    width: SIDE - 1, height: SIDE - 1 }, el("title", {}, hand.join(" "))));
  const cursor = el("rect", { width: SIDE + 1, height: SIDE + 1, class: "mosaic-cursor", visibility: "hidden" });
  const map = el("svg", { viewBox: `-1 -1 ${SIDE * COLUMNS + 1} ${SIDE * rows + 1}`, role: "application", tabindex: 0,
    "aria-label": "All OOD hands, a square each. Arrow keys choose a hand, Enter shows its attempts." }, ...squares, cursor);
  let chosen = 0;

  function current() {
    const plain = ofSft[Number(slider.value)], trained = rlOf(plain);
    after.disabled = !trained;
    return after.checked && trained ? trained : plain;
  }
  const named = (one) => (one.rl ? `after RL from SFT step ${one.step.toLocaleString("en")}`
    : one.step ? `SFT step ${one.step.toLocaleString("en")}` : "base");

  function draw() {
    const one = current(), count = outcomes.map(() => 0);
    squares.forEach((square, at) => {
      count[Number(one.hands[at])]++;
      square.setAttribute("class", `mosaic-${one.hands[at]}`);
    });
    slider.setAttribute("aria-valuetext", named(one));
    legend.replaceChildren(...outcomes.map((name, at) => el("li", {}, el("svg", { viewBox: "0 0 9 9", "aria-hidden": "true" },
      el("rect", { width: 9, height: 9, class: `mosaic-${at}` })), ` ${name}: ${count[at]}`)));
    const share = (...places) => percent(places.reduce((sum, at) => sum + count[at], 0) / hands.length);
    status.textContent = `${named(one)}: ${share(0, 1)} of ${hands.length} OOD hands solved, ${share(0)} at once; `
      + `${share(3)} read under the ID rule.`;
    detail.replaceChildren();
  }

  // --- one hand

  async function show(at) {
    const one = current(), hand = hands[at], rule = Play.NAMED.ood;
    chosen = at;
    for (const [name, size] of [["x", at % COLUMNS], ["y", Math.floor(at / COLUMNS)]]) cursor.setAttribute(name, SIDE * size - 1);
    cursor.setAttribute("visibility", "visible");
    if (!known.has(one.key)) await Play.script(one.file, root.dataset.from);
    if (chosen !== at || current() !== one) return;
    const attempts = known.get(one.key)?.[at];
    const shown = attempts ? el("ol", { class: "play-attempts" }, ...attempts.map(([formula, words]) =>
      Play.attempt(formula ?? words, Play.judge(formula, hand, rule)))) : el("p", { class: "play-trouble" },
      `The attempts (${one.file}) did not arrive. Reload the page to try again.`);
    detail.replaceChildren(el("h3", {}, `${hand.join(" ")}, ${named(one)}: ${outcomes[Number(one.hands[at])]}`), shown,
      button("Let the checkpoints play this hand", () => Play.playThis?.(hand)));
  }

  function move(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: COLUMNS, ArrowUp: -COLUMNS }[event.key];
    if (event.key !== "Enter" && by === undefined) return;
    event.preventDefault();
    const next = chosen + (cursor.getAttribute("visibility") === "hidden" ? 0 : by ?? 0);
    if (next >= 0 && next < hands.length) show(next);
  }

  slider.addEventListener("input", draw);
  after.addEventListener("change", draw);
  map.addEventListener("keydown", move);
  map.addEventListener("click", ({ target }) => { if (squares.includes(target)) show(squares.indexOf(target)); });
  const said = ofRl.length ? ` after RL from here (there is RL from SFT step ${steps(ofRl)})` : " after RL (none is in the store)";
  root.replaceChildren(el("div", { class: "mosaic-controls" }, el("label", { for: "mosaic-step" }, "SFT step"), slider,
    el("label", {}, after, said)), status, map, legend, detail);
  draw();
})();
