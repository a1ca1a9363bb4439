"""Runs on s3://, with faults and killed: the bits of the same run on a folder. The store is moto's server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import object_store
import pytest
import yaml

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(object_store.MISSING),
        reason=f"{', '.join(object_store.MISSING)} missing: pip install 'moto[s3]' flask flask-cors s3fs",
    ),
]
TRAIN = ("train", "tiny.yaml", "data.workers=2")


@pytest.fixture
def store() -> Iterator[object_store.Store]:
    with object_store.running() as running:
        yield running


@pytest.fixture
def streamed(runs, store):  # type: ignore[no-untyped-def]
    """Runs whose photographs lie in the store, and are not decoded in advance."""
    runs.write(one_size=False)
    object_store.put(store, f"{runs.folder}/photos/train", "pool/train")
    runs.environment |= store.environment | {"TAPETUM_TEST_STREAMED": "1", "TAPETUM_PATIENCE": "2"}
    return runs


def test_a_run_on_a_store_with_faults_is_the_run_on_the_folder(streamed, store) -> None:  # type: ignore[no-untyped-def]
    streamed.call("never", *TRAIN, "--output", "here")
    faults = {5: "503", 40: "cut", 90: "slow", 150: "503", 151: "503", 300: "cut"}
    store.fault = lambda number: faults.get(number, "")
    streamed.call("never", *TRAIN, "--output", "there", "data.images=s3://pool/train")
    streamed.assert_same("here", "there")
    assert store.requests > 300
    written = "".join(path.read_text(errors="replace") for path in Path(streamed.folder, "there").glob("*.*"))
    assert "secret-of-a-test" not in written
    assert "key-of-a-test" not in written
    assert yaml.safe_load(Path(streamed.folder, "there/recipe.yaml").read_text())["data"]["images"] == "s3://pool/train"


def test_a_killed_run_on_a_store_is_resumed_to_the_bit(streamed, store) -> None:  # type: ignore[no-untyped-def]
    streamed.call("never", *TRAIN, "--output", "here")
    streamed.call("kill@step:8", *TRAIN, "--output", "there", "data.images=s3://pool/train")
    streamed.call("kill@step:15", "resume", "there")
    before = store.requests
    store.fault = lambda number: "503" if number > before + 60 else ""
    broken = streamed.start("never", "resume", "there")
    _, said = broken.communicate(timeout=600)
    assert broken.returncode == 2, said
    assert "s3://pool/train/" in said
    assert said.count("tapetum: error:") == 1
    assert "Traceback" not in said
    store.fault = lambda number: ""
    streamed.call("never", "resume", "there")
    streamed.assert_same("here", "there")
