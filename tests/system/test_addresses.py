from pathlib import Path

import pytest

from tapetum.system.addresses import Address, place_of


def test_an_address_is_used_like_a_path():
    address = place_of("s3://bucket/folder/")
    assert address == Address("s3://bucket/folder")
    assert str(address / "a/1.jpg") == "s3://bucket/folder/a/1.jpg"
    assert address / "" == address
    labels = address / "labels.v2.csv"
    assert (labels.name, labels.suffix, labels.parent) == ("labels.v2.csv", ".csv", address)


@pytest.mark.parametrize("text", ["photos", "./a:b.csv", "/x/y", "C:/photos", "a//b"])
def test_paths_are_no_addresses(text):
    assert place_of(text) == Path(text)


def test_files_of_this_machine_are_paths():
    assert place_of("~/x") == Path.home() / "x"
    assert place_of("file:///x/y.zip") == Path("/x/y.zip")


@pytest.mark.parametrize(
    "text", ["ftp://me:s3cret@host/x", "https://host/x?X-Amz-Signature=s3cret", "s3://key:s3cret@bucket/x"]
)
def test_addresses_with_credentials_are_refused_without_repeating_them(text):
    with pytest.raises(ValueError, match="holds a password or a query") as refused:
        place_of(text)
    assert "s3cret" not in str(refused.value)


def test_a_user_or_a_revision_is_no_credential():
    assert place_of("sftp://me@host/x").name == "x"
    assert place_of("hf://datasets/me/set@main/data").name == "data"


def test_chains_are_refused():
    with pytest.raises(ValueError, match="chains addresses"):
        place_of("zip://a.jpg::s3://bucket/x.zip")
