"""Files of named tensors with a checksum, which tells changed bits from a cut file: safetensors, nothing pickled.

    metadata["tapetum"]   what the caller says about the tensors
    metadata["checksum"]  "crc32 HEX BYTES", over the text above and the names, types, shapes and CRC-32 of all tensors;
                          BYTES is the length of the tensors, by which a cut file is told from a damaged one

CRC-32 is the fastest checksum of the standard library by measurement (zlib.crc32; adler32 is as fast and weaker, SHA-1,
SHA-256 and BLAKE2b take two to five times as long). It finds every change of up to 32 bits in a row, and misses one
in four billion others. It is no protection against people who change a file on purpose.
"""

import json
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tapetum.system.files import reason_of, whole_file
from tapetum.system.machine import available_threads

ABOUT = "tapetum"
"""Key of what the caller says, which is text."""
_CHECKSUM = "checksum"
_LONGEST_HEADER = 100_000_000  # bytes; safetensors reads no longer one
_FIX = "restore it from a copy, or delete it"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: str, then: str) -> None:
    """Write tensors, whole or not at all.

    Args:
        path: the file.
        tensors: row-major, on the CPU.
        about: what to store beside them.
        then: as for `tapetum.system.files.writing`.

    Raises:
        ValueError: the file cannot be written.
    """
    metadata = {ABOUT: about}
    metadata[_CHECKSUM] = _checksum(tensors, metadata)
    with whole_file(path, then) as partial:
        try:
            save_file(dict(tensors), partial, metadata=metadata)
        except SafetensorError as error:
            raise OSError(str(error).split("I/O error: ")[-1]) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Read all tensors onto the CPU, row-major, and what was stored beside them; None for files of other programs.

    A file from before there were checksums is read as it is.

    Raises:
        ValueError: the file is cut short, bits of it have changed, or it is no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({reason_of(error)}): {_FIX}.") from error
    except Exception as error:  # not only SafetensorError: torch may know no such type, or have no such memory
        raise ValueError(f"{path} {_fault(path)}: {_FIX}.") from error
    noted = metadata.pop(_CHECKSUM, None)
    # Without a checksum, a second entry can only be a checksum whose name has changed.
    is_changed = len(metadata) > 1 if noted is None else noted != _checksum(tensors, metadata)
    if is_changed and (ABOUT in metadata or noted is not None):
        raise ValueError(f"{path} {_CHANGED}: {_FIX}.")
    return tensors, metadata.get(ABOUT)


_CUT = "is cut short, so that its end is missing"
_CHANGED = "has its whole length, but bits of it have changed since it was written"


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    names = sorted(tensors)
    with ThreadPoolExecutor(available_threads()) as pool:  # zlib lets other threads run meanwhile
        checksums = list(pool.map(_checksum_of, map(tensors.__getitem__, names)))
    kinds = [(name, str(tensors[name].dtype), list(tensors[name].shape)) for name in names]
    found = zlib.crc32(json.dumps([sorted(metadata.items()), kinds, checksums]).encode())
    return f"crc32 {found:08x} {sum(tensor.nbytes for tensor in tensors.values())}"


def _checksum_of(tensor: Tensor) -> int:
    return zlib.crc32(tensor.detach().flatten().view(torch.uint8).numpy().data)


def _fault(path: Path) -> str:
    """Tell what is wrong with a file that safetensors refuses; no single changed bit makes a file look cut."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(min(length, _LONGEST_HEADER))
    if size < 8:
        return _CUT
    if length > _LONGEST_HEADER and not text.startswith(b"{"):
        return "is no safetensors file"
    try:
        header, end = json.JSONDecoder().raw_decode(text.decode("latin-1"))
        noted = header.get("__metadata__", {}).get(_CHECKSUM, "").split()[2:]
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + -(-end // 8) * 8 + min([max(ends, default=0), *map(int, noted)])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        whole = 8 + length if length <= _LONGEST_HEADER else 0
    return _CUT if size < whole else _CHANGED
