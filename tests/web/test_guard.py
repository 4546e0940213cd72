"""What the guard refuses, without a server."""

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from t2i.core.errors import UserError
from t2i.web.attempts import MOST, SPAN, Attempts
from t2i.web.guard import Guard
from t2i.web.site import Limits, Site, named_places


def answer(site, path="/", method="GET", bodies=(b"",), **headers):
    """Ask the guard, and return the status; 200 is that of the application behind it."""
    parts = [
        {"type": "http.request", "body": body, "more_body": n + 1 < len(bodies)}
        for n, body in enumerate(bodies)
    ]
    sent = []

    async def receive():
        return parts.pop(0)

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})

    given = {"host": "127.0.0.1:7860", **{k.replace("_", "-"): v for k, v in headers.items()}}
    scope = {
        "type": "http", "path": path, "method": method,
        "headers": [(k.encode(), v.encode()) for k, v in given.items()],
    }  # fmt: skip
    # In a thread: where a browser test ran before, this one has a running loop.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, Guard(app, site)(scope, receive, send)).result()
    return sent[0]["status"]


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {}),
        (200, {"host": "localhost"}),
        (200, {"host": "[::1]:7860"}),
        (403, {"host": "rebound.example:7860"}),
        (403, {"host": "127.0.0.1.evil.example"}),
        (403, {"host": ""}),
        (403, {"host": "[::1"}),
        (200, {"origin": "http://127.0.0.1:7860"}),
        (403, {"origin": "http://127.0.0.1:9999"}),
        (403, {"origin": "null"}),
        (403, {"origin": "http://[::1"}),
        (403, {"sec_fetch_site": "cross-site"}),
        (200, {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}),
        (413, {"content_length": "99999999999"}),
        (413, {"content_length": "-1"}),
    ],
)
def test_strangers_and_other_sites_are_refused(status, headers):
    assert answer(Site(), **headers) == status


def test_a_long_body_without_a_length_is_cut_off():
    site = Site(limits=Limits(upload_bytes=10))
    assert answer(site, bodies=(b"x" * 100,)) == 200
    assert answer(site, bodies=(bytes(2**20), b"x" * 100)) == 413


@pytest.mark.parametrize(
    "path", ["/monitoring", "/gradio_api/proxy=http://a", "/gradio_api/call/x"]
)
def test_what_the_page_does_not_use_is_not_there(path):
    assert answer(Site(), path) == 404


def test_other_addresses_need_the_password():
    with pytest.raises(UserError, match="password"):
        Site(host="0.0.0.0")
    site = Site(host="0.0.0.0", password="pä:ss")
    assert "pä" not in repr(site)
    known = base64.b64encode("me:pä:ss".encode()).decode()
    assert answer(site, host="any.example") == 401
    assert answer(site, host="any.example", authorization="Basic me") == 401
    assert answer(site, host="any.example", authorization="Basic \xe4") == 401
    assert answer(site, host="any.example", authorization=f"Bearer {known}") == 401
    assert answer(site, host="any.example", authorization=f"Basic {known}") == 200
    assert answer(site, host="a", origin="http://b", authorization=f"Basic {known}") == 403


def test_who_guesses_passwords_must_wait():
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    for _ in range(MOST):
        assert not attempts.too_many("10.0.0.1")
        attempts.add("10.0.0.1")
        attempts.add("2001:db8::1")
    assert attempts.too_many("10.0.0.1")
    assert attempts.too_many("::ffff:10.0.0.1")
    assert attempts.too_many("2001:db8::ffff")  # the same network
    assert not attempts.too_many("10.0.0.2")
    now[0] = SPAN
    assert not attempts.too_many("10.0.0.1")


def test_the_guard_counts_wrong_passwords_and_no_missing_ones():
    site = Site(host="0.0.0.0", password="right")
    wrong, right = (base64.b64encode(f"me:{word}".encode()).decode() for word in ("no", "right"))
    guard = Guard(None, site)
    headers = {"host": "a"}
    scope = {"type": "http", "path": "/", "method": "GET", "client": ("10.0.0.1", 1)}
    for _ in range(MOST + 1):
        assert guard._refusal(scope, headers)[0] == 401
    for _ in range(MOST):
        assert guard._refusal(scope, {**headers, "authorization": f"Basic {wrong}"})[0] == 401
    known = {**headers, "authorization": f"Basic {right}"}
    assert guard._refusal(scope, known)[0] == 429
    assert guard._refusal({**scope, "client": ("10.0.0.2", 1)}, known) is None


def test_a_site_reads_only_its_own_folders(tmp_path):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "named").mkdir()
    (tmp_path / "runs" / "out").symlink_to(tmp_path)
    site = Site(runs=tmp_path / "runs", named={"n": tmp_path / "named", "hub": "OWNER/NAME"})
    assert site.allowed(tmp_path / "runs" / "a")
    assert site.allowed(tmp_path / "named" / "x.png")
    for path in (tmp_path, tmp_path / "runs" / ".." / "x", tmp_path / "runs" / "out" / "x"):
        assert not site.allowed(path)


def test_named_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("t2i.web.site.is_cached", lambda hub: hub.name == "OWNER/NAME")
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/config.json").write_text("{}")
    places = named_places([f"mine={tmp_path}", "sd=OWNER/NAME", str(tmp_path), "short=a"])
    run = Path("runs/a")
    assert places == {"mine": tmp_path, "sd": "OWNER/NAME", tmp_path.name: tmp_path, "short": run}
    for wrong in ([f"a={tmp_path}", f"a={tmp_path}"], ["=b"], ["a="], ["a=typo"]):
        with pytest.raises(UserError):
            named_places(wrong)
    with pytest.raises(UserError, match=r"the page fetches nothing.*t2i sample"):
        named_places(["sd=OWNER/OTHER"])
