"""The client of chat servers, against a real one on loopback: what it sends, and that every failure is an error."""

from __future__ import annotations

import base64
import json
import time

import pytest

from safevlm.data import read_image
from safevlm.endpoint import MAX_RESPONSE, Endpoint
from safevlm.errors import EndpointError
from tests.chat_server import ChatServer, image_of, prompt_of
from tests.tiny import picture


def test_prompt_image_and_settings_arrive(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    with ChatServer(lambda body: " Yes. ").running() as server:
        asked = Endpoint(server.url + "/", "some-model", key_env="MY_KEY")
        assert asked.ask("What?", picture(3), max_new_tokens=7) == " Yes. "
        assert Endpoint(server.url, "some-model").ask("Only words", max_new_tokens=7) == " Yes. "
    (path, headers, body), (_, other_headers, other) = server.requests
    assert path == "/v1/chat/completions"
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("some-model", 7, 0)
    assert (prompt_of(body), prompt_of(other), image_of(other)) == ("What?", "Only words", None)
    head, _, data = image_of(body).partition(",")
    assert head == "data:image/png;base64"
    assert read_image(base64.b64decode(data)).tobytes() == picture(3).tobytes()
    assert headers["Authorization"] == "Bearer secret"
    assert "Authorization" not in other_headers  # a key goes where its variable is named, and nowhere else


def test_a_redirect_is_not_followed(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    with ChatServer(lambda body: "stolen").running() as inner:
        with ChatServer(lambda body: (302, {"Location": inner.url}, b"")).running() as server:
            with pytest.raises(EndpointError, match="302"):
                Endpoint(server.url, "m", key_env="MY_KEY").ask("What?", max_new_tokens=1)
    assert inner.requests == []


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((500, {}, b"out of memory"), "500 .out of memory"),
        ((200, {}, b"<html>hello</html>"), "not JSON"),
        ((200, {}, b"{}"), "choices"),
        ((200, {}, b"[" * 100_000), "not JSON"),
        ((200, {}, json.dumps({"choices": [{"message": {"content": [1]}}]}).encode()), "list, not text"),
        ((200, {}, b" " * (MAX_RESPONSE + 1)), "more than"),
    ],
)
def test_what_is_no_answer_is_an_error_that_names_the_address(reply, said):
    with ChatServer(lambda body: reply).running() as server:
        with pytest.raises(EndpointError, match=said) as caught:
            Endpoint(server.url, "m").ask("What?", max_new_tokens=1)
    assert server.url in str(caught.value)


def test_no_content_is_an_empty_answer():
    empty = json.dumps({"choices": [{"message": {"content": None}}]}).encode()
    with ChatServer(lambda body: (200, {}, empty)).running() as server:
        assert Endpoint(server.url, "m").ask("What?", max_new_tokens=1) == ""


def test_a_server_that_is_slow_or_gone_is_an_error_in_time():
    def slow(body):
        time.sleep(0.5)
        return "late"

    with ChatServer(slow).running() as server:
        with pytest.raises(EndpointError, match="timed out"):
            Endpoint(server.url, "m", timeout=0.05).ask("What?", max_new_tokens=1)
    with pytest.raises(EndpointError, match="check the address"):
        Endpoint(server.url, "m").ask("What?", max_new_tokens=1)


@pytest.mark.parametrize(
    "given",
    [
        ("file:///etc/passwd", "m"),
        ("localhost:8000", "m"),
        ("http://", "m"),
        ("http://h/v1", ""),
        ("http://h/v1", "m", "NO_SUCH_KEY"),
    ],
)
def test_what_cannot_be_an_endpoint_is_refused(given):
    with pytest.raises(ValueError, match="address|named|NO_SUCH_KEY"):
        Endpoint(*given)
