"""Lists and views of what a scan kept, and scans that are merged."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from safevlm.data import open_source
from safevlm.errors import DataError
from safevlm.policy import Policy
from safevlm.scan import Checkpoint, ScanOptions, View, export, merge, scan, write_report
from tests.data.builders import make_source, picture_bytes
from tests.scan.tiny_checkpoint import files_below, rows_of

IMAGES = [(f"{number:03d}.png", picture_bytes(number)) for number in range(12)]
IMAGES[5] = ("005.png", b"broken")


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tars with six samples each."""
    folder = tmp_path_factory.mktemp("tars")
    make_source("wds", folder, IMAGES)
    return folder


@pytest.fixture(scope="module")
def scanned(tars: Path, model: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a scan of both."""
    out = tmp_path_factory.mktemp("scanned")
    scan(open_source(f"wds:{tars}/{{0..1}}.tar"), model, out)
    return out


@pytest.mark.parametrize("keep", ["safe", "unsafe", "error", "safe,error"])
def test_lists_agree_with_the_rows(keep: str, scanned: Path, tmp_path: Path) -> None:
    kinds = keep.split(",")
    rows = rows_of(scanned)
    expected = [row for row in rows if ("error" if row["status"] == "error" else row["verdict"]) in kinds]
    assert export(scanned, tmp_path / "a.parquet", keep=kinds) == len(expected) > 0
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    places = [(row["id"], row["shard"], row["index"], row["score"]) for row in expected]
    assert [(row["id"], row["shard"], row["index"], row["score"]) for row in table] == places
    export(scanned, tmp_path / "a.jsonl", keep=kinds, form="jsonl")
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == table
    export(scanned, tmp_path / "a.txt", keep=kinds, form="txt")
    assert (tmp_path / "a.txt").read_text().splitlines() == [row["id"] for row in expected]
    assert files_below(tmp_path) == {"a.parquet", "a.jsonl", "a.txt"}


def test_a_threshold_takes_the_place_of_the_verdict(scanned: Path, tmp_path: Path) -> None:
    scores = {row["id"]: row["score"] for row in rows_of(scanned) if row["status"] == "ok"}
    threshold = sorted(scores.values())[-3]
    export(scanned, tmp_path / "a.txt", keep=["unsafe"], threshold=threshold, form="txt")
    assert set((tmp_path / "a.txt").read_text().split()) == {i for i, s in scores.items() if s >= threshold}


def test_nothing_to_keep_writes_nothing(scanned: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing to keep; it has .* safe"):
        export(scanned, tmp_path / "a.txt", keep=["undecided"], form="txt")
    with pytest.raises(DataError, match="holds no rows"):
        export(tmp_path, tmp_path / "a.txt", form="txt")
    with pytest.raises(ValueError, match="cannot keep good"):
        export(scanned, tmp_path / "a", keep=["good"])
    with pytest.raises(ValueError, match="no form 'csv'"):
        export(scanned, tmp_path / "a", form="csv")
    with pytest.raises(ValueError, match="threshold"):
        export(scanned, tmp_path / "a", threshold=1.5)
    with pytest.raises(DataError, match="cannot be written"):
        export(scanned, tmp_path / "no" / "a.txt", form="txt")
    with pytest.raises(DataError, match="cannot be written"):
        export(scanned, tmp_path / "no" / "a.parquet")
    assert not files_below(tmp_path)


def kept_ids(scanned: Path) -> list[str]:
    return [row["id"] for row in rows_of(scanned) if row["verdict"] == "safe"]


def test_webdataset_reads_what_the_view_kept(scanned: Path, tars: Path, tmp_path: Path) -> None:
    import webdataset

    export(scanned, tmp_path / "kept.parquet", form="view")
    view = pickle.loads(pickle.dumps(View(tmp_path / "kept.parquet")))  # noqa: S301  # as workers get it
    samples = webdataset.WebDataset(f"{tars}/{{0..1}}.tar", shardshuffle=False).select(view.webdataset)
    assert [sample["__key__"] for sample in samples] == kept_ids(scanned)
    assert not view.webdataset({"__key__": "000", "__url__": "/elsewhere/7.tar"})


def test_datasets_reads_what_the_view_kept(model: Checkpoint, scanned: Path, tmp_path: Path) -> None:
    import datasets

    make_source("parquet", tmp_path, IMAGES)
    scan(open_source(f"parquet:{tmp_path}/data.parquet"), model, tmp_path / "out")
    export(tmp_path / "out", tmp_path / "kept.parquet", form="view")
    view = View(tmp_path / "kept.parquet")
    rows = datasets.Dataset.from_parquet(
        str(tmp_path / "data.parquet"), columns=["id"], cache_dir=str(tmp_path / "cache")
    )
    assert rows.filter(lambda row: view(row["id"]))["id"][:] == kept_ids(scanned)


def test_one_flagged_image_takes_its_sample_along(model: Checkpoint, scanned: Path, tmp_path: Path) -> None:
    import webdataset

    verdicts = {row["id"]: row["verdict"] for row in rows_of(scanned) if row["status"] == "ok"}
    safe = [i for i, v in verdicts.items() if v == "safe"]
    unsafe = next(i for i, v in verdicts.items() if v == "unsafe")
    data = {name[:3]: content for name, content in IMAGES}
    with webdataset.TarWriter(str(tmp_path / "0.tar")) as tar:
        tar.write({"__key__": "both", "0.png": data[safe[0]], "1.png": data[unsafe]})
        tar.write({"__key__": "clean", "0.png": data[safe[1]], "1.png": data[safe[2]]})
    scan(open_source(f"wds:{tmp_path}/0.tar"), model, tmp_path / "out")
    assert [row["number"] for row in rows_of(tmp_path / "out")] == [0, 1, 0, 1]
    export(tmp_path / "out", tmp_path / "kept.parquet", form="view")
    view = View(tmp_path / "kept.parquet")
    assert [view("both"), view("clean")] == [False, True]


def test_a_view_is_told_from_other_files(scanned: Path, tmp_path: Path) -> None:
    export(scanned, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="is no view"):
        View(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="is no view"):
        View(tmp_path / "none.parquet")


def test_parts_scanned_apart_are_merged(tars: Path, scanned: Path, model: Checkpoint, tmp_path: Path) -> None:
    for number in (0, 1):
        scan(open_source(f"wds:{tars}/{number}.tar"), model, tmp_path / str(number))
    merged = merge([tmp_path / "0", tmp_path / "1"], tmp_path / "all")
    assert rows_of(tmp_path / "all") == rows_of(scanned)
    assert rows_of(tmp_path / "all", "thumbnails") == rows_of(scanned, "thumbnails")
    whole = json.loads((scanned / "summary.json").read_text())
    for name in ("n", "total", "statuses", "verdicts", "levels", "categories", "shards", "skipped"):
        assert merged.to_dict()[name] == whole[name]
    assert merged.source == f"wds:{tars}/0.tar + wds:{tars}/1.tar"
    assert write_report(tmp_path / "all", merged).is_file()
    export(tmp_path / "all", tmp_path / "a.txt", form="txt")
    assert (tmp_path / "a.txt").read_text().split() == kept_ids(scanned)


def test_scans_that_do_not_belong_together(
    tars: Path, scanned: Path, model: Checkpoint, tmp_path: Path
) -> None:
    first, out = tmp_path / "first", tmp_path / "out"
    scan(open_source(f"wds:{tars}/0.tar"), model, first)
    with pytest.raises(DataError, match="the shard 0.tar is in .*scanned.* and in .*first"):
        merge([scanned, first], out)
    strict = replace(model, chosen_policy=Policy(model.policy.taxonomy, threshold=0.01))
    scan(open_source(f"wds:{tars}/1.tar"), strict, tmp_path / "other")
    with pytest.raises(DataError, match="its policy is .*, that of"):
        merge([first, tmp_path / "other"], out)
    scan(open_source(f"wds:{tars}/1.tar"), model, tmp_path / "half", ScanOptions(limit=2))
    with pytest.raises(DataError, match="its limit is 2, that of .* is none"):
        merge([first, tmp_path / "half"], out)
    with pytest.raises(DataError, match="two scans or more"):
        merge([first], out)
    with pytest.raises(DataError, match="holds no scan"):
        merge([first, tmp_path], out)
    with pytest.raises(DataError, match="is not empty"):
        merge([first, scanned], tars)
    assert not out.exists()
