"""One file from elsewhere: whole, the right one, or not there; what has come is not asked for
twice."""

import hashlib
import json
import os
import subprocess
import sys
import urllib.request

import pytest

from t2i.core.errors import UserError
from t2i.core.fetch import transfer as transferring
from t2i.core.fetch import web
from t2i.core.fetch.incomplete import Remote
from t2i.core.fetch.transfer import locked, transfer

BODY = bytes(range(256)) * 4096  # 1 MiB
MD5 = "md5:" + hashlib.md5(BODY).hexdigest()
SHA = "sha256:" + hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def waits(monkeypatch):
    """The pauses between attempts, noted instead of waited for."""
    seconds = []
    monkeypatch.setattr(transferring.time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def remote(server):
    server.files["/a/file.bin"] = BODY

    def make(**promised):
        return Remote(f"{server.url}/a/file.bin", **promised)

    return make


def left(folder):
    """What is in a folder, without locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize("checksum", [MD5, SHA, SHA[:15], None])
def test_a_file_comes_whole_and_is_what_was_promised(remote, tmp_path, checksum):
    seen = []
    digests = transfer(
        remote(checksum=checksum),
        tmp_path / "to" / "file.bin",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (tmp_path / "to" / "file.bin").read_bytes() == BODY
    assert digests.sha256 == hashlib.sha256(BODY).hexdigest()
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert left(tmp_path / "to") == ["file.bin"]


def test_what_breaks_off_goes_on_where_it_broke_off(server, remote, tmp_path, waits):
    server.faults["/a/file.bin"] = ["cut", "cut", 503]
    said = []
    transfer(remote(checksum=MD5), tmp_path / "file.bin", say=said.append)
    assert (tmp_path / "file.bin").read_bytes() == BODY
    half, quarter = len(BODY) // 2, len(BODY) // 4
    assert [asked for _, asked in server.asked] == [
        None,
        f"bytes={half}-",
        *[f"bytes={half + quarter}-"] * 2,
    ]
    assert waits == [1, 1, 2]  # bytes that come end the row of failures
    assert "cut after 524288 of 1048576 bytes" in said[0]


def test_a_later_call_goes_on_too(server, remote, tmp_path, waits):
    server.faults["/a/file.bin"] = ["cut", *[500] * 9]
    with pytest.raises(UserError, match=r"500 .*524288 bytes are kept: the same command goes on"):
        transfer(remote(), tmp_path / "file.bin")
    assert left(tmp_path) == ["file.bin.part", "file.bin.part.json"]
    server.faults.clear()
    transfer(remote(checksum=SHA), tmp_path / "file.bin")
    assert server.asked[-1][1] == "bytes=524288-"
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_a_file_that_changed_meanwhile_is_got_anew(server, remote, tmp_path, waits):
    server.faults["/a/file.bin"] = ["cut", *[500] * 9]
    with pytest.raises(UserError):
        transfer(remote(), tmp_path / "file.bin")
    server.faults.clear()
    server.files["/a/file.bin"] = other = BODY[::-1]
    transfer(remote(), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == other


@pytest.mark.parametrize("lack", ["ranges", "etags"])
def test_a_server_that_cannot_resume_sends_it_anew(server, remote, tmp_path, waits, lack):
    setattr(server, lack, False)
    server.faults["/a/file.bin"] = ["cut"]
    transfer(remote(checksum=MD5), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY


@pytest.mark.parametrize("spoilt", [b"x" * 700, BODY + b"more"])
def test_a_part_that_is_not_of_this_file_does_no_harm(remote, tmp_path, waits, spoilt):
    (tmp_path / "file.bin.part").write_bytes(spoilt)
    transfer(remote(checksum=SHA, size=len(BODY)), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_a_longer_part_of_the_same_version_is_dropped(server, remote, tmp_path, waits):
    (tmp_path / "file.bin.part").write_bytes(BODY + b"more")
    note = {"url": remote().url, "validator": '"' + hashlib.sha256(BODY).hexdigest()[:16] + '"'}
    (tmp_path / "file.bin.part.json").write_text(json.dumps(note))
    transfer(remote(), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert len(server.asked) == 2  # 416, then all of it


@pytest.mark.parametrize("checksum", [MD5, SHA[:15]])
def test_wrong_bytes_are_refused_and_removed(server, remote, tmp_path, checksum):
    server.faults["/a/file.bin"] = ["wrong"]
    with pytest.raises(
        UserError, match=r"what came has the (MD5|SHA256) \w+, not \w+: it was removed"
    ):
        transfer(remote(checksum=checksum), tmp_path / "file.bin")
    assert left(tmp_path) == []


def test_another_size_is_refused_before_it_is_read(remote, tmp_path):
    with pytest.raises(UserError, match=r"offers 1048576 bytes, not 7"):
        transfer(remote(size=7), tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()


def test_a_file_that_is_there_is_read_and_left_alone(server, remote, tmp_path):
    (tmp_path / "file.bin").write_bytes(BODY)
    assert transfer(remote(checksum=MD5), tmp_path / "file.bin").size == len(BODY)
    (tmp_path / "file.bin").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"file.bin has the MD5 \w+, not \w+: .*remove it"):
        transfer(remote(checksum=MD5), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == b"mine"
    assert server.asked == []


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (503, 5), (429, 5)])
def test_what_will_not_come_is_said_in_one_line(server, remote, tmp_path, waits, status, tries):
    server.faults["/a/file.bin"] = [status] * 9
    with pytest.raises(
        UserError, match=rf"{server.host}/a/file.bin: the server answered {status} .*--mirror"
    ) as caught:
        transfer(remote(), tmp_path / "file.bin")
    assert "\n" not in str(caught.value)
    assert len(server.asked) == tries
    assert waits == [1, 2, 4, 8][: tries - 1]


def test_nobody_there(tmp_path, waits):
    with pytest.raises(UserError, match=r"[Cc]onnection refused; check the network"):
        transfer(Remote("http://127.0.0.1:9/x"), tmp_path / "x")


def test_redirects_are_followed_but_not_to_files(server, remote, tmp_path):
    server.files["/b"] = b""
    server.faults["/b"] = [f"{server.url}/a/file.bin", "file:///etc/hostname", "ftp://127.0.0.1/x"]
    transfer(Remote(f"{server.url}/b", checksum=SHA), tmp_path / "b")
    for target in ("c", "d"):
        with pytest.raises(UserError, match=r"not (followed|allowed)"):
            transfer(Remote(f"{server.url}/b"), tmp_path / target)


def test_https_does_not_lead_to_http():
    handler = web._Redirects()
    request = urllib.request.Request("https://a.example/x")
    with pytest.raises(OSError, match="not followed"):
        handler.redirect_request(request, None, 302, "", {}, "http://a.example/x")
    assert (
        handler.redirect_request(request, None, 302, "", {}, "https://b.example/x").full_url
        == "https://b.example/x"
    )


def test_file_urls_and_no_other_schemes(tmp_path):
    (tmp_path / "source").write_bytes(BODY)
    assert transfer(
        Remote((tmp_path / "source").as_uri(), checksum=SHA), tmp_path / "copy"
    ).size == len(BODY)
    with pytest.raises(UserError, match="no-such: "):
        transfer(Remote((tmp_path / "no-such").as_uri()), tmp_path / "other")
    for url in ("ftp://127.0.0.1/x", "data:,x"):
        with pytest.raises(UserError, match="unknown url type"):
            transfer(Remote(url), tmp_path / "never")


def test_a_full_disk_is_said_before_the_first_byte(remote, tmp_path, monkeypatch):
    monkeypatch.setattr(transferring, "SPARE", 2**62)
    with pytest.raises(UserError, match=r"are needed, .* are free"):
        transfer(remote(), tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()


def test_two_that_want_one_file_take_turns(remote, tmp_path):
    script = (
        "import sys; from pathlib import Path; from t2i.core.fetch.transfer import Remote, "
        "transfer\n"
        "transfer(Remote(sys.argv[1]), Path(sys.argv[2]), say=lambda text: print(text, flush=True))"
    )
    with locked(tmp_path / "file.bin"):
        other = subprocess.Popen(
            [sys.executable, "-c", script, remote().url, str(tmp_path / "file.bin")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert "in use by another process" in other.stdout.readline()
        (tmp_path / "file.bin").write_bytes(b"by the first")
    assert other.wait(60) == 0
    assert (tmp_path / "file.bin").read_bytes() == b"by the first"


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_part_that_is_a_link_leaves_what_it_leads_to(server, remote, tmp_path, link):
    (tmp_path / "mine").write_bytes(b"precious")
    link(tmp_path / "mine", tmp_path / "file.bin.part")
    transfer(remote(), tmp_path / "file.bin")
    assert (tmp_path / "mine").read_bytes() == b"precious"
