"""The page's server, asked as a browser asks it, and as nobody should."""

import io
import json

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tapetum.data.labels.labels import NONE_OF_THESE
from tapetum.labelling.server import make_app

TOKEN = "secret-token"
HERE = "http://127.0.0.1:8000"


def client_of(session, **headers):
    headers = {"Origin": HERE} | headers
    return TestClient(make_app(session, TOKEN), base_url=HERE, headers=headers, raise_server_exceptions=False)


@pytest.fixture
def client(session):
    return client_of(session)


def post(client, what, **data):
    response = client.post(f"/{TOKEN}/{what}", content=json.dumps({"tab": "t"} | data))
    assert response.status_code == 200, response.text
    return response.json()


def refused(response):
    assert response.text.startswith("Refused: ")
    return response.status_code == 403


def test_an_answer_is_written_and_the_next_image_comes(client, session):
    first, second = post(client, "next", count=2)
    state = post(client, "answer", answers=[[first["id"], "cat"]], how="key", seconds=1.25)
    assert (state["labelled"], state["classes"]) == (1, [["cat", 1]])
    assert post(client, "next", count=1)[0] == second
    assert session.answers.path.read_text().splitlines()[1] == f"{first['name']},cat"
    post(client, "answer", answers=[[second["id"], NONE_OF_THESE]], how="key")
    state = client.get(f"/{TOKEN}/state").json()
    assert (state["labelled"], state["none"], state["images"]) == (1, 1, 12)
    told = post(client, "undo")
    assert [image["id"] for image in told["images"]] == [second["id"]]
    assert told["state"]["none"] == 0


def test_the_page_and_its_parts_ask_nobody_else(client):
    page = client.get(f"/{TOKEN}/")
    assert page.headers["content-type"].startswith("text/html")
    assert "http" not in page.text
    for name in ("label.js", "label.css"):
        text = client.get(f"/{TOKEN}/{name}").text
        assert "//" not in text.replace("// ", "").replace("http://www.w3.org/2000/svg", "")
        assert "innerHTML" not in text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"


def test_images_come_in_three_sizes_and_are_kept(client, session):
    for side in (160, 1024, 2560):
        response = client.get(f"/{TOKEN}/image/3?side={side}")
        assert Image.open(io.BytesIO(response.content)).size == (20, 16)
        assert response.headers["content-type"] == "image/png"
    (session.pool.root / session.pool.names[3]).unlink()
    assert client.get(f"/{TOKEN}/image/3?side=160").status_code == 200
    (session.pool.root / session.pool.names[4]).write_text("<html>")
    unreadable = client.get(f"/{TOKEN}/image/4")
    assert unreadable.status_code == 409
    assert "cannot be read" in unreadable.json()["error"]
    assert client.get(f"/{TOKEN}/image/12").status_code == 409
    assert client.get(f"/{TOKEN}/image/1?side=99999").status_code == 409
    assert client.get(f"/{TOKEN}/image/-1").status_code == 409


def test_pictures_take_bounded_memory(session):
    session.pictures._most = 500
    for _ in range(2):
        for image in range(12):
            session.pictures.get(image, 160)
            assert session.pictures.size <= 500
    assert session.pictures.size == sum(len(content) for content, _ in session.pictures._kept.values()) > 0


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil:1", ""]
)
def test_a_foreign_host_is_refused(client, host):
    for path in (f"/{TOKEN}/", f"/{TOKEN}/state", f"/{TOKEN}/image/1"):
        assert refused(client.get(path, headers={"Host": host, "Origin": f"http://{host}"}))


def test_this_machine_may_be_called_by_its_names(session):
    for host in ("127.0.0.1:1", "localhost:8000", "localhost", "[::1]:5"):
        client = client_of(session, Host=host, Origin=f"http://{host}")
        assert client.get(f"/{TOKEN}/state").status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:8000", "http://127.0.0.1:8001"])
def test_a_foreign_origin_is_refused(client, session, origin):
    body = json.dumps({"answers": [[0, "cat"]], "how": "key", "tab": "t"})
    assert refused(client.post(f"/{TOKEN}/answer", content=body, headers={"Origin": origin}))
    assert refused(client.get(f"/{TOKEN}/state", headers={"Origin": origin}))
    assert session.answers.labels == {}


def test_a_page_elsewhere_cannot_embed_images_or_send_without_origin(session):
    client = client_of(session)
    del client.headers["origin"]
    assert client.get(f"/{TOKEN}/image/1").status_code == 200
    assert refused(client.get(f"/{TOKEN}/image/1", headers={"Sec-Fetch-Site": "cross-site"}))
    assert refused(client.post(f"/{TOKEN}/undo", content='{"tab": "t"}'))


@pytest.mark.parametrize("path", ["/", "/state", "/image/1", "/secret-toke/state", "/secret-token2/state", "/é/", "//"])
def test_without_the_token_nothing_is_told(client, path):
    assert refused(client.get(path))


@pytest.mark.parametrize(
    "path",
    [
        "../photos/00.png",
        "image/../image/1",
        "image/%2e%2e/1",
        "image/..%2f..%2fetc",
        "image/..\\..",
        "%2E%2E/x",
        "./x",
    ],
)
def test_upward_paths_are_refused(session, path):
    """As they are sent: a client of good manners would resolve them first."""
    assert raw_status(session, f"/{TOKEN}/{path}") == 403


def raw_status(session, target):
    """The status of a request whose path nobody has made better."""
    from urllib.parse import unquote

    import anyio

    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": "GET",
        "http_version": "1.1",
        "scheme": "http",
        "query_string": b"",
        "path": unquote(target),
        "raw_path": target.encode(),
        "headers": [(b"host", b"127.0.0.1:8000")],
    }
    anyio.run(make_app(session, TOKEN), scope, receive, send)
    return sent[0]["status"]


@pytest.mark.parametrize(
    ("what", "body", "words"),
    [
        ("answer", "{", "Expecting"),
        ("answer", "[]", "no object"),
        ("answer", '{"how": "key"}', "'answers'"),
        ("answer", '{"how": "key", "answers": [[99, "cat"]]}', "there is no image 99"),
        ("answer", '{"how": "key", "answers": [[true, "cat"]]}', "there is no image True"),
        ("answer", '{"how": "key", "answers": [[0, 7]]}', "7 is no class"),
        ("answer", '{"how": "key", "answers": [[0, "a\\u0000b"]]}', "cannot be printed"),
        ("answer", '{"how": "magic", "answers": [[0, "cat"]]}', "given by 'magic'"),
        ("answer", '{"how": "key", "answers": [[0, "cat", 3]]}', "too many values"),
        ("train", '{"unit": "years", "length": 1}', "positive number of minutes"),
        ("train", '{"unit": "steps", "length": "NaN"}', "positive number of minutes"),
        ("train", '{"unit": "steps", "length": 3}', "at least two classes"),
        ("resume", "{}", "no run was stopped"),
    ],
)
def test_a_faulty_request_is_answered_by_a_sentence_and_changes_nothing(client, session, what, body, words):
    response = client.post(f"/{TOKEN}/{what}", content=body)
    assert response.status_code == 409
    assert words in response.json()["error"]
    assert session.answers.labels == {}


def test_a_request_that_is_too_long_is_refused(client):
    assert refused(client.post(f"/{TOKEN}/answer", content=b" " * (2**20 + 1)))


def test_only_what_is_meant_to_be_sent_can_be_sent(client):
    assert client.get(f"/{TOKEN}/answer").status_code == 405
    assert client.post(f"/{TOKEN}/state").status_code == 405
    assert client.get(f"/{TOKEN}/server.py").status_code == 404


def test_lists_come_in_parts(client):
    post(client, "answer", answers=[[i, "cat"] for i in range(5)], how="grid")

    def listed(show, **more):
        part = client.get(f"/{TOKEN}/listing", params={"show": show, **more}).json()
        return part["total"], [item["id"] for item in part["items"]]

    assert listed("all", start=2, count=3) == (12, [2, 3, 4])
    assert listed("unlabelled") == (7, [5, 6, 7, 8, 9, 10, 11])
    assert listed("label:cat", count=2) == (5, [4, 3])
    assert listed("label:dog") == (0, [])
    assert listed("all", start=-3, count=10**9)[1] == list(range(12))


def test_a_label_file_that_somebody_broke_is_told(client, session):
    session.answers.path.write_text("path,label\nnothing.png,cat\n")
    response = client.get(f"/{TOKEN}/state")
    assert response.status_code == 409
    assert "line 2: there is no image 'nothing.png'" in response.json()["error"]
