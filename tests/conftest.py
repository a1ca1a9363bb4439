from collections.abc import Iterator
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="session")
def family() -> ModuleType:
    """The module helpers/family.py: every method on small images made up for tests."""
    import family

    return family


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `kind` beside `family` runs for every method."""
    if {"kind", "family"} <= set(metafunc.fixturenames):
        import family

        metafunc.parametrize("kind", family.CASES)


@pytest.fixture(autouse=True)
def threads_restored() -> Iterator[None]:
    """Launching a runtime sets the thread count of the process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread() -> None:
    """For work too small to share out: on a busy machine threads would mostly wait for each other."""
    torch.set_num_threads(1)
