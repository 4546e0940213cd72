"""Servers that misbehave: every download ends, in bounded bytes and attempts, in one line."""

import http.server
import os
import threading

import pytest

from t2i.core.errors import UserError
from t2i.core.fetch import transfer as transferring
from t2i.core.fetch import web
from t2i.core.fetch.downloads import mirrored
from t2i.core.fetch.incomplete import Remote
from t2i.core.fetch.transfer import TooLarge, transfer
from t2i.core.fetch.web import Again, Pace, is_web_page, size_in, small_json

BODY = bytes(range(256)) * 4096  # 1 MiB
PAGE = b"\n <!DOCTYPE html><title>Please log in</title>"


class Hostile(http.server.BaseHTTPRequestHandler):
    """Answers by the first part of the path."""

    protocol_version = "HTTP/1.1"
    sent = 0
    asked = 0
    over = threading.Event()

    def log_message(self, *_): ...

    def say(self, status, body, **headers):
        self.send_response(status)
        told = {"Content-Length": len(body)} | {k.replace("_", "-"): v for k, v in headers.items()}
        for name, value in told.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        Hostile.asked += 1
        getattr(self, self.path.split("/")[1])()

    def page(self):
        self.say(200, PAGE)

    def digits(self):
        self.say(200, BODY, Content_Length="9" * 5000)

    def words(self):
        self.say(200, BODY, Content_Length="many")

    def brackets(self):
        self.say(302, b"", Location="http://[::1")

    def around(self):
        self.say(302, b"", Location=self.path)

    def busy(self):
        self.say(429, b"", Retry_After="7")

    def busiest(self):
        self.say(503, b"", Retry_After="9" * 12)

    def versions(self):
        """Half of one version, then, whatever If-Range says, the rest of another one."""
        if self.headers.get("Range"):
            begin = len(BODY) // 2
            told = f"bytes {begin}-{len(BODY) - 1}/{len(BODY)}"
            self.say(206, BODY[begin:], ETag='"b"', Content_Range=told)
            return
        self.say(200, BODY[: len(BODY) // 2], ETag='"a"', Content_Length=len(BODY))
        self.close_connection = True

    def wide(self):
        self.say(200, b"[" + b"1," * (1 << 20) + b"1]")

    def trickle(self):
        self.close_connection = True
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not Hostile.over.wait(0.02):
                self.wfile.write(b"x")
        except OSError:
            pass

    def endless(self):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        Hostile.sent = 0
        try:
            while Hostile.sent < 1 << 30:
                Hostile.sent += self.wfile.write(BODY)
        except OSError:
            pass


@pytest.fixture(scope="module")
def url():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Hostile.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    seconds = []
    monkeypatch.setattr(transferring.time, "sleep", seconds.append)
    Hostile.asked = 0
    return seconds


def refused(url, folder, **more):
    with pytest.raises(UserError) as caught:
        transfer(Remote(url, **more.pop("told", {})), folder / "file.bin", **more)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(url)
    return str(caught.value)


def left(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_web_page_is_not_kept_for_a_file(url, tmp_path):
    assert "a web page came instead" in refused(f"{url}/page/x.tar", tmp_path)
    assert left(tmp_path) == []
    assert is_web_page(b"<script>location = '/login'</script>", "a.json")
    transfer(Remote(f"{url}/page/index.html"), tmp_path / "index.html")


@pytest.mark.parametrize("mode", ["digits", "words"])
def test_a_length_that_is_none(mode, url, tmp_path):
    assert "says a length that is none" in refused(f"{url}/{mode}/x", tmp_path)


@pytest.mark.parametrize("mode", ["brackets", "around"])
def test_redirects_that_lead_nowhere(mode, url, tmp_path):
    refused(f"{url}/{mode}/x", tmp_path)
    assert small_json(f"{url}/{mode}/x") is None


def test_an_address_that_is_none(tmp_path):
    refused("http://[::1", tmp_path)
    with pytest.raises(UserError, match="no http, https or file URL"):
        mirrored("https://a.example/x", "http://[::1")


def test_pipes_are_no_downloads(url, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in ("pipe", "x"):
        os.mkfifo(tmp_path / f"{place}.part")
        with pytest.raises(UserError, match="is no regular file"):
            transfer(Remote(f"{url}/endless/x"), tmp_path / place)
    with pytest.raises(UserError, match="is no regular file"):
        transfer(Remote(f"{(tmp_path / 'pipe').as_uri()}"), tmp_path / "file")


def test_parts_of_another_version_come_to_an_end(url, tmp_path, waits):
    said = []
    message = refused(f"{url}/versions/x", tmp_path, say=said.append)
    assert "of another version" in message or "was cut" in message
    assert Hostile.asked <= 2 * transferring.ATTEMPTS
    assert len(said) == len(waits)  # each further attempt is said


def test_the_server_says_how_long_to_wait_within_bounds(url, tmp_path, waits):
    refused(f"{url}/busy/x", tmp_path)
    assert waits == [7, 7, 7, 8]
    waits.clear()
    refused(f"{url}/busiest/x", tmp_path)
    assert waits == [web.LONGEST_WAIT] * 4


def test_an_answer_without_a_length_is_bounded(url, tmp_path, monkeypatch):
    with pytest.raises(TooLarge, match=r"more than 0\.01 GB"):
        transfer(Remote(f"{url}/endless/x"), tmp_path / "file.bin", most=10**7)
    assert Hostile.sent < 10**8
    monkeypatch.setattr(transferring, "UNTOLD", 10**7)
    assert "more than 0.01 GB" in refused(f"{url}/endless/x", tmp_path)
    assert left(tmp_path) == []


def test_it_stops_before_the_disk_is_full(url, tmp_path, monkeypatch):
    def full(folder, size):
        raise UserError(f"{folder}: too little is free")

    monkeypatch.setattr(transferring, "need_space", full)
    assert "too little is free" in refused(f"{url}/endless/x", tmp_path)
    assert Hostile.sent < 10**8
    assert left(tmp_path) == []


def test_a_declared_size_bounds_it_too(url, tmp_path):
    refused(f"{url}/endless/x", tmp_path, told={"size": 10**6})
    assert Hostile.sent < 10**8


def test_a_document_that_is_too_large_is_none(url):
    assert small_json(f"{url}/wide/x.json") is None
    assert small_json(f"{url}/page/x.json") is None


def test_a_server_that_trickles_is_given_up(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(web.time, "monotonic", lambda: now[0])
    pace = Pace()
    for _ in range(59):
        now[0] += 1
        pace.add(1)
    now[0] += 1
    with pytest.raises(Again, match="only 60 bytes came in 60 s"):
        pace.add(1)
    pace = Pace()
    for _ in range(600):
        now[0] += 1
        pace.add(web.SLOWEST)


def test_headers_that_trickle_are_given_up(url, tmp_path, monkeypatch):
    monkeypatch.setattr(web, "TIMEOUT", 0.1)  # each byte comes in time, all of them never do
    with pytest.raises(UserError, match="check the network"):
        transfer(Remote(f"{url}/trickle/x"), tmp_path / "file.bin")


def test_what_a_web_page_is():
    assert is_web_page(PAGE, "a.tar")
    assert is_web_page(b"\xef\xbb\xbf<HTML>", "weights.pth")
    assert is_web_page(b"<!-- portal -->", "x")
    assert not is_web_page(b"\x89PNG", "x.png")
    assert not is_web_page(b"<svg", "x.svg")


@pytest.mark.parametrize(
    ("text", "size"),
    [("12", 12), ("0", 0), ("-1", None), ("1e3", None), ("9" * 19, None), ("²", None), ("", None)],
)
def test_sizes(text, size):
    assert size_in(text) == size
    assert size_in(None) is None
