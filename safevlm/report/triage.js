// The page: state, what follows from it, and what keys and clicks change.
"use strict";

const PAGE = 60; // cards
const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const number = new Intl.NumberFormat("en-US");
const marks = new Marks();

const nearest = SCAN.edges.indexOf(SCAN.threshold);
const state = {
  tab: SCAN.counts.flagged || !SCAN.counts.undecided ? "flagged" : "undecided",
  level: "", category: "", text: "", mark: "", step: nearest,
  page: 0, cursor: 0, unfolded: new Set(), revealed: new Set(),
};
let items = [];

// --- the threshold ---

function drawHistogram() {
  const bars = new Array(100).fill(0);
  SCAN.bins.forEach((count, i) => (bars[Math.min(99, Math.floor(SCAN.edges[i] * 100 + 1e-9))] += count));
  const most = Math.max(1, ...bars);
  const height = (count) => (count ? (100 * Math.log10(1 + count)) / Math.log10(1 + most) : 0);
  const draw = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const layer = (kind, clip) => {
    const group = draw("g", clip ? { class: kind, "clip-path": "url(#right)" } : { class: kind });
    bars.forEach((count, i) => group.append(draw("rect", { x: i * 10 + 0.8, width: 8.4, y: 100 - height(count), height: height(count) })));
    return group;
  };
  const clip = draw("clipPath", { id: "right" });
  clip.append(draw("rect", { id: "cut", x: 0, width: 1000, y: 0, height: 100 }));
  const histogram = $("histogram");
  histogram.append(clip, layer("kept"), layer("over", true), draw("line", { id: "line", y1: 0, y2: 100, x1: 0, x2: 0 }));
  for (let lines = 1; lines <= most; lines *= 10) {
    const line = make("span", {}, make("i", {}, number.format(lines)));
    line.style.bottom = height(lines) + "%";
    $("grid").append(line);
  }
}

function showThreshold() {
  const threshold = SCAN.edges[state.step];
  const scored = OVER[0];
  $("threshold").value = state.step;
  const shown = Number(threshold.toFixed(4)).toString();
  $("threshold").setAttribute("aria-valuetext", shown + ", " + number.format(OVER[state.step]) + " flagged");
  $("at").textContent = shown;
  $("over").textContent = number.format(OVER[state.step]);
  $("under").textContent = number.format(scored - OVER[state.step]);
  $("unscored").textContent = number.format(SCAN.total - scored);
  $("cut").setAttribute("x", threshold * 1000);
  for (const end of ["x1", "x2"]) $("line").setAttribute(end, threshold * 1000);
  $("policy").disabled = state.step === nearest;
  count("above", OVER[state.step]);
}

function moveThreshold(step) {
  state.step = step;
  showThreshold();
  if (state.tab === "above") restart();
}

// --- the gallery ---

function count(tab, value) {
  all('[data-tab="' + tab + '"] i').forEach((place) => (place.textContent = number.format(value)));
}

function restart() {
  state.page = 0;
  state.cursor = 0;
  show();
}

function show() {
  const errors = state.tab === "errors";
  const filter = { ...state, threshold: SCAN.edges[state.step] };
  const rows = errors ? [] : matching(filter, (row) => marks.of(row));
  items = $("fold").checked ? folded(rows, state.unfolded) : rows.map((row) => ({ row, alike: 0, member: false }));
  state.page = Math.max(0, Math.min(state.page, Math.ceil(items.length / PAGE) - 1));
  const shown = items.slice(state.page * PAGE, (state.page + 1) * PAGE);
  state.cursor = Math.max(0, Math.min(state.cursor, shown.length - 1));
  $("gallery").replaceChildren(...shown.map((item) => card(item, marks.line(item.row), state.unfolded.has(ROWS.group[item.row]))));
  $("gallery").hidden = errors || !shown.length;
  $("empty").hidden = errors || shown.length > 0;
  $("errors").hidden = !errors;
  for (const selector of [".filters", ".pages"]) document.querySelector(selector).hidden = errors;
  showFound(rows.length);
  showChoices();
  reveal();
  place(false);
}

function showFound(rows) {
  const pages = Math.max(1, Math.ceil(items.length / PAGE));
  const faces = items.filter((item) => !item.member).length;
  const images = number.format(rows) + (rows === 1 ? " image" : " images");
  $("found").textContent = state.tab === "errors" ? number.format(SCAN.counts.errors) + " errors"
    : faces < rows ? images + ", " + number.format(rows - faces) + " folded as look-alikes" : images;
  $("page").value = state.page + 1;
  $("page").max = pages;
  $("last").textContent = number.format(pages);
  $("previous").disabled = state.page === 0;
  $("next").disabled = state.page >= pages - 1;
}

function showChoices() {
  all("[data-tab]").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.tab === state.tab)));
  all("[data-filter]").forEach((button) => button.setAttribute("aria-pressed", String(state[button.dataset.filter] === button.dataset.value)));
  for (const name of ["level", "category"]) $(name).value = state[name];
  $("marked").value = state.mark;
  const { right, wrong, unsure } = marks.counts();
  $("marks").textContent = right + " right, " + wrong + " wrong, " + unsure + " unsure";
  $("export").disabled = !marks.lines.size;
}

const cards = () => [...$("gallery").children];
const current = () => cards()[state.cursor];
const rowOf = (element) => Number(element.dataset.row);

// One card takes part in the tab order, with its buttons.
function place(focus) {
  cards().forEach((element, i) => {
    element.tabIndex = i === state.cursor ? 0 : -1;
    element.classList.toggle("current", i === state.cursor);
    element.querySelectorAll("button, select").forEach((inner) => (inner.tabIndex = element.tabIndex));
  });
  if (focus && current()) current().focus();
}

function reveal() {
  cards().forEach((element) => {
    const open = !$("blur").checked || state.revealed.has(rowOf(element));
    element.classList.toggle("open", open);
    element.querySelector(".shot").setAttribute("aria-pressed", String(open));
    element.classList.toggle("hot", $("heat").checked && open);
  });
}

function turn(page, cursor) {
  if (page < 0 || page * PAGE >= items.length) return;
  state.page = page;
  state.cursor = cursor;
  show();
  place(true);
}

function move(by) {
  const target = state.cursor + by;
  if (target < 0) turn(state.page - 1, PAGE - 1);
  else if (target < cards().length) {
    state.cursor = target;
    place(true);
  } else if (state.cursor === cards().length - 1 || Math.abs(by) === 1) turn(state.page + 1, 0);
  else move(cards().length - 1 - state.cursor);
}

// Replaces one card and keeps the focus on what had it.
function redraw(element) {
  const row = rowOf(element);
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  const again = card(items[state.page * PAGE + cards().indexOf(element)], marks.line(row), state.unfolded.has(ROWS.group[row]));
  element.replaceWith(again);
  showChoices();
  reveal();
  place(false);
  if (focused === element) again.focus();
  else if (focused) (again.querySelector('[data-do="' + focused.dataset.do + '"]') || again).focus();
  if (!marks.kept) tell("Marks cannot be kept in this browser: export them before you close the page.");
}

const ACTIONS = {
  reveal(element) {
    const row = rowOf(element);
    if (!state.revealed.delete(row)) state.revealed.add(row);
    reveal();
  },
  unfold(element) {
    const group = ROWS.group[rowOf(element)];
    if (element.querySelector(".alike") || state.unfolded.has(group)) {
      const face = items.findIndex((item) => ROWS.group[item.row] === group);
      if (!state.unfolded.delete(group)) state.unfolded.add(group);
      turn(Math.floor(face / PAGE), face % PAGE);
    }
  },
};
for (const mark of MARKS) {
  ACTIONS[mark] = (element) => {
    if (element.querySelector('[data-do="' + mark + '"]').disabled) return;
    marks.set(rowOf(element), mark);
    redraw(element);
  };
}

function tell(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

// --- keys ---

const columns = () => getComputedStyle($("gallery")).gridTemplateColumns.split(" ").length;
const onCard = (action) => () => current() && ACTIONS[action](current());
const KEYS = {
  j: () => move(1), ArrowRight: () => move(1),
  k: () => move(-1), ArrowLeft: () => move(-1),
  ArrowDown: () => move(columns()), ArrowUp: () => move(-Math.min(columns(), state.cursor || 1)),
  Enter: onCard("reveal"), r: onCard("right"), w: onCard("wrong"), u: onCard("unsure"), x: onCard("unfold"),
  h: () => $("heat").click(),
  n: () => turn(state.page + 1, 0), p: () => turn(state.page - 1, 0),
  "/": () => $("search").focus(),
  "?": () => $("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (event.key === "Escape" && event.target === $("search")) return place(true);
  // A control keeps the keys that it understands itself.
  if (event.target.closest("input:not([type=checkbox], [type=range]), select")) return;
  if (event.target.closest("input") && event.key.startsWith("Arrow")) return;
  if (event.key === "Enter" && event.target.closest("button, summary, input")) return;
  const action = KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

// --- clicks and choices ---

$("gallery").addEventListener("click", (event) => {
  const element = event.target.closest(".card");
  if (!element) return;
  state.cursor = cards().indexOf(element);
  place(false);
  const button = event.target.closest("[data-do]");
  if (button) ACTIONS[button.dataset.do](element);
});
$("gallery").addEventListener("focusin", (event) => {
  const index = cards().indexOf(event.target.closest(".card"));
  if (index >= 0 && index !== state.cursor) {
    state.cursor = index;
    place(false);
  }
});
$("gallery").addEventListener("change", (event) => {
  const element = event.target.closest(".card");
  marks.correct(rowOf(element), event.target.dataset.correct, event.target.value);
});

all("[data-tab]").forEach((button) => button.addEventListener("click", () => {
  state.tab = button.dataset.tab;
  restart();
}));
all("[data-filter]").forEach((button) => button.addEventListener("click", () => {
  const { filter, value } = button.dataset;
  state[filter] = state[filter] === value ? "" : value;
  if (state[filter]) state.tab = "all";
  restart();
}));
for (const [name, names] of [["level", SCAN.levels], ["category", SCAN.categories]]) {
  names.forEach((each) => $(name).append(make("option", { value: each }, each)));
  $(name).addEventListener("change", (event) => { state[name] = event.target.value; restart(); });
}
$("marked").addEventListener("change", (event) => { state.mark = event.target.value; restart(); });
$("search").addEventListener("input", (event) => { state.text = event.target.value; restart(); });
$("fold").addEventListener("change", restart);
$("blur").addEventListener("change", reveal);
$("heat").addEventListener("change", reveal);
$("previous").addEventListener("click", () => turn(state.page - 1, 0));
$("next").addEventListener("click", () => turn(state.page + 1, 0));
$("page").addEventListener("change", (event) => turn(Math.round(event.target.value) - 1, 0));
$("threshold").addEventListener("input", (event) => moveThreshold(Number(event.target.value)));
$("policy").addEventListener("click", () => moveThreshold(nearest));
$("keys").addEventListener("click", () => $("help").showModal());
$("close").addEventListener("click", () => $("help").close());
$("clear").addEventListener("click", () => {
  Object.assign(state, { level: "", category: "", text: "", mark: "" });
  $("search").value = "";
  restart();
});
$("export").addEventListener("click", () => marks.download());
$("import").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (!file) return;
  const { taken, left } = marks.read(await file.text());
  event.target.value = "";
  if (taken) marks.save();
  show();
  tell(number.format(taken) + " marks read" + (left ? "; " + number.format(left) + " lines left out: they are no marks of this source" : "") + ".");
});
addEventListener("storage", (event) => {
  if (event.key !== marks.key) return;
  marks.follow(event.newValue);
  show();
});
addEventListener("beforeunload", (event) => {
  if (!marks.kept && !marks.exported && marks.lines.size) event.preventDefault();
});

// --- light and dark ---

function showTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  $("theme").textContent = dark ? "Light" : "Dark";
}
$("theme").addEventListener("click", () => {
  const theme = $("theme").textContent.toLowerCase();
  STORE.write("safevlm-theme", theme);
  showTheme(theme);
});
showTheme(["light", "dark"].find((theme) => theme === STORE.read("safevlm-theme")));

// --- what the page leaves out ---

function bounds() {
  const said = [];
  const readable = SCAN.total - SCAN.counts.errors;
  const withThumbnail = SCAN.counts.flagged + SCAN.counts.undecided;
  if (LISTED < readable) said.push(number.format(LISTED) + " of " + number.format(readable) + " images are listed: flagged by score, undecided, safe by score. Every count above is of all of them.");
  if (THUMBNAILS.size < withThumbnail) said.push(number.format(THUMBNAILS.size) + " of " + number.format(withThumbnail) + " flagged and undecided images have their thumbnail on this page.");
  if (ROWS.captions.length < LISTED) said.push("The first " + number.format(ROWS.captions.length) + " have their caption.");
  if (said.length) said.push("The rest is in " + SCAN.rows_folder + "/ beside this page.");
  return said.join(" ");
}

for (const [tab, value] of Object.entries(SCAN.counts)) count(tab, value);
count("all", SCAN.total - SCAN.counts.errors);
$("bounds").textContent = bounds();
$("bench").hidden = false;
drawHistogram();
showThreshold();
show();
if (!marks.kept) tell("This browser keeps nothing for this page: export your marks before you close it.");
