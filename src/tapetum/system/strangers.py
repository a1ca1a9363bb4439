"""Limits on what a file from a stranger may cost, and on how much of it an error repeats."""

import gzip
import pickletools
import reprlib
import stat
from pathlib import Path
from typing import IO

MOST_UNPACKED = 2**29
"""Bytes that any compressed file may unpack to."""
MOST_TIMES = 200
"""Larger ones may unpack to this many times their own size; black and white drawings come near 100, bombs to 1000."""
MOST_EXPANDED = 3 * 10**7
"""Parts of all tuples of a pickle, were they written out without references; Python hashes them one by one."""

_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxstring, _SHOWN.maxother = 2, 80, 80
_MUTABLE = frozenset(("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "LIST", "DICT"))
_GROWING = frozenset(("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"))


def shown(value: object) -> str:
    """Return a value from a file for an error, short however large it is."""
    return _SHOWN.repr(value)


def short_reason(error: BaseException) -> str:
    """Return what a library says of a file, in one line of at most 200 characters."""
    text = " ".join(str(error)[:2000].split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def is_regular(path: Path) -> bool:
    """Return whether a file can be read to an end: a pipe may wait forever, and a device may have none.

    Raises:
        OSError: there is no such file.
    """
    return stat.S_ISREG(path.stat().st_mode)


def most_unpacked(path: Path) -> int:
    """Return how many bytes a compressed file may unpack to."""
    return max(MOST_UNPACKED, MOST_TIMES * path.stat().st_size)


def refuse_bomb(path: Path, size: int) -> None:
    """Refuse a file that unpacks to far more than it takes on disk, whose only use is to fill a memory.

    Raises:
        ValueError: `size` bytes are too many. It lacks the file's name, which the caller adds.
    """
    if size > most_unpacked(path):
        raise ValueError(f"its {path.stat().st_size:,} bytes would unpack to {size:,} or more")


def read_unpacked(path: Path, size: int) -> bytes:
    """Read at most `size` bytes of a file, unpacked if its name ends in .gz."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return file.read(size)


def check_pickle(file: IO[bytes]) -> None:
    """Refuse a pickle that would cost its reader far more than its own size; its names are checked elsewhere.

    Two costs are bounded. A place in the memo far beyond the others would make the unpickler reserve memory for all
    before it. And tuples that hold another tuple twice, which holds another twice, and so on, have 2**n parts: to hash
    such a key, or to print it, takes forever.

    Raises:
        ValueError: it is no pickle, or one of these.
    """
    total = 0
    sizes: list[int | None] = []  # of what is on the unpickler's stack; None is a mark
    memo: dict[object, int] = {}
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        name = opcode.name
        if "PUT" in name or name == "MEMOIZE":
            if isinstance(argument, int) and argument > number:
                raise ValueError(f"place {argument} of its memo is out of order")
            memo[len(memo) if name == "MEMOIZE" else argument] = (sizes[-1] if sizes else 1) or 1
        elif "GET" in name:
            sizes.append(memo.get(argument, 1))
        elif name == "MARK":
            sizes.append(None)
        elif name == "DUP":
            sizes.append(sizes[-1] if sizes else 1)
        else:
            total += _step(opcode, sizes)
        if total > MOST_EXPANDED:
            raise ValueError(f"its tuples repeat each other more than {MOST_EXPANDED:,} times")


def _step(opcode: pickletools.OpcodeInfo, sizes: list[int | None]) -> int:
    """Replace what an opcode takes from the stack, whose size is returned, by what it leaves: its parts, and 1."""
    taken = 0
    before = opcode.stack_before
    if pickletools.markobject in before:
        while sizes and (size := sizes.pop()) is not None:
            taken += size
        before = before[: before.index(pickletools.markobject)]
    for _ in before:
        taken += (sizes.pop() if sizes else 0) or 0
    size = 1 if opcode.name in _MUTABLE or opcode.name in _GROWING else 1 + taken
    sizes += [size] * len(opcode.stack_after)
    return taken
