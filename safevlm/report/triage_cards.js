// One card per image. Every text goes in as a text node.
"use strict";

// Sets attributes by their names and appends elements or text; the names are this script's own.
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// Inferno at equal steps, as in overlay.py: from dark violet (0) to pale yellow (255).
const ANCHORS = [[0, 0, 8], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];

function colour(value) {
  const place = (value / 255) * (ANCHORS.length - 1);
  const low = Math.min(Math.floor(place), ANCHORS.length - 2);
  return ANCHORS[low].map((from, i) => Math.round(from + (ANCHORS[low + 1][i] - from) * (place - low)));
}

// Draws the small grid over a canvas of the thumbnail's size, so that both are fitted alike.
function drawHeatmap(canvas, grid, height, width) {
  const small = make("canvas", { width, height });
  const pixels = new ImageData(width, height);
  grid.forEach((value, i) => pixels.data.set([...colour(value), 255], i * 4));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

function shot(row, name) {
  const button = make("button", { type: "button", class: "shot", "data-do": "reveal", "aria-pressed": "false", "aria-label": "Reveal " + name });
  const thumbnail = THUMBNAILS.get(row);
  if (!thumbnail) {
    button.append(make("span", { class: "none" }, "no thumbnail on this page"));
    button.disabled = true;
    return button;
  }
  const [webp, grid, height, width] = thumbnail;
  const image = make("img", { alt: "", decoding: "async", draggable: "false" });
  const canvas = make("canvas", { "aria-hidden": "true" });
  image.addEventListener("load", () => {
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    if (grid) drawHeatmap(canvas, bytes(grid), height, width);
  });
  image.src = "data:image/webp;base64," + webp;
  button.append(image, canvas, make("span", { class: "veil", "aria-hidden": "true" }, "Reveal"));
  if (grid) button.dataset.heatmap = "";
  return button;
}

function reading(row) {
  const score = ROWS.score[row];
  const verdict = VERDICTS[ROWS.verdict[row]];
  const level = label(SCAN.levels, ROWS.level[row]);
  const category = label(SCAN.categories, ROWS.category[row]);
  return make("p", { class: "reading" },
    make("b", { class: "score" }, Number.isNaN(score) ? "no score" : score.toFixed(3)),
    make("span", { class: "badge " + verdict }, level || verdict),
    make("span", { class: "kind" }, category));
}

const TAIL = 12; // characters

function titled(row) {
  const id = visible(ROWS.ids[row]);
  const cut = id.lastIndexOf("/") + 1;
  const shard = visible(shardOf(row));
  const name = id.slice(cut) || id;
  return make("p", { class: "title", title: id + "\n" + shard + ", index " + ROWS.index[row] },
    // A long name is cut in its middle: what tells it from the next often stands at its end.
    make("span", { class: "name" }, make("bdi", {}, name.slice(0, -TAIL)), make("bdi", {}, name.slice(-TAIL))),
    make("bdi", { class: "folder" }, cut ? id.slice(0, cut) : shard));
}

function choice(row, name, names, text, value) {
  const select = make("select", { "data-correct": name, "aria-label": text }, make("option", { value: "" }, text + " …"));
  names.forEach((each) => select.append(make("option", { value: each }, each)));
  select.value = value;
  return select;
}

function correction(row, line) {
  return make("div", { class: "correction", role: "group", "aria-label": "What it really is" },
    choice(row, "risk_level", SCAN.levels, "Level", line.risk_level),
    choice(row, "risk_category", SCAN.categories, "Category", line.risk_category));
}

function marking(row, mark) {
  const buttons = MARKS.map((each) => {
    const button = make("button", { type: "button", "data-do": each, "aria-pressed": String(mark === each) }, each);
    // Without a verdict there is nothing to confirm.
    if (each === "right" && ROWS.verdict[row] === UNDECIDED) button.disabled = true;
    return button;
  });
  return make("div", { class: "mark", role: "group", "aria-label": "Mark" }, ...buttons);
}

function card(item, line, unfolded) {
  const { row } = item;
  const verdict = VERDICTS[ROWS.verdict[row]];
  const name = visible(ROWS.ids[row]);
  const score = Number.isNaN(ROWS.score[row]) ? "no score" : "score " + ROWS.score[row].toFixed(3);
  const spoken = [name, verdict, score, label(SCAN.levels, ROWS.level[row]), label(SCAN.categories, ROWS.category[row])];
  const element = make("li", {
    class: "card " + verdict + (item.member ? " member" : ""), tabindex: "-1", "data-row": row,
    "data-mark": line ? line.mark : undefined, "aria-label": spoken.filter(Boolean).join(", "),
  }, shot(row, name));
  if (item.alike) {
    element.append(make("button", { type: "button", class: "alike", "data-do": "unfold", "aria-expanded": String(unfolded) },
      unfolded ? "fold " + item.alike : "+" + item.alike + " alike"));
  }
  const body = make("div", { class: "body" }, reading(row), titled(row));
  const caption = ROWS.captions[row], reason = ROWS.reasons[row], writing = ROWS.writings[row];
  if (reason) body.append(make("p", { class: "reason", title: visible(reason) }, make("bdi", {}, visible(reason))));
  if (writing) {
    const text = visible(writing);
    body.append(make("p", { class: "writing", title: text }, "read in the image: ", make("bdi", {}, text)));
  }
  if (caption) body.append(make("p", { class: "caption", title: visible(caption) }, make("bdi", {}, visible(caption))));
  body.append(marking(row, line && line.mark));
  if (line && line.mark === "wrong") body.append(correction(row, line));
  element.append(body);
  return element;
}
