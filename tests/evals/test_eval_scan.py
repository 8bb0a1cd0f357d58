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
from safevlm.evals.scan import Label, findings, read_labels, to_markdown

TAXONOMY = Taxonomy.preset("safevlm")
RISKY = TAXONOMY.risky_categories[0]
LABELS = [
    ("safe", "none", "cup"),
    ("refuse", RISKY, "knife"),
    ("safe", "none", "dog"),
    ("caution", RISKY, "fire"),
]


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
    found = findings(folder / "scan", TAXONOMY, read_labels(folder / "labels.parquet"))
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
    found = findings(folder / "scan", TAXONOMY)
    assert found.precision is None
    assert found.labelled == 0
    assert "| precision | – |" in to_markdown({"scan": found})


def test_labels_that_fit_nothing_or_each_other(made, tmp_path):
    folder, _, _ = made
    with pytest.raises(DataError, match="no image of the scan has a label"):
        findings(folder / "scan", TAXONOMY, {"0" * 64: Label("safe", "none", "cup")})
    with pytest.raises(DataError, match="no rows of a scan"):
        findings(tmp_path / "nothing", TAXONOMY)
    levels = {"image": [picture(0)] * 2, "risk_category": ["none"] * 2, "label": ["a"] * 2}
    pq.write_table(pa.table({**levels, "risk_level": ["safe", "refuse"]}), tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="row 1 is labelled refuse"):
        read_labels(tmp_path / "twice.parquet")
    blank = {"image": [picture(0), None, None], "risk_category": ["none"] * 3, "label": ["a"] * 3}
    pq.write_table(pa.table({**blank, "risk_level": ["safe", "safe", "refuse"]}), tmp_path / "blank.parquet")
    assert set(read_labels(tmp_path / "blank.parquet")) == {hashlib.sha256(picture(0)).hexdigest()}
    with pytest.raises(DataError, match="nonsense"):
        read_labels(folder / "labels.parquet", level="nonsense")


def test_labels_and_images_that_do_not_meet_are_told(made, tmp_path, caplog):
    folder, _, _ = made
    labels = read_labels(folder / "labels.parquet") | {"0" * 64: Label("safe", "none", "cup")}
    found = findings(folder / "scan", TAXONOMY, labels)
    assert (found.labelled, found.unmatched) == (40, 1)
    assert "| labels of no scanned image | 1 |" in to_markdown({"scan": found})
    columns = {"risk_level": ["safe", "refuse"], "risk_category": ["none", RISKY], "label": ["a", "b"]}
    pq.write_table(pa.table({"image": [picture(0), None], **columns}), tmp_path / "blank.parquet")
    assert len(read_labels(tmp_path / "blank.parquet")) == 1
    assert "1 rows have no image that can be read" in caplog.text


def test_labels_stay_with_their_rows_where_images_are_lists(tmp_path):
    columns = {"risk_level": ["safe", "refuse"], "risk_category": ["none", RISKY], "label": ["a", "b"]}
    lists = [[picture(0), picture(1)], [picture(2)]]
    pq.write_table(pa.table({"image": lists, **columns}), tmp_path / "lists.parquet")
    found = read_labels(tmp_path / "lists.parquet")
    assert {key: label.level for key, label in found.items()} == {
        hashlib.sha256(picture(0)).hexdigest(): "safe",
        hashlib.sha256(picture(2)).hexdigest(): "refuse",
    }
    pq.write_table(pa.table({"image": [lists[0], []], **columns}), tmp_path / "empty.parquet")
    with pytest.raises(
        DataError, match="2 rows, 1 of them with images"
    ):  # not the first row's label for its second
        read_labels(tmp_path / "empty.parquet")


def test_the_command_prints_the_table_or_json(made, capsys):
    folder, _, _ = made
    labels = str(folder / "labels.parquet")
    assert main(["eval", "scan", str(folder / "scan"), "--labels", labels, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    assert found["images"] == 41
    assert main(["eval", "scan", str(folder / "scan")]) == 0
    assert "| images | 41 |" in capsys.readouterr().out
