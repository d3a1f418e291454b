/* The page: questions in, answers of the checkpoints side by side, and a census. Text enters the page as text only. */
"use strict";
(() => {
  const root = document.getElementById("play-lab");
  if (!root) return;
  const { Trouble, LABELS, FACES, LARGEST, NAMED, ATTEMPTS, CATEGORIES, el, percent, button } = Play;
  const CENSUS = 100;

  // --- small parts

  const pause = () => new Promise((go) => setTimeout(go));
  const choice = (label, values, chosen) => {
    const select = el("select", {}, ...values.map((value) => el("option", {}, String(value))));
    select.value = String(chosen);
    return { select, label: el("label", {}, el("span", {}, label), select) };
  };

  // --- the question

  const cards = ["2", "3", "8", "J"].map((label, at) => choice(`Card ${at + 1}`, LABELS, label));
  const counts = FACES.map((face) => choice(face, Array.from({ length: LARGEST }, (_, at) => at + 1), NAMED.ood[face]));
  const strict = el("input", { type: "checkbox" });
  const status = el("p", { role: "status", "aria-live": "polite", class: "play-status" });
  const results = el("div", { class: "play-checkpoints" });
  const origin = el("p", { class: "play-time" });
  const bars = el("div", { class: "play-census" });
  const census = button(`Census of ${CENSUS} hands`, () => run(playCensus));
  const own = el("input", { type: "text", autocomplete: "off", spellcheck: "false", maxlength: "200" });
  const ownVerdict = el("p", { role: "status", "aria-live": "polite", class: "play-own-verdict" });

  const hand = () => cards.map(({ select }) => select.value);
  const rule = () => Object.fromEntries(FACES.map((face, at) => [face, Number(counts[at].select.value)]));
  const protocol = () => (strict.checked ? "target" : "either");
  const ruleText = (asked) => FACES.map((face) => `${face} = ${asked[face]}`).join(", ");
  const setRule = (name) => {
    FACES.forEach((face, at) => { counts[at].select.value = String(NAMED[name][face]); });
    run(playHand);
  };

  /** Hands with a face card in an order that looks random and is the same for every reader. */
  function shuffled() {
    const hands = Play.faceHands();
    let state = 24;
    for (let at = hands.length - 1; at > 0; at--) {
      state = (state * 1664525 + 1013904223) % 2 ** 32;
      const other = Math.floor(state / 2 ** 32 * (at + 1));
      [hands[at], hands[other]] = [hands[other], hands[at]];
    }
    return hands;
  }

  function drawHand() {
    const hands = Play.faceHands(), asked = rule(), from = Math.floor(Math.random() * hands.length);
    const found = [...hands.slice(from), ...hands.slice(0, from)].find((one) => Play.hasFormula(one, asked));
    if (!found) return void tell(`Under ${ruleText(asked)} no hand with a face card makes 24. Choose other values.`);
    found.forEach((label, at) => { cards[at].select.value = label; });
    run(playHand);
  }

  // --- checkpoints

  const arrived = new Map();
  /** What a checkpoint's script calls. */
  Play.arrived = (key, file) => arrived.set(key, file);

  /** Load a checkpoint's script and open it; kept in the entry as `opened`, or as `trouble` what to tell. */
  async function load(entry) {
    const came = await Play.script(entry.file, root.dataset.from);
    try {
      if (!came) throw new Trouble(`The weights (${entry.file}) did not arrive. Reload the page to try again.`);
      if (!arrived.has(entry.key)) throw new Trouble(`The file ${entry.file} is damaged: it holds no weights.`);
      entry.opened = Play.open(arrived.get(entry.key));
    } catch (error) {
      entry.trouble = error instanceof Trouble ? error.message : `The file ${entry.file} cannot be read.`;
    }
    arrived.delete(entry.key);
  }

  const ready = () => Play.index.checkpoints.filter((entry) => entry.opened);

  // --- one hand

  /** The cards with the value under each that the first attempt states, and how probable it was. */
  function shownCards(entry, asked, byRule, first) {
    const { ids } = entry.opened.tokenizer, wanted = Play.valuesOf(asked, byRule);
    return el("ul", { class: "play-hand", "aria-label": "cards and how they are read" }, ...asked.map((label, at) => {
      const p = first.p[first.read.at + at], value = first.read.layout === "none" ? undefined : first.read.stated[at];
      const chance = (number) => percent(p[ids.get(String(number))]), face = FACES.includes(label);
      const card = el("li", { class: face ? "play-card play-face" : "play-card" }, el("b", {}, label));
      if (value === undefined) card.append(el("span", {}, "not read"));
      else card.append(el("span", {}, `reads ${value}`), el("small", {}, `p = ${chance(value)}`));
      if (value !== undefined && value !== wanted[at]) {
        card.classList.add("play-wrong");
        card.append(el("small", {}, `right: ${wanted[at]}, p = ${chance(wanted[at])}`));
      }
      return card;
    }));
  }

  /** One attempt, what the verifier says of it to the reader, and in a word to the model. */
  function shownAttempt({ words, read, verdict }) {
    const said = read.formula === null || read.formula === "" ? words.join(" ") : read.formula;
    return Play.attempt(said, verdict);
  }

  /** Over all hands, by the evaluation that was made with the checkpoint. */
  function shownShares(entry) {
    const { temperature, attempts } = Play.index, found = Object.entries(entry.solved[protocol()] ?? {});
    if (!found.length) return el("p", { class: "play-shares" }, "There is no full evaluation here.");
    const said = found.map(([name, { hands, first, within }]) =>
      `of ${hands.toLocaleString("en")} ${name} hands ${percent(first)} at once, ${percent(within)} within ${attempts} attempts`);
    return el("p", { class: "play-shares" }, `Evaluation at temperature ${temperature}: ${said.join("; ")} solved.`);
  }

  function section(entry, ...children) {
    const id = `play-${entry.key}`;
    return el("section", { "aria-labelledby": id }, el("h2", { id }, entry.title), ...children);
  }

  async function playHand(current) {
    const asked = hand(), byRule = rule();
    ownVerdict.textContent = "";
    if (!Play.hasFormula(asked, byRule)) {
      results.replaceChildren();
      return tell(`No formula makes 24 from ${asked.join(" ")} with ${ruleText(byRule)}. Choose other cards or values.`);
    }
    await loaded();
    if (!current()) return;
    const sections = [], said = [];
    for (const entry of Play.index.checkpoints) {
      if (entry.trouble) sections.push(section(entry, el("p", { class: "play-trouble" }, entry.trouble)));
      if (!entry.opened) continue;
      await pause();
      if (!current()) return;
      const episode = Play.episode(entry.opened, asked, byRule, protocol());
      const at = episode.findIndex(({ verdict }) => verdict.solved) + 1;
      const ms = episode.reduce((sum, attempt) => sum + attempt.ms, 0) / episode.length;
      sections.push(section(entry, shownCards(entry, asked, byRule, episode[0]),
        el("ol", { class: "play-attempts" }, ...episode.map(shownAttempt)), shownShares(entry),
        el("p", { class: "play-time" }, `${ms.toFixed(0)} ms per answer`)));
      said.push(`${entry.title}: ${at ? `solved in attempt ${at}` : `not solved in ${ATTEMPTS} attempts`}`);
    }
    results.replaceChildren(...sections);
    origin.textContent = `Checkpoints: profile ${Play.index.profile}, base seed ${Play.index.seed}.`;
    tell(`${asked.join(" ")} with ${ruleText(byRule)}. ${said.join("; ") || "There is no checkpoint to play with"}.`);
  }

  // --- many hands

  /** Wilson's 95 % interval of a share of n. */
  function interval(share, n) {
    const z = 1.96, middle = (share + z * z / (2 * n)) / (1 + z * z / n);
    const half = z / (1 + z * z / n) * Math.sqrt(share * (1 - share) / n + z * z / (4 * n * n));
    return [Math.max(0, middle - half), Math.min(1, middle + half)];
  }

  /** Bars of the shares solved at once and within the attempts, [{title, first, within}] of n hands. */
  function drawn(rows, n, about) {
    const kinds = [["first", "first attempt"], ["within", `within ${ATTEMPTS} attempts`]];
    return el("figure", {}, el("figcaption", {}, about), ...rows.map((row) => {
      const svg = el("svg", { viewBox: "0 0 300 34", role: "img", "aria-label":
        `${row.title}: ${kinds.map(([key, name]) => `${name} ${row[key]} of ${n}`).join(", ")}` });
      kinds.forEach(([key], line) => {
        const share = row[key] / n, [low, high] = interval(share, n), y = 2 + 17 * line, x = (value) => 230 * value;
        svg.append(el("rect", { x: 0, y, width: 230, height: 12, class: "play-track" }),
          el("rect", { x: 0, y, width: x(share), height: 12, class: `play-${key}` }),
          el("line", { x1: x(low), x2: x(high), y1: y + 6, y2: y + 6, class: "play-interval" }),
          el("text", { x: 238, y: y + 10 }, percent(share)));
      });
      return el("div", { class: "play-bar" }, el("span", { "aria-hidden": "true" }, row.title), svg);
    }), el("p", { class: "play-legend" }, el("i", { class: "play-first" }), " first attempt ", el("i", { class: "play-within" }),
      ` within ${ATTEMPTS} attempts; lines: 95 % intervals (Wilson)`));
  }

  async function playCensus(current) {
    const byRule = rule(), how = protocol();
    await loaded();
    if (!current()) return;
    const entries = ready();
    if (!entries.length) return tell("There is no checkpoint to play with.");
    const rows = entries.map(({ title }) => ({ title, first: 0, within: 0 }));
    const progress = el("progress", { max: CENSUS, value: 0, "aria-label": "hands played" });
    bars.replaceChildren(progress, button("Stop", () => { run(() => tell("Stopped.")); bars.replaceChildren(); }));
    tell(`Playing ${CENSUS} hands.`);
    let n = 0;
    for (const asked of shuffled()) {
      if (n === CENSUS) break;
      await pause();
      if (!current()) return;
      if (!Play.hasFormula(asked, byRule)) continue;
      n++;
      for (const [at, entry] of entries.entries()) {
        const episode = Play.episode(entry.opened, asked, byRule, how), won = episode.at(-1).verdict.solved;
        rows[at].within += won;
        rows[at].first += won && episode.length === 1;
        await pause();
        if (!current()) return;
      }
      progress.value = n;
    }
    if (!n) {
      bars.replaceChildren();
      return tell(`Under ${ruleText(byRule)} no hand with a face card makes 24. Choose other values.`);
    }
    bars.replaceChildren(drawn(rows, n, `${n} hands with a face card, ${ruleText(byRule)}, likeliest tokens`));
    tell(`${n} hands played. ${rows.map(({ title, within }) => `${title}: ${percent(within / n)} solved`).join("; ")}.`);
  }

  // --- the page

  function tell(sentence) { status.textContent = sentence; }

  let turn = 0;
  /** Start something that stops as soon as something else is started. */
  async function run(does) {
    const mine = ++turn;
    try {
      await does(() => mine === turn);
    } catch (error) {
      if (!(error instanceof Trouble)) throw error;
      tell(error.message);
    }
  }

  function judgeOwn() {
    const text = Play.typed(own.value);
    if (!text) return void (ownVerdict.textContent = "Write a formula first, for example 8/(3-8/3).");
    const { category, reward, feedback } = Play.judge(text, hand(), rule());
    ownVerdict.textContent = `${feedback} (${CATEGORIES[category]}, reward ${reward > 0 ? "+" : ""}${reward})`;
  }

  async function begin() {
    const form = el("form", { class: "play-form" },
      el("fieldset", {}, el("legend", {}, "Cards"), ...cards.map(({ label }) => label), button("Draw a hand", drawHand)),
      el("fieldset", {}, el("legend", {}, "What J, Q and K count"), ...counts.map(({ label }) => label),
        button("ID rule", () => setRule("id")), button("OOD rule", () => setRule("ood"))),
      el("label", { class: "play-check" }, strict, " count only answers in the format that SFT teaches"),
      el("div", { class: "play-buttons" }, el("button", { type: "submit", class: "play-main" }, "Play"), census));
    form.addEventListener("submit", (event) => { event.preventDefault(); run(playHand); });
    const ownForm = el("form", { class: "play-own" }, el("label", {}, el("span", {}, "Your own formula for these cards"), own),
      el("button", { type: "submit" }, "Judge"), ownVerdict);
    ownForm.addEventListener("submit", (event) => { event.preventDefault(); judgeOwn(); });
    root.replaceChildren(form, status, results, origin, bars, ownForm);
    const index = Play.index;
    if (!index) return tell("The list of checkpoints did not arrive. Build the book with `make book`, or reload the page.");
    if (index.note) form.before(el("p", { class: "play-note" }, index.note));
    if (!index.checkpoints.length) return tell("There are no weights here: the models cannot play. The verifier below works.");
    const size = index.checkpoints.reduce((sum, { bytes }) => sum + bytes, 0) / 1e6;
    tell(`Play loads ${index.checkpoints.length} checkpoints into this page, ${size.toFixed(1)} MB in all.`);
  }

  /** The weights are loaded when they are first asked for. */
  async function loaded() {
    for (const [at, entry] of (Play.index?.checkpoints ?? []).entries()) {
      if (entry.opened || entry.trouble) continue;
      tell(`Loading checkpoint ${at + 1} of ${Play.index.checkpoints.length}.`);
      await (entry.coming ??= load(entry));
    }
  }

  /** What the mosaic hands over. */
  Play.playThis = (labels) => {
    labels.forEach((label, at) => { cards[at].select.value = label; });
    root.scrollIntoView();
    setRule("ood");
  };

  begin();
})();
