"""A folder that holds a scan: the same one goes on, another one is refused with the difference."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from safevlm.data import FolderSource, Item, Shard, ShardError, open_source
from safevlm.data.jsonl import JsonlSource
from safevlm.errors import CheckpointError, DataError
from safevlm.policy import Policy
from safevlm.scan import Checkpoint, ScanCounts, ScanOptions, reader, scan
from safevlm.scan.ledger import Ledger
from safevlm.terminal import show_summary
from tests.data.builders import encoded, make_source, picture_bytes
from tests.scan.tiny_checkpoint import files_below, rows_of

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "PAUSE", 0)


@pytest.fixture
def source(pictures: Path) -> FolderSource:
    return FolderSource(pictures, files_per_shard=6)


def changed(model: Checkpoint) -> Checkpoint:
    policy = model.policy
    return replace(model, chosen_policy=Policy(policy.taxonomy, threshold=policy.threshold / 2))


def test_another_scan_is_refused_with_the_difference(
    source: FolderSource, pictures: Path, model: Checkpoint, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scan(source, model, out)
    before = rows_of(out)
    new = changed(model)
    was, is_ = model.policy.sha256[:12], new.policy.sha256[:12]
    with pytest.raises(DataError, match=rf"policy was {was}\.\., is {is_}\.\..*--fresh"):
        scan(source, new, out)
    with pytest.raises(DataError, match="limit was none, is 5"):
        scan(source, model, out, ScanOptions(limit=5))
    with pytest.raises(DataError, match="sample was all, is 0.5"):
        scan(source, model, out, ScanOptions(sample_fraction=0.5))
    with pytest.raises(DataError, match="decoding was whole, is reduced"):
        scan(source, model, out, ScanOptions(decoding="reduced"))
    with pytest.raises(DataError, match="text was ignored, is with the image"):
        scan(source, model, out, ScanOptions(with_text=True))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes(picture_bytes())
    with pytest.raises(DataError, match="source was folder:.*pictures, is folder:.*other"):
        scan(FolderSource(tmp_path / "other"), model, out)
    assert rows_of(out) == before
    assert scan(source, new, out, fresh=True).settings["policy"] == new.policy.sha256


def test_another_model_is_refused(
    source: FolderSource, model: Checkpoint, tiny: tuple[str, str], tmp_path: Path
) -> None:
    scan(source, model, tmp_path / "out")
    guard = Path(tiny[0])
    other = tmp_path / "other"
    other.mkdir()
    for path in guard.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    config = json.loads((other / "safety_config.json").read_text())
    config["calibration"] = {"temperature": 2.0, "data": "none", "samples": 1}
    (other / "safety_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"model was \w{12}\.\., is"):
        scan(source, replace(model, name=str(other)), tmp_path / "out")


def test_a_source_that_changed_is_refused(
    source: FolderSource, pictures: Path, model: Checkpoint, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scan(source, model, out)
    (pictures / "00.png").write_bytes(picture_bytes(99, (30, 30)))
    with pytest.raises(DataError, match="the shard files-00000000 changed since it was scanned"):
        scan(FolderSource(pictures, files_per_shard=6), model, out)
    for number in range(20, 26):
        (pictures / f"{number}.png").write_bytes(picture_bytes(number))
    with pytest.raises(DataError, match="the shard files-00000024 is new"):
        scan(FolderSource(pictures, files_per_shard=6), model, out)
    for path in sorted(pictures.iterdir())[10:]:
        path.unlink()
    with pytest.raises(DataError, match="the shard files-00000012 is gone"):
        scan(FolderSource(pictures, files_per_shard=6), model, out)


class Breaking(FolderSource):
    """Its second shard breaks off after three images, as often as it is told."""

    breaks = 1

    def read(self, shard: Shard, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        for number, item in enumerate(super().read(shard, passed_over)):
            if shard.name.endswith("6") and number == 3 and self.breaks > 0:
                self.breaks -= 1
                raise ShardError(f"{shard.name}: the disk hiccuped; try again")
            yield item


def test_a_shard_that_breaks_off_once_is_read_again(
    source: FolderSource, pictures: Path, model: Checkpoint, tmp_path: Path
) -> None:
    summary = scan(Breaking(pictures, files_per_shard=6), model, tmp_path / "out")
    scan(source, model, tmp_path / "whole")
    assert summary.complete
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "whole")


def test_a_shard_that_stays_broken_keeps_its_rows_and_the_run_goes_on(
    source: FolderSource, pictures: Path, model: Checkpoint, tmp_path: Path
) -> None:
    out, broken = tmp_path / "out", Breaking(pictures, files_per_shard=6)
    broken.breaks = 100
    summary = scan(broken, model, out, ScanOptions(batch_size=2))
    assert broken.breaks == 97  # read three times
    assert [row["id"][:2] for row in rows_of(out)] == [f"{n:02d}" for n in (*range(9), *range(12, 20))]
    assert summary.shards == {"done": 3, "failed": 1, "pending": 0}
    assert "hiccuped" in summary.failures["files-00000006"]
    assert not summary.complete
    assert scan(source, model, out, ScanOptions(batch_size=2)).complete  # mended
    scan(source, model, tmp_path / "whole", ScanOptions(batch_size=2))
    mended, whole = rows_of(out), rows_of(tmp_path / "whole")
    for row, expected in zip(mended, whole, strict=True):
        assert row.pop("score") == pytest.approx(expected.pop("score"), abs=1e-5)
        for name in ("level_probabilities", "category_probabilities"):
            assert dict(row.pop(name)) == pytest.approx(dict(expected.pop(name)), abs=1e-5)
        assert row == expected


def test_a_tar_that_is_cut_in_the_middle(model: Checkpoint, tmp_path: Path) -> None:
    images = [(f"{number:03d}.png", picture_bytes(number)) for number in range(8)]
    uri = make_source("wds", tmp_path, images)
    tar = tmp_path / "0.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    summary = scan(open_source(uri), model, tmp_path / "out")
    found = [row["id"] for row in rows_of(tmp_path / "out")]
    assert found[0] == "000"
    assert found[-4:] == ["004", "005", "006", "007"]
    assert len(found) < 8
    assert "breaks off" in summary.failures["0.tar"]


def test_a_shard_that_breaks_off_again_keeps_its_thumbnails(model: Checkpoint, tmp_path: Path) -> None:
    images = [(f"{number:03d}.png", picture_bytes(number % 6)) for number in range(16)]  # some twice in a tar
    uri = make_source("wds", tmp_path, images)
    tar, out = tmp_path / "0.tar", tmp_path / "out"
    whole = tar.read_bytes()
    with tarfile.open(tar) as opened:
        cut = next(m for m in opened.getmembers() if m.name == "007.png").offset_data + 9
    tar.write_bytes(whole[:cut])
    first = scan(open_source(uri), model, out)
    rows, thumbnails = rows_of(out), rows_of(out, "thumbnails")
    assert {row["shard"] for row in thumbnails} == {"0.tar"}  # 1.tar holds repeats alone
    assert first.duplicates > 0
    for _ in range(2):
        again = scan(open_source(uri), model, out)
        assert (again.n, again.duplicates, again.failures) == (first.n, first.duplicates, first.failures)
        assert (rows_of(out), rows_of(out, "thumbnails")) == (rows, thumbnails)
    tar.write_bytes(whole)
    mended, undisturbed = (
        scan(open_source(uri), model, out),
        scan(open_source(uri), model, tmp_path / "whole"),
    )
    assert (mended.n, mended.duplicates, mended.complete) == (16, undisturbed.duplicates, True)
    places = [
        [(row["shard"], row["index"]) for row in rows_of(o, "thumbnails")] for o in (out, tmp_path / "whole")
    ]
    assert places[0] == places[1]


def test_a_limit_meets_the_break_of_a_shard(model: Checkpoint, tmp_path: Path) -> None:
    images = [(f"{number:03d}.png", picture_bytes(number)) for number in range(8)]
    uri = make_source("wds", tmp_path, images)
    tar = tmp_path / "0.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    summary = scan(open_source(uri), model, tmp_path / "out", ScanOptions(limit=7))
    assert set(summary.failures) == {"0.tar"}


def test_two_scans_do_not_share_a_folder(source: FolderSource, model: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / "out"
    scan(source, model, out, ScanOptions(limit=6))
    held = Ledger(out / "ledger.sqlite")
    try:
        with pytest.raises(DataError, match="another scan is writing there"):
            scan(source, model, out, ScanOptions(limit=6))
        with pytest.raises(DataError, match="another scan is writing there"):
            scan(source, model, out, fresh=True)
        assert len(rows_of(out)) == 6
    finally:
        held.close()


def test_a_plan_that_nothing_came_of_binds_nobody(
    source: FolderSource, model: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError):
        scan(source, Checkpoint("safevlm-mini", model.backbone), tmp_path / "out")  # its tower is another
    assert scan(source, model, tmp_path / "out").complete


def test_parts_of_a_run_that_its_ledger_knows_nothing_of_are_removed(
    source: FolderSource, pictures: Path, model: Checkpoint, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(CheckpointError):  # begun, and nothing came of it
        scan(source, Checkpoint("safevlm-mini", model.backbone), out)
    scan(source, model, tmp_path / "other")
    for kind in ("rows", "thumbnails"):
        shutil.copyfile(tmp_path / "other" / kind / "part-00003.parquet", out / kind / "part-00003.parquet")
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "a.png").write_bytes(picture_bytes(30))
    scan(FolderSource(tmp_path / "small"), model, out)
    assert [row["id"] for row in rows_of(out)] == ["a.png"]
    pq.write_table(pa.table({"a": [1]}), out / "rows" / "part-00009.parquet")
    with pytest.raises(DataError, match="part-00009.parquet: was not written by a scan"):
        scan(FolderSource(tmp_path / "small"), model, out)


def test_rows_that_were_removed_are_missed(source: FolderSource, model: Checkpoint, tmp_path: Path) -> None:
    scan(source, model, tmp_path / "out")
    (tmp_path / "out/rows/part-00001.parquet").unlink()
    with pytest.raises(DataError, match="part-00001.parquet: is gone"):
        scan(source, model, tmp_path / "out")


def test_a_ledger_that_is_damaged(source: FolderSource, model: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / "out"
    scan(source, model, out)
    (out / "ledger.sqlite").write_bytes(b"not a database" * 100)
    for fresh in (False, True):
        with pytest.raises(
            DataError, match=r"ledger\.sqlite.*choose another folder, or remove the file and give --fresh"
        ):
            scan(source, model, out, fresh=fresh)
    (out / "ledger.sqlite").unlink()
    assert scan(source, model, out, fresh=True).complete


def test_rows_without_a_ledger_are_refused_or_replaced(
    source: FolderSource, model: Checkpoint, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scan(source, model, out)
    (out / "ledger.sqlite").unlink()
    with pytest.raises(DataError, match="no ledger.sqlite that knows them"):
        scan(source, model, out)
    before = files_below(out)
    (out / "notes.txt").write_text("mine")
    (out / "rows/.part-00007.parquet.tmp").write_text("left by a killed scan")
    scan(source, model, out, ScanOptions(limit=3), fresh=True)
    assert len(rows_of(out)) == 3
    assert files_below(out) < before | {"notes.txt", "ledger.sqlite"}


@pytest.mark.parametrize(
    "name", ["rows/mine.txt", "rows/part-00009.parquet", "summary.json", "ledger.sqlite"]
)
def test_fresh_removes_only_what_a_scan_wrote(
    name: str, source: FolderSource, model: Checkpoint, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scan(source, model, out, ScanOptions(limit=3))
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"a": [1]}), out / name)
    elif name.endswith(".sqlite"):
        (out / name).unlink()
        database = sqlite3.connect(out / name)
        database.execute("CREATE TABLE mine (a)")
        database.close()
    else:
        (out / name).write_text("{}")
    before = files_below(out)
    with pytest.raises(DataError, match="not written by a scan"):
        scan(source, model, out, fresh=True)
    assert files_below(out) == before


def test_an_empty_source(model: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        scan(FolderSource(tmp_path / "empty"), model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_thumbnails_are_bounded(model: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(400):
        image = Image.effect_noise((9, 9), 99).convert("RGB")
        image.putpixel((0, 0), (number % 256, number // 256, 0))
        (folder / f"{number:03d}.png").write_bytes(encoded(image))
    lenient = replace(model, chosen_policy=Policy(model.policy.taxonomy, threshold=1e-6))
    scan(FolderSource(folder, files_per_shard=1024), lenient, tmp_path / "out")
    scores = {row["index"]: row["score"] for row in rows_of(tmp_path / "out")}
    kept = [row["index"] for row in rows_of(tmp_path / "out", "thumbnails")]
    assert len(scores) == 400
    assert len(kept) == 160
    assert min(scores[i] for i in kept) >= max(s for i, s in scores.items() if i not in kept)


def test_what_was_passed_over_is_counted_across_runs(
    model: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of text between rows with images, behind them, and in a shard of their own; a shard that breaks off counts once."""
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(picture_bytes(number))
    names = [0, None, 1, None, None, None, 2, None, 3, None, None, None]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"image": f"{n}.png"} if n is not None else {}) + "\n" for n in names))
    source = JsonlSource(str(path), rows_per_shard=3)

    def stop(counts: ScanCounts) -> None:
        if counts.done == 2:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        scan(source, model, out, ScanOptions(batch_size=1), on_progress=stop)
    assert json.loads((out / "summary.json").read_text())["shards"]["pending"] > 0
    summary = scan(source, model, out)
    assert (summary.n, summary.passed_over) == (4, {"rows that name no image": 8})
    assert [row["index"] for row in rows_of(out)] == [0, 1, 0, 1]
    show_summary(summary, out)
    assert "passed over, without a row: 8 rows that name no image" in " ".join(
        capsys.readouterr().out.split()
    )
    limited = scan(source, model, tmp_path / "limited", ScanOptions(limit=3))
    assert (limited.n, limited.passed_over) == (3, {"rows that name no image": 5})  # up to the next image
