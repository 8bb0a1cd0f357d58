"""The datasets library on local folders, which it reads as it reads the hub."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from safevlm.data import Item, open_source
from safevlm.errors import DataError
from tests.data.builders import make_source, picture_bytes

IMAGES = [(f"{number:03d}.png", picture_bytes(number)) for number in range(6)]
TEXTS = [f"caption {number}" for number in range(6)]


def read(uri: str | Path) -> list[Item]:
    source = open_source(str(uri))
    return [item for shard in source.shards() for item in source.read(shard)]


def dataset(start: int = 0, stop: int = 6) -> datasets.Dataset:
    features = datasets.Features({"picture": datasets.Image(), "caption": datasets.Value("string")})
    rows = {
        "picture": [{"bytes": data, "path": name} for name, data in IMAGES[start:stop]],
        "caption": TEXTS[start:stop],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def test_files_are_shards(tmp_path: Path) -> None:
    source = open_source(make_source("hf", tmp_path, IMAGES, TEXTS))
    shards = source.shards()
    assert [shard.name for shard in shards] == ["train-00000-of-00002", "train-00001-of-00002"]
    assert [item.data for item in source.read(shards[1])] == [data for _, data in IMAGES[3:]]


def test_a_saved_data_set_is_recognised(tmp_path: Path) -> None:
    dataset().save_to_disk(tmp_path / "saved", num_shards=2)
    items = read(tmp_path / "saved")
    assert [(item.data, item.text) for item in items] == [
        (data, text) for (_, data), text in zip(IMAGES, TEXTS, strict=True)
    ]
    assert len({item.id for item in items}) == 6


def test_several_splits_are_refused_with_the_choices(tmp_path: Path) -> None:
    splits = datasets.DatasetDict(train=dataset(0, 4), test=dataset(4, 6))
    splits.save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"several splits; add \?split=train or \?split=test"):
        read(tmp_path / "saved")
    with pytest.raises(DataError, match="no split 'dev'"):
        read(f"{tmp_path}/saved?split=dev")
    assert [item.text for item in read(f"{tmp_path}/saved?split=test")] == TEXTS[4:]


def test_the_library_s_own_folder_of_pictures(tmp_path: Path) -> None:
    """The folder's metadata gives captions; the pictures come as paths."""
    folder = tmp_path / "train"
    folder.mkdir()
    for name, data in IMAGES:
        (folder / name).write_bytes(data)
    rows = [{"file_name": name, "text": text} for (name, _), text in zip(IMAGES, TEXTS, strict=True)]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    items = read(f"hf:{tmp_path}")
    assert sorted((item.data or b"", item.text) for item in items) == sorted(
        (data, text) for (_, data), text in zip(IMAGES, TEXTS, strict=True)
    )


def test_metadata_that_points_outside_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(IMAGES[0][1])
    (folder / "b.png").symlink_to(tmp_path / "secret.png")
    items = read(f"hf:{tmp_path / 'data'}")
    assert [item.data for item in items] == [IMAGES[0][1], None]
    assert "leaves the folder" in items[1].error


def test_a_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no revision"):
        open_source(f"hf:{tmp_path}?revision=main")


def test_a_folder_without_data_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="any data files"):
        read(f"hf:{tmp_path}")


def test_columns_can_be_named(tmp_path: Path) -> None:
    dataset().rename_column("caption", "note").save_to_disk(tmp_path / "saved")
    assert read(f"{tmp_path}/saved?image=picture&text=note")[5].text == TEXTS[5]
    with pytest.raises(DataError, match="no column 'x' for image; it has picture"):
        read(f"{tmp_path}/saved?image=x")


def test_a_data_set_that_cannot_be_reached_says_what_to_check() -> None:
    with pytest.raises(DataError, match=r"nobody/none: cannot be opened .*network"):
        open_source("hf:nobody/none").shards()
