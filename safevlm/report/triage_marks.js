// Marks: what a person says of an image. One line of the exported file each.
"use strict";

const MARKS = ["right", "wrong", "unsure"];

const STORE = {
  // file:// and private windows may forbid storage, or have little of it.
  read(key) {
    try {
      return localStorage.getItem(key);
    } catch (error) {
      return null;
    }
  },
  write(key, text) {
    try {
      localStorage.setItem(key, text);
      return true;
    } catch (error) {
      return false;
    }
  },
};

class Marks {
  constructor() {
    this.key = "safevlm-marks:" + SCAN.key;
    this.lines = new Map(); // place -> line of the exported file
    const before = STORE.read(this.key) || "";
    this.kept = STORE.write(this.key, before);
    this.exported = true;
    this.read(before);
  }

  static place(source, shard, index) {
    return JSON.stringify([source, shard, index]);
  }

  static placeOf(row) {
    return Marks.place(sourceOf(row), shardOf(row), ROWS.index[row]);
  }

  line(row) {
    return this.lines.get(Marks.placeOf(row));
  }

  of(row) {
    const line = this.line(row);
    return line ? line.mark : "";
  }

  // Marks a row, or takes the mark away where it has it already.
  set(row, mark) {
    const place = Marks.placeOf(row);
    const again = this.of(row) === mark;
    if (again) this.lines.delete(place);
    else this.lines.set(place, this.made(row, mark));
    this.save();
  }

  made(row, mark) {
    const flagged = ROWS.verdict[row] === UNSAFE;
    let level = "", category = ""; // wrong on what is not flagged: the person says what it is
    if (mark === "right") [level, category] = [label(SCAN.levels, ROWS.level[row]), label(SCAN.categories, ROWS.category[row])];
    if (mark === "wrong" && flagged) [level, category] = [SCAN.levels[0], SCAN.clean];
    return {
      source: sourceOf(row),
      shard: shardOf(row),
      index: ROWS.index[row],
      id: ROWS.ids[row],
      sha256: sha256(row),
      risk_level: level,
      risk_category: category,
      mark,
      score: Number.isNaN(ROWS.score[row]) ? null : ROWS.score[row],
    };
  }

  // What the image really is; name is risk_level or risk_category.
  correct(row, name, value) {
    this.line(row)[name] = value;
    this.save();
  }

  save() {
    this.exported = false;
    this.kept = STORE.write(this.key, this.text());
  }

  text() {
    const lines = [...this.lines.values()].sort((a, b) => (b.score ?? -1) - (a.score ?? -1));
    return lines.map((line) => JSON.stringify(line) + "\n").join("");
  }

  // Takes lines in; returns how many were taken and how many left out.
  read(text) {
    let taken = 0, left = 0;
    for (const written of text.split("\n")) {
      if (!written.trim()) continue;
      const line = Marks.checked(written);
      if (line) {
        this.lines.set(Marks.place(line.source, line.shard, line.index), line);
        taken++;
      } else left++;
    }
    return { taken, left };
  }

  // The line with its known fields only; null where it is no mark of this scan.
  static checked(written) {
    let line;
    try {
      line = JSON.parse(written);
    } catch (error) {
      return null;
    }
    if (line === null || typeof line !== "object") return null;
    const { source, shard, index, id, sha256, risk_level, risk_category, mark, score } = line;
    const known =
      SCAN.sources.includes(source) &&
      [shard, id, sha256].every((text) => typeof text === "string") &&
      Number.isInteger(index) &&
      ["", ...SCAN.levels].includes(risk_level) &&
      ["", ...SCAN.categories].includes(risk_category) &&
      MARKS.includes(mark) &&
      (score === null || typeof score === "number");
    return known ? { source, shard, index, id, sha256, risk_level, risk_category, mark, score } : null;
  }

  // Takes over what another tab with this page has kept.
  follow(text) {
    this.lines.clear();
    this.read(text || "");
  }

  counts() {
    const counts = { right: 0, wrong: 0, unsure: 0 };
    for (const line of this.lines.values()) counts[line.mark]++;
    return counts;
  }

  download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([this.text()], { type: "application/jsonl" }));
    link.download = "marks.jsonl";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    this.exported = true;
  }
}
