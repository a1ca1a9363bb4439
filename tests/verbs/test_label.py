"""The command that shows the label page; tests/labelling has the page itself."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tapetum
from tapetum.labelling import server
from tapetum.verbs.label import label


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        path = tmp_path / "photos" / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((300, 200), 60 * number, np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def sessions(monkeypatch):
    """What the page would show; the page itself is not started."""
    noted = []

    def note(session, port, tell):
        tell(f"http://127.0.0.1:{port}/token/")
        noted.append(session)

    monkeypatch.setattr(server, "serve", note)
    return noted


def test_it_prints_the_address_and_serves_until_it_is_stopped(photos):
    command = [sys.executable, "-m", "tapetum", "label", "photos"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().removeprefix("Open ").strip()
        with urllib.request.urlopen(f"{address}image/0") as response:
            assert Image.open(response).size == (107, 160)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(address.rstrip("/")[:-1] + "/")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "Stopped. Answers are in" in said
    finally:
        process.kill()
        process.communicate()
    assert Path("labels.csv").read_text() == "path,label\n"


def test_images_are_what_fit_takes_and_class_folders_are_no_answers(photos, sessions):
    label("photos", labels="mine.csv")
    (session,) = sessions
    assert session.pool.names == ("a/0.png", "a/3.png", "b/1.png", "c/2.png")
    assert session.answers.labels == {}
    Path("list.txt").write_text("photos/c/2.png\nphotos/a/0.png\n")
    label("list.txt", labels="listed.csv")
    assert sessions[-1].pool.names == ("c/2.png", "a/0.png")
    assert sessions[-1].pool.images == str(Path("list.txt").resolve())
    (photos / "train").mkdir()
    (photos / "test").mkdir()
    for part, name in (("train", "a"), ("test", "b")):
        os.rename(photos / name, photos / part / name)
    label("photos", labels="part.csv")  # test images are not for training
    assert sessions[-1].pool.names == ("a/0.png", "a/3.png")
    assert sessions[-1].pool.images == str(photos / "train")


def test_names_that_are_no_text_are_left_out_and_told(photos, sessions, capsys):
    os.rename(photos / "a" / "0.png", os.fsdecode(bytes(photos / "a") + b"/\xff.png"))
    label("photos")
    assert len(sessions[0].pool.names) == 3
    assert "1 images are left out, such as a/\\udcff.png" in capsys.readouterr().err


def test_suggested_images_come_first(photos, sessions):
    Path("next.csv").write_text("path,reason\nc/2.png,typical\n")
    label("photos", suggested="next.csv")
    assert sessions[0].next("tab", 1)[0]["name"] == "c/2.png"


def test_mistakes_are_one_sentence(photos, sessions):
    np.savez("arrays.npz", x=np.zeros((4, 8, 8, 3), np.uint8))
    Path("faulty.csv").write_text("path,label\nnone.png,cat\n")
    for words, given in (
        ("arrays.npz holds arrays: label shows image files", {"images": "arrays.npz"}),
        ("there is nothing at nowhere", {"images": "nowhere"}),
        ("faulty.csv, line 2: there is no image 'none.png'", {"labels": "faulty.csv"}),
        ("labels are written as CSV, but labels.json is none", {"labels": "labels.json"}),
        ("photos is no run folder", {"run": "photos"}),
        ("there is no table next.csv", {"suggested": "next.csv"}),
        ("faulty.csv has no column reason", {"suggested": "faulty.csv"}),
    ):
        with pytest.raises(ValueError, match=words) as error:
            label(**{"images": "photos", "labels": "labels.csv"} | given)
        assert "\n" not in str(error.value)
    assert sessions == []


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_that_cannot_be_used_is_told(photos, port):
    with pytest.raises(ValueError, match=f"port {port} cannot be used"):
        label("photos", port=port)


def test_without_its_packages_the_page_says_which(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "tapetum.labelling.server")
    with pytest.raises(ValueError, match=r"pip install 'tapetum\[label\]'"):
        label("photos")


def test_it_is_public():
    assert tapetum.label is label
