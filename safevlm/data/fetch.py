"""Images at http(s) URLs, fetched from public addresses alone, within a size and a time.

A URL may come from a stranger, who would like this machine to ask its own network for him. So a host's name is resolved
once, every address that it has is checked, and the connection goes to one of the checked addresses; a redirect starts
over. Proxies of the environment are not used, since they would resolve the name again.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable
from importlib.metadata import version
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from safevlm.errors import ImageError
from safevlm.printable import shortened

Address: TypeAlias = IPv4Address | IPv6Address

MAX_BYTES = 1 << 25
"""The largest image that is fetched, 32 MiB."""

SECONDS = 20.0
"""The longest that one image may take, redirects included; the system's own limit holds for resolving a name."""

REDIRECTS = 5
"""The most that are followed."""

_REDIRECTED = (301, 302, 303, 307, 308)
_SAFE = "/%:@!$&'()*+,;=~?"
_GLOBAL_UNICAST, _NAT64 = IPv6Network("2000::/3"), IPv6Network("64:ff9b::/96")
_DOWNLOAD = "download it and give the file"


def is_public(address: Address) -> bool:
    """Whether an address is of the public internet: not private, loopback, link-local, shared, multicast or reserved.

    An IPv6 address that stands for an IPv4 one (mapped, 6to4, NAT64) is as public as that.
    """
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast
    inner = address.ipv4_mapped or address.sixtofour
    if address in _NAT64:
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(inner)
    return address in _GLOBAL_UNICAST and address.is_global


def fetch(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    seconds: float = SECONDS,
    admits: Callable[[Address], bool] = is_public,
) -> bytes:
    """The bytes at an http(s) URL.

    Args:
        url: of an image; it may redirect.
        max_bytes: the most that are read.
        seconds: that it may take.
        admits: which addresses may be asked.

    Raises:
        ImageError: it is no http(s) URL, its host or that of a redirect has an address that is not admitted, or it
            cannot be fetched within the size and the time.
    """
    until = time.monotonic() + seconds
    name = shortened(url)
    try:
        for _ in range(REDIRECTS + 1):
            with _ask(_parts(url), until, admits) as response:
                if response.status not in _REDIRECTED:
                    return _body(response, max_bytes)
                url = urljoin(url, response.getheader("Location") or "")
    except TimeoutError as error:
        raise ImageError(name, f"was not fetched within {seconds:g} s", _DOWNLOAD) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = shortened(str(error) or type(error).__name__)
        raise ImageError(name, f"cannot be fetched ({reason})", f"check the URL, or {_DOWNLOAD}") from error
    raise ImageError(name, f"redirects more than {REDIRECTS} times", _DOWNLOAD)


def _parts(url: str) -> SplitResult:
    """A URL's parts; raises ValueError for one that is not asked."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{shortened(url)} is no http(s) URL")
    if "@" in parts.netloc:
        raise ValueError("URLs with a user's name or password are not asked")
    return parts


def _ask(parts: SplitResult, until: float, admits: Callable[[Address], bool]) -> http.client.HTTPResponse:
    """The answer to a GET, after its headers."""
    assert parts.hostname is not None
    host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    raw = _connect(host, port, until, admits)
    try:
        if parts.scheme == "https":
            raw = ssl.create_default_context().wrap_socket(raw, server_hostname=host)
        raw.sendall(_request(parts, host))
        response = http.client.HTTPResponse(_Timed(raw, until))  # type: ignore[arg-type]  # it calls `makefile`
        response.begin()
    except BaseException:
        raw.close()
        raise
    return response


def _request(parts: SplitResult, host: str) -> bytes:
    target = quote(parts.path or "/", safe=_SAFE) + (
        f"?{quote(parts.query, safe=_SAFE)}" if parts.query else ""
    )
    where = (f"[{host}]" if ":" in host else host) + (f":{parts.port}" if parts.port else "")
    headers = {
        "Host": where,
        "User-Agent": f"safevlm/{version('safevlm')}",
        "Accept": "image/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("ascii")


def _connect(host: str, port: int, until: float, admits: Callable[[Address], bool]) -> socket.socket:
    """A connection to an address of the host, all of whose addresses are admitted."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, where in found:
        if not admits(ip_address(str(where[0]))):
            raise ValueError(
                f"{shortened(host)} is at {where[0]}, which is no address of the public internet"
            )
    failed: OSError | None = None
    for family, kind, protocol, _, where in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_left(until))
            connection.connect(where)
        except OSError as error:
            connection.close()
            failed = error
        else:
            return connection
    raise failed or OSError("the host has no address")


def _body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    if response.status != 200:
        raise ValueError(f"the server answered {response.status} {shortened(response.reason)}")
    pieces, size = [], 0
    while piece := response.read(1 << 16):
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise ValueError(f"it has more than {max_bytes:,} bytes, the limit")
    return b"".join(pieces)


def _left(until: float) -> float:
    """Seconds until then; raises TimeoutError where there are none."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Timed(io.RawIOBase):
    """Reads a connection until a moment, however slowly bytes come."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._connection, self._until = connection, until

    def makefile(self, mode: str) -> io.BufferedReader:
        """What `HTTPResponse` reads, in binary `mode`."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read what has come; raises TimeoutError after the moment."""
        self._connection.settimeout(_left(self._until))
        return self._connection.recv_into(buffer)

    def close(self) -> None:
        """Close the connection, too."""
        self._connection.close()
        super().close()
