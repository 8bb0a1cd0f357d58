"""What scans found, against labels: every number is counted again in plain Python."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from safevlm import Taxonomy
from safevlm.cli import main
from safevlm.errors import DataError
from safevlm.evals.scan import Labels, findings, read_labels, to_markdown
from safevlm.labelled import LabelledRow

TAXONOMY = Taxonomy.preset("safevlm")
RISKY = TAXONOMY.risky_categories[0]
LABELS = [
    ("safe", "none", "cup"),
    ("refuse", RISKY, "knife"),
    ("safe", "none", "dog"),
    ("caution", RISKY, "fire"),
]


NOWHERE = {"0" * 64: LabelledRow(None, "0" * 64, "", "", 0, -100, "", "")}
"""The label of an image that is in no scan."""


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def made(tmp_path):
    """40 labelled images and the rows of a scan of them and of one image more."""
    rng = np.random.default_rng(0)
    images = [picture(seed) for seed in range(40)]
    labels = [LABELS[n % 4] for n in range(40)]
    columns = dict(zip(("risk_level", "risk_category", "label"), zip(*labels, strict=True), strict=True))
    pq.write_table(pa.table({"image": images, **columns}), tmp_path / "labels.parquet")
    rows = []
    for number, data in enumerate([*images, picture(99)]):
        status = "undecided" if number == 5 else "error" if number == 40 else "ok"
        score = float(np.float32(rng.random())) if status == "ok" else None
        rows.append(
            {
                "sha256": hashlib.sha256(data).hexdigest(),
                "score": score,
                "category": RISKY if score and score > 0.5 else "none" if score is not None else None,
                "verdict": "undecided" if score is None else "unsafe" if score > 0.5 else "safe",
                "status": status,
            }
        )
    (tmp_path / "scan" / "rows").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "scan" / "rows" / "part-00000.parquet")
    return tmp_path, rows, labels


def test_the_counts_are_those_of_the_rows(made):
    folder, rows, labels = made
    found = findings(folder / "scan", read_labels(folder / "labels.parquet", TAXONOMY))
    flagged = [row["verdict"] == "unsafe" for row in rows]
    risky = [level != "safe" for level, _, _ in labels]
    assert (found.images, found.undecided, found.errors, found.labelled) == (41, 1, 1, 40)
    assert found.flagged.value == sum(flagged) / 41
    assert {name: round(e.value * e.n) for name, e in found.categories.items()} == {RISKY: sum(flagged)}
    hits = sum(f and r for f, r in zip(flagged, risky, strict=False))
    alarms = sum(f and not r for f, r in zip(flagged, risky, strict=False))
    assert found.precision.value == hits / (hits + alarms)
    assert (found.recall.value, found.recall.n) == (hits / 20, 20)
    assert (found.false_alarms.value, found.false_alarms.n) == (alarms / 20, 20)
    cups = sum(f for f, (_, _, kind) in zip(flagged, labels, strict=False) if kind == "cup")
    assert (round(found.kinds["cup"].value * 10), found.kinds["cup"].n) == (cups, 10)
    scored = [(row["score"], r) for row, r in zip(rows, risky, strict=False) if row["score"] is not None]
    pairs = [(a > b) + (a == b) / 2 for a, x in scored for b, y in scored if x and not y]
    assert found.auroc.value == pytest.approx(np.mean(pairs))
    assert f"{100 * hits / 20:.1f} %" in to_markdown({"scan": found})


def test_without_labels_only_shares_are_told(made):
    folder, _rows, _ = made
    found = findings(folder / "scan")
    assert found.precision is None
    assert found.labelled == 0
    assert "| precision | – |" in to_markdown({"scan": found})


def test_labels_that_fit_nothing_or_each_other(made, tmp_path):
    folder, _, _ = made
    with pytest.raises(DataError, match="no image of the scan has a label"):
        findings(folder / "scan", Labels(NOWHERE))
    with pytest.raises(DataError, match="no rows of a scan"):
        findings(tmp_path / "nothing")
    levels = {"image": [picture(0)] * 2, "risk_category": ["none"] * 2, "label": ["a"] * 2}
    pq.write_table(pa.table({**levels, "risk_level": ["safe", "refuse"]}), tmp_path / "twice.parquet")
    with pytest.raises(
        DataError, match="row 2 is labelled refuse, none, the same image in .*row 1 safe, none"
    ):
        read_labels(tmp_path / "twice.parquet", TAXONOMY)
    blank = {"image": [picture(0), None, None], "risk_category": ["none"] * 3, "label": ["a"] * 3}
    pq.write_table(pa.table({**blank, "risk_level": ["safe", "safe", "refuse"]}), tmp_path / "blank.parquet")
    assert set(read_labels(tmp_path / "blank.parquet", TAXONOMY).rows) == {
        hashlib.sha256(picture(0)).hexdigest()
    }
    with pytest.raises(DataError, match="nonsense"):
        read_labels(folder / "labels.parquet", TAXONOMY, level="nonsense")


def test_labels_and_images_that_do_not_meet_are_told(made, tmp_path, caplog):
    folder, _, _ = made
    labels = Labels(read_labels(folder / "labels.parquet", TAXONOMY).rows | NOWHERE)
    found = findings(folder / "scan", labels)
    assert (found.labelled, found.unmatched) == (40, 1)
    assert "| labels of no scanned image | 1 |" in to_markdown({"scan": found})
    columns = {"risk_level": ["safe", "refuse"], "risk_category": ["none", RISKY], "label": ["a", "b"]}
    pq.write_table(pa.table({"image": [picture(0), None], **columns}), tmp_path / "blank.parquet")
    assert len(read_labels(tmp_path / "blank.parquet", TAXONOMY).rows) == 1
    assert "1 rows have no image or no level" in caplog.text


def test_labels_stay_with_their_rows_where_images_are_lists(tmp_path):
    columns = {"risk_level": ["safe", "refuse"], "risk_category": ["none", RISKY], "label": ["a", "b"]}
    lists = [[picture(0), picture(1)], [picture(2)]]
    pq.write_table(pa.table({"image": lists, **columns}), tmp_path / "lists.parquet")
    found = read_labels(tmp_path / "lists.parquet", TAXONOMY).rows
    assert {key: TAXONOMY.levels[row.level] for key, row in found.items()} == {
        hashlib.sha256(picture(0)).hexdigest(): "safe",
        hashlib.sha256(picture(2)).hexdigest(): "refuse",
    }
    pq.write_table(pa.table({"image": [[], lists[0]], **columns}), tmp_path / "empty.parquet")
    found = read_labels(tmp_path / "empty.parquet", TAXONOMY).rows
    assert {key: TAXONOMY.levels[row.level] for key, row in found.items()} == {
        hashlib.sha256(picture(0)).hexdigest(): "refuse"  # not the first row's label
    }


def test_every_form_of_a_table_gives_the_same_counts(made):
    """Parquet with columns of other names, JSON Lines with files, and folders of classes."""
    folder, _, labels = made
    expected = findings(folder / "scan", read_labels(folder / "labels.parquet", TAXONOMY)).to_dict()
    images = [picture(seed) for seed in range(40)]
    names = ("severity", "topic", "what")
    columns = dict(zip(names, zip(*labels, strict=True), strict=True))
    pq.write_table(pa.table({"image": images, **columns}), folder / "other.parquet")
    other = read_labels(folder / "other.parquet", TAXONOMY, level="severity", category="topic", kind="what")
    assert findings(folder / "scan", other).to_dict() == expected
    lines = []
    for number, (data, (level, category, kind)) in enumerate(zip(images, labels, strict=True)):
        place = folder / "classes" / ("clean" if level == "safe" else RISKY) / level / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        row = {
            "image": str(place.relative_to(folder)),
            "risk_level": level.upper(),
            "risk_category": category,
        }
        lines.append(json.dumps(row | {"label": kind}) + "\n")
    (folder / "t.jsonl").write_text("".join(lines))
    assert findings(folder / "scan", read_labels(folder / "t.jsonl", TAXONOMY)).to_dict() == expected
    found = findings(folder / "scan", read_labels(folder / "classes", TAXONOMY)).to_dict()
    assert found == expected | {"kinds": {}}


def test_a_bad_label_is_named_with_its_file_row_and_column(tmp_path):
    columns = {"severity": ["safe", "deadly"], "topic": ["none", "none"], "image": [picture(0), picture(1)]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet: row 2, column severity: is 'deadly', not in taxonomy"):
        read_labels(tmp_path / "t.parquet", TAXONOMY, level="severity", category="topic")
    pq.write_table(pa.table(columns | {"severity": ["safe", "refuse"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="no column 'subject'"):
        read_labels(tmp_path / "t.parquet", TAXONOMY, level="severity", category="subject")


def test_what_labels_do_not_need_makes_no_label_bad(tmp_path):
    columns = {
        "image": [picture(0), picture(1)],
        "risk_level": ["safe", "refuse"],
        "risk_category": ["none", RISKY],
        "split": ["holdout", "holdout"],
        "prompt": [["a"], ["b"]],
        "messages": ["not a dialogue", "nor this"],
        "safe_level": [3, 0],
    }
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    rows = read_labels(tmp_path / "labels.parquet", TAXONOMY).rows
    found = {row.key: TAXONOMY.levels[row.level] for row in rows.values()}
    assert found == {
        hashlib.sha256(picture(n)).hexdigest(): level for n, level in enumerate(["safe", "refuse"])
    }


def test_a_damaged_image_keeps_its_label(made):
    """The scan has a row for it, which counts as missed."""
    folder, rows, _ = made
    data = picture(98)[:-20]
    rows.append({"sha256": hashlib.sha256(data).hexdigest(), "score": None, "category": None})
    rows[-1] |= {"verdict": "undecided", "status": "error"}
    pq.write_table(pa.Table.from_pylist(rows), folder / "scan" / "rows" / "part-00000.parquet")
    labels = {"image": [data], "risk_level": ["refuse"], "risk_category": [RISKY], "label": ["gun"]}
    pq.write_table(pa.table(labels), folder / "damaged.parquet")
    found = findings(folder / "scan", read_labels(folder / "damaged.parquet", TAXONOMY))
    assert (found.labelled, found.recall.value) == (1, 0.0)


def test_the_command_prints_the_table_or_json(made, capsys):
    folder, _, _ = made
    labels = str(folder / "labels.parquet")
    ask = ["eval", "scan", str(folder / "scan"), "--labels", labels, "--json"]
    assert main(ask) == 1
    assert "summary.json: cannot be read" in capsys.readouterr().err
    (folder / "scan" / "summary.json").write_text(json.dumps({"n": 41, "model": "safevlm-mini"}))
    assert main(ask) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    assert found["images"] == 41
    assert main(["eval", "scan", str(folder / "scan")]) == 0
    assert "| images | 41 |" in capsys.readouterr().out
