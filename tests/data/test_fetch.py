"""Images at URLs, from a real server on this machine: asked only where its address may be asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from threading import Thread
from urllib.parse import unquote

import pytest

from safevlm.data.fetch import Address, fetch, is_public
from safevlm.errors import ImageError


class Handler(BaseHTTPRequestHandler):
    """`/image` answers; `/drip` sends a byte now and then; `/to?URL` redirects."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", unquote(self.path.removeprefix("/to?")))
            self.end_headers()
        elif self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            while not self.wfile.closed:
                self.wfile.write(b"x")
                time.sleep(0.05)
        else:
            self.send_response(200 if self.path == "/image" else 404)
            self.end_headers()
            self.wfile.write(b"pixels" if self.path == "/image" else b"")

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client had enough
            super().handle()


class Server(ThreadingHTTPServer):
    """A server that remembers what it was asked."""

    asked: list[str]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    thread = Thread(target=lambda: made.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def url(server: Server) -> str:
    server.asked = []
    return f"http://127.0.0.1:{server.server_port}"


def this_server(address: Address) -> bool:
    """Stands for the public internet: the one address of the server."""
    return str(address) == "127.0.0.1"


def test_an_image_is_fetched_and_redirects_are_followed(server, url):
    assert fetch(f"{url}/image", admits=this_server) == b"pixels"
    assert fetch(f"{url}/to?/image", admits=this_server) == b"pixels"
    assert fetch(f"{url}/to?{url}/image#part", admits=this_server) == b"pixels"
    assert server.asked == ["/image", "/to?/image", "/image", f"/to?{url}/image", "/image"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_this_machine_is_not_asked_by_default(server, url, host):
    with pytest.raises(ImageError, match="no address of the public internet"):
        fetch(f"http://{host}:{server.server_port}/image")
    assert server.asked == []


def test_a_redirect_to_an_inner_address_is_not_followed(server, url):
    for inner in ("127.0.0.2", "10.0.0.1", "169.254.169.254", "[::1]"):
        with pytest.raises(ImageError, match="no address of the public internet"):
            fetch(f"{url}/to?http://{inner}:{server.server_port}/image", admits=this_server)
    assert "/image" not in server.asked


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/to?file:///etc/passwd", "is no http"),
        ("/to?ftp://127.0.0.1/image", "is no http"),
        ("/missing", "answered 404"),
        ("/to?/to?/to?/to?/to?/to?/to?/image", "redirects more than 5 times"),
    ],
)
def test_what_is_not_fetched_is_said(url, path, message):
    with pytest.raises(ImageError, match=message):
        fetch(url + path, admits=this_server)


@pytest.mark.parametrize(
    "bad", ["http://", "http:///image", "http://me:secret@example.org/", "http://[::1/", "file:///etc/passwd", "http://a:b/"]
)  # fmt: skip
def test_no_url(bad):
    with pytest.raises(ImageError, match="cannot be fetched"):
        fetch(bad)


def test_caps_of_size_and_time(url):
    with pytest.raises(ImageError, match="more than 5 bytes"):
        fetch(f"{url}/image", admits=this_server, max_bytes=5)
    assert fetch(f"{url}/image", admits=this_server, max_bytes=6) == b"pixels"
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"not fetched within 0.3 s"):
        fetch(f"{url}/drip", admits=this_server, seconds=0.3)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("::ffff:8.8.8.8", True), ("64:ff9b::808:808", True),
        ("127.0.0.1", False), ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False),
        ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("240.0.0.1", False), ("255.255.255.255", False),
        ("::1", False), ("::", False), ("fe80::1", False), ("fc00::1", False), ("fec0::1", False), ("ff02::1", False),
        ("::ffff:10.0.0.1", False), ("::127.0.0.1", False), ("64:ff9b::a00:1", False), ("2002:7f00:1::", False),
        ("2001:db8::1", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address, public):
    assert is_public(ip_address(address)) == public
