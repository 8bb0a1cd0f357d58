"""Where a scan may write: beside its source, and not into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from safevlm.data import open_source
from safevlm.errors import DataError
from safevlm.scan import Checkpoint, scan
from tests.data.builders import make_source, picture_bytes
from tests.scan.tiny_checkpoint import files_below


@pytest.mark.parametrize("place", ["", "/scan", "/deep/scan"])
@pytest.mark.parametrize("kind", ["folder:{}", "parquet:{}", "hf:{}?split=train", "parquet:{}/**/*.parquet"])
def test_a_scan_does_not_write_into_its_source(
    kind: str, place: str, model: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    make_source("parquet", folder, [("a.png", picture_bytes())])
    (folder / "a.png").write_bytes(picture_bytes())
    before = files_below(tmp_path)
    with pytest.raises(DataError, match="lies inside the source .*; choose a folder outside it"):
        scan(open_source(kind.format(folder)), model, Path(f"{folder}{place}"))
    assert files_below(tmp_path) == before


def test_a_scan_may_lie_beside_its_files_and_around_them(model: Checkpoint, tmp_path: Path) -> None:
    images = [(f"{n}.png", picture_bytes(n)) for n in range(4)]
    make_source("wds", tmp_path / "a", images)
    for uri in (
        make_source("parquet", tmp_path, images),
        f"parquet:{tmp_path}/*.parquet",
        f"wds:{tmp_path}/a/{{0..1}}.tar",
    ):
        for out in (tmp_path / "a" / "scan", tmp_path):
            assert scan(open_source(uri), model, out, fresh=True).complete
            assert scan(open_source(uri), model, out).n == 4
