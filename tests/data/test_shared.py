"""The sources on real files, where the folder with development data is beside the repository."""

from __future__ import annotations

import io
import json
import tarfile
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from safevlm.data import open_source
from tests.data.builders import decoded

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder with development data")


def test_llava_sample() -> None:
    source = open_source(str(DATA / "llava_sample" / "llava_sample.json"))
    rows = json.loads((DATA / "llava_sample" / "llava_sample.json").read_text())
    items = [item for shard in source.shards() for item in source.read(shard)]
    assert source.uri.startswith("llava:")
    assert [item.id for item in items] == [row["id"] for row in rows if "image" in row]
    for item, row in zip(items, rows, strict=True):
        assert item.data == (DATA / "llava_sample" / "images" / row["image"]).read_bytes()
        questions = [turn["value"] for turn in row["conversations"] if turn["from"] == "human"]
        assert item.text == "\n".join(question.replace("<image>", "").strip() for question in questions)
    assert all(decoded(item)[0] is not None for item in islice(items, 20))


def test_photographs_in_parquet() -> None:
    source = open_source(f"{DATA}/photos/*.parquet")
    shards = source.shards()
    files = sorted((DATA / "photos").glob("*.parquet"))
    assert sum(shard.images or 0 for shard in shards) == sum(pq.read_metadata(f).num_rows for f in files)
    table = pq.read_table(files[0], columns=["image", "caption"]).slice(0, 50).to_pylist()
    items = list(islice(source.read(shards[0]), 50))
    assert [(item.data, item.text) for item in items] == [(r["image"]["bytes"], r["caption"]) for r in table]
    assert all(decoded(item)[0] is not None for item in items)


def test_the_same_photographs_as_tar_and_through_datasets(tmp_path: Path) -> None:
    parquet = open_source(f"{DATA}/emoji/emoji.parquet")
    (shard,) = parquet.shards()
    wanted = list(parquet.read(shard))
    with tarfile.open(tmp_path / "emoji.tar", "w") as tar:
        for number, item in enumerate(wanted):
            for name, data in (
                (f"{number:05d}.png", item.data or b""),
                (f"{number:05d}.txt", item.text.encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    for uri in (str(tmp_path), f"hf:{DATA}/emoji"):
        source = open_source(uri)
        found = [item for shard in source.shards() for item in source.read(shard)]
        assert [(item.data, item.text) for item in found] == [(item.data, item.text) for item in wanted]
