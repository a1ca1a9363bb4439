"""Files of a web server that runs here, with faults."""

import time

import pytest
import web

pytest.importorskip("aiohttp", reason="aiohttp is not installed: fsspec cannot reach web servers")

from tapetum.system import remote
from tapetum.system.addresses import Address
from tapetum.system.remote import Unreachable, list_below, look_at, open_ranges, read_bytes, read_range


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_FIRST_WAIT", 0.001)
    monkeypatch.setenv("TAPETUM_PATIENCE", "0.05")
    monkeypatch.setattr(remote, "_told", set())
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.bin").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "2.bin").write_bytes(b"two")
    with web.serving(tmp_path) as running:
        yield running


def test_files_below_an_address_are_listed_and_read(server):
    root = Address(server.address)
    found = list_below(root)
    assert [(file.name, file.size) for file in found] == [("2.bin", 3), ("a/1.bin", 2048)]
    assert look_at(root / "2.bin")[1:] == found[0][1:]
    assert read_bytes(root / "2.bin") == b"two"
    assert read_range(root / "a/1.bin", 3, 4) == bytes([3, 4, 5, 6])
    with open_ranges(root / "a/1.bin", 2048) as file:
        assert file.seek(-1, 2) == 2047
        assert file.read() == b"\xff"
        file.seek(256)
        assert file.read(2) == b"\0\1"


def test_a_stamp_changes_with_the_file(server, tmp_path):
    before = look_at(Address(server.address) / "2.bin")
    (tmp_path / "2.bin").write_bytes(b"TWO")
    assert look_at(Address(server.address) / "2.bin").stamp != before.stamp


@pytest.mark.parametrize("fault", ["503", "cut", "reset"])
def test_faults_that_pass_are_tried_again_and_said_once(server, capsys, fault):
    place = Address(server.address) / "a/1.bin"
    for _ in range(2):
        server.fail(2, fault)
        assert len(read_bytes(place, 2048)) == 2048
    server.fail(2, fault)
    assert len(read_range(place, 5, 1000)) == 1000
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"tapetum: {server.address} fails (")


@pytest.mark.parametrize("fault", ["503", "cut", "reset"])
def test_faults_that_stay_name_the_address(server, fault, monkeypatch):
    monkeypatch.setenv("TAPETUM_PATIENCE", "0.5")  # time for more than one request on a busy machine, too
    server.fail(10**6, fault)
    with pytest.raises(Unreachable, match=r"/a/1\.bin cannot be read \(.*\), after \d+ seconds of trying: try again"):
        read_bytes(Address(server.address) / "a/1.bin", 2048)
    assert 2 <= len(server.asked) <= 24, "0.001 s, and twice as long each time; aiohttp asks twice after a reset"


def test_requests_that_hang_use_up_the_patience(monkeypatch):
    monkeypatch.setenv("TAPETUM_PATIENCE", "0.05")
    asked = []

    def hangs():
        asked.append(time.sleep(0.06))
        raise TimeoutError

    with pytest.raises(Unreachable, match=r"x cannot be read \(TimeoutError\), after 0 seconds of trying"):
        remote._tried(Address("http://127.0.0.1:9/x"), hangs)
    assert len(asked) == 2, "once more, at least"


def test_what_is_not_there_is_no_fault(server):
    with pytest.raises(FileNotFoundError):
        read_bytes(Address(server.address) / "3.bin")
    with pytest.raises(ValueError, match=r"there is nothing at http://.*/3\.bin"):
        look_at(Address(server.address) / "3.bin")
    assert len(server.asked) == 0


def test_a_file_of_another_size_than_listed_is_refused(server):
    with pytest.raises(Unreachable, match=r"3 of 5 bytes came"):
        read_bytes(Address(server.address) / "2.bin", 5)


def test_nobody_answers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAPETUM_PATIENCE", "0")
        with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:9/x cannot be read"):
            read_bytes(Address("http://127.0.0.1:9/x"))


def test_patience_must_be_a_number(monkeypatch):
    monkeypatch.setenv("TAPETUM_PATIENCE", "long")
    with pytest.raises(ValueError, match="TAPETUM_PATIENCE is 'long'"):
        remote.patience()


def test_secrets_in_errors_are_left_out():
    error = ConnectionError("GET https://me:pass@host/x?Signature=abc&Key=def failed")
    assert remote._reason(error) == "GET https://host/x failed"


@pytest.mark.parametrize(("address", "package"), [("gs://b/x", "gcsfs"), ("nothing://b/x", "correct the address")])
def test_a_missing_package_is_named(address, package):
    pytest.importorskip("fsspec")
    if package == "gcsfs":
        try:
            import gcsfs  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("gcsfs is installed")
    with pytest.raises(ValueError, match=package):
        read_bytes(Address(address))
