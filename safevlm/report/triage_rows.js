// The listed rows: columns out of the page's data elements, and what a filter or a threshold makes of them.
"use strict";

function data(name) {
  const element = document.getElementById("data-" + name);
  const value = JSON.parse(element.textContent);
  element.remove(); // the text is not held twice
  return value;
}

function bytes(base64) {
  const text = atob(base64);
  const values = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) values[i] = text.charCodeAt(i);
  return values;
}

const SCAN = data("scan");
const UNSAFE = 0, UNDECIDED = 1, SAFE = 2, NONE = 255;
const VERDICTS = ["unsafe", "undecided", "safe"];

const ROWS = (() => {
  const columns = data("columns");
  const numbers = (name, kind) => new kind(bytes(columns[name]).buffer);
  return {
    ids: data("ids"),
    captions: data("captions"),
    reasons: data("reasons"),
    writings: data("writings"),
    shards: data("shards"),
    score: numbers("score", Float32Array),
    level: numbers("level", Uint8Array),
    category: numbers("category", Uint8Array),
    verdict: numbers("verdict", Uint8Array),
    shard: numbers("shard", Int32Array),
    index: numbers("index", Int32Array),
    group: numbers("group", Int32Array),
    sha256: numbers("sha256", Uint8Array),
  };
})();
const LISTED = ROWS.ids.length;
const THUMBNAILS = new Map();
document.querySelectorAll('[id^="data-thumbnails-"]').forEach((element) => {
  data(element.id.slice(5)).forEach(([row, ...thumbnail]) => THUMBNAILS.set(row, thumbnail));
});

// Rows by falling score; those without one are not in it.
const BY_SCORE = Array.from({ length: LISTED }, (_, row) => row)
  .filter((row) => !Number.isNaN(ROWS.score[row]))
  .sort((a, b) => ROWS.score[b] - ROWS.score[a] || a - b);

function label(names, code) {
  return code === NONE ? "" : names[code];
}

function sha256(row) {
  return Array.from(ROWS.sha256.subarray(row * 32, row * 32 + 32), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function sourceOf(row) {
  return SCAN.sources[ROWS.shards[ROWS.shard[row]][0]];
}

function shardOf(row) {
  return ROWS.shards[ROWS.shard[row]][1];
}

const INVISIBLE = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f" +
    "\\ufe00-\\ufe0d\\ufeff\\ufff9-\\ufffb\\u{e0000}-\\u{e01ef}]",
  "gu",
);

// Characters that reorder or hide text, controls, tags and variation selectors, show as a replacement character.
function visible(text) {
  return text.replace(INVISIBLE, "\ufffd");
}

// Rows of the whole scan, listed or not, with a score of at least edges[step].
const OVER = (() => {
  const sums = SCAN.bins.slice();
  for (let i = sums.length - 2; i >= 0; i--) sums[i] += sums[i + 1];
  return sums;
})();

const SEARCHED = []; // row -> id, caption and writing in lower case, made when first searched

function searched(row) {
  if (SEARCHED[row] === undefined) {
    SEARCHED[row] = [ROWS.ids[row], ROWS.captions[row] || "", ROWS.writings[row] || ""].join("\n").toLowerCase();
  }
  return SEARCHED[row];
}

// filter: {tab, level, category, text, mark, threshold}; empty strings let everything through.
function matching(filter, markOf) {
  const verdict = { flagged: UNSAFE, undecided: UNDECIDED, safe: SAFE }[filter.tab];
  const text = filter.text.trim().toLowerCase();
  const level = SCAN.levels.indexOf(filter.level);
  const category = SCAN.categories.indexOf(filter.category);
  const fits = (row) =>
    (verdict === undefined || ROWS.verdict[row] === verdict) &&
    (level < 0 || ROWS.level[row] === level) &&
    (category < 0 || ROWS.category[row] === category) &&
    (!filter.mark || (markOf(row) || "none") === filter.mark) &&
    (!text || searched(row).includes(text));
  if (filter.tab === "above") return BY_SCORE.filter((row) => ROWS.score[row] >= filter.threshold && fits(row));
  const rows = [];
  for (let row = 0; row < LISTED; row++) if (fits(row)) rows.push(row);
  return rows;
}

// Rows -> [{row, alike, member}]: the first of a group stands for it, the others follow once it is unfolded.
function folded(rows, unfolded) {
  const groups = new Map();
  for (const row of rows) {
    const group = ROWS.group[row];
    if (groups.has(group)) groups.get(group).push(row);
    else groups.set(group, [row]);
  }
  const items = [];
  for (const [group, members] of groups) {
    items.push({ row: members[0], alike: members.length - 1, member: false });
    if (unfolded.has(group)) members.slice(1).forEach((row) => items.push({ row, alike: 0, member: true }));
  }
  return items;
}
