"""Unpacking piece by piece, against what was packed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import zlib

import pytest

from safevlm.data.decompress import DecompressReader

pytestmark = pytest.mark.slow

PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("kind", PACKERS)
def test_unpacking_gives_what_was_packed_in_pieces_of_any_size(kind: str) -> None:
    dice = random.Random(0)
    words = [dice.randbytes(200_000), bytes(500_000), b"end"]
    packed = b"".join(PACKERS[kind](word) for word in words) + bytes(40_000)  # several streams, padding
    for most in (1, 511, 10_240, 1 << 22):
        stream, pieces = DecompressReader(io.BytesIO(packed)), []
        limit = 3000 if most == 1 else None
        while (piece := stream.read(most)) and (limit is None or len(pieces) < limit):
            assert len(piece) <= most
            pieces.append(piece)
        found = b"".join(pieces)
        assert found == b"".join(words)[: limit or None]


@pytest.mark.parametrize("kind", PACKERS)
def test_what_was_packed_before_a_cut_is_unpacked(kind: str) -> None:
    words = random.Random(1).randbytes(3_000_000)
    packed = PACKERS[kind](words)
    stream, found = DecompressReader(io.BytesIO(packed[: len(packed) // 2])), b""
    with pytest.raises(EOFError, match="cut off"):  # noqa: PT012
        while piece := stream.read(10_240):
            found += piece
    assert words.startswith(found)
    assert len(found) > 800_000
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0xFF
    stream = DecompressReader(io.BytesIO(bytes(damaged)))
    with pytest.raises((OSError, EOFError, zlib.error, lzma.LZMAError)):
        list(iter(lambda: stream.read(1 << 20), b""))


def test_what_is_not_packed_is_read_as_it_is() -> None:
    for words in (b"", b"x", bytes(range(256)) * 100):
        stream = DecompressReader(io.BytesIO(words))
        assert b"".join(iter(lambda: stream.read(100), b"")) == words  # noqa: B023
