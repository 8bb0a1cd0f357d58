"""A model against labelled images: every number is counted again, and every form of a table gives the same ones."""

from __future__ import annotations

import hashlib
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safevlm.training.mini.scenes import render

from safevlm import Policy
from safevlm.cli import main
from safevlm.errors import DataError
from safevlm.evals.data import evaluate
from safevlm.evals.page import write_page
from safevlm.evals.scan import read_labels
from safevlm.evals.scored import read_images
from tests.data.builders import picture_bytes
from tests.evals.builders import TAXONOMY, mixed, scored

HOSTILE = "<script>alert(1)</script>{{ 7*7 }}\u202e.png"


def test_the_counts_are_those_of_the_images():
    images = [*mixed(200), scored(None, category="illegal"), scored(None)]
    found = evaluate(images)
    unsafe = [one.found.verdict.value == "unsafe" for one in images]
    risky = [one.risky for one in images]
    hits = sum(u and r for u, r in zip(unsafe, risky, strict=True))
    alarms = sum(u and not r for u, r in zip(unsafe, risky, strict=True))
    assert (found.images, found.undecided, found.whole.risky, found.whole.safe) == (202, 2, 101, 101)
    assert (found.whole.recall.value, found.whole.recall.n) == (hits / 101, 101)
    assert (found.false_alarms.value, found.precision.value) == (alarms / 101, hits / (hits + alarms))
    for name in ("illegal", "privacy"):
        mine = [one for one in images if one.category == name]
        flagged = [one.found.category for one in mine if one.found.verdict.value == "unsafe"]
        measures = found.categories[name]
        assert measures.recall.value == len(flagged) / len(mine)
        assert measures.named.value == flagged.count(name) / len(flagged)
        assert measures.safe == 101
    assert len(found.alarms) == alarms
    assert [one.found.score for one in found.alarms] == sorted(
        (one.found.score for one in found.alarms), reverse=True
    )
    assert len(found.misses) == 101 - hits
    assert found.misses[-1].found.score is None
    assert json.loads(json.dumps(found.to_dict()))["at_false_positives"]["0.05"]["recall"]["n"] == 100


def test_data_of_one_kind_has_counts_and_no_curves():
    found = evaluate([scored(0.7), scored(0.1)])
    assert (found.whole.auroc, found.whole.recall, found.false_alarms.value) == (None, None, 0.5)
    with pytest.raises(DataError, match="no image has a score, the first one because: broken"):
        evaluate([scored(None), scored(None)])


def test_the_page_is_one_file_and_texts_stay_text(tmp_path):
    images = [
        *mixed(100),
        scored(0.9, name=HOSTILE, image=picture_bytes(1), prompt=HOSTILE),
        scored(0.1, category=HOSTILE, name="y.png", image=b"no image"),
    ]
    html = write_page(evaluate(images), tmp_path / "page.html", {"Data": HOSTILE}).read_text()
    assert "<script>" not in html
    assert "{{" not in html.replace("{{ 7*7 }}", "")
    assert "http" not in html.replace('http-equiv="Content-Security-Policy"', "")
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert {"ROC", "Precision and recall", "Reliability"} <= set(re.findall(r"<figcaption>(.*?)<", html))
    assert html.count("<polyline") == 6  # of all and of two categories; the hostile one has a single image
    assert html.count("data:image/webp") >= 1


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The same eight labelled scenes in every form that training reads, by name."""
    folder = tmp_path_factory.mktemp("labelled")
    rows, numbers, marks = [], [], []
    (folder / "images").mkdir()
    for seed, kind in enumerate(["risky", "ordinary"] * 4):
        scene = render(seed, "test", kind, 96)
        scene.image.save(folder / "images" / f"{seed}.png")
        labels = {"risk_level": scene.risk_level, "risk_category": scene.risk_category}
        classes = folder / "classes" / scene.risk_category / scene.risk_level
        classes.mkdir(parents=True, exist_ok=True)
        scene.image.save(classes / f"{seed}.png")
        data = (folder / "images" / f"{seed}.png").read_bytes()
        rows.append({"image": f"images/{seed}.png", "prompt": "What?", **labels})
        turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A thing."}]
        numbers.append({"id": str(seed), "image": f"images/{seed}.png", "conversations": turns, **labels})
        where = {"source": f"folder:{folder / 'images'}", "shard": "files-00000000", "index": seed}
        sha256 = hashlib.sha256(data).hexdigest()
        marks.append({**where, "id": f"{seed}.png", "sha256": sha256, "mark": "wrong", **labels})
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "marks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in marks))
    (folder / "llava.json").write_text(json.dumps(numbers))
    bytes_ = [(folder / row["image"]).read_bytes() for row in rows]
    columns = {name: [row[name] for row in rows] for name in ("risk_level", "risk_category")}
    pq.write_table(pa.table({"image": bytes_, **columns}), folder / "table.parquet")
    return folder


FORMS = ("classes", "table.jsonl", "llava.json", "marks.jsonl", "table.parquet")


def test_every_form_that_training_reads_gives_the_same_labels(tables):
    from safevlm import checkpoint

    taxonomy = checkpoint.load_config(checkpoint.fetch("safevlm-mini")).taxonomy
    found, of_scans = {}, {}
    for form in FORMS:
        rows = read_images(tables / form, taxonomy).rows
        found[form] = {row.key: (row.level, row.extra["risk_category"]) for row in rows}
        labels = read_labels(tables / form, taxonomy).rows
        of_scans[form] = {key: (row.level, row.extra["risk_category"]) for key, row in labels.items()}
    assert len(found["classes"]) == 8
    assert all(one == found["classes"] for one in (*found.values(), *of_scans.values()))


def test_the_command_prints_a_table_or_json_and_writes_the_page(tables, capsys, tmp_path):
    page = tmp_path / "page.html"
    assert main(["eval", "data", str(tables / "classes"), "--report", str(page), "--threshold", "0.2"]) == 0
    out = capsys.readouterr().out
    assert "AUROC" in out
    assert "score >= 0.2, by --threshold" in out
    assert page.read_text().startswith("<!doctype html>")
    assert main(["eval", "data", str(tables / "table.parquet"), "--json", "--threshold", "0.2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["risky"], found["safe"]) == (8, 4, 4)
    assert found["auroc"]["n"] == 8
    assert found["recall"]["n"] == 4


def test_the_threshold_command_writes_a_policy_that_commands_take(tables, capsys, tmp_path):
    policy, image = tmp_path / "policy.yaml", str(tables / "images" / "0.png")
    ask = ["threshold", str(tables / "classes"), "--out", str(policy)]
    assert main([*ask, "--recall", "0.95"]) == 1
    assert "at least 60 are needed" in capsys.readouterr().err
    assert main([*ask, "--recall", "0.1", "--false-positives", "0.1"]) == 1
    assert "either --recall" in capsys.readouterr().err
    assert main([*ask, "--false-positives", "0.5"]) == 1
    assert not policy.exists()
    assert main([*ask, "--recall", "0.2"]) == 0
    assert "chosen for at least 20 % recall" in capsys.readouterr().out
    assert 0 < Policy.from_yaml(policy).threshold <= 1
    assert main(["assess", image, "--policy", str(policy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["threshold"] == Policy.from_yaml(policy).threshold


def test_rows_of_equal_bytes_are_one_image_and_must_agree(tmp_path):
    def write(levels, **more):
        images = [picture_bytes(0), picture_bytes(0), picture_bytes(1)]
        table = {
            "image": images,
            "risk_level": levels,
            "risk_category": ["clean", "clean", "illegal"],
            **more,
        }
        pq.write_table(pa.table(table), tmp_path / "t.parquet")
        return read_images(tmp_path / "t.parquet", TAXONOMY)

    assert len(write(["safe", "safe", "refuse"]).rows) == 2
    with pytest.raises(DataError, match="row 2 is labelled caution, clean, the same image in .*row 1 safe"):
        write(["safe", "caution", "refuse"])
    prompts = {"prompt": ["What?", "How?", ""], "labels_of": ["image", "pair", "image"]}
    assert len(write(["safe", "caution", "refuse"], **prompts).rows) == 3
    words = {"read_text": ["EXIT", "BOMB", ""], "labels_of": ["pair", "pair", "image"]}
    found = write(["safe", "caution", "refuse"], **words)
    assert [row.paired_text for row in found.rows] == ["EXIT", "BOMB", ""]


def test_test_rows_are_preferred_and_a_split_can_be_chosen(tmp_path):
    table = {
        "image": [picture_bytes(n) for n in range(3)],
        "risk_level": ["safe", "refuse", "safe"],
        "risk_category": ["clean", "illegal", "clean"],
        "split": ["train", "test", "test"],
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert read_images(tmp_path / "t.parquet", TAXONOMY).text.endswith("t.parquet, test rows")
    assert len(read_images(tmp_path / "t.parquet", TAXONOMY, split="all").rows) == 3
    with pytest.raises(DataError, match="no row is of the split 'tune'; it has 1 train, 2 test"):
        read_images(tmp_path / "t.parquet", TAXONOMY, split="tune")
