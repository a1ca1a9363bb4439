import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


def load_toy() -> ModuleType:
    """The module tests/engine/toy.py; pytest's importlib mode keeps tests off sys.path."""
    if "tapetum_toy" not in sys.modules:
        spec = importlib.util.spec_from_file_location("tapetum_toy", Path(__file__).with_name("toy.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["tapetum_toy"] = module
        spec.loader.exec_module(module)
    return sys.modules["tapetum_toy"]


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    return load_toy()


@pytest.fixture(autouse=True)
def threads_restored():
    """Launching a runtime and resuming set the thread count of the process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
