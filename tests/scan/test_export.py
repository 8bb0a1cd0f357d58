"""Lists and views of what a scan kept, and scans that are merged."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safevlm.data import open_source
from safevlm.errors import DataError
from safevlm.policy import Policy
from safevlm.scan import Checkpoint, ScanCounts, ScanOptions, View, export, merge, scan, write_report
from safevlm.scan.cells import FORMULA
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
    with pytest.raises(DataError, match="holds no scan"):
        export(tmp_path, tmp_path / "a.txt", form="txt")
    with pytest.raises(ValueError, match="cannot keep good"):
        export(scanned, tmp_path / "a", keep=["good"])
    with pytest.raises(ValueError, match="no form 'xlsx'"):
        export(scanned, tmp_path / "a", form="xlsx")
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
    assert export(tmp_path / "out", tmp_path / "a.txt", form="txt") == 1
    assert (tmp_path / "a.txt").read_text() == "clean\n"
    export(tmp_path / "out", tmp_path / "a.txt", keep=["unsafe", "undecided", "error"], form="txt")
    assert (tmp_path / "a.txt").read_text() == "both\n"  # what is taken out goes as a whole, too


@pytest.fixture(scope="module")
def by_verdict(scanned: Path) -> dict[str, list[bytes]]:
    """Pictures of each verdict."""
    data = {name[:3]: content for name, content in IMAGES}
    found: dict[str, list[bytes]] = {"safe": [], "unsafe": []}
    for row in rows_of(scanned):
        if row["status"] == "ok":
            found[row["verdict"]].append(data[row["id"]])
    return found


def write_tar(path: Path, samples: dict[str, list[bytes]]) -> None:
    import webdataset

    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as tar:
        for key, pictures in samples.items():
            tar.write({"__key__": key} | {f"{n}.png": data for n, data in enumerate(pictures)})


def test_a_sample_that_was_not_scanned_whole_is_not_kept(
    model: Checkpoint, by_verdict: dict[str, list[bytes]], tmp_path: Path
) -> None:
    safe, unsafe = by_verdict["safe"], by_verdict["unsafe"][0]
    write_tar(tmp_path / "0.tar", {"one": [safe[0]], "both": [safe[1], unsafe], "last": [safe[2]]})
    source = open_source(f"wds:{tmp_path}/0.tar")
    for limit, kept in ((1, ["one"]), (2, ["one"]), (3, ["one"]), (4, ["one", "last"])):
        out = tmp_path / f"limit-{limit}"
        scan(source, model, out, ScanOptions(limit=limit))
        export(out, tmp_path / "kept.parquet", form="view")
        view = View(tmp_path / "kept.parquet")
        assert [id for id in ("one", "both", "last") if view(id)] == kept
        export(out, tmp_path / "a.txt", form="txt")
        assert (tmp_path / "a.txt").read_text().split() == kept
    with tarfile.open(tmp_path / "0.tar") as tar:
        middle = tar.getmembers()[2].offset_data + 9  # in the second picture of both
    os.truncate(tmp_path / "0.tar", middle)
    summary = scan(source, model, tmp_path / "cut")
    assert (summary.shards["failed"], len(rows_of(tmp_path / "cut"))) == (1, 2)
    export(tmp_path / "cut", tmp_path / "a.txt", form="txt")
    assert (tmp_path / "a.txt").read_text().split() == ["one"]


def test_an_id_is_kept_where_each_of_its_samples_is(
    model: Checkpoint, by_verdict: dict[str, list[bytes]], tmp_path: Path
) -> None:
    safe, unsafe = by_verdict["safe"], by_verdict["unsafe"][0]
    for name, pictures in (("a", [safe[0], safe[1]]), ("b", [unsafe, safe[2]])):  # ids begin anew
        table = pa.table({"id": ["0", "1"], "image": pictures})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    scan(open_source(f"parquet:{tmp_path}/?.parquet"), model, tmp_path / "out")
    export(tmp_path / "out", tmp_path / "kept.view", form="view")
    view = View(tmp_path / "kept.view")
    assert [view("0"), view("1"), view("2")] == [False, True, False]
    export(tmp_path / "out", tmp_path / "a.txt", form="txt")
    assert (tmp_path / "a.txt").read_text().split() == ["1", "1"]


@pytest.mark.parametrize("broken", [False, True])
def test_a_tar_that_nothing_was_kept_of_is_not_taken_for_another(
    broken: bool, model: Checkpoint, by_verdict: dict[str, list[bytes]], tmp_path: Path
) -> None:
    tars = tmp_path / "tars"
    write_tar(tars / "000.tar", {"a": by_verdict["safe"][:1]})
    write_tar(tars / "x" / "000.tar", {"a": by_verdict["unsafe"][:1]})
    if broken:
        os.truncate(tars / "x" / "000.tar", 100)
    scan(open_source(f"wds:{tars}"), model, tmp_path / "out")
    export(tmp_path / "out", tmp_path / "kept.view", form="view")
    view = View(tmp_path / "kept.view")
    assert view.webdataset({"__key__": "a", "__url__": f"{tars}/000.tar"})
    with pytest.raises(DataError, match=r"may be any of 000\.tar of .*, x/000\.tar of"):
        view.webdataset({"__key__": "a", "__url__": f"{tars}/x/000.tar"})


def test_what_is_missing_is_said(tars: Path, model: Checkpoint, tmp_path: Path, caplog: Any) -> None:
    source = open_source(f"wds:{tars}/{{0..1}}.tar")

    def stop(counts: ScanCounts) -> None:
        if counts.done > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(source, model, tmp_path / "out", ScanOptions(batch_size=2, workers=1), on_progress=stop)
    export(tmp_path / "out", tmp_path / "a.txt", form="txt")
    assert "1 of 2 shards are not scanned to their end" in caplog.text
    caplog.clear()
    scan(source, model, tmp_path / "out")
    export(tmp_path / "out", tmp_path / "a.txt", form="txt")
    assert not caplog.text


def test_parts_that_the_ledger_does_not_know_are_not_read(
    tars: Path, scanned: Path, model: Checkpoint, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scan(open_source(f"wds:{tars}/0.tar"), model, out)
    stale = [out / kind / "part-00007.parquet" for kind in ("rows", "thumbnails")]
    for path in stale:
        shutil.copyfile(scanned / path.parent.name / "part-00001.parquet", path)
    export(out, tmp_path / "a.jsonl", keep=["safe", "unsafe", "error"], form="jsonl")
    assert {json.loads(line)["shard"] for line in (tmp_path / "a.jsonl").open()} == {"0.tar"}
    scan(open_source(f"wds:{tars}/0.tar"), model, out)
    assert not any(path.exists() for path in stale)


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
    for kind in ("rows", "thumbnails"):
        found, expected = rows_of(tmp_path / "all", kind), rows_of(scanned, kind)
        assert [row.pop("source") for row in found] == [f"wds:{tars}/{row['shard']}" for row in found]
        assert found == [{name: row[name] for name in row if name != "source"} for row in expected]
    whole = json.loads((scanned / "summary.json").read_text())
    for name in ("n", "total", "statuses", "verdicts", "levels", "categories", "shards", "skipped"):
        assert merged.to_dict()[name] == whole[name]
    assert merged.source == f"wds:{tars}/0.tar + wds:{tars}/1.tar"
    assert write_report(tmp_path / "all", merged).is_file()
    export(tmp_path / "all", tmp_path / "a.txt", form="txt")
    assert (tmp_path / "a.txt").read_text().split() == kept_ids(scanned)


def test_scans_of_two_folders_are_merged_and_their_marks_lead_back(
    model: Checkpoint, by_verdict: dict[str, list[bytes]], tmp_path: Path
) -> None:
    scans = [_scan_of(tmp_path, name, by_verdict["unsafe"][n], model) for n, name in enumerate("ab")]
    merged = merge(scans, tmp_path / "all")
    assert (merged.n, merged.shards["done"]) == (2, 2)
    for kind in ("rows", "thumbnails"):
        places = [(row["source"], row["shard"], row["index"]) for row in rows_of(tmp_path / "all", kind)]
        assert places == [(f"folder:{tmp_path}/{name}", "files-00000000", 0) for name in "ab"]
    page = write_report(tmp_path / "all", merged).read_text()
    [sources] = re.findall(r'"sources":(\[[^]]*\])', page)
    [shards] = re.findall(r'id="data-shards">([^<]*)<', page)
    [pictures] = re.findall(r'id="data-thumbnails-0">([^<]*)<', page)
    assert [open_source(uri).uri for uri in json.loads(sources)] == [f"folder:{tmp_path}/{n}" for n in "ab"]
    assert sorted(json.loads(shards)) == [[0, "files-00000000"], [1, "files-00000000"]]
    assert [picture[0] for picture in json.loads(pictures)] == [0, 1]
    both = merge([tmp_path / "all", _scan_of(tmp_path, "c", by_verdict["safe"][0], model)], tmp_path / "more")
    assert both.n == 3
    with pytest.raises(DataError, match="the shard files-00000000 is in .*all and in .*scan-a"):
        merge([tmp_path / "all", tmp_path / "scan-a"], tmp_path / "none")


def _scan_of(folder: Path, name: str, data: bytes, model: Checkpoint) -> Path:
    (folder / name).mkdir()
    (folder / name / "0.png").write_bytes(data)
    scan(open_source(f"folder:{folder}/{name}"), model, folder / f"scan-{name}")
    return folder / f"scan-{name}"


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
    (tmp_path / "one.txt").touch()
    with pytest.raises(DataError, match=r"one\.txt: is a file"):
        merge([first, scanned], tmp_path / "one.txt")
    with pytest.raises(DataError, match="two scans or more"):
        merge([first], out)
    with pytest.raises(DataError, match="holds no scan"):
        merge([first, tmp_path], out)
    with pytest.raises(DataError, match="is not empty"):
        merge([first, scanned], tars)
    assert not out.exists()


def test_csv_holds_any_name_and_no_formula(model: Checkpoint, tmp_path: Path) -> None:
    names = [
        "=cmd()|x.png",
        "+1.png",
        " @a.png",
        "two\nlines.png",
        'quote",.png',
        "plain.png",
        "\uff1dwide.png",
    ]
    folder = tmp_path / "odd"
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / name).write_bytes(picture_bytes(number))
    out = tmp_path / "out"
    scan(open_source(str(folder)), model, out)
    everything = ("safe", "unsafe")
    assert export(out, tmp_path / "a.csv", keep=everything, form="csv", absolute=True) == len(names)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"].removeprefix("'") for row in rows} == set(names)
    assert not any(value.lstrip().startswith(FORMULA) for row in rows for value in row.values())
    assert {Path(row["path"]).name for row in rows} == set(names)
    assert all(Path(row["path"]).is_file() and Path(row["path"]).is_absolute() for row in rows)
    export(out, tmp_path / "a.parquet", keep=everything, absolute=True)
    export(out, tmp_path / "a.jsonl", keep=everything, form="jsonl", absolute=True)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines == pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert {line["path"] for line in lines} == {str(folder / name) for name in names}
    with pytest.raises(DataError, match="export as jsonl or csv"):
        export(out, tmp_path / "a.txt", keep=everything, form="txt")
    (folder / "two\nlines.png").unlink()
    scan(open_source(str(folder)), model, out, fresh=True)
    assert export(out, tmp_path / "a.txt", keep=everything, form="txt", absolute=True) == len(names) - 1
    listed = (tmp_path / "a.txt").read_text().splitlines()
    assert all(Path(line).is_file() for line in listed)
    with pytest.raises(ValueError, match="not for paths"):
        export(out, tmp_path / "a.view", keep=everything, form="view", absolute=True)


def test_images_of_a_tar_have_no_paths(scanned: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no files of their own"):
        export(scanned, tmp_path / "a.csv", keep=("safe", "unsafe"), form="csv", absolute=True)
