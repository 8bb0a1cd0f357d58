"""Images written out in the data: every spelling of base64 is read, in every kind of source; damage is named."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from safevlm.data import Item, decode_item, open_source
from safevlm.data.image_root import ImageRoot
from safevlm.data.inline import is_base64, unwrapped
from safevlm.errors import ImageError
from tests.data.builders import decoded, encoded

NOISE = Image.effect_noise((24, 16), 60).convert("RGB")
FORMATS = {name: encoded(NOISE, name) for name in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "ICO", "PPM")}
JPEG = FORMATS["JPEG"] + b"\xfb\xef\xff"  # ends in what URL-safe base64 spells differently
TEXT = base64.b64encode(JPEG).decode()

SPELLINGS: dict[str, Callable[[bytes], str]] = {
    "standard": lambda data: base64.b64encode(data).decode(),
    "without padding": lambda data: base64.b64encode(data).decode().rstrip("="),
    "URL-safe": lambda data: base64.urlsafe_b64encode(data).decode(),
    "URL-safe without padding": lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
    "lines": lambda data: base64.encodebytes(data).decode(),
    "lines of Windows": lambda data: "  " + base64.encodebytes(data).decode().replace("\n", "\r\n"),
    "data URL": lambda data: "data:image/jpeg;base64," + base64.b64encode(data).decode(),
    "data URL in capitals": lambda data: "DATA:IMAGE/JPEG;BASE64," + base64.b64encode(data).decode(),
    "data URL without a type": lambda data: "data:;base64," + base64.b64encode(data).decode(),
    "data URL with half a type": lambda data: "data:image;base64, " + base64.b64encode(data).decode(),
    "data URL with a charset": lambda data: (
        "data:image/png;charset=utf-8;base64," + SPELLINGS["URL-safe"](data)
    ),
    "data URL, escaped": lambda data: "data:image/png;base64," + quote(base64.b64encode(data), safe=""),
    "without data:": lambda data: "image/jpeg;base64," + base64.b64encode(data).decode(),
    "as Python prints bytes": lambda data: repr(base64.b64encode(data)),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_the_same_bytes(spelling: str, tmp_path: Path) -> None:
    for extra in range(3):  # with two, one and no characters of padding
        data = JPEG + bytes(extra)
        text = SPELLINGS[spelling](data)
        assert ImageRoot(str(tmp_path)).read(text) == data
        assert unwrapped(text.encode()) == data


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_told_by_its_first_bytes(format: str) -> None:
    assert unwrapped(base64.b64encode(FORMATS[format])) == FORMATS[format]
    assert unwrapped(FORMATS[format]) == FORMATS[format]


def sources(folder: Path, text: str) -> dict[str, str]:
    """The same text as the image of every kind of source that names images."""
    struct = pa.struct({"bytes": pa.string(), "path": pa.string()})
    for name, column in {
        "text": [text],
        "binary": [text.encode()],
        "list": [[text]],
        "struct": pa.array([{"bytes": text, "path": None}], struct),
        "binary_struct": [{"bytes": text.encode(), "path": "a.jpg"}],
    }.items():
        pq.write_table(pa.table({"image": column}), folder / f"{name}.parquet")
    (folder / "hf").mkdir()
    pq.write_table(pa.table({"image": [text]}), folder / "hf" / "train.parquet")
    (folder / "a.jsonl").write_text(json.dumps({"image": text}))
    (folder / "llava.json").write_text(json.dumps([{"id": "a", "image": text, "conversations": []}]))
    (folder / "coco.json").write_text(json.dumps({"images": [{"id": 1, "file_name": text}]}))
    uris = {path.stem: f"parquet:{path}" for path in folder.glob("*.parquet")}
    uris |= {kind: f"{kind}:{folder}/{kind}.json" for kind in ("llava", "coco")}
    return uris | {"jsonl": f"jsonl:{folder}/a.jsonl", "hf": f"hf:{folder}/hf"}


def read(uri: str) -> list[Item]:
    source = open_source(uri)
    return [item for shard in source.shards() for item in source.read(shard)]


def test_every_kind_of_source_reads_it(tmp_path: Path) -> None:
    for name, uri in sources(tmp_path, TEXT).items():
        assert [item.data for item in read(uri)] == [JPEG], name


@pytest.mark.parametrize(
    "damage",
    [lambda text: text[:401], lambda text: text[:400] + "%" + text[400:], lambda t: t[:99] + " " + t[99:]],
)
def test_damage_is_named(damage: Callable[[str], str], tmp_path: Path) -> None:
    for name, uri in sources(tmp_path, damage(TEXT)).items():
        (item,) = read(uri)
        assert item.data is None, name
        assert "base64" in item.error, name
        assert len(item.error) < 300


def test_base64_that_is_cut_off_between_its_groups_is_a_damaged_image(tmp_path: Path) -> None:
    item = Item("a", data=ImageRoot(str(tmp_path)).read(TEXT[:400]))
    assert "damaged" in decoded(item)[1]


def test_a_file_of_such_a_name_stays_a_file(tmp_path: Path) -> None:
    """`/` is in the alphabet: names without a suffix may be base64 of what looks like an image."""
    name = base64.b64encode(FORMATS["GIF"][:48]).decode().replace("/", "A")
    assert is_base64(name)
    with pytest.raises(ImageError):
        ImageRoot(str(tmp_path), max_bytes=10).read(name)
    (tmp_path / name).write_bytes(b"a file")
    assert ImageRoot(str(tmp_path)).read(name) == b"a file"
    nested = tmp_path / "iVBORw0KGgoAAAANSUhEUgAAABgAAA" / "QCAIAAACDRijCAAAA"
    nested.parent.mkdir()
    nested.write_bytes(b"another")
    assert ImageRoot(str(tmp_path)).read(nested.relative_to(tmp_path).as_posix()) == b"another"


@pytest.mark.parametrize(
    "name", ["a" * 40, "images/train2017/000000000139", "iVBORw0KGgo.png", "x" * 300 + ".png"]
)
def test_names_of_missing_files_are_not_taken_for_base64(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file|longer than a path"):
        ImageRoot(str(tmp_path)).read(name)


def test_what_is_written_out_has_the_limit_of_files(tmp_path: Path) -> None:
    for text in (TEXT, f"data:image/png;base64,{TEXT}"):
        with pytest.raises(ImageError, match="more than 100 bytes"):
            ImageRoot(str(tmp_path), max_bytes=100).read(text)


def test_a_long_text_takes_no_time_as_a_path(tmp_path: Path) -> None:
    """As a path it would have 200,000 folders, each of them looked up by its whole name: hours."""
    with pytest.raises(ImageError, match="longer than a path"):
        ImageRoot(str(tmp_path)).read("x/" * 200_000)
    assert ImageRoot(str(tmp_path)).stamp("x/" * 200_000) == ""


def test_an_image_in_base64_decodes(tmp_path: Path) -> None:
    data = ImageRoot(str(tmp_path)).read(base64.b64encode(FORMATS["PNG"]).decode())
    image = decode_item(Item("a", data=data))
    assert image.tobytes() == Image.open(io.BytesIO(FORMATS["PNG"])).convert("RGB").tobytes()
