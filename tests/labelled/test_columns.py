"""Columns of a row: two forms in one, other names, other notations of an image."""

from __future__ import annotations

import base64
import json

import pytest

from safevlm import Taxonomy
from safevlm.errors import DataError
from safevlm.labelled.table import Needs, read_table
from safevlm.types import IGNORED
from tests.training.builders import png, shade, write_jsonl, write_parquet

TAXONOMY = Taxonomy.preset("safevlm")
OWN = Taxonomy.from_dict(
    {
        "name": "own",
        "levels": ["fine", "bad"],
        "categories": [{"name": "none"}, {"name": "Knives & guns"}],
        "clean": "none",
    }
)
TEXT = Needs(image=False, text=True)
PNG = png(shade(3, 0))
B64 = base64.b64encode(PNG).decode()
TURNS = [{"from": "USER", "value": "<image>\nWhat is it?"}, {"from": "ASSISTANT", "value": "A knife."}]


def row(**changes):
    """A complete row in the documented columns; None takes a column out."""
    values = {
        "image": "0.png",
        "prompt": "What is it?",
        "response": "A knife.",
        "risk_level": "refuse",
        "risk_category": "illegal",
    }
    return {name: value for name, value in (values | changes).items() if value is not None}


def read(folder, values, *, needs=TEXT, taxonomy=TAXONOMY, form="jsonl"):
    path = (write_parquet if form == "parquet" else write_jsonl)(folder / f"t.{form}", [values])
    return read_table(path, taxonomy, needs=needs)[0]


def bad(folder, values, column, reason, *, needs=TEXT, taxonomy=TAXONOMY, form="jsonl"):
    with pytest.raises(DataError) as raised:
        read(folder, values, needs=needs, taxonomy=taxonomy, form=form)
    assert f"row 1, column {column}: " in str(raised.value)
    assert reason in str(raised.value)


FORMS = {
    "documented": row(),
    "the authors": {"id": 7, "image": "0.png", "safe_type": 1, "safe_level": 3, "conversations": TURNS},
    "the authors, as text": {"image": "0.png", "safe_type": "1", "safe_level": "3", "conversations": TURNS},
    "the authors, as floats": {"image": "0.png", "safe_type": 1.0, "safe_level": 3.0, "conversations": TURNS},
    "conversations and labels": row(prompt=None, response=None, conversations=TURNS),
    "everything twice": row(conversations=TURNS, safe_type=1, safe_level=3),
    "messages": row(
        prompt=None,
        response=None,
        messages=[{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A knife."}],
    ),
    "a conversation and an answer of its own": row(prompt=None, conversations=TURNS[:1]),
    "authors' level, documented category": row(risk_level=None, safe_level=3),
    "other case": row(risk_level="Refuse", risk_category=" ILLEGAL "),
    "a placeholder in the prompt": row(prompt="<image>\nWhat is it?"),
}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("kind", FORMS)
def test_every_form_gives_the_same_row(folder, kind, form):
    found = read(folder, FORMS[kind], form=form)
    assert (found.prompt, found.response) == ("What is it?", "A knife.")
    assert TAXONOMY.levels[found.level] == "refuse"
    assert TAXONOMY.category_names[found.category] == "illegal"
    assert found.image == folder / "0.png"


def test_conversations_train_a_taxonomy_of_ones_own(folder):
    values = {"image": "0.png", "conversations": TURNS, "risk_level": "bad", "risk_category": "knives & guns"}
    found = read(folder, values, taxonomy=OWN)
    assert (found.level, found.category, found.response) == (1, 1, "A knife.")
    bad(folder, values | {"safe_level": 3}, "safe_level", "has 2", taxonomy=OWN)


CONTRADICTIONS = {
    "prompt": row(prompt="Who is it?", conversations=TURNS),
    "response": row(response="A fork.", conversations=TURNS),
    "risk_level": row(safe_level=0),
    "risk_category": row(safe_type=6),
    "image": row(images=["1.png"]),
    "Risk_Level": row(Risk_Level="safe"),
}


@pytest.mark.parametrize("column", CONTRADICTIONS)
def test_two_forms_that_differ_make_a_bad_row(folder, column):
    bad(folder, CONTRADICTIONS[column], column, "")


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("column", "meant"),
    [
        ("risk level", "risk_level"), ("Risk_Level", "risk_level"), ("riskLevel", "risk_level"), ("risk_lvl", "risk_level"),
        ("risk-category", "risk_category"), ("risk_catgory", "risk_category"), ("safeLevel", "safe_level"),
    ],
)  # fmt: skip
def test_a_misspelt_label_column_is_refused(folder, column, meant, form):
    values = row(risk_level=None, risk_category=None) | {column: "refuse"}
    bad(folder, values, column, f"rename it '{meant}'", form=form)


def test_a_misspelt_text_or_turns_column_is_refused(folder):
    bad(folder, row(prompt=None, Prompt="What?"), "Prompt", "rename it 'prompt'", needs=Needs())
    bad(
        folder, row(prompt=None, response=None, Conversations=TURNS), "Conversations", "rename", needs=Needs()
    )


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("label", "refuse"), ("label", "unsafe"), ("labels", ["refuse"]), ("level", "Caution"), ("is_safe", False),
        ("category", "illegal"), ("harm_category", "privacy"),
    ],
)  # fmt: skip
def test_a_label_in_a_column_that_is_not_read_is_refused(folder, column, value):
    values = row(risk_level=None, risk_category=None) | {column: value}
    bad(folder, values, column, "and is not read; rename it risk_")
    nested = row(risk_level=None, risk_category=None) | {"meta": {"risk_level": "refuse"}}
    bad(folder, nested, "meta.risk_level", "is not read")
    read(folder, row() | {column: value})  # labelled as documented: what stands elsewhere does not matter


@pytest.mark.parametrize(
    ("column", "meant"), [("level", "risk_level"), ("label", "risk_category"), ("question", "prompt")]
)
def test_a_column_that_may_have_been_meant_is_told(folder, column, meant, caplog):
    empty = row(risk_level=None, risk_category=None, prompt=None) | {column: "3"}
    path = write_jsonl(folder / "t.jsonl", [empty, empty, row()])
    assert read_table(path, TAXONOMY)[0].level == IGNORED
    assert f"2 rows without {meant} have a column {column!r}, which is not read" in caplog.text


IMAGES = {
    "images": row(image=None, images=["0.png"]),
    "image is a list": row(image=["0.png"]),
    "image_path": row(image=None, image_path="0.png"),
    "img": row(image=None, img="0.png"),
    "file_name": row(image=None, file_name="0.png"),
    "path": row(image={"path": "0.png", "bytes": None}),
    "url of a part": row(image={"url": "0.png"}),
    "a part": row(
        image=None,
        prompt=None,
        conversations=[
            {"role": "user", "content": [{"type": "image", "image": "0.png"}, "What is it?"]},
            TURNS[1],
        ],
    ),
    "image beside its path": row(image_path="somewhere/else.png"),
}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_is_found_where_tables_write_it(folder, kind, form):
    if form == "parquet" and kind == "a part":
        pytest.skip("a Parquet column has values of one type")
    found = read(folder, IMAGES[kind], form=form)
    assert found.image == folder / "0.png"
    assert found.prompt == "What is it?"


@pytest.mark.parametrize(
    "image",
    [
        B64,
        f"data:image/png;base64,{B64}",
        {"bytes": B64},
        {"url": f"data:image/png;base64,{B64}"},
        {"type": "base64", "data": B64},
        "\n".join(B64[n : n + 76] for n in range(0, len(B64), 76)),
        f"DATA:image/png;BASE64,{B64}",
        f"image/png;base64,{B64.rstrip('=')}",
        base64.urlsafe_b64encode(PNG).decode(),
        repr(B64),
    ],
)
def test_an_image_written_into_the_row_is_decoded(folder, image):
    assert read(folder, row(image=image)).image == PNG


def test_base64_in_a_binary_column_is_decoded(folder):
    assert read(folder, row(image=B64.encode()), form="parquet").image == PNG


def test_a_file_whose_name_could_be_base64_is_read_as_a_file(folder):
    name = base64.b64encode(b"\xff\xd8\xff" + b"a" * 30).decode().replace("/", "_")
    (folder / name).write_bytes(PNG)
    assert read(folder, row(image=name)).image == folder / name


NO_IMAGE = {
    "several": (row(images=["1.png", "2.png"], image=None), "image", "names 2 images"),
    "several, one in each column": (row(image_2="1.png"), "image", "names 2 images"),
    "several placeholders": (row(prompt="<image><image>\nWhat?"), "image", "the prompt shows 2"),
    "numbered placeholders": (row(prompt="Is <image_0> like <image_1>?"), "image", "the prompt shows 2"),
    "a placeholder without an image": (
        row(image=None, prompt="<image>\nWhat?"),
        "image",
        "the prompt shows 1",
    ),
    "a part without an image": (
        row(image=None, messages=[{"role": "user", "content": [{"type": "image"}, "What is it?"]}]),
        "image",
        "the prompt shows 1",
    ),
    "an unknown column": (row(image=None, screenshot="0.png"), "screenshot", "names an image"),
    "an object": (row(image=None, meta={"photos": [{"file": "0.png"}]}), "meta", "names an image"),
    "an id of an image": (row(image=None, image_id=7), "image_id", "names an image"),
    "a link": (row(image=None, image_link="https://example.com/a"), "image_link", "names an image"),
    "a path within the prompt": (row(prompt="<img>0.png</img>What?"), "prompt", "an image written into it"),
    "an image within the prompt": (row(prompt=f"data:image/png;base64,{B64}"), "prompt", "an image written"),
    "a video": (row(prompt="<video>What?"), "prompt", "shows a video"),
    "a URL": (row(image="https://example.com/a.png"), "image", "training fetches none"),
    "an unknown object": (row(image={"width": 3}), "image", "none of bytes"),
    "a number": (row(image=3), "image", "not bytes or a path"),
    "damaged base64": (row(image=B64[:81]), "image", "damaged base64"),
    "a NUL": (row(image="a\0.png"), "image", "no path"),
    "a placeholder in the answer": (row(response="It is <image>"), "response", "placeholder in an answer"),
}


@pytest.mark.parametrize("kind", NO_IMAGE)
def test_a_row_does_not_lose_its_image(folder, kind):
    bad(folder, *NO_IMAGE[kind])


@pytest.mark.parametrize(
    ("column", "changes"),
    [
        ("screenshot", {"image": None, "screenshot": "0.png"}),
        ("screenshot", {"image": None, "screenshot": {"bytes": PNG, "path": None}}),
        ("meta.risk_level", {"risk_level": None, "risk_category": None, "meta": {"risk_level": "refuse"}}),
    ],
)
def test_a_parquet_column_of_any_name_is_looked_at(folder, column, changes):
    write_parquet(folder / "t.parquet", [row(**changes)])
    with pytest.raises(DataError, match=f"row 1, column {column}: "):
        read_table(folder / "t.parquet", TAXONOMY, needs=TEXT)


def test_a_row_without_an_image_is_text_alone(folder):
    assert (
        read(folder, row(image=None, risk_level=None, risk_category=None, images=[], image_path="")).image
        is None
    )


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("risk_level", 3), ("risk_level", True), ("risk_level", 0.0), ("risk_level", False), ("risk_level", " "),
        ("risk_level", ["refuse"]), ("risk_level", float("nan")), ("risk_category", 0), ("safe_level", 1.5),
        ("safe_level", True), ("safe_type", "²"), ("safe_type", "illegal"), ("safe_type", 7), ("safe_level", -1),
        ("prompt", ["What?"]), ("prompt", "a\ud800b"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_never_an_empty_one(folder, column, value):
    values = row(risk_level=None, risk_category=None) | {column: value}
    (folder / "t.json").write_text(json.dumps([values]))
    with pytest.raises(DataError, match=f"row 1, column {column}: "):
        read_table(folder / "t.json", TAXONOMY)


def test_a_key_that_stands_twice_is_refused(folder):
    path = folder / "t.jsonl"
    path.write_text('{"image": "0.png", "risk_level": "safe", "risk_level": "refuse"}\n')
    with pytest.raises(DataError, match="row 1, column risk_level: stands in the row twice"):
        read_table(path, TAXONOMY)


def test_what_conversations_have_beside_the_exchange_is_counted(folder, caplog):
    system = {"from": "system", "value": "Be brief."}
    values = row(prompt=None, response=None, conversations=[system, *TURNS])
    longer = row(prompt=None, response=None, conversations=[*TURNS, *TURNS])
    read_table(write_jsonl(folder / "t.jsonl", [values, values, longer]), TAXONOMY)
    assert "2 conversations have a system turn" in caplog.text
    assert "1 conversations have turns behind the exchange that is taken" in caplog.text
