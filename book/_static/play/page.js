/* Small parts of both halves of the page. Text enters the page as text only. */
"use strict";
globalThis.Play = globalThis.Play || {};
(() => {
  const SVG = /^(svg|g|rect|line|path|text|title|defs|pattern)$/;

  /** An element with attributes and children; a string is text. */
  function el(name, attributes = {}, ...children) {
    const made = document.createElementNS(SVG.test(name) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  const percent = (share) => {
    const value = 100 * share;
    return `${value > 0 && value < 1 ? value.toFixed(1) : Math.round(value)}\u00a0%`;
  };
  const button = (text, does) => {
    const made = el("button", { type: "button" }, text);
    made.addEventListener("click", does);
    return made;
  };

  /** Load a script beside the page's own; whether it came. */
  function script(file, from) {
    const made = el("script", { src: new URL(file, new URL(from, document.baseURI)).href });
    return new Promise((done) => {
      made.addEventListener("load", () => done(true));
      made.addEventListener("error", () => done(false));
      document.head.append(made);
    });
  }

  /** What the verifier calls its verdicts here. */
  const CATEGORIES = { correct: "correct", partial: "bracket missing", no_solution: "values right, not 24",
    wrong_number: "wrong values", wrong_rule: "right under another rule", illegal_formula: "unreadable" };

  /** One attempt: what it says, the verdict, and what the model is told. */
  const attempt = (said, verdict) => el("li", {}, el("code", {}, said), " ",
    el("span", { class: verdict.solved ? "play-good" : "play-bad" }, `${verdict.solved ? "✓" : "✗"} ${CATEGORIES[verdict.category]}`),
    el("div", { class: "play-feedback" }, verdict.solved ? verdict.feedback
      : `${verdict.feedback} The model is told: wrong ${Play.told(verdict)}.`));

  Object.assign(Play, { el, percent, button, script, CATEGORIES, attempt });
})();
