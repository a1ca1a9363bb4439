"""Golden arrays of the published optimiser and schedules."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def golden():
    def load(name):
        return dict(np.load(Path(__file__).parent.parent / "golden" / f"{name}.npz"))

    return load
