"""Concept sets: folders, tables of the two schemas, the hub's gate, and what a bad row is told."""

from __future__ import annotations

import io
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safevlm.data import read_image
from safevlm.errors import DataError
from safevlm.labelled import ConceptImage, ConceptQuestions, ConceptSet, read_concepts
from tests.tiny import picture


def encoded(seed: int) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


def table(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def images(n: int, start: int = 0) -> list[dict]:
    return [{"bytes": encoded(start + i), "path": f"{i}.png"} for i in range(n)]


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("weapons/big_knife/a.png", "weapons/big_knife/b.png", "fire/flame/a.png")):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(number))
    (tmp_path / "set" / "fire" / "flame" / "notes.txt").write_text("no image")
    (tmp_path / "set" / "fire" / ".hidden.png").write_bytes(b"")
    return tmp_path / "set"


def test_a_folder_of_concepts(folder):
    found = read_concepts(folder)
    assert [(image.category, image.concept, image.unsafe) for image in found.images] == [
        ("fire", "flame", True),
        ("weapons", "big knife", True),
        ("weapons", "big knife", True),
    ]
    assert read_image(found.images[1].image).tobytes() == picture(0).tobytes()
    assert [image.phrase for image in found.concepts] == ["flame", "big knife"]
    assert not any(image.unsafe for image in read_concepts(folder, harmless=True).images)
    assert len(read_concepts(folder, n=1).images) == 2


def test_an_image_without_a_concept_is_named(folder):
    (folder / "fire" / "stray.png").write_bytes(encoded(0))
    (folder / "top.png").write_bytes(encoded(0))
    with pytest.raises(
        DataError, match=r"2 images cannot be used(.|\n)*stray.png: stands in no <category>/<concept>/"
    ):
        read_concepts(folder)


def test_a_symlink_out_of_the_folder_is_refused(folder, tmp_path):
    (tmp_path / "outside.png").write_bytes(encoded(0))
    (folder / "fire" / "flame" / "c.png").symlink_to(tmp_path / "outside.png")
    (folder / "fire" / "linked").symlink_to(folder / "weapons" / "big_knife")
    with pytest.raises(DataError, match=r"leaves the folder(.|\n)*linked: is a symlink to a folder"):
        read_concepts(folder)


def test_the_schema_of_unsafe_concepts_in_shards(tmp_path):
    for shard in (0, 1):
        table(
            tmp_path / "data" / f"train-0000{shard}-of-00002.parquet",
            image=images(3, 10 * shard),
            category=["hate", "hate", "violence"],
            unsafe_concept=["burning cross", "burning cross", "street fight"],
        )
    found = read_concepts(tmp_path)
    assert len(found.images) == 6
    assert {(image.category, image.concept, image.unsafe) for image in found.images} == {
        ("hate", "burning cross", True),
        ("violence", "street fight", True),
    }
    assert read_image(found.images[-1].image).tobytes() == picture(12).tobytes()
    few = [read_concepts(tmp_path, n=2, seed=seed).images for seed in (0, 0, 1)]
    assert [len(one) for one in few] == [4, 4, 4]
    assert few[0] == few[1]


def test_the_schema_of_unsafe_bench(tmp_path):
    table(
        tmp_path / "bench.parquet",
        image=images(3),
        safety_label=["Unsafe", "Safe", "unsafe"],
        category=["Hate", "Hate", "Shocking"],
        source=["Laion5B"] * 3,
        text=["a", "b", "c"],
    )
    found = read_concepts(tmp_path / "bench.parquet")
    assert [(i.category, i.concept, i.unsafe) for i in found.images] == [
        ("Hate", "Hate", True),
        ("Hate", "", False),
        ("Shocking", "Shocking", True),
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unsafe_concept": ["knife", None]}, "row 2: column unsafe_concept is empty"),
        ({"category": ["", "fire"]}, "row 1: column category is empty"),
        ({"safety_label": ["Unsafe", "perhaps"]}, "row 2: column safety_label is 'perhaps'"),
        (
            {"image": ["http://169.254.169.254/x.png", "http://localhost/y.png"]},
            "row 1: column image .*is a URL",
        ),
        ({"image": ["../../etc/passwd", "a.png"]}, "leads out of"),
        ({"image": [None, None]}, "row 1: column image is empty"),
        ({"unsafe_concept": ["knife", "knife"]}, "two categories"),
    ],
)
def test_a_bad_row_is_named_before_anything_is_asked(tmp_path, change, said):
    columns = {
        "image": [encoded(0), encoded(1)],
        "category": ["weapons", "fire"],
        "unsafe_concept": ["knife", "flame"],
    }
    table(tmp_path / "t.parquet", **{**columns, **change})
    with pytest.raises(DataError, match=said):
        read_concepts(tmp_path / "t.parquet")


def test_other_files_are_told_apart(tmp_path):
    table(tmp_path / "t.parquet", image=images(1), label=["x"])
    with pytest.raises(DataError, match="category.*are needed"):
        read_concepts(tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match="not a whole Parquet file"):
        read_concepts(tmp_path / "t.parquet")
    for location in (tmp_path / "nothing", tmp_path / "nothing.parquet"):
        with pytest.raises(DataError, match="no such"):
            read_concepts(location)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images"):
        read_concepts(tmp_path / "empty")


def test_sets_are_checked_and_added():
    knife, ball = (ConceptImage(name, b"", "things", name, name == "knife") for name in ("knife", "ball"))
    both = ConceptSet("one", (knife,)) + ConceptSet("other", (ball,))
    assert both.images == (knife, ball)
    with pytest.raises(DataError, match="both unsafe and harmless"):
        ConceptSet("wrong", (knife, ConceptImage("x", b"", "things", "knife", False)))
    with pytest.raises(DataError, match="no category"):
        ConceptImage("x", b"", " ", "knife", True)
    with pytest.raises(ValueError, match="n is 0"):
        both.sample(0, 0)


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (
            403,
            {"X-Error-Code": "GatedRepo"},
            "is gated(.|\n)*ask for access on https://huggingface.co/datasets/yiting",
        ),
        (404, {"X-Error-Code": "RepoNotFound"}, "cannot be had from the hub"),
    ],
)
def test_the_hub_says_who_may_read_a_set(monkeypatch, tmp_path, status, headers, said):
    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        with pytest.raises(DataError, match="(?i)" + said):
            read_concepts("yiting/UnsafeConcepts")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_questions_of_a_file(tmp_path):
    path = tmp_path / "questions.yaml"
    path.write_text(
        "perception: 'Say which: {choices}'\nimage: ['Is it fine?']\ntext: ['Is {concept} {0} fine?']\n"
    )
    found = ConceptQuestions.from_yaml(path)
    assert found.image == ("Is it fine?",)
    assert found.about("a knife") == ("Is a knife {0} fine?",)
    assert found.warning == ConceptQuestions().warning


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image: [One]", "1 questions on images and 5 on text"),
        ("image: []\ntext: []", "at least 1"),
        ("text: [a, b, c, d, e]", "belongs into each question of text"),
        ("warning: ['Is {concept} fine?']", "into no other"),
        ("warning: ['']", "empty"),
        ("perception: What is it?", "no {choices}"),
        ("image: 3", "no list of texts"),
        ("pictures: [a]", "the field 'pictures'"),
        ("- a\n- b", "no fields"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.system [ls]", "is not YAML"),
    ],
)
def test_bad_questions_name_the_file_and_the_field(tmp_path, text, said):
    path = tmp_path / "questions.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        ConceptQuestions.from_yaml(path)
    assert str(path) in str(caught.value)
