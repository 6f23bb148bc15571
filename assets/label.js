// The tab Label: one picture at a time, labeled by keyboard. The page gives the element a set in `data-set`;
// everything else comes from the routes of captcha_reader/web/label_routes.py.
(() => {
  const tab = crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2);
  const icons = { high: "", medium: "·", low: "?" };
  let set = "", items = [], shownAt = 0, closed = false, chain = Promise.resolve(), timer = 0;
  let sent = { waiting: 0, answered: new Set() };  // what was sent of this set; of another set it is another one

  const at = (name) => element.querySelector(`[data-part="${name}"]`);
  const url = (path) => `labels/${encodeURIComponent(set)}/${path}`;
  const level = (p) => (p >= 0.9 ? "high" : p >= 0.6 ? "medium" : "low");

  async function ask(path, body, address = url(path)) {
    const options = body ? { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) } : {};
    const response = await fetch(address, options);
    const said = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
    if (!response.ok) throw Object.assign(new Error(said.error || said.detail || "it did not work"), said);
    return said;
  }

  function say(text, kind = "") {
    at("message").textContent = text;
    at("message").className = `label-message ${kind}`;
  }

  // Pictures of the next items are fetched while the person looks at this one.
  function preload() {
    for (const item of items.slice(1, 5)) new Image().src = url(`pictures/${item.id}`);
  }

  function show() {
    const item = items[0];
    at("work").hidden = !item || !at("sheet").hidden;
    at("work").dataset.shown = item ? item.id : "";
    at("done").hidden = Boolean(item) || sent.waiting > 0;
    if (!item) return;
    at("picture").src = url(`pictures/${item.id}`);
    at("picture").alt = `captcha ${item.name}`;
    const box = at("text");
    box.value = item.text;
    shownAt = performance.now();
    color();
    box.focus({ preventScroll: true });
    // The cursor selects the most doubtful character: typing one letter corrects it.
    const doubtful = item.chars.indexOf(Math.min(...item.chars));
    if (item.chars.length === item.text.length && doubtful >= 0 && item.chars[doubtful] < 0.9)
      box.setSelectionRange(doubtful, doubtful + 1);
    else box.setSelectionRange(box.value.length, box.value.length);
    preload();
  }

  function color() {
    const item = items[0], box = at("text"), line = at("characters");
    line.replaceChildren();
    if (!item) return;
    [...box.value].forEach((character, i) => {
      const span = document.createElement("span");
      const known = box.value === item.text && item.chars.length === [...item.text].length;
      span.className = known ? level(item.chars[i]) : "typed";
      span.textContent = character;
      if (known) {
        span.title = `${Math.round(100 * item.chars[i])} %`;
        span.dataset.mark = icons[level(item.chars[i])];
      }
      line.append(span);
    });
  }

  function update(state) {
    const progress = state.progress;
    const kept = new Set(items.map((item) => item.id));
    let anew = false;
    // What the person sees stays; what comes after it is the server's choice, but for what was answered meanwhile.
    if (sent.waiting === 0) {
      const first = items[0];
      const fresh = state.items.filter((item) => !first || item.id !== first.id);
      // A reading that came meanwhile is filled in, unless something was typed.
      const again = [state.current, ...state.items].find((item) => item && first && item.id === first.id);
      anew = again && again.text !== first.text && at("text").value === first.text;
      items = first ? [anew ? again : first, ...fresh] : fresh;
    } else for (const item of state.items) if (!kept.has(item.id) && !sent.answered.has(item.id)) items.push(item);
    // Also where the page drew the panel anew, or where the person was faster than the answers.
    if (anew || !items.length || items[0].id !== at("work").dataset.shown) show();
    else preload();
    const rest = progress.pictures - progress.typed - progress.accepted - progress.skipped - progress.unreadable;
    at("count").textContent =
      `${progress.typed} typed, ${progress.corrected} of them corrected` +
      (progress.accepted ? `, ${progress.accepted} accepted` : "") +
      (progress.skipped ? `, ${progress.skipped} skipped` : "") +
      (progress.unreadable ? `, ${progress.unreadable} unreadable` : "") + `, ${rest} left`;
    at("advice").textContent = progress.advice;
    at("advice").classList.toggle("good", progress.stop);
    at("background").textContent = state.said || (state.scheme ? `By all readings: ${state.scheme}.` : "");
    at("sheet-button").hidden = !state.sheet;
    at("sheet-button").textContent = `Look over ${state.sheet} certain ones`;
    draw(progress.curve, progress.corrections);
  }

  function send(body, item) {
    const mine = sent, address = url("answer");
    mine.waiting += 1;
    at("saving").textContent = "saving";
    chain = chain.then(() => ask("answer", { tab, ...body }, address)).then(
      (state) => {
        mine.waiting -= 1;
        if (mine !== sent) return;
        if (mine.waiting === 0) { at("saving").textContent = "saved"; mine.answered.clear(); }
        if (body.do === "undo") { items = []; update(state); show(); } else update(state);
      },
      (error) => {
        mine.waiting -= 1;
        say(error.message, "bad");
        if (mine !== sent) return;
        at("saving").textContent = "";
        if (item) { mine.answered.delete(item.id); items = [item, ...items.filter((other) => other.id !== item.id)]; show(); at("text").value = body.text || item.text; color(); }
        if (error.taken_over) takenOver();
      });
  }

  function takenOver() {
    closed = true;
    at("take-over").hidden = false;
    at("work").hidden = true;
  }

  function act(what) {
    if (closed || !at("sheet").hidden) return;
    if (what === "undo") { say(""); send({ do: "undo" }); return; }
    const item = items[0];
    if (!item) return;
    const text = at("text").value.trim();
    if (what === "label" && !text) { say("There is no text: type what the picture says, or skip it.", "bad"); return; }
    say("");
    items = items.slice(1);
    sent.answered.add(item.id);
    const seconds = Math.min((performance.now() - shownAt) / 1000, 3600);
    send(what === "label" ? { do: what, id: item.id, text, seconds, offered: item.text, model: item.model } : { do: what, id: item.id }, item);
    show();
  }

  async function openSheet() {
    const { items: certain } = await ask("sheet");
    if (!certain.length) return;
    const grid = at("sheet-grid");
    grid.replaceChildren(...certain.map((item) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.id = item.id;
      button.setAttribute("aria-pressed", "false");
      const image = new Image();
      image.src = url(`pictures/${item.id}`);
      image.alt = "";
      const text = document.createElement("span");
      text.textContent = item.text;
      button.append(image, text);
      button.addEventListener("click", () => button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true"));
      return button;
    }));
    at("sheet").hidden = false;
    at("work").hidden = true;
    at("sheet-accept").focus();
  }

  async function closeSheet(accept) {
    const buttons = [...at("sheet-grid").children];
    at("sheet").hidden = true;
    try {
      if (accept) {
        const wrong = buttons.filter((b) => b.getAttribute("aria-pressed") === "true").map((b) => b.dataset.id);
        // What was looked at is accepted: other readings may have come meanwhile.
        const texts = buttons.map((b) => b.querySelector("span").textContent);
        const state = await ask("accept", { tab, ids: buttons.map((b) => b.dataset.id), texts, wrong });
        items = [];
        update(state);
        say(`${state.accepted} accepted. The ones you marked come next.`, "good");
      }
    } catch (error) { say(error.message, "bad"); }
    show();
  }

  // Solid: pictures kept aside that each model reads right, with their intervals. Dashed: its readings that were corrected.
  function draw(curve, corrections) {
    const svg = at("curve");
    svg.replaceChildren();
    const points = curve.filter((point) => point.n);
    svg.parentElement.hidden = !points.length;
    if (!points.length) return;
    const most = Math.max(20, ...points.map((point) => point.labels), ...corrections.map((row) => row.labels));
    const x = (labels) => 40 + 244 * Math.sqrt(labels / most), y = (share) => 8 + 84 * (1 - share);
    const make = (name, attributes, text) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      if (text) node.textContent = text;
      svg.append(node);
    };
    for (const share of [0, 0.5, 1]) {
      make("line", { x1: 40, x2: 290, y1: y(share), y2: y(share), class: "rule" });
      make("text", { x: 36, y: y(share) + 4, class: "axis", "text-anchor": "end" }, `${100 * share} %`);
    }
    const line = points.map((point) => `${x(point.labels)},${y(point.accuracy)}`).join(" ");
    make("polyline", { points: line, class: "line" });
    for (const point of points) {
      make("line", { x1: x(point.labels), x2: x(point.labels), y1: y(point.interval[0]), y2: y(point.interval[1]), class: "interval" });
      make("circle", { cx: x(point.labels), cy: y(point.accuracy), r: 4, class: "dot" });
      make("text", { x: x(point.labels), y: 108, class: "axis", "text-anchor": "middle" }, `${point.labels}`);
    }
    const share = (row) => row.corrected / row.typed;
    make("polyline", { points: corrections.map((row) => `${x(row.labels)},${y(share(row))}`).join(" "), class: "line corrected" });
    for (const row of corrections)
      make("rect", { x: x(row.labels) - 3.5, y: y(share(row)) - 3.5, width: 7, height: 7, class: "mark" });
    const last = points[points.length - 1], lately = corrections[corrections.length - 1];
    at("corrected").textContent = lately
      ? ` Of the ${lately.typed} readings offered since then ${lately.corrected} were corrected (squares).` : "";
    svg.setAttribute("aria-label", `After ${last.labels} labels ${Math.round(100 * last.accuracy)} % of ${last.n} pictures kept aside are read right`);
  }

  async function begin(name) {
    if (name !== set) { items = []; sent = { waiting: 0, answered: new Set() }; }
    set = name; closed = false;
    element.firstElementChild.dataset.begun = "";
    element.firstElementChild.hidden = !set;
    at("take-over").hidden = true; at("sheet").hidden = true;
    clearInterval(timer);
    if (!set) return;
    for (const link of element.querySelectorAll("[data-form]")) link.href = url(`export?form=${link.dataset.form}`);
    try {
      const state = await ask("claim", { tab });
      say(state.took_over ? "Another tab was labeling this set: it stops now." : "");
      update(state);
      show();
    } catch (error) { say(error.message, "bad"); }
    // Readings and trainings come in the background.
    timer = setInterval(() => {
      if (closed || sent.waiting || !at("sheet").hidden || !element.offsetParent) return;
      const shown = items[0] ? `&current=${items[0].id}` : "";
      ask(`next?count=4&tab=${tab}${shown}`).then(
        (state) => sent.waiting || !at("sheet").hidden || update(state),
        (error) => { if (error.taken_over) { say(error.message, "bad"); takenOver(); } });
    }, 2000);
  }

  element.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (!at("sheet").hidden) {
      if (event.key === "Escape") { event.preventDefault(); closeSheet(false); }
      return;
    }
    const keys = { Enter: "label", ArrowDown: "skip", Escape: "unreadable", ArrowUp: "undo" };
    if (event.target === at("text") && keys[event.key]) { event.preventDefault(); act(keys[event.key]); }
  });
  element.addEventListener("input", (event) => { if (event.target === at("text")) color(); });
  element.addEventListener("focusin", (event) => {
    // On a phone the keyboard takes the lower half: the picture goes to the top of what is left.
    if (event.target === at("text") && window.matchMedia("(pointer: coarse)").matches)
      setTimeout(() => at("work").scrollIntoView({ block: "start" }), 250);
  });
  element.addEventListener("click", (event) => {
    const what = event.target.closest("[data-do]")?.dataset.do;
    if (["label", "skip", "unreadable", "undo"].includes(what)) { act(what); at("text").focus(); }
    else if (what === "sheet") openSheet().catch((error) => say(error.message, "bad"));
    else if (what === "accept") closeSheet(true);
    else if (what === "close-sheet") closeSheet(false);
    else if (what === "take-over") begin(set);
  });
  window.addEventListener("pagehide", () => {
    if (set && !closed) navigator.sendBeacon(url("release"), new Blob([JSON.stringify({ tab })], { type: "application/json" }));
  });
  const named = () => element.querySelector("[data-set]")?.dataset.set || "";
  // The page may draw the panel anew with the set that it has: then it is empty.
  const isNew = () => element.firstElementChild && element.firstElementChild.dataset.begun === undefined;
  new MutationObserver(() => { if (named() !== set || isNew()) begin(named()); }).observe(
    element, { childList: true, subtree: true, attributes: true, attributeFilter: ["data-set"] });
  if (named()) begin(named());
})();
