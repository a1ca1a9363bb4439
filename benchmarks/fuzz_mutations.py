"""Changes valid files into ones that nobody wrote on purpose, or that somebody did; the same seed, the same changes."""

from __future__ import annotations

import io
import random
import re
import zipfile
from collections.abc import Callable, Sequence

_EDGES = (0, 1, 127, 128, 255, 256, 32767, 32768, 65535, 65536)
_EDGES += tuple(2**power + more for power in (24, 31, 32, 40, 60, 63) for more in (-1, 0))
_PICKLE = (
    b"cposix\nsystem\n(S'touch harmed'\ntR",
    b"\x8c\x08builtins\x8c\x04eval\x93\x8c\x16open('harmed', 'w')\x85R",
    b"ctorch\nload\n",
    b"r\xff\xff\xff\x7f",
    b"2\x86" * 60,
    b"\x8e" + (2**60).to_bytes(8, "little"),
)
_TEXT = (
    *(
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\r",
        b"\r\n",
        b"\n",
        b"\t",
        b'"',
        b"'",
        b",",
        b";",
        b"=cmd()",
        b"<b>&amp;",
    ),
    *(b"1e999", b"-1", b"9" * 5000, b"NaN", b"Infinity", b"null", b"true", b"{}", b"[]", b"[" * 3000, b'{"a":' * 3000),
    *(b"*a", b"&a ", b"!!python/object/apply:os.system [x]", b"? ", b"- " * 500, b"<<: ", b"0x" + b"f" * 5000),
    *(b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>", b"&b;", b"../" * 40, b"/etc/passwd", b"/dev/zero"),
    *(b"\\ud800", b"\x1b[31m", "‮".encode(), b"," * 3000, b"a" * 200_000),
)
TOKENS = {
    "pickle": _PICKLE,
    "text": _TEXT,
    "binary": (
        b"\xff\xd9",
        b"\xff\xda",
        b"IEND",
        b"PK\3\4",
        b"PK\1\2",
        b"\x1f\x8b",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"\0" * 64,
    ),
}
Change = Callable[[bytes, random.Random], bytes]


def _place(data: bytes, rng: random.Random, size: int = 1) -> int:
    """A place in a file, half of the time near its beginning, where headers are."""
    last = max(0, len(data) - size)
    return rng.randint(0, min(last, 64 if rng.random() < 0.5 else last))


def _put(data: bytes, at: int, new: bytes, over: int) -> bytes:
    return data[:at] + new + data[at + over :]


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if changed:
            changed[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _byte(data: bytes, rng: random.Random) -> bytes:
    return _put(data, _place(data, rng), rng.randbytes(1), 1)


def _integer(data: bytes, rng: random.Random) -> bytes:
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(_EDGES) % 2 ** (8 * size)
    return _put(data, _place(data, rng, size), value.to_bytes(size, rng.choice(("little", "big"))), size)


def _number(data: bytes, rng: random.Random) -> bytes:
    """Change a number that is written in digits."""
    found = list(re.finditer(rb"\d+", data[:100_000]))
    if not found:
        return _integer(data, rng)
    digits = rng.choice(found)
    return data[: digits.start()] + str(rng.choice(_EDGES) - rng.choice((0, 0, 7))).encode() + data[digits.end() :]


def _delete(data: bytes, rng: random.Random) -> bytes:
    return _put(data, _place(data, rng), b"", rng.choice((1, 2, 4, 16, 200)))


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def _copy(data: bytes, rng: random.Random) -> bytes:
    at, size = _place(data, rng), rng.choice((1, 4, 16, 200))
    return _put(data, _place(data, rng), data[at : at + size] * rng.choice((1, 1, 2, 50, 1000)), 0)


def _insert(data: bytes, rng: random.Random) -> bytes:
    return _put(data, _place(data, rng), rng.randbytes(rng.choice((1, 3, 40))), 0)


_CHANGES: tuple[Change, ...] = (_flip, _flip, _byte, _integer, _integer, _number, _delete, _cut, _copy, _insert)


def mutated(data: bytes, rng: random.Random, others: Sequence[bytes], tokens: str) -> bytes:
    """Change a file in one to six places.

    Args:
        data: a valid file.
        rng: decides everything.
        others: more valid files of the kind, parts of which may be put in.
        tokens: what else may be put in, a key of `TOKENS`.
    """
    if data[:4] == b"PK\3\4" and rng.random() < 0.6:
        return _member_changed(data, rng, others, tokens)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        what = rng.random()
        if what < 0.12:
            data = _put(data, _place(data, rng), rng.choice(TOKENS[tokens]), rng.choice((0, 0, 1, 8)))
        elif what < 0.18 and others:
            other = rng.choice(others)
            at = _place(other, rng)
            data = _put(data, _place(data, rng), other[at : at + rng.choice((8, 64, 1000))], rng.choice((0, 8, 64)))
        elif what < 0.2 and tokens == "text":
            data = data.decode("latin-1").encode(rng.choice(("utf-16", "utf-16-le", "utf-8-sig")))
        else:
            data = rng.choice(_CHANGES)(data, rng)
    return data


def _member_changed(data: bytes, rng: random.Random, others: Sequence[bytes], tokens: str) -> bytes:
    """Change a file in an archive, whose check sums then fit again."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w") as new:
        members = old.infolist()
        chosen = rng.randrange(len(members))
        for number, member in enumerate(members):
            content = old.read(member)
            if number == chosen:
                content = mutated(content, rng, [], tokens)
            method = rng.choice((member.compress_type, zipfile.ZIP_DEFLATED))
            new.writestr(member.filename, content, method)
    return packed.getvalue()
