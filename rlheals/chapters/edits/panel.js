(function (panel, drawn) {
  // drawn: {kind: {where: {share: html}}}, every choice that was measured
  const kind = panel.querySelector("[name=kind]"), where = panel.querySelector("[name=where]");
  const share = panel.querySelector("[name=share]"), told = panel.querySelector("output");
  const bars = panel.querySelector(".rlheals-bars");
  function offer(select, names) {
    const before = select.value;
    select.replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(before)) select.value = before;
  }
  function shares() {
    return Object.keys(drawn[kind.value][where.value]).map(Number).sort((a, b) => a - b);
  }
  function draw() {
    const percent = shares()[Number(share.value)];
    told.textContent = percent + " %";
    share.setAttribute("aria-valuetext", percent + " %");
    bars.innerHTML = drawn[kind.value][where.value][percent];
  }
  function narrow() {
    share.max = shares().length - 1;
    share.value = share.max;
    share.disabled = shares().length < 2;
    draw();
  }
  function wherever() {
    offer(where, Object.keys(drawn[kind.value]));
    narrow();
  }
  kind.addEventListener("input", wherever);
  where.addEventListener("input", narrow);
  share.addEventListener("input", draw);
  offer(kind, Object.keys(drawn));
  wherever();
})
