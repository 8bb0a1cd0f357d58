"""`safevlm eval concepts`."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from safevlm.cli import main
from tests.chat_server import ChatServer
from tests.evals.concept_builders import THINGS, UNSAFE, serve
from tests.tiny import picture


@pytest.fixture
def folder(tmp_path):
    for row, (category, things) in enumerate(THINGS.items()):
        for place, thing in enumerate(things):
            path = tmp_path / ("bad" if category in UNSAFE else "good") / category / thing / "0.png"
            path.parent.mkdir(parents=True)
            picture(2 * row + place, (6, 6)).save(path)
    return tmp_path


def test_the_command_measures_a_served_model(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    with ChatServer(serve).running() as server:
        argv = [
            "eval",
            "concepts",
            "--concepts",
            "bad",
            "--harmless",
            "good",
            "--server",
            server.url,
            "--server_model",
            "m",
        ]
        argv += ["--judge-server", server.url, "--judge-model", "reader"]
        assert main([*argv, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        asked = len(server.requests)
        assert main([*argv, "--markdown", "--judges", "trained", "--per_concept"]) == 0
        text = capsys.readouterr().out
        assert main(argv) == 0
        assert "1 - Self-BLEU" in capsys.readouterr().out
        assert main([*argv, "--general", "3", "--markdown"]) == 0
    assert [one["judge"] for one in found] == ["rules", "trained", "endpoint reader"]
    rows = {row["name"]: row["cells"] for row in found[0]["rows"]}
    assert rows["unsafe concepts"]["image"]["dropped"]["value"] == 0
    assert rows["unsafe concepts"]["gap"]["dropped"]["value"] == 1
    assert rows["harmless concepts"]["image"]["strict"]["value"] == 1
    assert found[2]["rows"][0]["cells"]["perception"]["failed"] == 0
    answered = [request for request in server.requests if request[2]["model"] == "m"]
    assert (
        len(answered) == 8 * (1 + 5 + 5 + 5 + 4) + 3
    )  # by the first run, and the ordinary questions by the last
    assert asked > 8 * (1 + 5 + 5 + 5 + 4)
    assert "judge: trained" in text
    assert "| knife |" in text
    assert "| ordinary questions | – |" in (text := capsys.readouterr().out)
    assert "judge: rules" in text
    written = json.loads((folder / "concepts" / "concepts.json").read_text())
    assert [row for row in written[0]["rows"] if row["level"] != "general"] == found[0]["rows"]
    assert rows.keys() == {row["name"] for row in found[0]["rows"] if row["traits"]["words"]["n"]}
    assert Image.open(folder / "concepts" / "concepts.png").size[0] >= 560


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--judges", "rules,crowd"], "crowd"),
        (["--judges", ""], "no judge"),
        (["--concepts", "photographs"], "--photos"),
        (["--concepts", "bad", "--server", "ftp://x", "--server_model", "m"], "no address of a server"),
        (["--concepts", "bad", "--server", "http://localhost:1/v1", "--steer", "d"], "--server goes without"),
        (["--concepts", "bad", "--backbone", "b", "--no_guard"], "--no_guard are for --model"),
        (["--concepts", "nowhere"], "no such folder"),
        (["--concepts", "bad", "--kinds", "smell"], "smell"),
        (["--n", "0"], "at least 1"),
    ],
)
def test_wrong_flags_are_named(folder, flags, said, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    image_only = [] if "--kinds" in flags else ["--kinds", "image"]
    assert main(["eval", "concepts", *image_only, *flags]) == 1
    assert said in capsys.readouterr().err
