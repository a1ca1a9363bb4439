"""Reads the arrays of a `.h5` file of Keras in a process of its own.

HDF5 is a large library in C, and some damaged files end the process that reads them, or keep it busy forever. So this
process runs itself again as `python -m tapetum.interchange.weights.keras_h5`, which writes plain arrays, as NumPy does,
for it to read. What the other says of a file, or that it died of it, becomes one sentence here. It loads no torch.
"""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.system.strangers import refuse_bomb, short_reason

Layer = dict[str, np.ndarray]
"""The arrays of a layer: kernel, bias; gamma, beta, moving_mean, moving_variance; or others."""
Read = Callable[[Any], np.ndarray]

NORMALIZATION = ("gamma", "beta", "moving_mean", "moving_variance")
"""The arrays of a BatchNorm, in the order in which Keras makes them."""
SECONDS, COMPUTING = 60, 5
"""Seconds that a file may take, waiting and computing, and as many again for each `_BYTES` of it."""
_BYTES = 2**28
_REFUSED = 3
"""The exit code of the other process when it has said what is wrong."""


def read_h5(path: Path) -> list[Layer]:
    """Read the layers that have weights, in the file's order.

    Raises:
        ValueError: the file is damaged, is no file of Keras, leads into other files, unpacks to far more than it
            takes, or takes too long; h5py is needed and not installed.
    """
    if not _has_h5py():
        raise ValueError(f"{path} needs h5py, which is not installed: pip install 'tapetum[keras]'.")
    with tempfile.TemporaryDirectory(prefix="tapetum-h5-") as folder:
        copy = Path(folder, "layers.npz")
        reason = _run(path, copy)
        if reason:
            raise ValueError(f"{path} is cut short or no file of Keras weights ({reason}): get it again.")
        with np.load(copy, allow_pickle=False) as arrays:
            names = json.loads(arrays["names"].tobytes())
            layers: list[Layer] = [{} for _ in range(arrays["count"].item())]
            for number, (layer, name) in enumerate(names):
                layers[layer][name] = arrays[f"arr_{number}"]
    return layers


def _has_h5py() -> bool:
    try:
        return importlib.util.find_spec("h5py") is not None
    except ValueError:  # how a module that was blocked answers
        return False


def _run(path: Path, copy: Path) -> str:
    """Write the layers of a file into `copy` in another process; returns what was wrong, or nothing."""
    times = 1 + path.stat().st_size // _BYTES
    seconds = SECONDS * times
    # -P and this path: it imports what this process would, and nothing because it lies in the present folder.
    command = [sys.executable, "-P", "-m", __name__, str(path.absolute()), str(copy), str(COMPUTING * times)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return f"reading it took more than {seconds} s"
    if done.returncode in (0, _REFUSED):
        return done.stdout.decode(errors="replace").strip()
    if done.returncode < 0:
        return f"HDF5 died of it: {signal.strsignal(-done.returncode) or -done.returncode}"
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return f"its reader ended with code {done.returncode}: {said[-1][:120] if said else 'it said nothing'}"


def _layers(path: Path) -> list[Layer]:
    import h5py

    with h5py.File(path) as file:
        _refuse_links(file)
        read, root = _reader(path), file.get("model_weights", file)
        if "layer_names" in root.attrs:
            return [layer for name in root.attrs["layer_names"] if (layer := _layer(root[name], read))]
        names = sorted(root["layers"], key=_number)
        return [_numbered(variables, read) for name in names if len(variables := root["layers"][name]["vars"])]


def _refuse_links(file: Any) -> None:
    """Refuse links, which may lead into other files; they are looked at, not followed."""
    import h5py

    seen, left = set(), [file]
    while left:
        group = left.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name[:80]!r} is a link")
            part = group[name]
            place = h5py.h5o.get_info(part.id).addr
            if isinstance(part, h5py.Group) and place not in seen:  # groups may hold each other
                left.append(part)
            seen.add(place)


def _reader(path: Path) -> Read:
    """Make what reads arrays of numbers that lie in the file itself, and of them no more than a file may unpack to."""
    size = 0

    def read(values: Any) -> np.ndarray:
        nonlocal size
        if values.external or values.is_virtual or values.dtype.kind not in "biuf":
            raise ValueError(f"{values.name[:80]!r} lies elsewhere, or is no array of numbers")
        size += values.nbytes
        refuse_bomb(path, size)
        return np.asarray(values, dtype=values.dtype.newbyteorder("="))

    return read


def _number(name: str) -> int:
    """That of a layer among its kind: 0 for conv2d, 3 for conv2d_3."""
    match = re.search(r"_(\d+)$", name)
    return 0 if match is None else int(match[1])


def _layer(group: Any, read: Read) -> Layer:
    """A layer as Keras 2 writes it, and Keras 3 in a model's .h5."""
    names = [name.decode() if isinstance(name, bytes) else name for name in group.attrs["weight_names"]]
    return {name.rpartition("/")[2].partition(":")[0]: read(group[name]) for name in names}


def _numbered(group: Any, read: Read) -> Layer:
    """A layer as Keras 3 writes it in .weights.h5: without names, in the order in which the layer made them."""
    arrays = [read(group[str(number)]) for number in range(len(group))]
    if len(arrays) == 4:
        return dict(zip(NORMALIZATION, arrays, strict=True))
    return dict(zip(("kernel", "bias") if arrays[0].ndim > 1 else ("mean", "variance", "count"), arrays, strict=False))


def _limit(seconds: int) -> None:
    """Let the system end this process when it has computed for so long, where it can."""
    if sys.platform != "win32":
        import resource

        most = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (seconds if most < 0 else min(seconds, most), most))


def _main(path: Path, copy: Path, seconds: int) -> int:
    """Write the layers of a file as arrays of NumPy, and beside them whose they are: [layer, name]."""
    _limit(seconds)
    try:
        layers = _layers(path)
        names = json.dumps([[number, name] for number, layer in enumerate(layers) for name in layer]).encode()
        arrays = [array for layer in layers for array in layer.values()]
        # Uncompressed, beside the file's limit on what it may unpack to: the other process reads it at once.
        np.savez(copy, *arrays, names=np.frombuffer(names, np.uint8), count=np.asarray(len(layers)))
    except Exception as error:  # HDF5 and h5py fail in many ways on files that they were not made for
        print(short_reason(error)[:120].encode("ascii", "backslashreplace").decode())
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
