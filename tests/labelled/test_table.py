"""The training table: what is read, and what each bad row is told."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import sys

import numpy as np
import pytest

from safevlm import Taxonomy
from safevlm.errors import DataError
from safevlm.labelled import Layout, Needs, read_table
from safevlm.types import IGNORED
from tests.training.builders import png, rows, shade, write_jsonl, write_parquet

TAXONOMY = Taxonomy.preset("safevlm")
TEXT = Needs(image=False, text=True)


def row(**changes):
    values = {
        "image": "0.png",
        "prompt": "What?",
        "response": "A thing.",
        "risk_level": "safe",
        "risk_category": "clean",
        "split": "train",
    }
    return values | changes


BAD = {
    "unknown level": (row(risk_level="deadly"), "risk_level", "not in taxonomy 'safevlm'"),
    "level number": (row(risk_level=2), "risk_level", "is 2"),
    "unknown category": (row(risk_category="weapons"), "risk_category", "politics, illegal"),
    "unknown split": (row(split="holdout"), "split", "known are train"),
    "unknown labels_of": (row(labels_of="prompt"), "labels_of", "is 'prompt'; known are image and pair"),
    "a pair without a prompt": (row(labels_of="pair", prompt=" "), "prompt", "is empty"),
    "prompt not text": (row(prompt=7), "prompt", "is a int"),
    "empty response": (row(response=" "), "response", "is empty"),
    "empty prompt": (row(prompt=None), "prompt", "is empty"),
    "missing file": (row(image="none.png"), "image", "no such file"),
    "climbs out": (row(image="../x.png"), "image", "leads out of the table's folder"),
    "absolute": (row(image="/etc/hostname"), "image", "leads out of the table's folder"),
    "a directory": (row(image="."), "image", "is a directory"),
    "image of a wrong kind": (row(image=3), "image", "not bytes or a path"),
    "not an image": (row(image="bad.jsonl"), "image", "not an image"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_row_is_named_with_file_row_column_and_reason(folder, kind):
    bad, column, reason = BAD[kind]
    path = write_jsonl(folder / "bad.jsonl", [row(), bad, row(image="1.png")])
    with pytest.raises(DataError) as raised:
        read_table(path, TAXONOMY, needs=TEXT)
    message = str(raised.value)
    assert f"{path}: row 2, column {column}: " in message
    assert reason in message
    assert "1 bad of 3 rows" in message
    assert "skip_bad" in message


def test_empty_image_is_bad_only_where_it_is_needed(folder):
    path = write_jsonl(folder / "t.jsonl", [row(image=None)])
    assert read_table(path, TAXONOMY, needs=TEXT)[0].image is None
    with pytest.raises(DataError, match="row 1, column image: is empty"):
        read_table(path, TAXONOMY)


def test_line_that_is_no_json_and_row_that_is_no_object(folder):
    path = folder / "t.jsonl"
    path.write_text(json.dumps(row()) + "\n{oops\n[1]\n\n" + json.dumps(row()) + "\n")
    with pytest.raises(DataError) as raised:
        read_table(path, TAXONOMY)
    assert "row 2, column (line): is not JSON" in str(raised.value)
    assert "row 3, column (row): is a list" in str(raised.value)
    assert len(read_table(path, TAXONOMY, skip_bad=True)) == 2


def test_truncated_image_in_parquet(tmp_path):
    table = rows(4)
    table[2]["image"]["bytes"] = table[2]["image"]["bytes"][:60]
    path = write_parquet(tmp_path / "t.parquet", table)
    with pytest.raises(DataError, match=r"t\.parquet: row 3, column image: .*damaged or truncated"):
        read_table(path, TAXONOMY)


def test_skip_bad_counts_lists_and_drops(folder, caplog):
    path = write_jsonl(folder / "t.jsonl", [row(), *(bad for bad, _, _ in BAD.values())])
    (folder / "bad.jsonl").write_text("no image")
    kept = read_table(path, TAXONOMY, needs=TEXT, skip_bad=True)
    assert len(kept) == 1
    assert f"dropped {len(BAD)} bad rows, kept 1" in caplog.text
    assert caplog.text.count("bad row: ") == len(BAD)


def test_nothing_left_is_an_error(folder):
    with pytest.raises(DataError, match="every row is bad"):
        read_table(write_jsonl(folder / "t.jsonl", [row(image="no")]), TAXONOMY, skip_bad=True)
    with pytest.raises(DataError, match="has no rows"):
        read_table(write_jsonl(folder / "e.jsonl", []), TAXONOMY)
    (folder / "sub").mkdir()
    with pytest.raises(DataError, match="has no rows"):
        read_table(folder / "sub", TAXONOMY)
    with pytest.raises(DataError, match="no such table"):
        read_table(folder / "none.parquet", TAXONOMY)
    with pytest.raises(DataError, match="tables end in"):
        read_table(folder / "0.png", TAXONOMY)


def test_broken_files_are_named(folder):
    (folder / "t.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match=r"t\.parquet: is not a whole Parquet file"):
        read_table(folder / "t.parquet", TAXONOMY)
    (folder / "t.json").write_text("{}")
    with pytest.raises(DataError, match="holds no list of rows"):
        read_table(folder / "t.json", TAXONOMY)


NOT_WHOLE = {
    "a second list": (
        "t.json",
        b'[{"image": "0.png"}]\n[{"image": "1.png"}]',
        "is not JSON .*behind the end",
    ),
    "lines": ("t.json", b'{"image": "0.png"}\n{"image": "1.png"}\n', "one object per line, name it .jsonl"),
    "text behind": ("t.json", b'[{"image": "0.png"}] and more', "is not JSON"),
    "deep": ("t.json", b"[" * 100_000, "is not JSON"),
    "zstd": ("t.json", b"\x28\xb5\x2f\xfd....", r"t\.json: is packed with zstd"),
    "zip": ("t.jsonl", b"PK\3\4....", r"t\.jsonl: is packed with zip"),
    "cut off": (
        "t.jsonl",
        gzip.compress(b'{"image": "0.png"}\n' * 9)[:-9],
        r"t\.jsonl: cannot be unpacked further",
    ),
    "Parquet": ("t.jsonl", b"PAR1....", "is Parquet; name it .parquet"),
}


@pytest.mark.parametrize("kind", NOT_WHOLE)
def test_a_file_that_is_not_read_whole_is_refused(folder, kind):
    name, data, reason = NOT_WHOLE[kind]
    (folder / name).write_bytes(data)
    with pytest.raises(DataError, match=reason):
        read_table(folder / name, TAXONOMY, skip_bad=True)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_json_is_read_in_its_encodings_as_by_a_scan(folder, suffix, encoding, pack):
    made = [json.dumps(row(prompt=prompt), ensure_ascii=False) for prompt in ("Où?", "\u4f60\u597d?")]
    text = f"[{', '.join(made)}]" if suffix == "json" else "\n".join(made)
    (folder / f"t.{suffix}").write_bytes(pack(text.encode(encoding)))
    found = read_table(folder / f"t.{suffix}", TAXONOMY)
    assert [row.prompt for row in found] == ["Où?", "\u4f60\u597d?"]


def test_a_row_of_a_list_that_is_no_object_or_says_two_things_is_named(folder):
    rows_ = [
        json.dumps(row()),
        "[1]",
        '{"image": "0.png", "split": "train", "split": "test"}',
        json.dumps(row()),
    ]
    (folder / "t.json").write_text(f"[{', '.join(rows_)}]")
    with pytest.raises(DataError) as raised:
        read_table(folder / "t.json", TAXONOMY)
    assert "row 2, column (row): is a list" in str(raised.value)
    assert "row 3, column split: stands in the row twice" in str(raised.value)
    assert len(read_table(folder / "t.json", TAXONOMY, skip_bad=True)) == 2


def test_a_file_is_opened_once_for_its_pixels_and_its_hash(folder):
    path = write_jsonl(folder / "t.jsonl", [row(), row(image="1.png")])
    opened = []
    sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
    found = read_table(path, TAXONOMY)
    images = [str(name) for name in opened if str(name).endswith(".png")]
    assert sorted(images) == [str(folder / "0.png"), str(folder / "1.png")]
    keys = [hashlib.sha256((folder / f"{number}.png").read_bytes()).hexdigest() for number in range(2)]
    assert [row.key for row in found] == keys


def test_columns_of_other_names(folder):
    values = row(
        risk_level=None, risk_category="kitchen", severity="Refuse", label="knife", image=["0.png", "1.png"]
    )
    path = write_jsonl(folder / "t.jsonl", [values, values | {"severity": "", "risk_category": None}])
    layout = Layout(level="severity", extra=("risk_category", "label"), first_image=True)
    found = read_table(path, TAXONOMY, layout=layout)
    assert [row.level for row in found] == [TAXONOMY.levels.index("refuse"), IGNORED]
    assert [row.category for row in found] == [IGNORED, IGNORED]
    assert [row.extra for row in found] == [
        {"risk_category": "kitchen", "label": "knife"},
        {"label": "knife"},
    ]
    assert [row.image.name for row in found] == ["0.png", "0.png"]
    write_jsonl(path, [values | {"severity": "deadly"}])
    with pytest.raises(DataError, match="row 1, column severity: is 'deadly', not in taxonomy"):
        read_table(path, TAXONOMY, layout=layout)
    with pytest.raises(DataError, match="row 1, column image: names 2 images"):
        read_table(path, TAXONOMY)


def test_images_that_need_not_be_decoded_are_hashed_alone(folder):
    (folder / "damaged.png").write_bytes(png(shade(0, 0))[:60])
    path = write_jsonl(folder / "t.jsonl", [row(image="damaged.png")])
    with pytest.raises(DataError, match="damaged or truncated"):
        read_table(path, TAXONOMY)
    (found,) = read_table(path, TAXONOMY, needs=Needs(decoded=False))
    assert found.key == hashlib.sha256(png(shade(0, 0))[:60]).hexdigest()
    write_jsonl(path, [row(image="gone.png")])
    with pytest.raises(DataError, match="row 1, column image: .*no such file"):
        read_table(path, TAXONOMY, needs=Needs(decoded=False))


def test_indented_records_and_deep_nesting_cost_no_row_silently(folder):
    (folder / "t.jsonl").write_text(
        json.dumps(row(), indent=1) + "\n" + "[" * 100_000 + "\n" + json.dumps(row())
    )
    with pytest.raises(DataError, match=r"9 bad of 10 rows"):
        read_table(folder / "t.jsonl", TAXONOMY)


def test_a_parquet_column_that_stands_twice_is_refused(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["image", "risk_level", "risk_level"]
    pq.write_table(pa.Table.from_arrays([["0.png"], ["safe"], ["refuse"]], names=names), folder / "t.parquet")
    with pytest.raises(DataError, match="several columns risk_level"):
        read_table(folder / "t.parquet", TAXONOMY)


def test_parquet_text_that_is_no_utf8_costs_its_row(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    prompts = pa.array([b"What?", b"What\xff?", b"Who?"]).view(pa.string())
    pq.write_table(pa.table({"image": ["0.png", "1.png", "2.png"], "prompt": prompts}), folder / "t.parquet")
    with pytest.raises(DataError, match="row 2, column prompt: cannot be read .*utf-8"):
        read_table(folder / "t.parquet", TAXONOMY)
    kept = read_table(folder / "t.parquet", TAXONOMY, skip_bad=True)
    assert [found.prompt for found in kept] == ["What?", "Who?"]


def test_split_in_the_names_of_parquet_files(tmp_path, caplog):
    for split in ("train", "validation", "test"):
        unsplit = [{k: v for k, v in row.items() if k != "split"} for row in rows(2)]
        write_parquet(tmp_path / f"{split}-00000-of-00001.parquet", unsplit)
    write_parquet(tmp_path / "more.parquet", rows(1))
    (tmp_path / "extra.jsonl").write_text("{}")
    found = read_table(tmp_path, TAXONOMY)
    assert [row.split for row in found] == ["train", "test", "test", "train", "train", "tune", "tune"]
    assert "4 Parquet files, not the 1 other entries" in caplog.text


def test_parquet_image_layouts(tmp_path):
    (tmp_path / "0.png").write_bytes(png(shade(0, 0)))
    data = png(shade(1, 1))
    for name, image in (("hf", {"bytes": data, "path": "x"}), ("raw", data), ("path", "0.png")):
        path = write_parquet(tmp_path / f"{name}.parquet", [row(image=image, label="kept out")])
        found = read_table(path, TAXONOMY)[0]
        assert found.open().size == (16, 16)
        assert len(found.key) == 64
    assert len(read_table(tmp_path, TAXONOMY)) == 3  # a folder of Parquet files


def test_empty_labels_are_ignored_and_missing_text_is_fine_for_the_head(folder):
    path = write_jsonl(folder / "t.jsonl", [{"image": "0.png", "risk_level": "", "risk_category": None}])
    found = read_table(path, TAXONOMY)[0]
    assert (found.level, found.category, found.prompt, found.response, found.split) == (
        IGNORED,
        IGNORED,
        "",
        "",
        "",
    )


def test_split_names(folder):
    names = ["train", "tune", "val", "validation", "dev", "test", "TRAIN", ""]
    path = write_jsonl(folder / "t.jsonl", [row(split=name) for name in names])
    expected = ["train", "tune", "tune", "tune", "tune", "test", "train", ""]
    assert [found.split for found in read_table(path, TAXONOMY)] == expected


def authors(kind, level, **more):
    turns = [
        {"from": "human", "value": "<image>\nWho is it?"},
        {"from": "gpt", "value": "I will not say."},
        {"from": "human", "value": "And now?"},
    ]
    return {"id": 1, "image": "0.png", "safe_type": kind, "safe_level": level, "conversations": turns, **more}


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_authors_json_is_read_as_it_is(folder, suffix):
    table = [authors(0, 3), authors("4", 1), authors(6, 0)]
    path = folder / f"t.{suffix}"
    path.write_text(json.dumps(table)) if suffix == "json" else write_jsonl(path, table)
    found = read_table(path, TAXONOMY, needs=TEXT)
    names = TAXONOMY.category_names
    assert [(names[r.category], TAXONOMY.levels[r.level]) for r in found] == [
        ("politics", "refuse"),
        ("privacy", "caution"),
        ("clean", "safe"),
    ]
    assert found[0].prompt == "Who is it?"
    assert found[0].response == "I will not say."


def test_authors_bad_rows(folder):
    table = [authors(7, 0), authors(0, 4), authors(0, True), authors(0, 0, conversations="hi")]
    with pytest.raises(DataError) as raised:
        read_table(write_jsonl(folder / "t.jsonl", table), TAXONOMY)
    for number, column in enumerate(["safe_type", "safe_level", "safe_level", "conversations"], 1):
        assert f"row {number}, column {column}: " in str(raised.value)
    mini = Taxonomy.preset("safevlm-mini")
    with pytest.raises(
        DataError, match="column risk_category: is 'politics', not in taxonomy 'safevlm-mini'"
    ):
        read_table(write_jsonl(folder / "t.jsonl", [authors(0, 0)]), mini)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_a_damaged_parquet_file_makes_its_parser_raise_names_the_file(folder, seed):
    path = write_parquet(folder / "t.parquet", rows(40))
    whole, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for place in random.integers(len(whole) // 2, len(whole), 20):
        whole[place] = random.integers(256)
    path.write_bytes(whole)
    said = ""
    try:
        found = read_table(path, TAXONOMY, skip_bad=True)
    except DataError as error:  # anything else would be a fault of ours
        found, said = [], str(error)
    assert all(row.image is not None for row in found)
    assert found or "t.parquet" in said


def test_symlink_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "outside.png").write_bytes(png(shade(0, 0)))
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(DataError, match="leads out"):
        read_table(write_jsonl(inside / "t.jsonl", [row(image="link.png")]), TAXONOMY)


def test_labels_are_of_the_image_unless_the_table_says_pair(folder):
    made = [row(), row(labels_of=""), row(labels_of="image"), row(labels_of=" Pair")]
    found = read_table(write_jsonl(folder / "of.jsonl", made), TAXONOMY)
    assert [entry.pair for entry in found] == [False, False, False, True]
    path = write_jsonl(folder / "alone.jsonl", [row(labels_of="pair", prompt="")])
    with pytest.raises(DataError, match="column labels_of: is pair, and prompt and read_text are empty"):
        read_table(path, TAXONOMY)


def test_what_a_reader_found_is_text_and_may_carry_a_pair(folder):
    made = [
        row(),
        row(read_text=None),
        row(read_text=" EXIT\nB4 "),
        row(read_text="X", labels_of="pair", prompt=""),
    ]
    found = read_table(write_jsonl(folder / "read.jsonl", made), TAXONOMY)
    assert [entry.read_text for entry in found] == ["", "", "EXIT\nB4", "X"]
    assert [entry.pair for entry in found] == [False, False, False, True]
    with pytest.raises(DataError, match="column read_text: is a list, not text"):
        read_table(write_jsonl(folder / "list.jsonl", [row(read_text=["EXIT"])]), TAXONOMY)
