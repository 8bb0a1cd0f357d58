"""The tar reader: tarfile and the webdataset library are the oracles for sound tars; hostile ones cost a shard."""

from __future__ import annotations

import contextlib
import io
import random
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from webdataset.tariterators import base_plus_ext

from safevlm.data.decompress import DecompressReader
from safevlm.data.tar import FILE, FOLDER, MAX_EXTENDED, MAX_HEADERS, OTHER, Tar, TarError
from safevlm.data.tar_sparse import SparseError
from safevlm.data.webdataset import key_of

END = bytes(1024)


def header(name: str | bytes, size: int = 0, kind: bytes = b"0", **fields: bytes) -> bytes:
    """One hand-made block; `size` may be negative or too large for octal digits; `fields` are raw."""
    name = name if isinstance(name, bytes) else name.encode()
    octal = 0 <= size < 8**11
    number = (
        b"%011o\0" % size
        if octal
        else (size % (1 << 88) | (0xFF if size < 0 else 0x80) << 88).to_bytes(12, "big")
    )
    block = bytearray(
        name[:100].ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + fields.get("octal", number)
        + b"00000000000\0" + b" " * 8 + kind + fields.get("link", b"").ljust(100, b"\0")
        + fields.get("magic", b"ustar\x0000") + fields.get("rest", b"").ljust(247, b"\0")
    )  # fmt: skip
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block[:512])


def member(name: str | bytes, data: bytes = b"", kind: bytes = b"0", **fields: bytes) -> bytes:
    return header(name, len(data), kind, **fields) + data + bytes(-len(data) % 512)


def pax(*records: tuple[str, object], kind: bytes = b"x") -> bytes:
    """A pax header, from the definition: each line's length counts itself."""
    body = b""
    for key, value in records:
        line = b" %s=%s\n" % (key.encode(), value if isinstance(value, bytes) else str(value).encode())
        length = len(line) + 1
        while len(b"%d" % length) + len(line) != length:
            length += 1
        body += b"%d" % length + line
    return member("pax", body, kind)


def reading(data: bytes) -> Tar:
    return Tar(DecompressReader(io.BytesIO(data)))


def members(data: bytes) -> list[tuple[str, bytes]]:
    tar = reading(data)
    return [(found.name, tar.read(found)) for found in tar]


def refused(data: bytes, match: str) -> list[str]:
    """Names of the members before the tar is refused."""
    names: list[str] = []
    with pytest.raises(TarError, match=match):  # noqa: PT012
        for found in reading(data):
            names.append(found.name)
    return names


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_gives_what_tarfile_gives(format: int) -> None:
    dice = random.Random(0)
    file = io.BytesIO()
    deep = "/".join(["folder"] * 20)  # 139 bytes: ustar's prefix, a long name, a pax header
    names = ["a.jpg", "folder/é.png", f"{deep}/b.jpg", "ustar/" + "x" * 90 + ".png", "empty.txt"]
    if format != tarfile.USTAR_FORMAT:
        names += ["y" * 300 + ".jpg", "\udcff.png"]
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 0 if name == "empty.txt" else dice.randint(1, 2000)
            info.mtime = 1.5 if format == tarfile.PAX_FORMAT else 1  # a pax header of another key
            tar.addfile(info, io.BytesIO(dice.randbytes(info.size)))
            for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
                other = tarfile.TarInfo(f"{number}-{kind.decode()}")
                other.type, other.linkname = kind, "z" * (90 if format == tarfile.USTAR_FORMAT else 150)
                tar.addfile(other)
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as tar:
        theirs = [(info.name, tar.extractfile(info).read() if info.isreg() else b"") for info in tar]  # type: ignore[union-attr]
        kinds = [FILE if info.isreg() else FOLDER if info.isdir() else OTHER for info in tar]
    assert members(file.getvalue()) == theirs
    assert [found.kind for found in reading(file.getvalue())] == kinds


def test_old_headers_signed_checksums_and_numbers_to_the_base_256() -> None:
    block = bytearray(header("ä.png", 3, magic=b"\0" * 8))
    block[124:136] = b"\x80" + (3).to_bytes(11, "big")
    block[148:156] = b" " * 8
    signed = sum(byte - 256 * (byte > 127) for byte in block)
    block[148:156] = b"%06o\0 " % signed
    assert members(bytes(block) + b"abc".ljust(512, b"\0") + END) == [("ä.png", b"abc")]


SPARSE = b"".join((bytes(1000), b"x" * 600, bytes(512), b"y" * 100, bytes(788)))  # 3,000 bytes, two pieces
STORED = b"x" * 600 + b"y" * 100


def _old_gnu() -> bytes:
    pieces = [(1000 + 120 * n, 120) for n in range(5)] + [(2112, 100), (3000, 0)]  # more than a header takes
    entries = [b"%011o\0%011o\0" % piece for piece in pieces]
    rest = bytes(41) + b"".join(entries[:4]) + b"\1" + b"%011o\0" % 3000
    head = bytearray(header("a.png", 700, b"S", magic=b"ustar  \0"))
    head[345 : 345 + len(rest)] = rest
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + b"".join(entries[4:]).ljust(512, b"\0") + STORED.ljust(1024, b"\0")


def _pax_sparse(form: str, pieces: str = "1000,600,2112,100", size: object = 3000) -> bytes:
    numbers = pieces.split(",")
    if form == "1.0":
        told = "\n".join([str(len(numbers) // 2), *numbers, ""]).encode()
        data = told.ljust(len(told) + -len(told) % 512, b"\0") + STORED
        keys = [("GNU.sparse.major", 1), ("GNU.sparse.minor", 0), ("GNU.sparse.name", "a.png")]
        return pax(*keys, ("GNU.sparse.realsize", size)) + member("GNUSparseFile.0/a.png", data)
    if form == "0.1":
        return pax(("GNU.sparse.size", size), ("GNU.sparse.map", pieces)) + member("a.png", STORED)
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    told_pairs = [
        record for at, n in pairs for record in (("GNU.sparse.offset", at), ("GNU.sparse.numbytes", n))
    ]
    return pax(("GNU.sparse.size", size), *told_pairs) + member("a.png", STORED)


FORMS = {"gnu": _old_gnu(), **{form: _pax_sparse(form) for form in ("0.0", "0.1", "1.0")}}


@pytest.mark.parametrize("form", FORMS)
def test_sparse_files_are_filled(form: str) -> None:
    data = FORMS[form] + member("b.png", b"b") + END
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(info.name, tar.extractfile(info).read()) for info in tar] == members(data)  # type: ignore[union-attr]
    assert members(data) == [("a.png", SPARSE), ("b.png", b"b")]


def test_what_gnu_tar_writes_of_a_sparse_file(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"x" * 5000)
        file.truncate(3 << 20)
    for form in (["gnu"], ["posix", "--sparse-version=0.0"], ["posix", "--sparse-version=0.1"], ["posix"]):
        command = ["tar", "-S", "-C", tmp_path, "-H", *form, "-cf", tmp_path / "x.tar", "a.png"]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no GNU tar")
        assert members((tmp_path / "x.tar").read_bytes()) == [("a.png", (tmp_path / "a.png").read_bytes())]


@pytest.mark.parametrize("form", ["0.0", "0.1", "1.0"])
@pytest.mark.parametrize(
    ("pieces", "size"),
    [
        *(("1000,600,2112,100", -(10**12)), ("1000,600,2112,100", "x"), ("1000,600,2112,100", 2000)),
        *(("1000,600,1200,100", 3000), ("-3,600,2112,100", 3000), ("0,600,700,200", 3000), ("0,9,20,9", 3000)),
    ],
)  # fmt: skip
def test_a_damaged_sparse_map_is_an_error_of_its_member_alone(form: str, pieces: str, size: object) -> None:
    tar = reading(_pax_sparse(form, pieces, size) + member("b.png", b"b") + END)
    found = []
    for item in tar:
        try:
            found.append((item.name, tar.read(item)))
        except SparseError:
            found.append((item.name, None))
    assert found == [("a.png", None), ("b.png", b"b")]


def test_a_sparse_map_of_millions_of_numbers_is_not_held() -> None:
    lines = b"%d\n" % 2_000_000 + b"0\n" * 4_000_000
    head = pax(("GNU.sparse.major", 1), ("GNU.sparse.minor", 0), ("GNU.sparse.realsize", 100))
    tar = reading(head + member("a.png", lines) + END)
    tracemalloc.start()
    with pytest.raises(SparseError, match="too long"):
        tar.read(next(iter(tar)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000_000  # the data itself, twice, and the map's limit
    old = header("a.png", 0, b"S", magic=b"ustar  \0", rest=bytes(217) + b"\1")
    assert refused(old + (bytes(504) + b"\1" + bytes(7)) * 3000 + END, "sparse map") == []


# What is refused: every member before it stands, and nothing hangs


@pytest.mark.parametrize("size", [-1, -5, -512, -1024, -(1 << 60), 1 << 60, 1 << 87])
def test_a_size_that_is_negative_or_larger_than_the_file(size: int) -> None:
    bad = header("b.png", size) + member("c.png", b"c") * 3 + END
    whole = member("a.png", b"a")
    found = refused(whole + bad, "negative" if size < 0 else "cut off")
    assert found == (["a.png"] if size < 0 else ["a.png", "b.png"])
    for text in (size, f"{size:+d}", f"0x{abs(size):x}", "9" * 5000, " 5", "1_0"):
        data = whole + pax(("size", text)) + member("b.png", b"b") + END
        assert refused(data, "pax header with a size|cut off")[:1] == ["a.png"]


def test_octal_sizes_are_digits() -> None:
    for digits in (b"-0000000005\0", b"0x000000005\0", b"00000000_05\0", b"00000000008\0", b"+0000000005\0"):
        assert refused(
            member("a.png", b"a") + header("b.png", octal=digits) + bytes(512) + END, "no number"
        ) == ["a.png"]


@pytest.mark.parametrize("kind", [b"x", b"g", b"X", b"L", b"K"])
def test_extended_headers_are_limited_in_number_and_size(kind: bytes) -> None:
    body = b"12 comment=\n" if kind in b"xgX" else b"a.png\0"
    for count in (MAX_HEADERS, 2000):
        data = member("h", body, kind) * count + member("a.png", b"a") + END
        if count == MAX_HEADERS:
            assert members(data) == [("a.png", b"a")]
        else:
            assert refused(data, "extended header") == []
    assert (
        refused(member("h", bytes(MAX_EXTENDED + 1), kind) + member("a.png") + END, "extended header") == []
    )
    assert refused(header("h", 1 << 60, kind) + END, "extended header") == []
    assert refused(member("b.png") + member("h", body, kind) + END, "behind an extended header") == ["b.png"]


def test_a_pax_header_is_read_in_linear_time() -> None:
    """A regular expression for numbers took the square: 80 kB of digits took 21 s."""
    for body in (b"1" * (1000 << 10), b"0 path=x\n", b"9999 path=x\n", b"11 path=abc", b"x=1\n", b"-8 a=b\n"):
        data = member("p", body, b"x") + member("a.png") + END
        assert refused(data, "damaged pax header") == []


def test_members_behind_an_end_mark_are_read_on() -> None:
    one, two = member("a.png", b"a"), member("b.png", b"b")
    for zeros in (512, 1024, 10240 - 1024):
        assert members(one + bytes(zeros) + two + END) == [("a.png", b"a"), ("b.png", b"b")]
    for junk in (b"garbage" * 500, b"x", bytes(600) + b"x" * 10):
        assert refused(one + END + junk, "behind the end mark|cut off") == ["a.png"]
    assert members(one + END + bytes(100)) == [("a.png", b"a")]


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 511, b"x" * 600, bytes(100)])
def test_what_is_no_tar(data: bytes) -> None:
    assert refused(data, "cut off|bad checksum") == []


def test_mutated_tars_raise_nothing_else() -> None:
    dice = random.Random(0)
    sound = (
        b"".join(FORMS.values())
        + pax(("path", "p.png"), ("size", 1))
        + member("x", b"a")
        + member("L", b"l.png\0", b"L")
    )
    sound += member("c.png", bytes(700)) + END
    for _ in range(400):
        data = bytearray(sound)
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(data) - 1024)
            data[at] = dice.randrange(256)
            block = at - at % 512
            if dice.random() < 0.8:  # with the right checksum, more than the checksum is tested
                data[block + 148 : block + 156] = b" " * 8
                data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
        tar = reading(bytes(data))
        with contextlib.suppress(TarError):
            for found in tar:
                with contextlib.suppress(SparseError):
                    if found.size < 1 << 20:
                        tar.read(found)


def test_keys_are_the_librarys() -> None:
    dice = random.Random(0)
    alphabet = ["a", "b", ".", "/", "jpg", "é", "._", "..", "./"]
    for _ in range(10_000):
        name = "".join(dice.choices(alphabet, k=dice.randint(1, 8)))
        assert key_of(name) == (base_plus_ext(name)[0] or name), name
