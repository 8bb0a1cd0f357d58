"""What `save_to_disk` wrote is read as the datasets library reads it, and only from its own folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from safevlm.data import open_source
from safevlm.data.save_to_disk import ROWS_PER_SHARD
from tests.data.builders import drain_uri


def saved(folder: Path, rows: int = 3, **options: Any) -> Path:
    features = datasets.Features(
        {"image": datasets.Value("binary"), "captions": datasets.List(datasets.Value("string"))}
    )
    columns = {"image": [b"%d" % n for n in range(rows)], "captions": [[f"text {n}"] for n in range(rows)]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder, **options)
    return folder


def test_shards_of_a_saved_data_set_are_those_of_the_library(tmp_path: Path) -> None:
    rows = 2 * ROWS_PER_SHARD + 3
    source = open_source(f"hf:{saved(tmp_path / 'saved', rows, num_shards=4)}")
    library = datasets.load_from_disk(tmp_path / "saved")
    shards = source.shards()
    assert len(shards) == 3
    for number, shard in enumerate(shards):
        expected = library.shard(3, number, contiguous=True)
        items = list(source.read(shard))
        assert [(item.data, item.text) for item in items] == [
            (row["image"], row["captions"][0]) for row in expected
        ]


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    path.write_text(json.dumps(edit(value) or value))


@pytest.mark.parametrize(
    "name", ["../secret/{0}", "{1}/{0}", "file://{1}/{0}", "link.arrow", "", ".", "none", 7, None]
)
def test_a_saved_data_set_names_its_own_files_alone(name: Any, tmp_path: Path) -> None:
    folder, secret = saved(tmp_path / "saved"), saved(tmp_path / "secret", 50)
    (arrow,) = (path.name for path in secret.glob("*.arrow"))
    (folder / "link.arrow").symlink_to(secret / arrow)
    name = name.format(arrow, secret) if isinstance(name, str) else name
    change(folder / "state.json", lambda state: state["_data_files"].__setitem__(0, {"filename": name}))
    items, error = drain_uri(f"hf:{folder}")
    assert items == []
    assert "state.json" in error or "leads out" in error


@pytest.mark.parametrize(
    "splits", [["../secret"], ["/{0}"], ["train", "link"], "train", [], [7], {"train": 1}, None]
)
def test_a_saved_data_set_names_its_own_splits_alone(splits: Any, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    saved(folder / "train")
    saved(tmp_path / "secret", 50)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "dataset_dict.json").write_text(
        json.dumps({"splits": splits}).replace("{0}", str(tmp_path / "secret"))
    )
    items, error = drain_uri(f"hf:{folder}?split=train")
    assert items == []
    assert str(folder) in error


@pytest.mark.parametrize(
    "content", ["{", "[]", "7", "{}", "\ufeff", "[" * 100_000, '{"_data_files": 7}', '{"_data_files": [7]}']
)
def test_a_malformed_state_is_an_error_of_ours(content: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved")
    (folder / "state.json").write_text(content)
    assert "state.json" in drain_uri(f"hf:{folder}")[1]


def test_what_else_the_state_says_is_not_followed(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved")
    change(folder / "state.json", lambda state: state | {"_format_type": "jax", "_format_kwargs": {"x": 1}})
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"image": {"_type": "os.system"}}}))
    assert [item.data for item in drain_uri(f"hf:{folder}")[0]] == [b"0", b"1", b"2"]
    change(folder / "state.json", lambda state: state | {"_split": "train"})
    assert "has the split 'train' alone" in drain_uri(f"hf:{folder}?split=test")[1]


def test_strings_of_a_saved_data_set_that_are_no_utf8(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved")
    (path,) = folder.glob("*.arrow")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"text 1", b"text \xff"))
    items, error = drain_uri(f"hf:{folder}")
    assert (error, [item.text for item in items]) == ("", ["text 0", "text \\xff", "text 2"])


@pytest.mark.parametrize("nested", [False, True])
def test_a_dictionary_of_a_saved_data_set_with_strings_that_are_no_utf8(nested: bool, tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved")
    (path,) = folder.glob("*.arrow")
    names = pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 0]), pa.array([b"a", b"b\xff"], pa.binary()).view(pa.string())
    )
    images = pa.array([b"0", b"1", b"2"])
    if nested:
        table = pa.table({"image": pa.StructArray.from_arrays([images, names], ["bytes", "path"])})
    else:
        table = pa.table({"image": images, "text": names})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    items, error = drain_uri(f"hf:{folder}")
    assert (error, [item.data for item in items]) == ("", [b"0", b"1", b"2"])
    assert [item.text for item in items] == (["", "", ""] if nested else ["a", "b\\xff", "a"])


def test_offsets_of_a_saved_data_set_that_lead_out_of_it(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved")
    (path,) = folder.glob("*.arrow")
    data = path.read_bytes()
    offsets = b"".join(number.to_bytes(4, "little") for number in (0, 1, 2, 3))
    assert offsets in data
    path.write_bytes(data.replace(offsets, b"".join(n.to_bytes(4, "little") for n in (0, 1 << 30, 2, 3)), 1))
    items, error = drain_uri(f"hf:{folder}")
    assert "breaks off" in error
    assert items == []
    path.write_bytes(data[: len(data) // 2])
    assert drain_uri(f"hf:{folder}")[1]
