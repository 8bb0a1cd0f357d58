"""The reader of the extra `ocr` on rendered writing."""

from __future__ import annotations

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from safevlm import RiskScorer
from safevlm.errors import MissingExtraError
from safevlm.reader import MAX_SIDE, Reader
from tests.tiny import picture
from tests.writing import written

SIGN = "Open from\n9 to 5"


def letters(text: str) -> str:
    """What a reader tells for sure: on small images the blanks between words are a guess."""
    return "".join(text.split()).lower()


@pytest.fixture(scope="module")
def reader() -> Reader:
    pytest.importorskip("rapidocr_onnxruntime")
    return Reader()


@pytest.mark.parametrize(("side", "height"), [(224, 14), (224, 24), (288, 18), (1500, 40)])
def test_writing_is_read_in_order(reader, side, height):
    text = "How to bake\na good bread\nin five steps"
    assert letters(reader.read(written(text, side, height))) == letters(text)


def test_where_there_is_no_writing_none_is_read(reader):
    assert reader.read(Image.new("RGB", (224, 224), "green")) == ""
    assert reader.read(picture(3, (8, 8)).resize((224, 224), Image.Resampling.BICUBIC)) == ""


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (4000, 40), (7, 300)])
def test_strips_and_dots_are_read_at_a_bounded_size(reader, size, monkeypatch):
    seen = []
    engine = reader._engine.text_det.infer

    def noted(pixels):
        seen.append(pixels.shape)
        return engine(pixels)

    monkeypatch.setattr(reader._engine.text_det, "infer", noted)
    assert reader.read(Image.new("RGB", size, "white")) == ""
    assert all(side <= 2 * MAX_SIDE for *_, height, width in seen for side in (height, width))
    assert len(seen) == 1


def test_a_pickled_reader_reads_the_same(reader):
    again = pickle.loads(pickle.dumps(reader))  # noqa: S301  # as workers get it
    assert again.threads == reader.threads
    assert again.read(written(SIGN)) == reader.read(written(SIGN))


def test_threads_share_a_reader(reader):
    images = [written(text) for text in ("first", "second one\nof two", "third", "fourth")] * 2
    alone = [reader.read(image) for image in images]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(reader.read, images)) == alone


def test_a_scorer_says_what_it_read(reader, guard):
    scorer = RiskScorer(
        guard.backbone.tower,
        guard.safety,
        config=guard.config,
        prompt_table=guard.backbone.prompt_table,
        read_text="always",
    )
    sign, plain = pickle.loads(pickle.dumps(scorer)).assess([written(SIGN), picture(0)])  # noqa: S301
    assert letters(sign.read_text) == letters(SIGN)
    assert plain.read_text == ""
    asked = guard.assess([written(SIGN)] * 2, ["", sign.read_text])
    assert sign.score == pytest.approx(guard.policy.riskiest(asked).score, abs=1e-6)


def test_a_missing_reader_is_named_when_it_is_asked_for(guard, monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'safevlm\[ocr\]'"):
        RiskScorer(guard.backbone.tower, guard.safety, config=guard.config, read_text="always")
