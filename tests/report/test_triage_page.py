"""The triage page in Chromium: its numbers, filters, pages and folds against the rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safevlm import Policy
from safevlm.report.overlay import ANCHORS
from safevlm.report.triage import PAGE_BYTES
from tests.report.browser import DOWN, ENTER, ESCAPE, LEFT, RIGHT, UP, Triage, start
from tests.report.builders import TAXONOMY, error, report, row, rows, thumbnail, write_scan

pytestmark = pytest.mark.browser
Row = dict[str, Any]
THRESHOLD = 0.4237
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\u202egpj.exe\u2066 \u2028 \u061c \u00ad \ufe0d \U000e0041 & <!-- <script>",
    "'\"><svg onload=alert(3)> {{ 7*7 }} ${alert(4)}",
    "a" * 900,
    "\ud800 lone",
)


def in_order(made: list[Row]) -> list[Row]:
    """Flagged by falling score, undecided, safe by falling score; without errors."""
    rank = {"unsafe": 0, "undecided": 1, "safe": 2}
    readable = [each for each in made if each["status"] != "error"]
    return sorted(readable, key=lambda each: (rank[each["verdict"]], -(each["score"] or 0.0)))


def ids(made: list[Row]) -> list[str]:
    return [each["id"] for each in made]


def float32(score: float | None) -> float | None:
    return None if score is None else float(np.float32(score))


@pytest.fixture(scope="module")
def made() -> list[Row]:
    """Rows with scores on, below and above edges of the slider."""
    edges = [0.0, 0.25, 0.5, THRESHOLD, 0.7, 0.3, 1.0]
    return [*rows(700, seed=3), *(row(700 + n, float32(score)) for n, score in enumerate(edges))]


@pytest.fixture(scope="module")
def page(made: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    return report(folder, made, policy=Policy(TAXONOMY, threshold=THRESHOLD), source=f"folder:{folder}")


@pytest.fixture
def triage(driver: Any, page: Path) -> Triage:
    return Triage(driver, page)


def open_page(driver: Any, folder: Path, made: list[Row], **changes: Any) -> Triage:
    return Triage(driver, report(folder / "scan", made, source=f"folder:{folder}", **changes))


def test_numbers_are_those_of_the_rows(triage: Triage, made: list[Row]) -> None:
    kinds = {
        "all": len(made),
        "flagged": sum(each["verdict"] == "unsafe" for each in made),
        "safe": sum(each["verdict"] == "safe" for each in made),
        "undecided": sum(each["status"] == "undecided" for each in made),
        "errors": sum(each["status"] == "error" for each in made),
    }
    assert all(kinds.values())
    assert {kind: triage.number(f".tile.{kind} b") for kind in kinds} == kinds
    for kind in ("flagged", "safe", "undecided", "errors"):
        assert triage.number(f'.tabs [data-tab="{kind}"] i') == kinds[kind]
    for kind, names in (("level", TAXONOMY.levels), ("category", TAXONOMY.category_names)):
        counts = Counter(each[kind] for each in made)
        for name in names:
            selector = f'[data-filter="{kind}"][data-value="{name}"] .count'
            assert triage.number(selector) == counts[name]
    assert len(triage.driver.find_elements("css selector", "#errors tbody tr")) == kinds["errors"]
    assert triage.problems() == []


def test_the_threshold_recounts_exactly(triage: Triage, made: list[Row]) -> None:
    scores = np.array([each["score"] for each in made if each["score"] is not None], np.float64)
    edges = sorted({*(step / 1000 for step in range(1001)), THRESHOLD})
    assert triage.text("#at") == str(THRESHOLD)
    for threshold in (THRESHOLD, 0.0, 0.001, 0.25, 0.3, 0.5, 0.7, 0.999, 1.0):
        triage.choose("#threshold", edges.index(threshold), "input")
        flagged = int((scores >= threshold).sum())
        assert triage.text("#at") == f"{threshold:g}"
        assert triage.number("#over") == triage.number('.tabs [data-tab="above"] i') == flagged
        assert triage.number("#under") == int((scores < threshold).sum())
        assert triage.number("#unscored") == len(made) - len(scores)
    triage.tab("above")
    triage.choose("#threshold", edges.index(0.7), "input")
    above = sorted((each for each in made if (each["score"] or 0) >= 0.7), key=lambda each: -each["score"])
    assert sorted(triage.all_ids()) == sorted(ids(above))
    triage.click("#policy")
    assert triage.text("#at") == str(THRESHOLD)


@pytest.mark.parametrize(
    ("tab", "level", "category", "text"),
    [
        ("flagged", "", "", ""),
        ("undecided", "", "", ""),
        ("safe", "", "", ""),
        ("all", "refuse", "", ""),
        ("flagged", "", "insults", ""),
        ("flagged", "caution", "politics", ""),
        ("all", "", "", "Photograph 3"),
        ("safe", "", "", "00012"),
        ("flagged", "", "", "no such text"),
    ],
)
def test_filters_and_pages_reach_exactly_the_rows(
    triage: Triage, made: list[Row], tab: str, level: str, category: str, text: str
) -> None:
    verdict = {"flagged": "unsafe", "undecided": "undecided", "safe": "safe"}.get(tab)
    wanted = [
        each
        for each in in_order(made)
        if (verdict is None or each["verdict"] == verdict)
        and (not level or each["level"] == level)
        and (not category or each["category"] == category)
        and text.lower() in (each["id"] + "\n" + each["text"]).lower()
    ]
    triage.tab(tab)
    triage.choose("#level", level)
    triage.choose("#category", category)
    triage.choose("#search", text, "input")
    assert triage.all_ids() == ids(wanted)
    assert triage.text("#found").startswith(f"{len(wanted):,} image")
    assert len(triage.ids()) == (len(wanted) - 1) % 60 + 1 if wanted else triage.ids() == []


def test_counts_filter_when_clicked(triage: Triage, made: list[Row]) -> None:
    triage.click('[data-filter="category"][data-value="illegal"]')
    assert triage.all_ids() == ids([each for each in in_order(made) if each["category"] == "illegal"])
    triage.click('[data-filter="category"][data-value="illegal"]')
    assert triage.all_ids() == ids(in_order(made))
    triage.click(".tile.errors")
    assert triage.ids() == []
    assert triage.driver.find_element("id", "errors").is_displayed()


def test_look_alikes_fold_and_unfold(driver: Any, tmp_path: Path) -> None:
    near = {3: 0, 5: 0b101, 8: 0b111111, 13: 0b111 << 60}  # row -> bits that differ from row 3's hash
    made = [row(number, 0.9 - number / 100) for number in range(20)]
    for number, bits in near.items():
        made[number]["phash"] = f"{0x0123456789ABCDEF ^ bits:016x}"
    made[17]["phash"] = f"{0x0123456789ABCDEF ^ 0b1111111:016x}"  # seven bits: another picture
    triage = open_page(driver, tmp_path, made)
    faces = [each for number, each in enumerate(made) if number not in {5, 8, 13}]
    assert triage.all_ids() == ids(faces)
    assert triage.text(".alike") == "+3 alike"
    assert triage.text("#found") == "20 images, 3 folded as look-alikes"
    triage.run("document.querySelector('.card').focus()")
    triage.keys("j", "j", "j", "x")
    unfolded = [*ids(made)[:4], *(made[number]["id"] for number in (5, 8, 13))]
    assert triage.ids()[:7] == unfolded
    assert sorted(triage.ids()) == sorted(ids(made))
    triage.keys("j", "x")  # from a member as well
    assert triage.ids() == ids(faces)
    triage.click("#fold")
    assert triage.ids() == ids(made)
    assert triage.problems() == []


def test_keys_move_reveal_and_show_the_heatmap(triage: Triage, made: list[Row]) -> None:
    flagged = ids([each for each in in_order(made) if each["verdict"] == "unsafe"])
    columns = triage.run("return getComputedStyle(gallery).gridTemplateColumns.split(' ').length")
    triage.run("document.querySelector('.card').focus()")
    for keys, place in (("jj", 2), ("k", 1), (RIGHT, 2), (DOWN, 2 + columns)):
        triage.keys(*keys)
        assert triage.current() == flagged[place]
    triage.keys(UP, LEFT, "k")
    assert triage.current() == flagged[0]
    opened = "return document.activeElement.classList.contains('open')"
    assert not triage.run(opened)
    triage.keys(ENTER)
    assert triage.run(opened)
    triage.keys("h")
    left, right = triage.run(
        "const c = document.activeElement.querySelector('canvas'), x = c.getContext('2d');"
        "const d = [...x.getImageData(0, 60, c.width, 1).data]; return [d.slice(0, 4), d.slice(-4)]"
    )
    assert np.abs(np.array(left) - (*ANCHORS[0], 255)).max() <= 5
    assert np.abs(np.array(right) - (*ANCHORS[-1], 255)).max() <= 5
    assert triage.run("return document.activeElement.classList.contains('hot')")
    triage.keys(ENTER)
    assert not triage.run("return document.activeElement.matches('.open, .hot')")
    covered = "return [...document.querySelectorAll('.card')].filter(e => e.matches(arguments[0])).length"
    assert triage.run(covered, ".open, .hot") == 0
    triage.click("#blur")
    assert triage.run(covered, ".open.hot") == 60
    triage.click("#blur")
    triage.keys("n")
    assert triage.current() == flagged[60]
    triage.keys("k")
    assert triage.current() == flagged[59]
    triage.keys("?")
    assert triage.run("return document.querySelector('#help').open")
    triage.keys(ESCAPE)
    triage.run("document.querySelector('#blur').focus()")
    triage.keys("?")  # a control keeps the keys that it understands, no others
    triage.click("#close")
    assert not triage.run("return document.querySelector('#help').open")
    triage.keys("/", "0", "0")
    assert triage.run("return document.activeElement.value") == "00"
    assert triage.problems() == []


def test_hostile_texts_stay_texts_and_nothing_is_requested(driver: Any, tmp_path: Path) -> None:
    made = []
    for number, text in enumerate(HOSTILE):
        made.append(row(3 * number, 0.9, id=f"{text}/{text}", text=text, read_text=text, shard=text))
        made.append(row(3 * number + 1, None, id=text, reason=text, shard=text))
        made.append(error(3 * number + 2, id=text, reason=text, shard=text))
    made = [
        {
            name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
            for name, value in each.items()
        }
        for each in made
    ]
    triage = open_page(driver, tmp_path, made, summary={HOSTILE[0]: HOSTILE[1], "note": HOSTILE[2]})
    tags = "return [...document.querySelectorAll('script:not([type]), main img, main svg[onload], object, iframe')].map(e => e.outerHTML.slice(0, 40))"
    assert len(triage.run("return [...document.scripts].filter(s => !s.type).map(s => 1)")) == 1
    for tab in ("flagged", "undecided", "all", "errors"):
        triage.tab(tab)
        assert all(found.startswith(("<script>", '<img alt="" decoding')) for found in triage.run(tags))
    triage.tab("flagged")
    writings = triage.run("return [...document.querySelectorAll('.writing')].map(e => e.textContent)")
    assert f"read in the image: {HOSTILE[0]}" in writings
    captions = triage.run("return [...document.querySelectorAll('.caption')].map(e => e.textContent)")
    shown = HOSTILE[2].translate({ord(c): "\ufffd" for c in "\u202e\u2066\u2028\u061c\u00ad\ufe0d\U000e0041"})
    assert {HOSTILE[0], HOSTILE[1], HOSTILE[3], shown} <= set(captions)
    triage.run("document.querySelector('.card').focus()")
    triage.keys("r", "j", "w", "j", "u", ENTER, "h")
    assert triage.run("return document.documentElement.scrollWidth <= innerWidth")
    assert triage.problems() == []


def test_the_policy_forbids_what_the_page_does_not_need(triage: Triage) -> None:
    """The check above would see a request or a violation."""
    triage.run("const i = new Image(); i.src = 'https://unreachable.invalid/x.png'; document.body.append(i)")
    assert any("Content Security Policy" in problem for problem in triage.problems())
    refused = triage.run("try { document.body.innerHTML = '<p>'; return '' } catch (e) { return e.name }")
    assert refused == "TypeError"


def test_a_hundred_thousand_rows(driver: Any, tmp_path: Path) -> None:
    """More than is listed, with thumbnails that take more than their bytes."""
    folder = tmp_path / "scan"
    scores = np.random.default_rng(0).beta(0.3, 0.9, 101_000).astype(np.float32)
    made = [
        row(
            number,
            float(score),
            id=f"train/part-{number % 97:04d}/{number:09d}.jpg",
            text="a photograph of a valley",
        )
        for number, score in enumerate(scores)
    ]
    flagged = sorted((each for each in made if each["verdict"] == "unsafe"), key=lambda each: -each["score"])
    noise = np.random.default_rng(1).bytes(12_000)
    write_scan(folder, made, [thumbnail(each, noise, side=24) for each in flagged[:2500]])
    page = report(folder, source=f"folder:{folder}")
    assert page.stat().st_size <= PAGE_BYTES
    triage = Triage(driver, page)
    assert triage.number(".tile.all b") == len(made)
    assert triage.number("#over") == triage.number(".tile.flagged b") == int((scores >= 0.5).sum())
    bounds = triage.text("#bounds")
    assert "100,000 of 101,000 images are listed" in bounds
    assert f"of {len(flagged):,} flagged and undecided images have their thumbnail" in bounds
    assert "first 20,000 have their caption" in bounds
    assert "The rest is in rows/" in bounds
    triage.click("#fold")
    assert triage.ids() == ids(flagged[:60])
    triage.choose("#page", len(flagged) // 60 + 1)
    assert triage.ids() == ids(flagged[len(flagged) // 60 * 60 :])
    triage.tab("all")
    assert triage.text("#found") == "100,000 images"
    last = in_order(made)[99_999]["id"]
    triage.choose("#search", last, "input")
    assert triage.ids() == [last]
    assert triage.problems() == []


def test_a_phone_shows_it_all_and_themes_change(triage: Triage) -> None:
    driver = triage.driver
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    try:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for tab in ("flagged", "undecided", "errors"):
            triage.tab(tab)
            assert triage.run("return document.documentElement.scrollWidth") == 390
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    background = "return getComputedStyle(document.body).backgroundColor"
    features = [
        {"name": "prefers-color-scheme", "value": "dark"},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    before = triage.run(background)
    try:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        driver.refresh()
        dark = triage.run(background)
        moving = "return getComputedStyle(document.querySelector('.shot img')).transitionDuration"
        assert triage.run(moving) == "0s"
        triage.click("#theme")
        assert (dark != before, triage.run(background)) == (True, before)
        driver.refresh()
        assert triage.run(background) == before  # remembered
        triage.click("#theme")
        assert triage.run(background) == dark
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_missing_browser_skips_and_fails_where_it_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    for name in ("CI", "SAFEVLM_REQUIRE_BROWSER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        start(tmp_path, tmp_path)
    monkeypatch.setenv("SAFEVLM_REQUIRE_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="no Chromium"):
        start(tmp_path, tmp_path)


def test_every_control_has_a_name(triage: Triage) -> None:
    for tab in ("flagged", "errors"):
        triage.tab(tab)
        nodes = triage.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        roles = {"button", "combobox", "searchbox", "checkbox", "slider", "spinbutton", "listitem", "image"}
        found = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
        assert len(found) > 20
        for node in found:
            assert node["name"]["value"].strip(), node
