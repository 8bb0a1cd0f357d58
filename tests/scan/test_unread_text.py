"""A picture whose text cannot be read is undecided where texts are scored, whatever it looks like alone."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safevlm.data import Item, open_source, prepared_pixels
from safevlm.scan import Checkpoint, ScanOptions, scan
from safevlm.scan.batch import Batch, Entry
from safevlm.scan.worker import MAX_HELD_PIXELS, prepare
from safevlm.scorer import RiskScorer
from tests.data.builders import encoded, picture_bytes
from tests.scan.tiny_checkpoint import rows_of


@pytest.fixture
def tar(tmp_path: Path) -> str:
    """The same picture three times: without a text, with one that is damaged, with a good one."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, data in (
            *(("a.png", picture_bytes(0)), ("b.png", picture_bytes(0)), ("b.json", b'{"caption": ')),
            *(("c.png", picture_bytes(0)), ("c.txt", b"words")),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return f"wds:{tmp_path}/x.tar"


def test_it_is_undecided_with_the_reason_and_shares_no_score(
    tar: str, model: Checkpoint, tmp_path: Path
) -> None:
    scan(open_source(tar), model, tmp_path / "with", ScanOptions(with_text=True))
    scan(open_source(tar), model, tmp_path / "without")
    told = {row["id"]: row for row in rows_of(tmp_path / "with")}
    assert [told[id]["status"] for id in "abc"] == ["ok", "undecided", "ok"]
    assert (told["b"]["verdict"], told["b"]["score"]) == ("undecided", None)
    assert "text could not be read: b.json: is no JSON" in told["b"]["reason"]
    assert told["a"]["score"] != told["c"]["score"]
    alone = rows_of(tmp_path / "without")
    assert {(row["status"], row["score"]) for row in alone} == {("ok", told["a"]["score"])}


def test_thin_pictures_are_prepared_few_at_a_time(scorer: RiskScorer) -> None:
    strip = np.zeros((500, 10, 3), np.uint8)
    entries = []
    for number in range(16):
        strip[number] = 255
        entries.append(Entry(number, Item(str(number), data=encoded(Image.fromarray(strip)))))
    groups = list(prepare(Batch(0, 0, tuple(entries)), scorer.preprocess).inputs)
    assert sorted(position for group in groups for position in group) == list(range(16))
    assert max(map(len, groups)) - 1 < MAX_HELD_PIXELS / prepared_pixels(10, 500)
    assert len(groups) > 1
