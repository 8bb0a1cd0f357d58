"""A source that changed between two runs: what is done binds, what is not is planned again."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safevlm.data import open_source
from safevlm.data.llava import LlavaSource
from safevlm.errors import DataError
from safevlm.scan import Checkpoint, ScanOptions, reader, scan
from tests.data.builders import make_source, picture_bytes
from tests.scan.tiny_checkpoint import rows_of


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "PAUSE", 0)


def test_a_parquet_file_that_is_mended(model: Checkpoint, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name in ("a", "b"):
        table = pa.table(
            {"id": [f"{name}{n}" for n in range(3)], "image": [picture_bytes(n) for n in range(3)]}
        )
        pq.write_table(table, data / f"{name}.parquet")
    whole = (data / "a.parquet").read_bytes()
    (data / "a.parquet").write_bytes(whole[:-20])
    assert set(scan(open_source(f"parquet:{data}"), model, out).failures) == {"a.parquet"}
    limited = tmp_path / "limited"
    assert scan(open_source(f"parquet:{data}"), model, limited, ScanOptions(limit=3)).n == 2
    (data / "a.parquet").write_bytes(whole)
    mended = scan(open_source(f"parquet:{data}"), model, out)
    assert (mended.complete, mended.n, mended.shards) == (True, 6, {"done": 2, "failed": 0, "pending": 0})
    assert {row["id"]: row["shard"] for row in rows_of(out)} == {
        **{f"a{n}": "a.parquet:0" for n in range(3)}, **{f"b{n}": "b.parquet:0" for n in range(3)}
    }  # fmt: skip
    assert scan(open_source(f"parquet:{data}"), model, limited, ScanOptions(limit=3)).n == 3
    assert [row["id"] for row in rows_of(limited)] == ["b0", "b1", "a0"]
    (data / "b.parquet").write_bytes(whole)
    with pytest.raises(DataError, match=r"the shard b\.parquet:0 changed"):
        scan(open_source(f"parquet:{data}"), model, out)


def test_a_json_file_that_is_downloaded_again(pictures: Path, model: Checkpoint, tmp_path: Path) -> None:
    rows = [{"id": str(n), "image": f"{n:02d}.png"} for n in range(10)]
    file, out = tmp_path / "rows.json", tmp_path / "out"
    text = json.dumps(rows)
    file.write_text(text[: text.index('"5"')])

    def source() -> LlavaSource:
        return LlavaSource(file, images=str(pictures), rows_per_shard=3)

    assert set(scan(source(), model, out).failures) == {"rows-00000003"}
    file.write_text(text)
    assert scan(source(), model, out).complete
    assert [row["id"] for row in rows_of(out)] == [str(n) for n in range(10)]


def test_a_new_tar_is_no_part_of_a_scan_that_was_begun(model: Checkpoint, tmp_path: Path) -> None:
    tars = tmp_path / "tars"
    make_source("wds", tars, [(f"{n}.png", picture_bytes(n)) for n in range(4)])
    (tars / "1.tar").write_bytes((tars / "1.tar").read_bytes()[:100])
    assert scan(open_source(f"wds:{tars}"), model, tmp_path / "out").shards["failed"] == 1
    (tars / "2.tar").write_bytes((tars / "0.tar").read_bytes())
    with pytest.raises(DataError, match=r"the shard 2\.tar is new"):
        scan(open_source(f"wds:{tars}"), model, tmp_path / "out")
    for name in ("1.tar", "2.tar"):  # what broke off binds nobody
        (tars / name).unlink()
    assert scan(open_source(f"wds:{tars}"), model, tmp_path / "out").complete
    assert {row["shard"] for row in rows_of(tmp_path / "out")} == {"0.tar"}
