import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


def load_family() -> ModuleType:
    """The module family.py; pytest's importlib mode keeps tests off sys.path."""
    if "tapetum_family" not in sys.modules:
        spec = importlib.util.spec_from_file_location("tapetum_family", Path(__file__).with_name("family.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["tapetum_family"] = module
        spec.loader.exec_module(module)
    return sys.modules["tapetum_family"]


@pytest.fixture(scope="session")
def family() -> ModuleType:
    return load_family()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `kind` runs for every method of the family."""
    if "kind" in metafunc.fixturenames and "family" in metafunc.fixturenames:
        metafunc.parametrize("kind", load_family().CASES)


@pytest.fixture(autouse=True)
def threads_restored():
    """Launching a runtime sets the thread count of the process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
