"""open_source: the kind that is written, the kind that is recognised, and what is refused with choices."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from safevlm.data import open_source
from safevlm.data.open import KINDS
from safevlm.errors import DataError
from tests.data import builders
from tests.data.builders import make_source, picture_bytes

IMAGES = [(f"{number}.png", picture_bytes(number)) for number in range(3)]


def refusal(text: str | Path) -> str:
    with pytest.raises(DataError) as caught:
        open_source(str(text))
    return str(caught.value)


def test_every_kind_has_a_builder_and_an_example_that_opens() -> None:
    assert set(KINDS) == set(builders.KINDS)
    for kind, (_, options, example) in KINDS.items():
        source = open_source(example)
        assert source.uri.startswith(f"{kind}:/data" if kind != "hf" else "hf:org/name")
        assert all(
            f"{option}=" in example
            or option in ("config", "revision", "id", "follow_symlinks")
            or kind == "hf"
            for option in options
        )


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("folder", "pictures"),
        ("wds", "0.tar"),
        ("wds", "{0..1}.tar"),
        ("wds", ""),
        ("parquet", "data.parquet"),
        ("parquet", "*.parquet"),
        ("parquet", ""),
        ("llava", "llava.json"),
        ("coco", "coco.json"),
        ("jsonl", "rows.jsonl"),
    ],
)
def test_a_path_that_one_kind_fits_is_recognised(kind: str, path: str, tmp_path: Path) -> None:
    make_source(kind, tmp_path, IMAGES)
    source = open_source(f"{tmp_path}/{path}".rstrip("/"))
    assert source.uri.startswith(f"{kind}:")
    items = [item for shard in source.shards() for item in source.read(shard)]
    assert [item.data for item in items][:2] == [data for _, data in IMAGES][:2]


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_source("folder", tmp_path, IMAGES)
    monkeypatch.chdir(tmp_path)
    assert (
        open_source("pictures").uri == open_source("folder:./pictures").uri == f"folder:{tmp_path}/pictures"
    )
    assert open_source(f"file://{tmp_path}/pictures").uri == f"folder:{tmp_path}/pictures"


def test_a_folder_of_several_kinds_is_refused_with_commands(tmp_path: Path) -> None:
    make_source("wds", tmp_path, IMAGES)
    make_source("folder", tmp_path, IMAGES)
    found = refusal(tmp_path)
    assert f"folder:{tmp_path}" in found
    assert f"wds:{tmp_path}" in found
    for kind in ("folder", "wds"):
        assert open_source(f"{kind}:{tmp_path}").shards()
    shutil.rmtree(tmp_path / "pictures")
    assert open_source(str(tmp_path)).uri == f"wds:{tmp_path}"


def test_options_go_with_a_recognised_kind(tmp_path: Path) -> None:
    make_source("llava", tmp_path, IMAGES)
    uri = f"{tmp_path}/llava.json?images={tmp_path}/images"
    assert open_source(uri).uri == f"llava:{uri}"
    assert "takes images" in refusal(f"{tmp_path}/llava.json?split=train")
    assert "it takes follow_symlinks" in refusal(f"folder:{tmp_path}?x=1")


def test_what_is_not_recognised_lists_the_kinds(tmp_path: Path) -> None:
    (tmp_path / "x.bin").touch()
    (tmp_path / "x.json").write_text("17")
    (tmp_path / "empty").mkdir()
    for text in ("", "zip:/x", "wdss:/x.tar", f"{tmp_path}/x.bin", f"{tmp_path}/none"):
        found = refusal(text)
        assert all(f"{kind}:" in found for kind in KINDS), text
    assert "no kind 'zip'" in refusal("zip:/x")
    assert "neither a JSON list" in refusal(tmp_path / "x.json")
    assert "holds no images" in refusal(tmp_path / "empty")
    assert "hf:org/name" in refusal("org/name")
    assert "names no location" in refusal("wds:")
