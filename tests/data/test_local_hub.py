"""A folder that the datasets library reads is read inside itself, without network, or refused."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safevlm.data import Item, open_source
from safevlm.data.hub import FILES_UNREAD, IMAGES_UNREAD
from safevlm.data.saved import ROWS_PER_SHARD
from safevlm.errors import DataError
from tests.data.builders import drain, picture_bytes

SECRET = b"secret"


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """A server's address, and the paths that it was asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a Parquet file, beside one whose files must not be read."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for place, data in ((folder / "train.parquet", b"own"), (tmp_path / "secret" / "s.parquet", SECRET)):
        place.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"image": [data]}), place)
    return folder


def drained(uri: str) -> tuple[list[Item], str]:
    """As `drain`; a source that is refused, too, is its error."""
    try:
        return drain(open_source(uri))
    except DataError as refused:
        return [], str(refused)


def card(folder: Path, head: str, name: str = "README.md") -> None:
    (folder / name).write_text(f"---\n{head}\n---\n" if name == "README.md" else head)


OUTSIDE = (
    "../secret/s.parquet",
    "./../secret/*.parquet",
    "x/../../secret/s.parquet",
    "..\\secret",
    "{secret}/s.parquet",
    "{secret}/*",
    "~/x.parquet",
    "link/s.parquet",
    "link/*.parquet",
    "li*/../link/**",
    "file://{secret}/s.parquet",
    "file:{secret}/s.parquet",
    "local://{secret}/s.parquet",
    "{http}/evil.parquet",
    "{http}/*.parquet",
    "zip://x::{http}/evil.zip",
    "train.parquet::{http}/evil.zip",
    "hf://datasets/someone/evil/x.parquet",
    "memory://x.parquet",
)
FORMS = {
    "a text": "configs:\n- config_name: default\n  data_files: {0}",
    "a list": "configs:\n- config_name: default\n  data_files:\n  - train.parquet\n  - {0}",
    "a split": "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {0}",
    "a split's list": "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: [train.parquet, {0}]",
    "a folder": "configs:\n- config_name: default\n  data_dir: {0}",
    "another configuration": "configs:\n- config_name: default\n- config_name: other\n  data_files: {0}",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_card_reaches_nothing_outside(
    form: str, folder: Path, asked: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, paths = asked
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    (folder / "link").symlink_to(folder.parent / "secret")
    for name in ("README.md", ".huggingface.yaml"):
        for outside in OUTSIDE:
            named = outside.format(secret=folder.parent / "secret", http=url)
            card(folder, FORMS[form].format(json.dumps(named)), name)
            items, error = drained(f"hf:{folder}?config=default")
            assert not any(item.data == SECRET for item in items), outside
            assert "which is a URL" in error or "leaves the folder" in error or "leads out" in error, outside
            assert name in error or "leads out" in error
        (folder / name).unlink()
    assert paths == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mark", ["\ufeff", "\n \n"])
def test_a_card_is_found_wherever_the_library_finds_it(form: str, mark: str, folder: Path) -> None:
    (folder / "README.md").write_text(f"{mark}---\n{FORMS[form].format('../secret/s.parquet')}\n---\n")
    items, _ = drained(f"hf:{folder}?config=default")
    assert not any(item.data == SECRET for item in items)


def test_what_a_card_chooses_inside_is_read(folder: Path) -> None:
    (folder / "sub").mkdir()
    shutil.copy(folder / "train.parquet", folder / "sub" / "x.parquet")
    for pattern in ("sub/x.parquet", "sub/*.parquet", "**/x.parquet", "./sub/*"):
        card(
            folder,
            f"license: mit\nconfigs:\n- config_name: one\n  data_files:\n  - split: test\n    path: '{pattern}'",
        )
        items, error = drained(f"hf:{folder}?split=test")
        assert (error, [item.data for item in items]) == ("", [b"own"]), pattern
    card(
        folder,
        "configs:\n- config_name: one\n  data_dir: sub\n- config_name: two\n  data_files: train.parquet",
    )
    assert [item.data for item in drained(f"hf:{folder}?config=one")[0]] == [b"own"]
    (folder / "README.md").write_text("A card *without* a head, and &c *d.")
    (folder / "sub" / "x.parquet").unlink()
    assert [item.data for item in drained(f"hf:{folder}")[0]] == [b"own"]


@pytest.mark.parametrize(
    "head",
    [
        "x: [",
        "x: !!python/object/apply:os.system ['exit 1']",
        "- a list",
        "a text",
        "configs: 7",
        "configs: {a: b}",
        "configs: [x]",
        "configs:\n- config_name: [1]",
        "configs:\n- data_files: train.parquet",
        "configs:\n- config_name: a\n  data_files: 7",
        "configs:\n- config_name: a\n  data_files: {train: train.parquet}",
        "configs:\n- config_name: a\n  data_files:\n  - split: 7\n    path: train.parquet",
        "configs:\n- config_name: a\n  data_files:\n  - split: train\n    path: {a: b}",
        "configs:\n- config_name: a\n  data_dir: [x]",
        "configs:\n- config_name: a\n  features: 7",
        "configs:\n- config_name: a\n  features:\n  - name: x\n    dtype: os.system",
        "dataset_info: [[]]",
        "dataset_info:\n  features: [1, 2]",
        "a: &a [x]\nb: *a",
        "a: &a {x: 1}\nb: {<<: [*a, *a]}",
        "a: &a [*a]\nconfigs: *a",
        "[" * 5000,
        "x: \x01",
    ],
)
def test_a_malformed_card_is_an_error_of_ours(head: str, folder: Path) -> None:
    card(folder, head)
    items, error = drained(f"hf:{folder}")
    assert str(folder) in error
    assert len(error) < 1000
    assert items == []


def test_aliases_that_swell_take_no_time(folder: Path) -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    card(folder, "\n".join(["a0: &a0 [x]", *levels, "configs: *a29"]))
    assert "aliases" in drained(f"hf:{folder}")[1]


def test_symlinks_out_of_the_folder_are_not_followed(folder: Path) -> None:
    (folder / "train.parquet").unlink()
    (folder / "train.parquet").symlink_to(folder.parent / "secret" / "s.parquet")
    items, error = drained(f"hf:{folder}")
    assert (items, "leads out of the folder" in error) == ([], True)
    (folder / "train.parquet").unlink()
    (folder / "sub").symlink_to(folder.parent / "secret")
    items, error = drained(f"hf:{folder}")
    assert items == []
    assert error
    (folder / "README.md").symlink_to(folder.parent / "secret" / "card.md")
    (folder.parent / "secret" / "card.md").write_text("x")
    assert "leads out of the folder" in drained(f"hf:{folder}")[1]


def test_what_lies_outside_changes_no_signature(folder: Path) -> None:
    (folder / "log.txt").symlink_to("/proc/self/status")
    (folder / "other.txt").symlink_to(folder.parent / "secret" / "s.parquet")
    before = [shard.signature for shard in open_source(f"hf:{folder}").shards()]
    (folder.parent / "secret" / "s.parquet").write_bytes(b"other")
    assert [shard.signature for shard in open_source(f"hf:{folder}").shards()] == before
    pq.write_table(pa.table({"image": [b"another"]}), folder / "train.parquet")
    assert [shard.signature for shard in open_source(f"hf:{folder}").shards()] != before


@pytest.mark.parametrize(
    "name", ["a.tar", "a.h5", "a.eval", "a.lance", "a.zip", "a.toml", "folder.py", "a.pkl", "a.xml"]
)
def test_formats_that_lead_elsewhere_or_run_code_are_refused(name: str, folder: Path) -> None:
    (folder / "train.parquet").unlink()
    if name == "a.zip":
        shutil.make_archive(str(folder / "a"), "zip", folder.parent / "secret")
    else:
        (folder / name).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    items, error = drained(f"hf:{folder}")
    assert items == []
    assert str(folder) in error
    assert not Path("ran").exists()


def test_names_of_files_that_read_as_chains_are_refused(folder: Path, asked: tuple[str, list[str]]) -> None:
    place = folder / f"x::{asked[0].replace('//', '/')}"
    place.mkdir(parents=True)
    shutil.move(folder / "train.parquet", place / "evil.parquet")
    assert drained(f"hf:{folder}")[1]
    assert asked[1] == []


def test_urls_and_paths_in_rows_are_errors_of_their_rows(folder: Path, asked: tuple[str, list[str]]) -> None:
    (folder / "train.parquet").unlink()
    (folder / "a.png").write_bytes(picture_bytes())
    names = ["a.png", f"{asked[0]}/a.png", "/etc/passwd", "../secret/s.parquet", f"zip://x::{asked[0]}/a.zip"]
    (folder / "train.jsonl").write_text("".join(json.dumps({"image": name}) + "\n" for name in names))
    items, error = drained(f"hf:{folder}?image=image")
    if error:  # the library sees a folder of images, since there is one
        os.remove(folder / "a.png")
        items, error = drained(f"hf:{folder}?image=image")
    assert error == ""
    assert [bool(item.error) for item in items[1:]] == [True] * 4
    assert asked[1] == []


@pytest.mark.parametrize("name", ["../secret/s.parquet", "/etc/passwd", "{http}/b.png", "file:///etc/passwd"])
def test_metadata_of_a_folder_of_images_reaches_nothing_outside(
    name: str, folder: Path, asked: tuple[str, list[str]]
) -> None:
    (folder / "train.parquet").unlink()
    (folder / "a.png").write_bytes(picture_bytes())
    rows = f"file_name,text\n{name.format(http=asked[0])},y\n"
    (folder / "metadata.csv").write_text(rows)
    items, error = drained(f"hf:{folder}")
    assert all(item.data is None for item in items)
    assert error or all(item.error for item in items)
    assert asked[1] == []


def test_a_parquet_file_that_breaks_its_promises(folder: Path) -> None:
    (folder / "train.parquet").unlink()
    texts = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    captions = pa.ListArray.from_arrays([0, 1, 2, 3], texts)
    pq.write_table(pa.table({"image": [b"0", b"1", b"2"], "captions": captions}), folder / "train.parquet")
    items, error = drained(f"hf:{folder}")
    assert (error, [item.text for item in items]) == ("", ["a", "\\xff", "c"])
    table = pa.Table.from_arrays([pa.array([b"0"]), pa.array([b"1"])], names=["image", "image"])
    pq.write_table(table, folder / "train.parquet")
    assert str(folder) in drained(f"hf:{folder}")[1]


# What save_to_disk writes.


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
    items, error = drained(f"hf:{folder}")
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
    items, error = drained(f"hf:{folder}?split=train")
    assert items == []
    assert str(folder) in error


@pytest.mark.parametrize(
    "content", ["{", "[]", "7", "{}", "\ufeff", "[" * 100_000, '{"_data_files": 7}', '{"_data_files": [7]}']
)
def test_a_malformed_state_is_an_error_of_ours(content: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved")
    (folder / "state.json").write_text(content)
    assert "state.json" in drained(f"hf:{folder}")[1]


def test_what_else_the_state_says_is_not_followed(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved")
    change(folder / "state.json", lambda state: state | {"_format_type": "jax", "_format_kwargs": {"x": 1}})
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"image": {"_type": "os.system"}}}))
    assert [item.data for item in drained(f"hf:{folder}")[0]] == [b"0", b"1", b"2"]
    change(folder / "state.json", lambda state: state | {"_split": "train"})
    assert "has the split 'train' alone" in drained(f"hf:{folder}?split=test")[1]


def test_strings_of_a_saved_data_set_that_are_no_utf8(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved")
    (path,) = folder.glob("*.arrow")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"text 1", b"text \xff"))
    items, error = drained(f"hf:{folder}")
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
    items, error = drained(f"hf:{folder}")
    assert (error, [item.data for item in items]) == ("", [b"0", b"1", b"2"])
    assert [item.text for item in items] == (["", "", ""] if nested else ["a", "b\\xff", "a"])


def test_offsets_of_a_saved_data_set_that_lead_out_of_it(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved")
    (path,) = folder.glob("*.arrow")
    data = path.read_bytes()
    offsets = b"".join(number.to_bytes(4, "little") for number in (0, 1, 2, 3))
    assert offsets in data
    path.write_bytes(data.replace(offsets, b"".join(n.to_bytes(4, "little") for n in (0, 1 << 30, 2, 3)), 1))
    items, error = drained(f"hf:{folder}")
    assert "breaks off" in error
    assert items == []
    path.write_bytes(data[: len(data) // 2])
    assert drained(f"hf:{folder}")[1]


def passed_over(folder: Path) -> tuple[int, Counter[str]]:
    """How many images a folder gives, and what it is said to pass over."""
    source, counts = open_source(f"hf:{folder}"), Counter[str]()
    return sum(1 for shard in source.shards() for _ in source.read(shard, counts)), counts


def test_files_that_no_split_reads_are_counted(folder: Path) -> None:
    (folder / "README.md").write_text("words")
    (folder / "1.png").write_bytes(picture_bytes(1))  # a path in a row may name it
    assert passed_over(folder) == (1, {})
    for name in ("more.parquet", "rows.jsonl"):
        shutil.copy(folder / "train.parquet", folder / name)
    assert passed_over(folder) == (1, {FILES_UNREAD: 2})


def test_images_that_metadata_do_not_name_are_counted(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"{number}.png").write_bytes(picture_bytes(number))
    (tmp_path / "hash").write_bytes(picture_bytes(4))
    assert passed_over(tmp_path) == (3, {FILES_UNREAD: 1})
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "2.png", "text": "two"}))
    assert passed_over(tmp_path) == (1, {FILES_UNREAD: 1, IMAGES_UNREAD: 2})


def test_a_folder_behind_a_symlink_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert passed_over(tmp_path / "link") == (1, {})
