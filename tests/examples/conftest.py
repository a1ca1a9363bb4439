import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

DETECTION = Path(__file__).parents[2] / "examples" / "detection"


@pytest.fixture(scope="module")
def detection() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a script of examples/detection/, whose names are free again afterwards."""
    known = set(sys.modules)
    sys.path.insert(0, str(DETECTION))
    yield importlib.import_module
    sys.path.remove(str(DETECTION))
    for name in {path.stem for path in DETECTION.glob("*.py")} - known:
        sys.modules.pop(name, None)
