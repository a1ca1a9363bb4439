"""A folder that somebody else labelled and trained in: its notes and modules run nothing, and requests end well."""

import json
import os
import time
from dataclasses import asdict

import pytest
from starlette.testclient import TestClient

from tapetum.labelling.processes import Process, is_alive, start
from tapetum.labelling.server import make_app
from tapetum.labelling.training import Job

HERE = "http://127.0.0.1:8000"
FIT = ("fit", "--images", "a", "--labels", "b", "--steps", "3", "--output", "c")


@pytest.fixture
def started(monkeypatch):
    noted = []
    monkeypatch.setattr("tapetum.labelling.training.start", lambda words, log: noted.append(words) or Process(0, ""))
    return noted


def note(session, content):
    session.training.folder.mkdir(exist_ok=True)
    (session.training.folder / "001.json").write_text(content)


def job(session, **changes):
    usual = Job(1, str(session.training.folder / "001"), "stopped", Process(0, ""), 0.0, {}, FIT)
    return json.dumps(asdict(usual) | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "--plugin=harm"},
        {"phase": "rm"},
        {"number": "1"},
        {"command": ["train", "r.yaml", "--plugin", "harm"]},
        {"command": [*FIT[:5], "--plugin", "harm", *FIT[7:]]},
        {"process": 7},
        {"more": 1},
    ],
)
def test_a_note_that_the_page_did_not_write_is_refused_by_name(session, started, changes):
    note(session, job(session, **changes))
    with pytest.raises(ValueError, match=r"001\.json is not what the page wrote there: delete it"):
        session.training.resume()
    session.tick()
    assert "001.json" in session.notice
    assert started == []


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, "null", '{"number": 1}', "\0"])
def test_a_note_of_any_content_is_refused(session, started, content):
    note(session, content)
    with pytest.raises(ValueError, match=r"001\.json is not what the page wrote"):
        session.training.resume()
    assert started == []


def test_a_training_goes_on_with_its_length_and_nothing_else_of_its_note(session, started):
    note(session, job(session))
    session.training.resume()
    folder = session.training.folder
    words = ["--images", session.pool.images, "--labels", str(folder / "001.labels.csv"), "--steps", "3"]
    assert started == [["fit", *words, "--output", str(folder / "001")]]


def test_modules_beside_the_images_are_not_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("typer", "yaml", "tapetum"):
        (tmp_path / f"{name}.py").write_text("open('harmed', 'w')")
    process = start(["--version"], tmp_path / "log")
    end = time.monotonic() + 60
    while is_alive(process) and time.monotonic() < end:
        time.sleep(0.02)
    assert "tapetum 0." in (tmp_path / "log").read_text()
    assert not os.path.exists("harmed")


@pytest.mark.parametrize(
    "headers", [{"Transfer-Encoding": "Chunked"}, {"Content-Length": "²"}, {"Content-Length": "9" * 400}, {}]
)
def test_only_this_page_may_ask(session, headers):
    """A body of unknown or unbounded length is refused before it is read; so is a request without its origin."""
    app = make_app(session, "secret")
    origin = {"Origin": HERE} if headers else {}
    client = TestClient(app, base_url=HERE, headers=origin, raise_server_exceptions=False)
    encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    response = client.post("/secret/undo", content=b"{}", headers=encoded)
    assert response.status_code == 403
    assert response.text.startswith("Refused: ")


def test_counts_are_bounded_whatever_is_asked(session):
    client = TestClient(make_app(session, "secret"), base_url=HERE, headers={"Origin": HERE})
    for count in (-5, 0, 10**30):
        assert len(client.get(f"/secret/listing?start=0&count={count}").json()["items"]) <= 12
    assert client.get("/secret/listing?count=-5").json()["items"] == []
    assert len(client.post("/secret/next", content=json.dumps({"tab": "t", "count": 0})).json()) == 1
