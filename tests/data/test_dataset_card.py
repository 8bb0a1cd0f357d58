"""A data set's card (README.md) makes the datasets library read files of its own folder, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.data.builders import SECRET, drain_uri


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
            items, error = drain_uri(f"hf:{folder}?config=default")
            assert not any(item.data == SECRET for item in items), outside
            assert "which is a URL" in error or "leaves the folder" in error or "leads out" in error, outside
            assert name in error or "leads out" in error
        (folder / name).unlink()
    assert paths == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("before", ["\ufeff", "\n \n"])
def test_a_card_is_found_wherever_the_library_finds_it(form: str, before: str, folder: Path) -> None:
    (folder / "README.md").write_text(f"{before}---\n{FORMS[form].format('../secret/s.parquet')}\n---\n")
    items, _ = drain_uri(f"hf:{folder}?config=default")
    assert not any(item.data == SECRET for item in items)


def test_what_a_card_chooses_inside_is_read(folder: Path) -> None:
    (folder / "sub").mkdir()
    shutil.copy(folder / "train.parquet", folder / "sub" / "x.parquet")
    for pattern in ("sub/x.parquet", "sub/*.parquet", "**/x.parquet", "./sub/*"):
        card(
            folder,
            f"license: mit\nconfigs:\n- config_name: one\n  data_files:\n  - split: test\n    path: '{pattern}'",
        )
        items, error = drain_uri(f"hf:{folder}?split=test")
        assert (error, [item.data for item in items]) == ("", [b"own"]), pattern
    card(
        folder,
        "configs:\n- config_name: one\n  data_dir: sub\n- config_name: two\n  data_files: train.parquet",
    )
    assert [item.data for item in drain_uri(f"hf:{folder}?config=one")[0]] == [b"own"]
    (folder / "README.md").write_text("A card *without* a head, and &c *d.")
    (folder / "sub" / "x.parquet").unlink()
    assert [item.data for item in drain_uri(f"hf:{folder}")[0]] == [b"own"]


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
    items, error = drain_uri(f"hf:{folder}")
    assert str(folder) in error
    assert len(error) < 1000
    assert items == []


def test_aliases_that_swell_take_no_time(folder: Path) -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    card(folder, "\n".join(["a0: &a0 [x]", *levels, "configs: *a29"]))
    assert "aliases" in drain_uri(f"hf:{folder}")[1]
