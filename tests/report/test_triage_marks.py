"""Marks in Chromium: kept, exported, read again, and trained on."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from safevlm.training.cli import train

from safevlm import RiskScorer
from safevlm.data import open_source
from safevlm.labelled.table import read_table
from tests.report.browser import ENTER, Triage
from tests.report.builders import TAXONOMY, report, row
from tests.training.builders import flags, png, save_backbone, shade

pytestmark = pytest.mark.browser
SCORES = (0.97, 0.9, 0.8, 0.7, 0.6, 0.55, None, 0.2, 0.1, 0.0)
Row = dict[str, Any]


def scanned(folder: Path) -> list[Row]:
    """Rows of a real folder of pictures."""
    (folder / "pictures").mkdir(parents=True)
    for number in range(len(SCORES)):
        (folder / "pictures" / f"{number}.png").write_bytes(png(shade(3 if number < 6 else 0, number)))
    source = open_source(f"folder:{folder / 'pictures'}")
    made = []
    for shard in source.shards():
        for index, item in enumerate(source.read(shard)):
            digest = hashlib.sha256(item.data or b"").hexdigest()
            place = {"source": source.uri, "shard": shard.name, "index": index}
            made.append(row(index, SCORES[index], id=item.id, sha256=digest, **place))
    return made


@pytest.fixture
def made(tmp_path: Path) -> list[Row]:
    return scanned(tmp_path)


@pytest.fixture
def page(made: list[Row], tmp_path: Path) -> Path:
    return report(tmp_path / "scan", made, source=f"folder:{tmp_path / 'pictures'}")


@pytest.fixture
def triage(driver: Any, page: Path) -> Triage:
    return Triage(driver, page)


def export(triage: Triage, downloads: Path) -> Path:
    """Press the button and wait for the file."""
    for old in downloads.iterdir():
        old.unlink()
    triage.click("#export")
    for _ in range(200):
        if (downloads / "marks.jsonl").exists():
            return downloads / "marks.jsonl"
        time.sleep(0.05)
    raise AssertionError(f"no download: {list(downloads.iterdir())}")


def mark_some(triage: Triage) -> None:
    """0 right, 1 wrong, 2 wrong but illegal, 3 unsure, 4 right, 5 marked and unmarked; then 7 right, 8 wrong."""
    triage.run("document.querySelector('.card').focus()")
    triage.keys("r", "j", "w", "j", "w", "j", "u", "j", "r", "j", "w", "w")
    for name, value in (("risk_level", "caution"), ("risk_category", "illegal")):
        triage.choose(f'.card[data-row="2"] [data-correct="{name}"]', value)
    triage.tab("safe")
    triage.run("document.querySelector('.card').focus()")
    triage.keys("r", "j", "w")
    triage.tab("flagged")


def expected(made: list[Row], source: str) -> dict[str, Row]:
    labels = {
        0: ("right", made[0]["level"], made[0]["category"]),
        1: ("wrong", "safe", "clean"),
        2: ("wrong", "caution", "illegal"),
        3: ("unsure", "", ""),
        4: ("right", made[4]["level"], made[4]["category"]),
        7: ("right", "safe", "clean"),
        8: ("wrong", "", ""),
    }
    return {
        made[number]["id"]: {
            "source": source,
            **{name: made[number][name] for name in ("shard", "index", "id", "sha256")},
            "risk_level": level,
            "risk_category": category,
            "mark": mark,
            "score": pytest.approx(made[number]["score"], abs=1e-6),
        }
        for number, (mark, level, category) in labels.items()
    }


def read(path: Path) -> dict[str, Row]:
    return {line["id"]: line for line in map(json.loads, path.read_text("utf-8").splitlines())}


def test_marks_are_kept_exported_and_read_again(
    triage: Triage, page: Path, made: list[Row], downloads: Path, tmp_path: Path
) -> None:
    source = f"folder:{tmp_path / 'pictures'}"
    mark_some(triage)
    assert triage.text("#marks") == "3 right, 3 wrong, 1 unsure"
    triage.choose("#marked", "wrong")
    assert triage.ids() == [made[1]["id"], made[2]["id"]]
    lines = read(export(triage, downloads))
    assert lines == expected(made, source)
    assert [list(line) for line in lines.values()] == [
        ["source", "shard", "index", "id", "sha256", "risk_level", "risk_category", "mark", "score"]
    ] * 7
    triage.driver.refresh()
    assert triage.text("#marks") == "3 right, 3 wrong, 1 unsure"  # kept

    report(tmp_path / "scan", source=source, policy=other_policy())  # another scan of the same source
    again = Triage(triage.driver, page)
    assert again.text("#marks") == "0 right, 0 wrong, 0 unsure"
    given = tmp_path / "given.jsonl"
    foreign = json.dumps(next(iter(lines.values())) | {"source": "folder:/elsewhere"})
    unknown = json.dumps(next(iter(lines.values())) | {"risk_level": "deadly"})
    given.write_text((downloads / "marks.jsonl").read_text() + f"{foreign}\n{unknown}\nnot json\nnull\n")
    again.driver.find_element("id", "file").send_keys(str(given))
    wait(again, "#message", "7 marks read; 4 lines left out: they are no marks of this source.")
    assert read(export(again, downloads)) == expected(made, source)
    assert again.problems() == []


def other_policy() -> Any:
    from safevlm import Policy

    return Policy(TAXONOMY, threshold=0.4)


def wait(triage: Triage, selector: str, text: str) -> None:
    for _ in range(100):
        if triage.text(selector) == text:
            return
        time.sleep(0.05)
    raise AssertionError(f"{selector} says {triage.text(selector)!r}, not {text!r}")


def test_undecided_has_no_verdict_to_confirm(triage: Triage) -> None:
    triage.tab("undecided")
    triage.run("document.querySelector('.card').focus()")
    triage.keys("r")
    assert triage.text("#marks") == "0 right, 0 wrong, 0 unsure"
    triage.keys("w", ENTER)
    assert triage.text("#marks") == "0 right, 1 wrong, 0 unsure"


def test_two_tabs_share_their_marks(driver: Any, page: Path) -> None:
    first = driver.current_window_handle
    one = Triage(driver, page)
    driver.switch_to.new_window("tab")
    try:
        two = Triage(driver, page)
        two.run("document.querySelector('.card').focus()")
        two.keys("r", "j", "u")
        driver.switch_to.window(first)
        wait(one, "#marks", "1 right, 0 wrong, 1 unsure")
        one.run("document.querySelectorAll('.card')[3].focus()")
        one.keys("w")
        driver.switch_to.window(driver.window_handles[-1])
        wait(two, "#marks", "1 right, 1 wrong, 1 unsure")
    finally:
        driver.switch_to.window(driver.window_handles[-1])
        driver.close()
        driver.switch_to.window(first)


def test_a_browser_that_keeps_nothing_says_so_and_still_exports(
    driver: Any, page: Path, made: list[Row], downloads: Path, tmp_path: Path
) -> None:
    script = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }})"
    added = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        triage = Triage(driver, page)
        assert "keeps nothing" in triage.text("#message")
        mark_some(triage)
        assert read(export(triage, downloads)) == expected(made, f"folder:{tmp_path / 'pictures'}")
        assert triage.problems() == []
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_from_the_page_to_a_trained_head(
    triage: Triage, made: list[Row], downloads: Path, tmp_path: Path
) -> None:
    mark_some(triage)
    table = export(triage, downloads)
    rows = read_table(table, TAXONOMY)
    lines = expected(made, "")
    assert {row.key: (row.level, row.category) for row in rows} == {
        line["sha256"]: (
            TAXONOMY.levels.index(line["risk_level"]),
            TAXONOMY.category_names.index(line["risk_category"]),
        )
        for line in lines.values()
        if line["risk_level"]
    }
    backbone = save_backbone(tmp_path / "backbone")
    more = {"model.cache.folder": tmp_path / "cache", "data.tune_fraction": 0, "model.train_tokens": "false"}
    train("head", flags(backbone, table, tmp_path / "head", **more))
    [assessment] = RiskScorer.from_pretrained(tmp_path / "head").assess([shade(3, 90)])
    assert assessment.score is not None
    assert 0 <= assessment.score <= 1
