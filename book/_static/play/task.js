/* GeneralPoints for the page: cards and rules, formulas in exact arithmetic, the verifier, the lab's dialect, episodes.
   Behaves as the package's task does, verdict by verdict (tests/book/test_play.py holds the two against each other). */
"use strict";
globalThis.Play = globalThis.Play || {};
(() => {
  const TARGET = 24, LARGEST = 13, MAX_LENGTH = 128, MAX_DEPTH = 16, MOST_CLAUSES = 8, TOO_LARGE = 10n ** 6n;
  const LABELS = ["A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K"], FACES = ["J", "Q", "K"];
  const NAMED = { id: { J: 10, Q: 10, K: 10 }, ood: { J: 11, Q: 12, K: 13 } };
  const REWARDS = { correct: 5, partial: 1, no_solution: -1, wrong_number: -2, wrong_rule: -2, illegal_formula: -3 };
  const TOLD = { illegal_formula: "format", wrong_number: "numbers", wrong_rule: "numbers", no_solution: "value",
    partial: "value" };
  const ATTEMPTS = 5;

  /** What the cards count under a rule {J, Q, K}, in the order of the hand. */
  const valuesOf = (hand, rule) => hand.map((label) => rule[label] ?? LABELS.indexOf(label) + 1);
  const sorted = (values) => [...values].sort((one, other) => (one < other ? -1 : one > other ? 1 : 0));
  const same = (one, other) => String(sorted(one)) === String(sorted(other));

  // --- formulas

  /** Why a text is no formula; position counts characters from 0. */
  class Unreadable extends Error {
    constructor(reason, position) { super(reason); this.position = position; }
  }

  /** A character as Python's ascii() writes it, as feedback quotes it. */
  function quoted(character) {
    const code = character.codePointAt(0), hex = (digits) => code.toString(16).padStart(digits, "0");
    const known = { "\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\" }[character];
    if (character === "'") return `"'"`;
    if (known) return `'${known}'`;
    if (code > 0xffff) return `'\\U${hex(8)}'`;
    if (code > 0xff) return `'\\u${hex(4)}'`;
    return code < 32 || code > 126 ? `'\\x${hex(2)}'` : `'${character}'`;
  }

  /** Numbers, operators and brackets, [{text, at}]. Unreadable at the first other character that is no space. */
  function tokenize(text) {
    const illegal = /[^0-9+\-*/() ]/u.exec(text);
    if (illegal)
      throw new Unreadable(`illegal character ${quoted(illegal[0])}`, [...text.slice(0, illegal.index)].length);
    return Array.from(text.matchAll(/[0-9]+|[+\-*/()]/g), (found) => ({ text: found[0], at: found.index }));
  }

  /** A formula in postfix order: its numbers as BigInt, its operators as text. Unreadable if it is none. */
  function parse(text) {
    const length = [...text].length;
    if (length > MAX_LENGTH) throw new Unreadable(`longer than ${MAX_LENGTH} characters`, MAX_LENGTH);
    const tokens = [...tokenize(text), { text: "", at: length }], postfix = [];
    let next = 0, depth = 0;
    const seen = () => (tokens[next].text ? `'${tokens[next].text}'`.slice(0, 20) : "the end");
    const fail = (reason) => { throw new Unreadable(reason, tokens[next].at); };
    function chain(operators, operand) {
      operand();
      while (tokens[next].text && operators.includes(tokens[next].text)) {
        const operator = tokens[next++].text;
        operand();
        postfix.push(operator);
      }
    }
    const expression = () => chain("+-", term), term = () => chain("*/", factor);
    function factor() {
      const { text: piece } = tokens[next];
      if (piece === "(") {
        if (depth === MAX_DEPTH) fail(`brackets nested deeper than ${MAX_DEPTH}`);
        depth++;
        next++;
        expression();
        if (tokens[next].text !== ")") fail(`an operator or ')' is expected, not ${seen()}`);
        depth--;
      } else {
        if (!/^[0-9]/.test(piece)) fail(`a number or '(' is expected, not ${seen()}`);
        if (piece.length > 1 && piece[0] === "0") fail(`the number ${seen()} has a leading zero`);
        postfix.push(BigInt(piece));
      }
      next++;
    }
    expression();
    if (tokens[next].text) fail(`an operator is expected, not ${seen()}`);
    return postfix;
  }

  /** Whether a formula in postfix order is exactly 24. `one`: 1n, or 1 for numbers so small that nothing is rounded, is
      what its numbers are of. Fractions are pairs, never reduced; what is divided by zero has no value. */
  function makes24(postfix, one) {
    const stack = [], zero = one - one;
    for (const piece of postfix) {
      if (typeof piece !== "string") {
        stack.push([piece, one]);
        continue;
      }
      const [c, d] = stack.pop(), [a, b] = stack.pop();
      if (piece === "/" && c === zero) return false;
      if (piece === "*") stack.push([a * c, b * d]);
      else if (piece === "/") stack.push([a * d, b * c]);
      else stack.push([piece === "+" ? a * d + c * b : a * d - c * b, b * d]);
    }
    // BigInt and Number mix in no product
    return stack[0][0] === (typeof one === "bigint" ? BigInt(TARGET) : TARGET) * stack[0][1];
  }

  const LAYOUTS = ["a1b2c3d", "(a1b)2c3d", "(a1b2c)3d", "a1(b2c)3d", "a1(b2c3d)", "a1b2(c3d)", "(a1b)2(c3d)"];
  const put = (template, marks) => template.replace(/[a-d1-3]/g, (mark) => marks[mark] ?? mark);
  let patterns = null;

  /** The different orders of some values. */
  function orders(values) {
    if (!values.length) return [[]];
    return values.flatMap((value, at) => (values.indexOf(value) < at ? []
      : orders(values.filter((_, other) => other !== at)).map((rest) => [value, ...rest])));
  }

  const solved = new Map();
  /** Every formula of four values (1 to 13) that is exactly 24 in the seven bracket layouts, without spaces. */
  function solutions(values) {
    const key = String(sorted(values)), signs = [..."+-*/"];
    // parsed once, with the places 0 to 3 for numbers
    patterns ??= LAYOUTS.flatMap((layout) => signs.flatMap((x) => signs.flatMap((y) => signs.map((z) => {
      const template = put(layout, { 1: x, 2: y, 3: z });
      return { template, postfix: parse(put(template, { a: 0, b: 1, c: 2, d: 3 })) };
    }))));
    if (!solved.has(key)) {
      solved.set(key, orders(sorted(values)).flatMap((order) => {
        const filled = (postfix) => postfix.map((piece) => (typeof piece === "string" ? piece : order[piece]));
        return patterns.filter(({ postfix }) => makes24(filled(postfix), 1))
          .map(({ template }) => template.replace(/[a-d]/g, (mark) => order["abcd".indexOf(mark)]));
      }));
    }
    return solved.get(key);
  }

  /** How many tokens at the beginning are also those of some solution. */
  function longestBeginning(tokens, values) {
    return Math.max(0, ...solutions(values).map((solution) => {
      const theirs = tokenize(solution);
      const differ = tokens.findIndex((token, at) => token.text !== theirs[at]?.text);
      return differ < 0 ? tokens.length : differ;
    }));
  }

  // --- the verifier

  function are(numbers) {
    const listed = sorted(numbers).slice(0, 8).map((number) => (number < TOO_LARGE ? number : "a large number"));
    return `${listed.join(", ")} ${numbers.length === 1 ? "is" : "are"}`;
  }

  /** What is wrong with the numbers: foreign ones, else over-used ones; and, independently, unused ones. */
  function numberComplaints(numbers, values) {
    const count = (list, value) => list.filter((one) => one === value).length;
    const more = (one, other) => [...new Set(one)].filter((value) => count(one, value) > count(other, value));
    const foreign = [...new Set(numbers)].filter((number) => !values.includes(number));
    const excess = more(numbers, values), unused = more(values, numbers), clauses = [];
    if (foreign.length) clauses.push(`${are(foreign)} not among the hand's values`);
    else if (excess.length) clauses.push(`${are(excess)} used too often`);
    if (unused.length) clauses.push(`${are(unused)} not used`);
    return clauses;
  }

  /** The rule under which these numbers are the hand's values: id, ood, or values of its faces; null if none. */
  function readUnder(hand, numbers) {
    for (const [name, rule] of Object.entries(NAMED)) if (same(valuesOf(hand, rule), numbers)) return name;
    const candidates = sorted([...new Set(numbers)].filter((number) => number >= 1 && number <= LARGEST));
    const tryFaces = (faces, rule) => {
      if (!faces.length) return same(valuesOf(hand, rule), numbers) ? rule : null;
      for (const value of candidates) {
        const found = tryFaces(faces.slice(1), { ...rule, [faces[0]]: value });
        if (found) return found;
      }
      return null;
    };
    const rule = tryFaces(FACES.filter((face) => hand.includes(face)), {});
    return rule && Object.entries(rule).map(([face, value]) => face + value).join("-");
  }

  function verdict(category, clauses, readAs = null) {
    const text = clauses.slice(0, MOST_CLAUSES).join("; ");
    const feedback = `${text.slice(0, 1).toUpperCase()}${text.slice(1)}.`;
    return { solved: category === "correct", reward: REWARDS[category], category, feedback, read_as: readAs };
  }

  /** The verdict on a formula (null: there is none); only what stands before the first = is read. */
  function judge(formula, hand, rule) {
    if (formula === null) return verdict("illegal_formula", ["the answer has no formula"]);
    const text = formula.split("=", 1)[0], values = valuesOf(hand, rule);
    let postfix;
    try {
      postfix = parse(text);
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error;
      if (isUnfinished(text, values))
        return verdict("partial", ["the formula begins a solution but a closing bracket is missing"]);
      const where = `at character ${error.position + 1}, ${error.message}`;
      return verdict("illegal_formula", [`the formula cannot be read: ${where}`]);
    }
    const numbers = postfix.filter((piece) => typeof piece !== "string"), is24 = makes24(postfix, 1n);
    if (!same(numbers, values)) {
      const complaints = numberComplaints(numbers, values.map(BigInt)), readAs = is24 ? readUnder(hand, numbers) : null;
      if (readAs === null) return verdict("wrong_number", complaints);
      return verdict("wrong_rule", [...complaints, "it would be right under another rule"], readAs);
    }
    if (is24) return verdict("correct", ["the formula is right"]);
    const tokens = tokenize(text), begun = tokens.slice(0, longestBeginning(tokens, values));
    return verdict("no_solution", [`the formula is not ${TARGET}${begun.length
      ? `, but a solution can begin with ${begun.map((token) => token.text).join("")}`
      : " and no solution begins like it"}`]);
  }

  /** Whether closing brackets at the end are all that a solution has more. */
  function isUnfinished(text, values) {
    if (text.split("(").length <= text.split(")").length || /[^0-9+\-*/() ]/u.test(text)) return false;
    const tokens = tokenize(text), numbers = tokens.filter((token) => /\d/.test(token.text));
    return same(numbers.map((token) => BigInt(token.text)), values) && longestBeginning(tokens, values) === tokens.length;
  }

  // white space as Python strips it
  const SPACE = "[\\t-\\r\\x1c- \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
  const strip = (text) => text.replace(new RegExp(`^${SPACE}+|${SPACE}+$`, "g"), "");
  const SIGNS = { "×": "*", x: "*", X: "*", "·": "*", "÷": "/", "−": "-", "–": "-" };

  /** What a person wrote, as a formula: with the signs that people use. */
  const typed = (text) => strip(text).replace(/[×xX·÷−–]/g, (sign) => SIGNS[sign]);

  // --- the lab's dialect

  /** The one word that a model is told about a failed attempt. */
  const told = ({ category }) => TOLD[category];

  const isNumber = (word) => /^([1-9]|1[0-3]|24)$/.test(word);

  function question(hand, rule) {
    return `<s> ${FACES.map((face) => `${face} ${rule[face]}`).join(" ")} cards ${hand.join(" ")} answer`;
  }

  /** An answer's words as {formula (null: none), layout, stated: values, at: of the first of them}. Protocol "target"
      takes no answer in the layout of pretraining. */
  function readAnswer(words, protocol) {
    const none = { formula: null, layout: "none", stated: [], at: 0 };
    if (words.at(-1) !== "<end>") return none;
    let body = words.slice(0, -1);
    const layout = body[0] === "{" && body.at(-1) === "}" ? "target" : "plain";
    if (layout === "target") body = body.slice(1, -1);
    const mark = body.lastIndexOf(layout === "target" ? "|" : "so"), stated = body.slice(0, Math.max(0, mark));
    if (mark < 0 || body.includes("{") || body.includes("}") || !stated.every(isNumber)) return none;
    const read = { formula: null, layout, stated: stated.map(Number), at: layout === "target" ? 1 : 0 };
    if (layout === "plain" && protocol === "target") return read;
    const formula = body.slice(mark + 1).reduce((text, word) =>
      text + (/\d$/.test(text) && /^\d/.test(word) ? ` ${word}` : word), "");
    return { ...read, formula };
  }

  /** One episode: attempts with the verifier's feedback in between, [{tokens, words, p, read, verdict, ms}]; p: by token
      the probabilities of all words. */
  function episode({ model, tokenizer }, hand, rule, protocol = "either", attempts = ATTEMPTS) {
    const cache = model.start(), made = [];
    let prompt = tokenizer.encode(question(hand, rule));
    while (made.length < attempts) {
      const began = performance.now(), answer = model.answer(cache, prompt, tokenizer.end);
      const tokens = answer.map(({ token }) => token), words = tokenizer.words(tokens);
      const read = readAnswer(words, protocol), found = judge(read.formula, hand, rule);
      const ms = performance.now() - began;
      made.push({ tokens, words, p: answer.map(({ p }) => p), read, verdict: found, ms });
      if (found.solved) break;
      // the last token of the answer is the only one that the cache has not got
      prompt = [tokens.at(-1), ...tokenizer.encode(`wrong ${told(found)} answer`)];
    }
    return made;
  }

  const hasFormula = (hand, rule) => solutions(valuesOf(hand, rule)).length > 0;

  /** All hands with a face card, whether they have a formula or not. */
  function faceHands() {
    const hands = [];
    for (let a = 0; a < 13; a++) for (let b = a; b < 13; b++) for (let c = b; c < 13; c++) for (let d = c; d < 13; d++)
      if (d > 9) hands.push([a, b, c, d].map((rank) => LABELS[rank]));
    return hands;
  }

  Object.assign(Play, { LABELS, FACES, LARGEST, ATTEMPTS, NAMED, valuesOf, parse, solutions, judge, typed, question, readAnswer,
    told, episode, hasFormula, faceHands });
})();
