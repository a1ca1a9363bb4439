// The page of `tapetum label`. It asks the server that it came from and no other. Text from names reaches the page only
// as text (textContent and attributes), never as markup.
"use strict";

const NONE = "none of these";           // as the label file has it
const TILE = 124, GROUP = 60, PAGE = 200, ROWS = 20;
const $ = (id) => document.getElementById(id);
// Kept when the page is loaded again, but not by a copy of the tab.
const isReload = performance.getEntriesByType("navigation")[0]?.type === "reload";
const tab = (isReload && sessionStorage.tab) || (sessionStorage.tab = crypto.randomUUID());

let state = null;                       // what the server told last
let view = null;                        // the view that is shown: {show, keys, choose, none, accept, ...}
let busy = false;                       // an answer is on its way to the disk

// --- Making elements and talking to the server ---------------------------------------------------------------------

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

async function ask(path, data) {
  const options = data === undefined ? {} : { method: "POST", body: JSON.stringify({ tab, ...data }) };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Start tapetum label again; what was answered before is on disk.");
  }
  if (!response.headers.get("content-type")?.startsWith("application/json")) throw new Error(await response.text());
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content;
}

let toastTimer;
function toast(text, isBad = false) {
  clearTimeout(toastTimer);
  $("toast").textContent = text;
  $("toast").classList.toggle("bad", isBad);
  toastTimer = setTimeout(() => { $("toast").textContent = ""; }, isBad ? 8000 : 2500);
}

function told(work) {                   // beside what goes on: whoever looks elsewhere need not wait for the first answer
  return work.catch((error) => toast(error.message, true));
}

async function guarded(work) {          // one thing at a time: what is not on disk is not passed over
  if (busy) return undefined;
  busy = true;
  try {
    return await work();
  } catch (error) {
    toast(error.message, true);
    return undefined;
  } finally {
    busy = false;
  }
}

function picture(item, side, attributes = {}) {
  const image = el("img", { alt: item.name, draggable: "false", decoding: "async", ...attributes });
  image.addEventListener("load", () => image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= 64));
  image.addEventListener("error", () => image.parentElement?.classList.add("unreadable"));
  image.src = `image/${item.id}?side=${side}`;
  return image;
}

const percent = (share) => `${(100 * share).toFixed(share > 0.995 || share < 0.1 ? 1 : 0)}%`;

const key = (text) => el("kbd", {}, text);
const button = (text, hint, onclick, extra = {}) =>
  el("button", { type: "button", onclick, ...extra }, text, hint ? " " : null, hint ? key(hint) : null);

// --- Head and classes ----------------------------------------------------------------------------------------------

const classNames = () => state.classes.map(([name]) => name);

const keyOf = (place) => (place < 10 ? `${(place + 1) % 10}` : place < 20 ? `⇧${(place + 1) % 10}` : "");

function drawHead() {
  const done = state.labelled + state.none;
  const bar = document.querySelector("#progress progress");
  [bar.max, bar.value] = [state.images, done];
  const bits = [`${state.labelled} of ${state.images} labelled`];
  if (state.none) bits.push(`${state.none} none of these`);
  if (state.skipped) bits.push(`${state.skipped} skipped`);
  if (state.suggested) bits.push(`${state.suggested} suggested`);
  $("counts").textContent = bits.join(" · ");
  const last = state.finished.filter((run) => run.top1 !== null && run.top1 !== undefined).at(-1);
  $("accuracy").replaceChildren(...(last ? ["expected accuracy ", el("b", {}, `${last.top1.toFixed(1)}%`),
    last.interval ? ` (${last.interval.map((end) => end.toFixed(1)).join(" to ")}%)` : "", ` from ${last.labels} labels`] : []));
  const training = state.training;
  $("running").textContent = !training ? "" : { choose: choosingWords(training), fit: trainingWords(training), predict: "predicting…",
    suggest: "choosing what to ask next…", review: "looking for wrong labels…", stopped: "training stopped", failed: "training failed", done: "" }[training.phase];
  if (state.notice && state.notice !== noticed) toast(state.notice, true);
  noticed = state.notice;
}

function trainingWords(training) {
  if (!training.step) return "training begins…";
  const left = training.seconds_left === null ? "" : `, ${duration(training.seconds_left)} left`;
  return `training: step ${training.step} of ${training.steps}${left}`;
}

const choosingWords = (training) =>
  (training.step && training.step === training.steps ? "choosing what to ask first…" : `without labels, ${trainingWords(training)}`);

const duration = (seconds) => (seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`);

function drawClasses() {
  const counts = Object.fromEntries(state.classes);
  const buttons = classNames().map((name, place) => el("button", { type: "button", title: name, onclick: () => choose(name) },
    key(keyOf(place) || "·"), el("span", { class: "name" }, name), el("span", { class: "count" }, `${counts[name] ?? 0}`)));
  const other = (hint, name, onclick) =>
    el("button", { type: "button", onclick }, key(hint), el("span", { class: "name" }, name));
  $("classes").replaceChildren(...buttons, other("n", "another class…", nameClass), el("div", { class: "gap" }),
    other("x", "none of these", () => choose(NONE)), other("s", "skip", () => view.skip?.()), other("u", "undo", undo));
  $("naming-known").replaceChildren(...classNames().map((name) => el("option", { value: name })));
}

let drawn = "", noticed = "";
function use(told) {                     // takes over what the server told
  state = told;
  const now = JSON.stringify(told.classes);
  if (now !== drawn) { drawn = now; drawClasses(); }
  drawHead();
}

function nameClass() {
  $("naming-input").value = "";
  $("naming").showModal();
}

function useName() {
  const typed = $("naming-input").value.trim();
  $("naming").close();
  if (typed) choose(classNames().find((name) => name.toLowerCase() === typed.toLowerCase()) ?? typed);
}

function mount(owner, ...children) {     // what comes late does not cover the view that is shown now
  if (view === owner) $("view").replaceChildren(...children);
}

const choose = (label) => guarded(() => view.choose?.(label));

async function undo() {
  await guarded(async () => {
    const told = await ask("undo", {});
    use(told.state);
    toast(told.undone ? "Undone" : "There is nothing to undo");
    if (told.undone) await view.undone(told.images);
  });
}

async function send(answers, how, extra = {}) {
  use(await ask("answer", { answers, how, ...extra }));
}

function zoom(item) {
  if ($("zoom").open) return $("zoom").close();
  $("zoom").replaceChildren(picture(item, 2560));
  return $("zoom").showModal();
}

// --- One image at a time -------------------------------------------------------------------------------------------

function labelView() {
  let current = null, upcoming = [], since = performance.now();

  async function fill() {
    upcoming = (await ask("next", { count: 8 })).filter((item) => item.id !== current?.id);
    upcoming.slice(0, 6).forEach((item) => { new Image().src = `image/${item.id}?side=1024`; });
  }
  async function advance() {
    if (!upcoming.length) { current = null; await fill(); }
    current = upcoming.shift() ?? null;
    draw();
    fill().catch((error) => toast(error.message, true));
  }
  function draw() {
    since = performance.now();
    if (!current) {
      mount(self, el("p", { class: "empty" }, "Every image has an answer. Press ", key("r"),
        " to review predictions, or ", key("t"), " to train."));
      return;
    }
    const item = current, about = el("div", { class: "about" }, el("span", { class: "bidi note" }, item.name));
    if (item.except !== undefined) about.append(el("span", { class: "why bidi" }, `not ${item.except}, you said`));
    else if (item.reason) about.append(el("span", { class: "why bidi" }, `suggested: ${item.reason}`));
    if (typeof item.label === "string") about.append(el("b", { class: "bidi" }, `labelled ${item.label}`));
    if (item.predicted) {
      about.append(button(`${item.predicted}? (${percent(item.confidence)})`, "Enter", () => guarded(() => accept())));
    }
    mount(self, el("div", { class: "picture", onclick: () => zoom(item) }, picture(item, 1024)), about);
  }
  async function give(label, how) {
    if (!current) return;
    await send([[current.id, label]], how, { seconds: (performance.now() - since) / 1000 });
    await advance();
  }
  const accept = () => (current?.predicted ? give(current.predicted, "key") : undefined);
  const self = {
    name: "label",
    show: async () => { await fill(); current = current ?? upcoming.shift() ?? null; draw(); },
    choose: (label) => give(label, "key"),
    skip: () => guarded(() => give(current.label ?? null, "skip")),
    accept,
    zoom: () => current && zoom(current),
    undone: async (images) => { current = images.at(-1) ?? current; await fill(); draw(); },
  };
  return self;
}

// --- Many images at once -------------------------------------------------------------------------------------------

function gridView() {
  let source = null, isGroup = false, name = "", chosen = new Set(), at = 0, anchor = null, anchored = true, opened = 0;
  let tiles = new Map(), columns = 1;
  const select = el("select", { "aria-label": "Which images", onchange: () => told(open(select.value)) });
  const actions = el("div", { class: "actions" });
  const spacer = el("div", { class: "spacer" });
  const scroller = el("div", { class: "scroller", onscroll: () => requestAnimationFrame(draw) }, spacer);
  new ResizeObserver(() => draw()).observe(scroller);

  async function fillSelect() {
    const groups = await ask("groups");
    const options = groups.map((group) => [`group:${group.name}`,
      `predicted ${group.name} (${group.count})`]);
    options.push(["unlabelled", "all without an answer"], ["all", "all images"], ["none", "none of these"], ["skipped", "skipped"]);
    options.push(...state.classes.filter(([, count]) => count).map(([label, count]) => [`label:${label}`, `labelled ${label} (${count})`]));
    select.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
    return options.map(([value]) => value);
  }
  async function open(wanted) {
    opened += 1;
    const turn = opened, group = wanted.startsWith("group:"), label = group ? wanted.slice(6) : wanted;
    select.value = wanted;
    const made = group ? await groupSource(label) : listSource(wanted);
    if (!group) await made.load(0);
    if (turn !== opened) return;         // something else was asked for meanwhile
    [source, isGroup, name, chosen, at, anchor] = [made, group, label, new Set(), 0, null];
    if (isGroup) for (let place = 0; place < source.total; place += 1) chosen.add(source.get(place).id);
    clear();
    scroller.scrollTop = 0;
    scroller.classList.toggle("grouped", isGroup);
    mount(self, actions, scroller);
    draw();
    drawActions();
  }
  async function groupSource(label) {
    const { items, total } = await ask(`group?count=${GROUP}&name=${encodeURIComponent(label)}`);
    return { total: items.length, all: total, get: (place) => items[place], load: async () => {} };
  }
  function listSource(show) {
    const pages = new Map(), waiting = new Map(), made = { total: 0 };
    made.get = (place) => pages.get(Math.floor(place / PAGE))?.[place % PAGE];
    made.load = (page) => {
      if (!pages.has(page) && !waiting.has(page)) waiting.set(page, fetched(page));
      return waiting.get(page);
    };
    async function fetched(page) {
      try {
        const part = await ask(`listing?count=${PAGE}&start=${page * PAGE}&show=${encodeURIComponent(show)}`);
        pages.set(page, part.items);
        made.total = part.total;
        if (pages.size > 30) pages.delete(pages.keys().next().value);  // what was scrolled past long ago
        requestAnimationFrame(draw);
      } catch (error) {
        toast(error.message, true);
      } finally {
        waiting.delete(page);
      }
    }
    return made;
  }
  function clear() {
    tiles.forEach((tile) => tile.remove());
    tiles = new Map();
  }
  function draw() {
    if (!source || !scroller.isConnected) return;
    const width = scroller.clientWidth, now = Math.max(2, Math.floor(width / TILE)), side = width / now;
    if (now !== columns || spacer.dataset.width !== `${width}`) clear();
    [columns, spacer.dataset.width] = [now, width];
    spacer.style.height = `${Math.ceil(source.total / columns) * side}px`;
    const first = Math.max(0, Math.floor(scroller.scrollTop / side) - 1) * columns;
    const last = Math.min(source.total, (Math.ceil((scroller.scrollTop + scroller.clientHeight) / side) + 1) * columns);
    for (const [place, tile] of tiles) if (place < first || place >= last) { tile.remove(); tiles.delete(place); }
    for (let place = first; place < last; place += 1) {
      const item = source.get(place);
      if (!item) source.load(Math.floor(place / PAGE));
      else if (!tiles.has(place)) tiles.set(place, addTile(item, place, side));
    }
  }
  function addTile(item, place, side) {
    const shown = typeof item.label === "string" ? item.label : item.predicted ? `${item.predicted}?` : "";
    const tile = el("div", { role: "button", tabindex: "0", class: "tile", title: item.name, "aria-pressed": `${chosen.has(item.id)}`,
      onfocus: () => { at = place; },
      onclick: (event) => { if (event.shiftKey && anchor !== null) guarded(() => toggleTo(place)); else toggle(place); } },
    picture(item, 160), el("span", {}, shown));
    Object.assign(tile.style, { width: `${side - 4}px`, height: `${side - 4}px`,
      transform: `translate(${(place % columns) * side}px, ${Math.floor(place / columns) * side}px)` });
    spacer.append(tile);
    return tile;
  }
  function mark(place, isChosen) {
    const item = source.get(place);
    if (!item) return;
    if (isChosen) chosen.add(item.id); else chosen.delete(item.id);
    tiles.get(place)?.setAttribute("aria-pressed", `${isChosen}`);
  }
  function toggle(place) {
    const item = source.get(place);
    if (!item) return;
    [at, anchor] = [place, place];
    anchored = !chosen.has(item.id);
    mark(place, anchored);
    drawActions();
  }
  async function toggleTo(place) {       // with Shift: all between the last one and this one, also those never drawn
    const [from, to, asked] = [Math.min(anchor, place), Math.max(anchor, place), source];
    at = place;
    for (let one = from; one <= to; one += 1) {
      if (!source.get(one)) await source.load(Math.floor(one / PAGE));
      if (source !== asked || !source.get(one)) break;  // other images are shown by now, or the server is gone
      mark(one, anchored);
    }
    drawActions();
  }
  function drawActions() {
    const label = name;
    const parts = [select];
    if (isGroup && source.total) {
      const out = source.total - chosen.size;
      parts.push(button(`${chosen.size} are ${label}${out ? `, ${out} not` : ""}`, "Enter", () => guarded(accept), { class: "main" }),
        el("span", { class: "note" }, `Click those that are not. ${source.all} images are predicted so; the surest come first.`));
    } else if (isGroup) {
      parts.push(el("span", { class: "note" }, "No image is left in this group."));
    } else {
      parts.push(el("span", { class: "note" }, chosen.size ? `${chosen.size} chosen: press the key of their class.`
        : `${source.total} images. Click some (with Shift, all between two), then press the key of their class.`));
    }
    actions.replaceChildren(...parts);
  }
  async function reload() {
    const names = await fillSelect(), wanted = isGroup ? `group:${name}` : name;
    await open(names.includes(wanted) ? wanted : names[0]);
  }
  async function accept() {
    if (!isGroup || !source.total) return;
    const answers = [], others = [];
    for (let place = 0; place < source.total; place += 1) {
      const { id } = source.get(place);
      if (chosen.has(id)) answers.push([id, name]); else others.push([id, null]);
    }
    if (others.length) await send(others, "not", { group: name });
    if (answers.length) await send(answers, "grid");
    toast(`${answers.length} are ${name}${others.length ? `; ${others.length} are asked again` : ""}`);
    await reload();
  }
  async function give(label) {
    if (!chosen.size) { toast("Choose images first: click them"); return; }
    await send([...chosen].map((id) => [id, label]), "grid");
    toast(`${chosen.size} are ${label}`);
    if (isGroup) { await reload(); return; }
    const top = scroller.scrollTop;      // in a long list, stay where one was
    await reload();
    scroller.scrollTop = top;
  }
  function move(step) {
    at = Math.min(Math.max(0, at + step), source.total - 1);
    const side = scroller.clientWidth / columns, top = Math.floor(at / columns) * side;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    if (top + side > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + side - scroller.clientHeight;
    draw();
    tiles.get(at)?.focus();
  }
  const self = {
    name: "grid",
    show: async () => { const names = await fillSelect(); await open(names[0]); },
    choose: give,
    accept,
    skip: () => toast("In the grid nothing needs to be skipped"),
    zoom: () => source.get(at) && zoom(source.get(at)),
    undone: reload,
    keys: {
      ArrowLeft: () => move(-1), ArrowRight: () => move(1), ArrowUp: () => move(-columns), ArrowDown: () => move(columns),
      " ": () => toggle(at),
    },
  };
  return self;
}

// --- Predictions beside what they rest on --------------------------------------------------------------------------

function reviewView() {
  let items = [], rows = [], at = 0, total = 0, what = "doubt", loaded = 0;
  const select = el("select", { "aria-label": "Which predictions", onchange: () => told(load(select.value)) },
    el("option", { value: "doubt" }, "the most doubtful first"),
    el("option", { value: "labels" }, "labels to look at again"));
  const head = el("div", { class: "actions" }), list = el("div", { class: "rows" });

  async function load(wanted = what) {
    loaded += 1;
    const turn = loaded, part = await ask(`review?what=${wanted}&count=${ROWS}`);
    if (turn !== loaded) return;
    [what, items, total, at] = [wanted, part.items, part.total, 0];
    rows = items.map(row);
    const left = total > items.length ? el("p", { class: "note" }, `${total - items.length} more follow when these are answered.`) : null;
    list.replaceChildren(...rows, ...(left ? [left] : []));
    if (!items.length) {
      list.replaceChildren(el("p", { class: "empty" }, state.predicted ? "Nothing is left here."
        : "There are no predictions yet: label some images of each class, then train."));
    }
    head.replaceChildren(select, el("span", { class: "note" }, `${total} images. ${state.calibrated
      ? "Confidence is calibrated on held-out labels." : "Confidence only ranks the images: too few labels are held out."}`));
    mount(self, head, list);
    mark(0);
  }
  function row(item, place) {
    const images = (label, shown, words) => (shown.length ? el("ul", { class: "basis", "aria-label": label },
      ...shown.map((one) => el("li", { title: one.name }, picture(one, 160), el("span", {}, words(one))))) : null);
    const isCopy = Boolean(item.copies?.length);
    const sure = item.confidence === null ? "" : ` ${percent(item.confidence)}`;
    const said = [isCopy ? "" : `${item.predicted}${sure}`, typeof item.label === "string" ? `labelled ${item.label}` : "",
      item.confidence === null ? item.reason : ""].filter(Boolean).join("; ");
    return el("div", { class: "row", onclick: () => mark(place) },
      picture(item, 160, { onclick: () => zoom(item) }),
      el("div", {}, el("b", { class: "bidi" }, said), el("div", { class: "note bidi" }, item.name),
        isCopy ? images("Copies of it", item.copies, (one) => `copy: ${one.label ?? "no label"}`)
          : images("It rests on these labelled images", item.basis, (one) => `${one.label} ${percent(one.share)}`),
        isCopy ? el("p", { class: "note" }, "Press the key of the right class; that of its own label keeps it.")
          : el("div", { class: "actions" },
            button(`${item.predicted}`, "Enter", () => { mark(place); guarded(accept); }, { class: "main" }))));
  }
  function mark(place) {
    at = Math.min(Math.max(0, place), rows.length - 1);
    rows.forEach((one, other) => one.classList.toggle("current", other === at));
    rows[at]?.scrollIntoView({ block: "nearest" });
  }
  async function give(label) {
    const item = items[at];
    if (!item) return;
    await send([[item.id, label]], "review");
    item.done = true;
    rows[at].classList.add("answered");
    rows[at].querySelector("b").textContent = label;
    const next = items.findIndex((one, place) => place > at && !one.done);
    if (next >= 0) mark(next); else await load();
  }
  const accept = () => (items[at]?.predicted ? give(items[at].predicted) : undefined);
  const self = {
    name: "review",
    show: () => load(),
    choose: give,
    accept,
    skip: () => mark(at + 1),
    zoom: () => items[at] && zoom(items[at]),
    undone: () => load(),
    keys: { ArrowUp: () => mark(at - 1), ArrowDown: () => mark(at + 1), ArrowLeft: () => mark(at - 1), ArrowRight: () => mark(at + 1) },
  };
  return self;
}

// --- Training ------------------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";
function svg(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function chart(points, label, xLabel, range) {   // points: [x, y, low, high]
  const [w, h, left, bottom] = [360, 190, 44, 28];
  const xs = points.map((p) => p[0]), ys = points.flatMap((p) => p.slice(1));
  let [low, high] = range ?? [Math.min(...ys), Math.max(...ys)];
  if (low === high) [low, high] = [low - 1, high + 1];
  const most = Math.max(...xs, 1), least = Math.min(...xs, most - 1);
  const x = (value) => left + ((value - least) / (most - least)) * (w - left - 12);
  const y = (value) => 10 + ((high - value) / (high - low)) * (h - bottom - 16);
  const made = svg("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": label });
  for (const end of [low, (low + high) / 2, high]) {
    made.append(svg("line", { class: "axis", x1: left, x2: w - 8, y1: y(end), y2: y(end) }),
      svg("text", { x: left - 6, y: y(end) + 4, "text-anchor": "end" }, Math.abs(end) < 10 ? end.toFixed(2) : end.toFixed(0)));
  }
  made.append(svg("text", { x: left, y: h - 6 }, `${least}`), svg("text", { x: w - 10, y: h - 6, "text-anchor": "end" }, `${most} ${xLabel}`));
  if (points[0].length > 2) {
    const edge = [...points.map((p) => [p[0], p[3]]), ...points.toReversed().map((p) => [p[0], p[2]])];
    made.append(svg("polygon", { class: "band", points: edge.map(([a, b]) => `${x(a)},${y(b)}`).join(" ") }));
    points.forEach((p) => made.append(svg("circle", { cx: x(p[0]), cy: y(p[1]), r: 3 })));
  }
  made.append(svg("polyline", { class: "line", points: points.map((p) => `${x(p[0])},${y(p[1])}`).join(" ") }));
  return el("figure", {}, el("figcaption", { class: "note" }, label), made);
}

function trainView() {
  const length = el("input", { type: "number", min: "0", value: "10", step: "any", "aria-label": "Length" });
  const unit = el("select", { "aria-label": "Unit" }, ...["minutes", "epochs", "steps"].map((name) => el("option", {}, name)));
  const start = button("Train", "", () => act("train", () => ({ length: Number(length.value), unit: unit.value })), { class: "main", id: "start" });
  const stop = button("Stop and save", "", () => act("stop", () => ({})), { id: "stop" });
  const resume = button("Resume", "", () => act("resume", () => ({})), { id: "resume" });
  const minutes = el("input", { type: "number", min: "0", value: "10", step: "any", "aria-label": "Minutes", id: "choose-minutes" });
  const first = button("Choose what to ask first", "", () => act("choose", () => ({ minutes: Number(minutes.value) })), { id: "choose" });
  const told = el("div", { class: "card" }), charts = el("div", { class: "card charts" }), runs = el("div", { class: "card" });
  const act = (what, data) => guarded(async () => { use(await ask(what, data())); draw(); });

  function draw() {
    const training = state.training, isRunning = ["choose", "fit", "predict", "suggest", "review"].includes(training?.phase);
    [start.disabled, first.disabled, stop.disabled] = [isRunning, isRunning, !isRunning];
    resume.disabled = !["stopped", "failed"].includes(training?.phase);
    const words = training && { choose: "Training without labels, to choose what to ask first", fit: "Training", predict: "Trained; predicting every image", suggest: "Trained; choosing what to ask next", review: "Trained; looking for wrong labels",
      stopped: "Stopped and saved", failed: "Failed", done: "Finished" }[training.phase];
    told.replaceChildren(...(training ? [el("h2", {}, `Run ${training.number}: ${words}`),
      el("p", {}, training.step ? `Step ${training.step} of ${training.steps}` : "No step yet",
        ["choose", "fit"].includes(training.phase) && training.seconds_left !== null ? `, about ${duration(training.seconds_left)} left` : ""),
      training.phase === "done" ? null : el("p", { class: "note bidi" }, training.said)].filter(Boolean) : [el("p", {}, "Nothing has been trained from this page yet.")]));
    const loss = training?.loss ?? [], accuracy = training?.accuracy ?? [];
    charts.replaceChildren(
      loss.length ? chart(loss, "Loss", "steps") : el("p", { class: "note" }, "The loss appears here."),
      training?.chooses ? "" : accuracy.length ? chart(accuracy, `Correct on ${training.held_out || "the"} held-out labels, %, with its 95% interval`, "steps", [0, 100])
        : el("p", { class: "note" }, "The accuracy on held-out labels appears here: a fifth of the labels of each class that has three."));
    const rated = state.finished.filter((run) => run.top1 !== null && run.top1 !== undefined && run.interval);
    const cells = (run) => [`${run.number}`, `${run.labels}`, run.top1 == null ? "not measured" : `${run.top1.toFixed(1)}%`,
      run.interval ? `${run.interval.map((end) => end.toFixed(1)).join(" to ")}%` : ""];
    runs.replaceChildren(el("h2", {}, "Finished runs"), state.finished.length
      ? el("table", {}, el("tr", {}, ...["run", "labels", "expected accuracy", "95% interval"].map((text) => el("th", {}, text))),
        ...state.finished.map((run) => el("tr", {}, ...cells(run).map((text) => el("td", {}, text)))))
      : el("p", { class: "note" }, "None yet."));
    if (rated.length > 1) {
      const points = rated.map((run) => [run.labels, run.top1, ...run.interval]).sort((a, b) => a[0] - b[0]);
      runs.append(chart(points, "Expected accuracy, %, as labels grow", "labels", [0, 100]));
    }
  }
  const self = {
    name: "train",
    show: () => {
      mount(self, el("div", { class: "train" }, el("div", { class: "card" }, el("h2", {}, "Train on the labels as they are now"),
        el("div", { class: "actions" }, length, unit, start, stop, resume),
        el("p", { class: "note" }, "Training is a process of its own: it goes on if this page is closed, and is found again.")),
      el("div", { class: "card" }, el("h2", {}, "No labels yet?"), el("div", { class: "actions" }, minutes, "minutes", first),
        el("p", { class: "note" }, "A network that trains without labels finds images of all kinds, so that few answers tell more.")), told, charts, runs));
      draw();
    },
    refreshed: draw,
    choose: () => toast("Go to Label, Grid or Review to answer"),
    undone: () => {},
  };
  return self;
}

// --- Views, keys, the clock ----------------------------------------------------------------------------------------

const VIEWS = { label: labelView, grid: gridView, review: reviewView, train: trainView };

async function show(name) {
  document.querySelectorAll("nav [data-view]").forEach((one) => {
    if (one.dataset.view === name) one.setAttribute("aria-current", "page"); else one.removeAttribute("aria-current");
  });
  const made = VIEWS[name]();
  view = made;
  document.body.dataset.view = name;
  try { await made.show(); } catch (error) { toast(error.message, true); }
  document.body.dataset.ready = name;
}

function pressed(event) {
  if (event.ctrlKey && event.key === "z") { undo(); event.preventDefault(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat && !event.key.startsWith("Arrow")) return;
  if ($("naming").open) {
    // Enter on a button means that button, and within an input method it ends a word.
    if (event.key === "Enter" && !event.isComposing && !event.target.matches("button")) { useName(); event.preventDefault(); }
    return;
  }
  if ($("zoom").open) { if (event.key === "z") $("zoom").close(); return; }
  if ($("help").open || event.target.matches("input, select")) return;
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1] ?? (/^\d$/.test(event.key) ? event.key : null);
  if (digit !== null) {
    const place = (Number(digit) + 9) % 10 + (event.shiftKey ? 10 : 0), name = classNames()[place];
    if (name === undefined) toast(`There is no class ${place + 1} yet: press n to name one`); else choose(name);
    event.preventDefault();
    return;
  }
  const keys = {
    n: nameClass, x: () => choose(NONE), s: () => view.skip?.(), u: undo, z: () => view.zoom?.(), "?": () => $("help").showModal(),
    l: () => show("label"), g: () => show("grid"), r: () => show("review"), t: () => show("train"),
    Enter: () => guarded(() => view.accept?.()), ...view.keys,
  };
  if (event.target.matches("button") && ["Enter", " "].includes(event.key)) return;  // that button is meant
  const action = keys[event.key];
  if (action) { action(); event.preventDefault(); }
}

async function refresh() {
  try {
    const before = state?.predicted, told = await ask("state");
    use(told);
    view?.refreshed?.();
    if (before === false && told.predicted) toast("Predictions are there: press g for the grid, r for the review");
  } catch (error) {
    toast(error.message, true);
  }
  setTimeout(refresh, view?.name === "train" || ["choose", "fit"].includes(state?.training?.phase) ? 1000 : 3000);
}

document.addEventListener("keydown", pressed);
// A button that was clicked keeps no focus, or else Enter would press it again.
document.addEventListener("click", (event) => { if (event.detail) event.target.closest("button")?.blur(); });
document.querySelectorAll("nav [data-view]").forEach((one) => one.addEventListener("click", () => show(one.dataset.view)));
$("help-button").addEventListener("click", () => $("help").showModal());
$("help-close").addEventListener("click", () => $("help").close());
$("naming-ok").addEventListener("click", useName);
$("naming-cancel").addEventListener("click", () => $("naming").close());
$("zoom").addEventListener("click", () => $("zoom").close());
refresh().then(() => show("label"));
