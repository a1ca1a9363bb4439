"""The commands of docs/sources.md run as they stand, on small images; a store in memory takes the place of s3://."""

import re
import shlex

import packed
import pytest

from tapetum.cli.main import main

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    photos = packed.save_photos(tmp_path / "photos", 5)
    packed.as_zip(photos, tmp_path / "photos.zip")
    packed.as_tar(photos, tmp_path / "photos.tar")
    packed.as_parquet(photos, tmp_path / "photos.parquet")
    packed.as_parquet(packed.save_photos(tmp_path / "others", 6), tmp_path / "hub/data/train-00000-of-00001.parquet")
    packed.as_parquet(packed.save_photos(tmp_path / "tests", 2), tmp_path / "hub/data/test-00000-of-00001.parquet")
    packed.as_shards(photos, tmp_path / "shards", 5, lambda name: ("cls", name.encode()))
    (tmp_path / "labels.csv").write_text("".join(f"{n},{n.split('/')[0]}\n" for n in packed.names_of(photos)[1:]))
    memory = fsspec.filesystem("memory")
    for name in ("photos", "photos.zip", "photos.tar", "labels.csv"):
        memory.put(str(tmp_path / name), f"/bucket/{name}", recursive=name == "photos")
    yield tmp_path
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.mark.slow
def test_the_commands_of_the_page_run(root, world, capsys, one_thread):
    blocks = re.findall(r"^```bash\n(.*?)^```$", (root / "docs/sources.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) > 12
    for line in lines:
        words = shlex.split(re.sub(r"--steps \d+", "--steps 2", line.replace("s3://", "memory://")))
        with pytest.raises(SystemExit) as stop:
            main(words[1:])
        said = capsys.readouterr()
        assert stop.value.code == 0, f"{line}: {said.err}"
        assert said.out
    assert "memory://bucket/photos" in (world / "runs/first/recipe.yaml").read_text()
    assert len((world / "predictions.csv").read_text().splitlines()) == 16
