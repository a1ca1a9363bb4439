"""Writes embeddings to a file as they are computed: .npz for numpy, .parquet for tables."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tapetum.system.files import sole_writing, whole_file

Rows = npt.NDArray[np.float32]
Parts = Iterator[tuple[Sequence[str], Rows]]
"""Names of n images and their (n, D) embeddings, the same D throughout; at least one part."""

SUFFIXES = (".npz", ".parquet")
_PARQUET = b"PAR1"
_FOOTER = 1 << 16
"""The names of a Parquet file's columns are in so many of its last bytes."""


def write_embeddings(path: Path, parts: Parts, num_images: int) -> None:
    """Write all parts, whole or not at all.

    Args:
        path: ends in .npz (arrays `paths`, (N,) text, and `embeddings`, (N, D) float32) or in .parquet (columns
            `path` and `embedding`, a list of D numbers).
        parts: names and embeddings, of N images in all.
        num_images: N.

    Raises:
        ValueError: the path ends differently, pyarrow is not installed, or the file cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} ends in neither .npz nor .parquet: give --output such as {path.with_suffix('.npz')}.")
    write = _write_npz if path.suffix == ".npz" else _write_parquet
    with sole_writing(path), whole_file(path) as partial:
        write(partial, parts, num_images)


def is_embeddings(path: Path) -> bool:
    """Whether a file is one of embeddings."""
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return archive.namelist() == ["embeddings.npy", "paths.npy"]
    with path.open("rb") as file:
        if file.read(len(_PARQUET)) != _PARQUET:
            return False
        file.seek(max(0, path.stat().st_size - _FOOTER))
        names = file.read()
        return b"path" in names and b"embedding" in names


def _write_npz(path: Path, parts: Parts, num_images: int) -> None:
    """Write the same file as numpy.savez, which would need whole arrays in memory."""
    names: list[str] = []
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        with archive.open("embeddings.npy", "w", force_zip64=True) as file:
            for part, rows in parts:
                if not names:
                    _write_header(file, "<f4", (num_images, rows.shape[1]))
                names += part
                file.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
        width = max(len(name) for name in names)
        with archive.open("paths.npy", "w", force_zip64=True) as file:
            _write_header(file, f"<U{width}", (num_images,))
            for start in range(0, num_images, 10_000):
                file.write(np.array(names[start : start + 10_000], dtype=f"<U{width}").tobytes())


def _write_header(file: Any, descr: str, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_2_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


def _write_parquet(path: Path, parts: Parts, num_images: int) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            "pyarrow is not installed: pip install 'tapetum[parquet]', or give --output as .npz."
        ) from error
    writer = None
    try:
        for names, rows in parts:
            paths = pyarrow.array([name.encode(errors="surrogateescape").decode(errors="replace") for name in names])
            embeddings = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.ravel()), rows.shape[1])
            table = pyarrow.table({"path": paths, "embedding": embeddings})
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
