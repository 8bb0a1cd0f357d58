"""The triage page as a file: what it holds, its bounds, its colours, and what is refused."""

from __future__ import annotations

import hashlib
import json
import random
import re
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safevlm import Policy
from safevlm.errors import DataError
from safevlm.report import listing
from safevlm.report.document import inline_json, resource
from safevlm.report.duplicates import DISTANCE, near_duplicates
from safevlm.report.overview import survey
from tests.report.builders import POLICY, TAXONOMY, error, report, row, rows, thumbnail, write_scan


def block(html: str, name: str) -> Any:
    """The content of a data element."""
    [text] = re.findall(rf'<script type="application/json" id="data-{name}">(.*?)</script>', html)
    return json.loads(text)


def thumbnails(html: str) -> list[list[Any]]:
    names = re.findall(r'id="data-(thumbnails-\d+)"', html)
    return [item for name in names for item in block(html, name)]


def column(html: str, name: str, kind: str) -> np.ndarray:
    return np.frombuffer(b64decode(block(html, "columns")[name]), kind)


def test_columns_are_the_rows_in_the_pages_order(tmp_path: Path) -> None:
    made = rows(300)
    next(each for each in made if each["status"] == "ok")["read_text"] = "</script>\x1bFresh bread"
    html = report(tmp_path, made).read_text("utf-8")
    rank = {"unsafe": 0, "undecided": 1, "safe": 2}
    readable = [each for each in made if each["status"] != "error"]
    wanted = sorted(readable, key=lambda each: (rank[each["verdict"]], -(each["score"] or 0.0)))
    assert block(html, "ids") == [each["id"] for each in wanted]
    assert block(html, "captions") == [each["text"] for each in wanted]
    assert block(html, "writings") == [each["read_text"] or "" for each in wanted]
    scores = np.array([np.nan if each["score"] is None else each["score"] for each in wanted], np.float32)
    assert np.array_equal(column(html, "score", "<f4"), scores, equal_nan=True)
    assert column(html, "sha256", "u1").tobytes().hex() == "".join(each["sha256"] for each in wanted)
    shards = block(html, "shards")
    places = zip(column(html, "shard", "<i4"), column(html, "index", "<i4"), strict=True)
    assert [(*shards[shard], index) for shard, index in places] == [
        (0, e["shard"], e["index"]) for e in wanted
    ]
    levels = [None if code == 255 else TAXONOMY.levels[code] for code in column(html, "level", "u1")]
    assert levels == [each["level"] for each in wanted]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["report.html"]


def test_one_script_and_one_style_may_run_and_nothing_be_loaded(tmp_path: Path) -> None:
    html = report(tmp_path, rows(5)).read_text("utf-8")
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy.startswith("default-src 'none'; img-src data: blob:;")
    for tag in ("script", "style"):
        [body] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy
    assert not re.findall(r'(?:src|href)="(?!data:,)', html)
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert forbidden not in html


@pytest.mark.parametrize(
    "text", ["</script>", "<!--<script>", "a&b", "\u2028\u2029", "\ud800", "\x00\u202e", "ü"]
)
def test_inline_json_is_inert_and_means_the_same(text: str) -> None:
    written = inline_json([text])
    assert written.isascii()
    assert not set("<>&") & set(written)
    assert json.loads(written) == [text]


def test_near_duplicates_equal_the_comparison_of_all_with_all() -> None:
    generator = random.Random(0)
    hashes: list[int | None] = [generator.getrandbits(64) for _ in range(300)]
    for _ in range(500):  # pictures at up to nine bits from another
        near = generator.choice([value for value in hashes if value is not None])
        for bit in generator.sample(range(64), generator.randrange(10)):
            near ^= 1 << bit
        hashes.insert(generator.randrange(len(hashes)), near)
    hashes[5] = hashes[50] = None
    wanted: list[int] = []
    for place, value in enumerate(hashes):
        leaders = (
            other
            for other in range(place)
            if wanted[other] == other
            and value is not None
            and hashes[other] is not None
            and (value ^ (hashes[other] or 0)).bit_count() <= DISTANCE
        )
        wanted.append(next(leaders, place))
    assert near_duplicates(hashes).tolist() == wanted
    assert len(set(wanted)) < 700


def test_hashes_that_share_a_band_are_still_grouped_by_distance() -> None:
    """Hostile: three bands of four are the same in all, so that everything meets everything."""
    hashes = [number << 16 for number in range(0, 60_000, 2)]
    groups = near_duplicates(hashes)
    apart = [(hashes[place] ^ value).bit_count() for place, value in zip(groups, hashes, strict=True)]
    assert max(apart) == DISTANCE
    assert 1 < len(set(groups.tolist())) < 100


def test_the_listing_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [*rows(200), *(error(200 + n) for n in range(20))]
    made[0] |= {"id": "x" * 5000, "text": "y" * 5000, "score": 1.0, "verdict": "unsafe", "status": "ok"}
    made[0] |= {"level": "refuse", "category": "illegal", "sha256": "0" * 64}
    write_scan(tmp_path, made)
    monkeypatch.setattr(listing, "CAPTIONS", 30)
    monkeypatch.setattr(listing, "ERRORS", 7)
    monkeypatch.setattr(listing, "THUMBNAILS", 9)
    monkeypatch.setattr(listing, "UNDECIDED_THUMBNAILS", 2)
    monkeypatch.setattr(listing, "ROWS_BYTES", 12_000)
    html = report(tmp_path).read_text("utf-8")
    ids = block(html, "ids")
    assert 20 < len(ids) < 180
    assert len(ids[0]) == listing.ID_LENGTH
    assert sum(len(json.dumps(each)) + 50 for each in ids) < 12_000
    assert len(block(html, "captions")) == len(block(html, "writings")) == 30
    assert len(block(html, "captions")[0]) == listing.CAPTION_LENGTH
    assert html.count("is not an image") == 7
    places = [item[0] for item in thumbnails(html)]
    undecided = np.flatnonzero(column(html, "verdict", "u1") == 1)[:2].tolist()
    assert places == [*undecided, *range(9 - len(undecided))]
    scan = block(html, "scan")
    assert scan["total"] == len(made)
    assert sum(scan["bins"]) == sum(each["score"] is not None for each in made)


def test_thumbnails_stop_at_their_bytes(tmp_path: Path) -> None:
    made = [row(number, 0.9 - number / 100) for number in range(10)]
    write_scan(tmp_path, made, [thumbnail(each, bytes(3000)) for each in reversed(made)])
    overview = survey(tmp_path / "rows", thresholds=(0.5,), limit=100)
    found = listing.read_listing(tmp_path / "rows", overview, TAXONOMY)
    for budget, fit in ((0, 0), (4200, 1), (13_000, 3), (10**6, 10)):
        taken = list(listing.read_thumbnails(tmp_path / "thumbnails", found, budget=budget))
        assert [item[0] for item in taken] == list(range(fit))
        assert len(inline_json(taken)) <= budget + 10


def test_rows_without_thumbnails_and_broken_heatmaps(tmp_path: Path) -> None:
    made = [row(number, 0.9 - number / 100) for number in range(3)]
    broken = thumbnail(made[1]) | {"heatmap": b"123"}
    missing = thumbnail(made[2]) | {"thumbnail": None}
    html = report(tmp_path, made, thumbnails=[broken, missing]).read_text("utf-8")
    [[place, webp, heatmap, height, width]] = thumbnails(html)
    assert (place, b64decode(webp)[8:12], heatmap, height, width) == (1, b"WEBP", "", 0, 0)


def test_the_first_rows_are_found_among_many() -> None:
    from safevlm.report.overview import _First

    generator = np.random.default_rng(0)
    ranks, scores = generator.integers(0, 3, 5000).tolist(), generator.random(5000).round(2).tolist()
    first = _First(37)
    for number, (rank, score) in enumerate(zip(ranks, scores, strict=True)):
        first.add(rank, score, number)
    wanted = sorted(range(5000), key=lambda number: (ranks[number], -scores[number], number))[:37]
    assert first.numbers().tolist() == wanted


def test_bad_input_is_refused_and_the_old_page_stays(tmp_path: Path) -> None:
    page = report(tmp_path / "good", rows(5))
    before = page.read_bytes()
    with pytest.raises(DataError, match="holds no rows"):
        report(tmp_path / "empty", [])
    strange = [row(0, 0.9, level="deadly")]
    with pytest.raises(DataError, match="'deadly'.*give the taxonomy of the scan"):
        report(tmp_path / "strange", strange)
    part = tmp_path / "good" / "rows" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-50])
    with pytest.raises(DataError, match="not a whole Parquet file"):
        report(tmp_path / "good")
    assert page.read_bytes() == before
    (tmp_path / "file").write_text("")
    write_scan(tmp_path / "more", rows(5))
    (tmp_path / "more" / "report.html").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        report(tmp_path / "more")
    assert sorted(path.name for path in (tmp_path / "more").iterdir()) == [
        "report.html",
        "rows",
        "thumbnails",
    ]


def test_facts_name_model_policy_and_source(tmp_path: Path) -> None:
    policy = Policy(TAXONOMY, threshold=0.3, thresholds={"illegal": 0.21234}, off=frozenset({"politics"}))
    html = report(
        tmp_path, rows(5), policy=policy, summary={"seconds": 12.5, "interrupted": True, "odd": "<b>"}
    ).read_text("utf-8")
    for text in (
        "safevlm-mini",
        policy.sha256[:16],
        "illegal 0.2123",
        "politics",
        "12.5",
        "&lt;b&gt;",
        "UTC",
    ):
        assert text in html
    assert "was interrupted" in html
    assert "broke off" not in html
    assert 0.21234 in block(html, "scan")["edges"]
    assert POLICY.sha256[:16] not in html


def test_rows_of_several_sources_keep_theirs(tmp_path: Path) -> None:
    """A merged scan: the same shard and place in two sources are two pictures."""
    sources = ["folder:/a", "folder:/b"]
    made = [
        row(n, 0.9 - n / 10, source=sources[n % 2], shard="files-00000000", index=n // 2) for n in range(4)
    ]
    pictures = [thumbnail(each, str(n).encode()) for n, each in enumerate(made)]
    html = report(tmp_path, made, thumbnails=pictures, source=" + ".join(sources)).read_text("utf-8")
    assert block(html, "scan")["sources"] == sources
    shards, index = block(html, "shards"), column(html, "index", "<i4").tolist()
    places = [(sources[shards[s][0]], i) for s, i in zip(column(html, "shard", "<i4"), index, strict=True)]
    assert places == [(each["source"], each["index"]) for each in made]
    assert [(item[0], b64decode(item[1])) for item in thumbnails(html)] == [(n, b"%d" % n) for n in range(4)]


INVISIBLE = (
    *("\u061c", "\u00ad", "\u200b", "\u202e", "\u2066", "\ufeff", "\ufe0d", "\ufe00", "\U000e0100"),
    *("\U000e0001", "\U000e0041", "\U000e007f", "\U000e01ef", "\x00", "\x85", "\u2028", "\u180e"),
)


@pytest.mark.parametrize("character", INVISIBLE, ids=ascii)
def test_characters_that_hide_or_reorder_are_shown(character: str, tmp_path: Path) -> None:
    html = report(tmp_path, rows(2), source=f"folder:/a{character}b").read_text("utf-8")
    assert "/a\ufffdb" in html
    assert character not in html


def test_failed_shards_are_named_above_everything(tmp_path: Path) -> None:
    failures = {f"shard-{number}.tar": "ends in the middle <b>" for number in range(8)}
    html = report(tmp_path, rows(5), summary={"failures": failures, "shards": {"failed": 12}}).read_text(
        "utf-8"
    )
    notice = html.index("12 shards broke off")
    assert notice < html.index('class="overview"')
    assert html.count("ends in the middle &lt;b&gt;") == 5
    assert "and 7 more" in html


PAIRS = [
    ("ink", "paper", 7),
    ("ink", "card", 7),
    ("ink", "track", 7),
    ("soft", "paper", 4.5),
    ("soft", "card", 4.5),
    ("soft", "track", 4.5),
    *((name, ground, 4.5) for name in ("unsafe", "safe", "undecided") for ground in ("card", f"{name}-bg")),
    ("edge", "card", 3),
]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrast_meets_wcag_aa(theme: int) -> None:
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", resource("triage.css"))
    colours = {name: both[theme] for name, *both in found}

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for text, ground, least in PAIRS:
        high, low = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= least, (text, ground)
