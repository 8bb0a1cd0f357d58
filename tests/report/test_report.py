"""The page and the overlay."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safevlm.errors import MissingExtraError
from safevlm.report import Comparison, Finding, overlay, render_page
from safevlm.report.overlay import ANCHORS, colours
from safevlm.types import Action, RiskAssessment, Verdict

HOSTILE = "<script>alert(1)</script>\"' onerror=alert(2) {{ 7*7 }} </style>\u202egpj.exe"


def assessment(score: float | None, heatmap: bool = False) -> RiskAssessment:
    if score is None:
        return RiskAssessment(None, reason="the scorer failed: out of memory")
    unsafe = score >= 0.5
    return RiskAssessment(
        score,
        level="high" if unsafe else "safe",
        category="weapons" if unsafe else "clean",
        verdict=Verdict.UNSAFE if unsafe else Verdict.SAFE,
        heatmap=np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4) if heatmap else None,
    )


def finding(name: str, score: float | None, heatmap: bool = False) -> Finding:
    return Finding(name, Image.new("RGB", (640, 300), (90, 120, 40)), assessment(score, heatmap))


class Page(HTMLParser):
    """Tags with attributes, and the text, as a browser would take them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.text.append(data.strip())

    def attributes(self, tag: str, name: str) -> list[str]:
        return [value for found, attrs in self.tags if found == tag and (value := attrs.get(name))]


def page(path: Path, *findings: Finding, **options: object) -> tuple[str, Page]:
    options = {"title": "Scan", "summary": {"Model": "m"}, **options}
    html = render_page(findings, path / "report.html", **options).read_text("utf-8")  # type: ignore[arg-type]
    return html, Page(html)


def test_shows_every_finding_riskiest_first_and_undecided_before_safe(tmp_path: Path) -> None:
    found = [
        finding("low", 0.1),
        finding("none", None),
        finding("top", 0.9),
        finding("mid", 0.6),
        finding("zero", 0.0),
    ]
    html, parsed = page(tmp_path, *found)
    names = [text for text in parsed.text if text in {"low", "none", "top", "mid", "zero"}]
    assert names == ["top", "mid", "none", "low", "zero"]
    for text in ("0.90", "0.10", "no score", "weapons", "high", "unsafe", "safe", "undecided", "Model"):
        assert text in parsed.text
    assert "the scorer failed: out of memory" in html
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]


def test_tiles_and_histogram_count_the_findings(tmp_path: Path) -> None:
    found = [finding(str(n), score) for n, score in enumerate([0.0, 0.01, 0.5, 1.0, 0.97, None])]
    html, _ = page(tmp_path, *found)
    assert re.findall(r'class="tile[^"]*"><b>(\d+)</b>', html) == ["6", "3", "2", "1"]
    bars = {low: int(count) for low, count in re.findall(r"<title>([\d.]+) to [\d.]+: (\d+)</title>", html)}
    assert len(bars) == 20
    assert (bars["0.00"], bars["0.50"], bars["0.95"], sum(bars.values())) == (2, 1, 2, 5)


def test_only_what_is_not_safe_is_veiled(tmp_path: Path) -> None:
    for score, veiled in ((0.9, True), (None, True), (0.1, False)):
        _, parsed = page(tmp_path, finding("a", score))
        assert any("veiled" in (attrs.get("class") or "").split() for _, attrs in parsed.tags) is veiled


def test_pictures_and_heatmaps_are_small_and_inside_the_file(tmp_path: Path) -> None:
    _, parsed = page(tmp_path, finding("a", 0.9, heatmap=True))
    sources = parsed.attributes("img", "src")
    assert len(sources) == 2
    for source in sources:
        assert source.startswith("data:image/webp;base64,")
        image = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
        assert max(image.size) == 256


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    undecided = RiskAssessment(None, reason=HOSTILE, read_text=HOSTILE)
    bad = Finding(HOSTILE, Image.new("RGB", (9, 9)), undecided, note=HOSTILE)
    compared = Comparison(
        Image.new("RGB", (9, 9)), HOSTILE, HOSTILE, HOSTILE, Action.HINT, HOSTILE, assessment(0.9)
    )
    html, parsed = page(tmp_path, bad, title=HOSTILE, summary={HOSTILE: HOSTILE}, comparisons=[compared])
    assert not [tag for tag, _ in parsed.tags if tag == "script"]
    assert not [
        name for _, attrs in parsed.tags for name in attrs if name.startswith("on") or name == "style"
    ]
    assert "<script" not in html
    assert HOSTILE in parsed.text  # shown exactly as it is
    assert html.count("</style>") == 1
    assert HOSTILE in parsed.attributes("img", "alt")


def test_nothing_is_loaded_from_elsewhere_and_the_policy_says_so(tmp_path: Path) -> None:
    html, parsed = page(tmp_path, finding("a", 0.9, heatmap=True), finding("b", 0.1))
    assert not re.search(r"(?i)https?://|url\(|@import|src=(?!\"data:)|href=", html)
    (policy,) = [
        attrs["content"] for tag, attrs in parsed.tags if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["script-src"] == "'none'"
    assert rules["img-src"] == "data:"
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert html.startswith("<!doctype html>")


def test_comparison_shows_both_answers_action_and_hint(tmp_path: Path) -> None:
    item = Comparison(
        Image.new("RGB", (9, 9)),
        "What now?",
        "Do it.",
        "I would rather not.",
        Action.HINT,
        "[note]",
        assessment(0.9),
    )
    _, parsed = page(tmp_path, comparisons=[item])
    for text in (
        "What now?",
        "Do it.",
        "I would rather not.",
        "hint",
        "Put before the prompt: [note]",
        "0.90",
    ):
        assert text in parsed.text


def test_a_finding_without_a_picture_and_odd_texts(tmp_path: Path) -> None:
    odd = Finding("lone surrogate \udcff", None, RiskAssessment(None, reason="gone"))
    _, parsed = page(tmp_path / "new" / "folder", odd, summary={"a": None, "b": True, "c": {"x": 0.123456}})
    for text in ("no image", "gone", "–", "yes", "x 0.1235"):
        assert text in parsed.text


def test_nothing_to_show_and_missing_jinja(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="nothing to show"):
        page(tmp_path)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"safevlm\[report\]"):
        page(tmp_path, finding("a", 0.5))


def test_overlay_has_the_pictures_size_and_the_maps_place() -> None:
    picture = Image.new("L", (64, 32), 128)
    heatmap = np.zeros((4, 8), np.float32)
    heatmap[3, 7] = 1
    found = overlay(picture, heatmap, opacity=1)
    assert (found.mode, found.size) == ("RGB", (64, 32))
    grey = np.asarray(found.convert("L"))
    assert grey[31, 63] > 200
    assert grey[:16].max() < 40
    assert picture.mode == "L"


def test_overlay_opacity() -> None:
    picture = Image.new("RGB", (6, 6), (10, 200, 30))
    heatmap = np.ones((2, 2), np.float32)
    assert np.array_equal(np.asarray(overlay(picture, heatmap, opacity=0)), np.asarray(picture))
    half = (np.asarray(picture).astype(int)[0, 0] + np.array(ANCHORS[-1])) / 2
    assert np.abs(np.asarray(overlay(picture, heatmap, opacity=0.5))[0, 0] - half).max() <= 1


def test_colours_get_lighter_all_the_way() -> None:
    ramp = colours(np.linspace(0, 1, 200)[None])
    assert tuple(ramp[0, 0]) == ANCHORS[0]
    assert tuple(ramp[0, -1]) == ANCHORS[-1]
    luminance = ramp[0].astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > -0.8).all()


@pytest.mark.parametrize("values", [np.nan, np.inf, -1.0, 7.0])
def test_overlay_takes_odd_values(values: float) -> None:
    assert overlay(Image.new("RGB", (5, 5)), np.full((2, 2), values)).size == (5, 5)


def test_overlay_refuses_wrong_shapes() -> None:
    for heatmap in (np.zeros((0, 3)), np.zeros(4), np.zeros((2, 2, 3))):
        with pytest.raises(ValueError, match="shape"):
            overlay(Image.new("RGB", (5, 5)), heatmap)
    with pytest.raises(ValueError, match="opacity"):
        overlay(Image.new("RGB", (5, 5)), np.zeros((2, 2)), opacity=2)
