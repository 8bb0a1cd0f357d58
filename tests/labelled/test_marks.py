"""Marks as a table: images by source, shard and place, and what each bad line is told."""

from __future__ import annotations

import hashlib
import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from safevlm import Taxonomy
from safevlm.data import open_source
from safevlm.errors import DataError
from safevlm.labelled.table import Needs, read_table
from tests.training.builders import png, shade, write_jsonl, write_parquet

TAXONOMY = Taxonomy.preset("safevlm")


@pytest.fixture
def source(tmp_path: Path) -> str:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(png(shade(number % 4, number)))
    return f"folder:{folder}"


def marks(uri: str) -> list[dict[str, Any]]:
    """A right mark of every image in a source."""
    source = open_source(uri)
    return [
        {
            "source": uri,
            "shard": shard.name,
            "index": index,
            "id": item.id,
            "sha256": hashlib.sha256(item.data or b"").hexdigest(),
            "risk_level": "refuse",
            "risk_category": "illegal",
            "mark": "right",
            "score": 0.9,
        }
        for shard in source.shards()
        for index, item in enumerate(source.read(shard))
    ]


def test_marks_are_rows_with_their_images(source: str, tmp_path: Path) -> None:
    lines = marks(source)
    lines[0] |= {"mark": "wrong", "risk_level": "safe", "risk_category": "clean"}
    rows = read_table(write_jsonl(tmp_path / "marks.jsonl", lines[::-1]), TAXONOMY)
    assert {row.key: (row.level, row.category) for row in rows} == {
        line["sha256"]: (
            TAXONOMY.levels.index(line["risk_level"]),
            TAXONOMY.category_names.index(line["risk_category"]),
        )
        for line in lines
    }
    for row in rows:
        assert isinstance(row.image, bytes)
        assert hashlib.sha256(row.image).hexdigest() == row.key


def test_marks_without_a_label_are_left_out_and_counted(
    source: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = marks(source)
    lines[1] |= {"mark": "unsure", "risk_level": "", "risk_category": ""}
    lines[4] |= {"mark": "wrong", "risk_level": "", "risk_category": ""}
    table = write_jsonl(tmp_path / "marks.jsonl", lines)
    with caplog.at_level(logging.WARNING):
        rows = read_table(table, TAXONOMY)
    assert {row.key for row in rows} == {lines[n]["sha256"] for n in (0, 2, 3, 5)}
    assert "left out 2 marks" in caplog.text
    with pytest.raises(DataError, match="has no rows"):
        read_table(write_jsonl(table, [lines[1]]), TAXONOMY)


def test_marks_and_other_rows_share_a_file(source: str, tmp_path: Path) -> None:
    (tmp_path / "own.png").write_bytes(png(shade(1, 77)))
    own = {"image": "own.png", "risk_level": "caution", "risk_category": "politics"}
    rows = read_table(write_jsonl(tmp_path / "mixed.jsonl", [*marks(source)[:2], own]), TAXONOMY)
    assert sorted(isinstance(row.image, bytes) for row in rows) == [False, True, True]


BAD = {
    "another image": ({"sha256": "0" * 64}, "sha256", "has changed since the scan"),
    "beyond the shard": ({"index": 99}, "index", "no longer reaches this image"),
    "no such shard": ({"shard": "files-99999999"}, "shard", "has changed since the scan"),
    "no such source": ({"source": "folder:/no/such/place"}, "source", "no such folder"),
    "unknown kind of source": ({"source": "nothing:at/all"}, "source", "there is no kind"),
    "index not a number": ({"index": "1st"}, "index", "a whole number from 0"),
    "index not whole": ({"index": 1.5}, "index", "a whole number from 0"),
    "index a truth": ({"index": True}, "index", "a whole number from 0"),
    "misspelt label": ({"Risk_Level": "safe"}, "Risk_Level", "rename it 'risk_level'"),
    "negative index": ({"index": -1}, "index", "a whole number from 0"),
    "unknown mark": ({"mark": "maybe"}, "mark", "known are right"),
    "shard not text": ({"shard": None}, "shard", "not text"),
    "unknown level": ({"risk_level": "deadly"}, "risk_level", "not in taxonomy"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_mark_is_named_and_the_others_are_kept(kind: str, source: str, tmp_path: Path) -> None:
    change, column, reason = BAD[kind]
    lines = marks(source)
    lines[2] |= change
    table = write_jsonl(tmp_path / "marks.jsonl", lines)
    with pytest.raises(DataError) as raised:
        read_table(table, TAXONOMY)
    assert f"{table}: row 3, column {column}: " in str(raised.value)
    assert reason in str(raised.value)
    assert len(read_table(table, TAXONOMY, skip_bad=True)) == len(lines) - 1


@pytest.mark.parametrize("column", ["source", "index", "sha256"])
def test_a_mark_that_lacks_a_column_is_no_row_without_an_image(
    column: str, source: str, tmp_path: Path
) -> None:
    lines = marks(source)
    del lines[1][column]
    with pytest.raises(DataError, match=f"row 2, column {column}: "):
        read_table(write_jsonl(tmp_path / "marks.jsonl", lines), TAXONOMY, needs=Needs(image=False))


@pytest.mark.parametrize("form", [str, float])
def test_marks_that_went_through_another_program_are_the_same(
    form: type, source: str, tmp_path: Path
) -> None:
    lines = marks(source)
    expected = {row.key: row.level for row in read_table(write_jsonl(tmp_path / "a.jsonl", lines), TAXONOMY)}
    changed = [
        line | {"index": form(line["index"]), "sha256": line["sha256"].upper(), "mark": "Right"}
        for line in lines
    ]
    for table in (
        write_jsonl(tmp_path / "b.jsonl", changed),
        write_parquet(tmp_path / "b.parquet", changed),
    ):
        assert {row.key: row.level for row in read_table(table, TAXONOMY)} == expected


def test_an_image_that_is_gone_costs_its_row(source: str, tmp_path: Path) -> None:
    lines = marks(source)
    picture = Path(source.removeprefix("folder:")) / lines[5]["id"]
    picture.unlink()
    table = write_jsonl(tmp_path / "marks.jsonl", lines)
    with pytest.raises(DataError, match="row 6, column index: .*no longer reaches"):
        read_table(table, TAXONOMY)
    assert len(read_table(table, TAXONOMY, skip_bad=True)) == 5


REMOTE = (
    "folder:http://127.0.0.1:{port}/pictures",
    "wds:http://127.0.0.1:{port}/a.tar",
    "http://127.0.0.1:{port}/a.json",
    "jsonl:{folder}/a.jsonl?images=http://127.0.0.1:{port}/",
    "jsonl:{folder}/a.jsonl?images=http:%2F%2F127.0.0.1:{port}/",
    "wds:simplecache::http://127.0.0.1:{port}/a.tar",
    "hf:org/name",
    "hf:org/name?split=train",
)


@pytest.mark.parametrize("uri", REMOTE)
def test_a_source_elsewhere_is_not_fetched(
    uri: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_text('{"image": "a.png"}\n')
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: pytest.fail("fetched"))
    lines = marks(source)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        lines[2]["source"] = uri.format(port=server.getsockname()[1], folder=tmp_path)
        table = write_jsonl(tmp_path / "marks.jsonl", lines)
        with pytest.raises(DataError, match="row 3, column source: .*not on this machine.*download it"):
            read_table(table, TAXONOMY)
        with pytest.raises(TimeoutError):  # nobody called
            server.accept()
    assert len(read_table(table, TAXONOMY, skip_bad=True)) == 5


def test_a_local_folder_of_the_datasets_library_is_read(tmp_path: Path) -> None:
    from tests.data.builders import make_source, picture_bytes

    uri = make_source("hf", tmp_path, [(f"{n}.png", picture_bytes(n)) for n in range(3)])
    assert len(read_table(write_jsonl(tmp_path / "marks.jsonl", marks(uri)), TAXONOMY)) == 3
