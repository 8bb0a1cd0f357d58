"""Another policy on a finished scan gives what a scan with that policy gives, and a run that ends early is told."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from safevlm import SafeVLM
from safevlm.cli import main
from safevlm.data import FolderSource
from safevlm.errors import DataError
from safevlm.policy import Policy
from safevlm.scan import Checkpoint, ScanOptions, apply_policy, export, scan, scanned_policy
from safevlm.scan import apply as applying
from safevlm.types import Risk
from tests.families import family_backbone
from tests.scan.tiny_checkpoint import rows_of
from tests.tiny import tiny_config


def source_of(pictures: Path) -> FolderSource:
    return FolderSource(pictures, files_per_shard=6)


@pytest.fixture
def out(model: Checkpoint, pictures: Path, tmp_path: Path) -> Path:
    """A finished scan of four shards, with an image that is broken and one twice."""
    (pictures / "07.png").write_bytes(b"broken")
    (pictures / "20.png").write_bytes((pictures / "00.png").read_bytes())
    scan(source_of(pictures), model, tmp_path / "out")
    return tmp_path / "out"


def other(model: Checkpoint, out: Path) -> Policy:
    """A policy with a category that is let through, to which other images are unsafe, a quarter of them."""
    policy = replace(model.policy, off=frozenset({model.policy.taxonomy.risky_categories[0]}))
    risks = [
        Risk(row["score"], dict(row["level_probabilities"]), dict(row["category_probabilities"]))
        for row in rows_of(out)
        if row["status"] == "ok"
    ]
    held = sorted(max(policy.reach(risk).values()) for risk in risks)
    return replace(policy, threshold=sum(held[15:17]) / 2)


def test_it_equals_a_scan_with_that_policy(
    model: Checkpoint, out: Path, pictures: Path, tmp_path: Path
) -> None:
    policy, before = other(model, out), rows_of(out)
    summary = apply_policy(out, policy)
    expected = scan(source_of(pictures), replace(model, chosen_policy=policy), tmp_path / "expected")
    assert rows_of(out) == rows_of(tmp_path / "expected") != before
    ours, theirs = summary.to_dict(), expected.to_dict()
    for told in (ours, theirs):  # how long it took
        told.pop("seconds")
        told.pop("images_per_second")
    assert ours == theirs
    assert json.loads((out / "summary.json").read_text())["settings"]["policy"] == policy.sha256
    assert scanned_policy(out) == policy
    assert 0 < summary.verdicts["unsafe"] < 10
    apply_policy(out, model.policy)  # and back
    assert rows_of(out) == before


def test_the_scan_goes_on_under_the_new_policy_alone(
    model: Checkpoint, out: Path, pictures: Path, tmp_path: Path
) -> None:
    policy = other(model, out)
    apply_policy(out, policy)
    with pytest.raises(DataError, match="policy was .* is "):
        scan(source_of(pictures), model, out)
    assert scan(source_of(pictures), replace(model, chosen_policy=policy), out).n == 21
    export(out, tmp_path / "safe.txt", keep=["safe"], form="txt")
    safe = [row["id"] for row in rows_of(out) if row["verdict"] == "safe"]
    assert (tmp_path / "safe.txt").read_text().split() == safe


def test_a_run_that_ends_halfway_is_told_and_mended(
    model: Checkpoint, out: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, decide, done = other(model, out), applying._decide_part, []

    def interrupt(*given):
        done.append(given)
        if len(done) == 3:
            raise KeyboardInterrupt
        return decide(*given)

    with monkeypatch.context() as patch:
        patch.setattr(applying, "_decide_part", interrupt)
        with pytest.raises(KeyboardInterrupt):
            apply_policy(out, policy)
    assert len({row["policy"] for row in rows_of(out)}) == 2
    for refused in (lambda: export(out, tmp_path / "x.txt"), lambda: scan(source_of(pictures), model, out)):
        with pytest.raises(DataError, match=r"a policy was applied to some of its rows.*--apply-policy"):
            refused()
    apply_policy(out, policy)
    assert {row["policy"] for row in rows_of(out)} == {policy.sha256}
    export(out, tmp_path / "x.txt")


def test_what_cannot_be_decided_again_is_refused(
    model: Checkpoint, out: Path, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="holds no scan"):
        apply_policy(tmp_path / "nothing", model.policy)
    assert not (tmp_path / "nothing").exists()
    foreign = Policy(replace(model.policy.taxonomy, levels=("safe", "bad", "worse", "worst")))
    with pytest.raises(ValueError, match="the policy is for taxonomy"):
        apply_policy(out, foreign)
    limited = scan(source_of(pictures), model, tmp_path / "limited", ScanOptions(limit=3))
    assert apply_policy(tmp_path / "limited", model.policy).n == limited.n == 3


@pytest.mark.parametrize("by_category", ["off", "thresholds", "rule"])
def test_where_a_row_keeps_one_of_several_views_a_threshold_alone_is_applied(
    pictures: Path, tmp_path: Path, by_category: str
) -> None:
    scorer = SafeVLM.attach(family_backbone("llava_next"), tiny_config(), policy=None).scorer
    first = scorer.policy.taxonomy.risky_categories[0]
    changes = {
        "off": {"off": frozenset({first})},
        "thresholds": {"thresholds": {first: 0.1}},
        "rule": {"rule": "argmax"},
    }
    policy, out = replace(scorer.policy, **changes[by_category]), tmp_path / "out"
    scan(source_of(pictures), scorer, out, ScanOptions(limit=2))
    before = rows_of(out)
    with pytest.raises(DataError, match=r"several views.*give a threshold alone"):
        apply_policy(out, policy)
    assert rows_of(out) == before
    assert apply_policy(out, replace(scorer.policy, threshold=1e-6)).verdicts["unsafe"] == 2
    scorer.policy = policy  # nor is a row that was kept by categories decided by the score
    scan(source_of(pictures), scorer, tmp_path / "kept", ScanOptions(limit=2))
    with pytest.raises(DataError, match="several views"):
        apply_policy(tmp_path / "kept", replace(policy, off=frozenset(), thresholds={}, rule="threshold"))


def test_a_scan_of_an_earlier_version_does_not_tell_its_views(model: Checkpoint, out: Path) -> None:
    with closing(sqlite3.connect(out / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("DELETE FROM about WHERE name = 'one view'")
    with pytest.raises(DataError, match="several views"):
        apply_policy(out, other(model, out))


def test_the_command_takes_a_file_or_a_threshold(out: Path, tmp_path: Path, capsys) -> None:
    ask = ["scan", "--out", str(out), "--apply-policy"]
    assert main([*ask, "0.00001"]) == 0
    assert "21 images, 20 unsafe" in " ".join(capsys.readouterr().out.split())
    report = (out / "report.html").read_text()
    assert '"threshold":1e-05' in report
    (tmp_path / "policy.yaml").write_text("threshold: 0.99999\n")
    assert main([*ask, str(tmp_path / "policy.yaml")]) == 0
    assert "21 images, 0 unsafe" in " ".join(capsys.readouterr().out.split())
    assert {row["verdict"] for row in rows_of(out) if row["status"] == "ok"} == {"safe"}
    assert (out / "report.html").read_text() != report
    for wrong, told in (
        ([*ask, "1.5"], "not in (0, 1]"),
        ([*ask, "nowhere.yaml"], "nowhere.yaml"),
        (["scan", "images", *ask[1:], "0.5"], "--apply-policy goes with --out alone"),
        (["scan", "--out", str(out)], "scan needs a SOURCE"),
    ):
        assert main(wrong) == 1
        assert told in capsys.readouterr().err
    assert pq.read_schema(out / "rows/part-00000.parquet").metadata[b"safevlm"] == b"safevlm-scan/3"
