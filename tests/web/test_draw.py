"""The tab Draw in a real browser, and what its server answers to scripts."""

import http.client
import io
import json
import re
import urllib.parse
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from t2i.core.models.again import sample_again
from t2i.core.models.loading import load

EVIL = 'a <img src=x onerror="window.hacked=1"> ${window.hacked=2} {{value}} circle'


@pytest.fixture
def page(visit, studio):
    """The tab in a browser of its own; requests that leave this machine are in `page.outside`."""
    opened = visit("about:blank", viewport={"width": 1280, "height": 900})
    opened.outside = []

    def note(request):
        if not request.url.startswith((studio.url, "data:", "blob:", "about:")):
            opened.outside.append(request.url)

    opened.on("request", note)
    opened.goto(studio.url)
    opened.locator("#draw-examples").get_by_text("two blue circles").wait_for()
    yield opened
    assert opened.outside == []
    assert opened.errors == []
    assert opened.evaluate("window.hacked") is None


def choose(page, *names):
    """Choose models instead of those that are chosen."""
    page.locator("#draw-models [aria-label='Clear']").or_(
        page.locator("#draw-models .remove-all")
    ).first.click()
    for name in names:
        page.locator("#draw-models input").click()
        page.get_by_role("option", name=name).click()
    page.keyboard.press("Escape")


def fill(page, prompts, **numbers):
    page.locator("#draw-prompts textarea").fill(prompts)
    if not page.locator("#draw-steps").is_visible():
        page.locator("#draw-more > button").click()
    for name, value in numbers.items():
        page.locator(f"#draw-{name} input, #draw-{name} textarea").first.fill(str(value))


def draw(page):
    page.locator("#draw-go").click()
    page.locator(".t2i-done").wait_for()


def shows(page, count):
    """Wait until this many images are shown; the status may change before they do."""
    page.wait_for_function(f"document.querySelectorAll('#draw-sheet img').length == {count}")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_the_first_page_needs_no_torch(studio):
    """This test comes before all that draw."""
    assert ask(studio, "/")[0] == 200
    assert "libtorch" not in Path(f"/proc/{studio.process.pid}/maps").read_text()


def test_two_models_side_by_side(page, studio, tmp_path, untrained):
    """The images, the warnings, the download, the history, and the settings in the files."""
    choose(page, "ddpm", "dfgan")
    fill(page, f"a red circle\n{EVIL}", seed=7, images=2, steps=3)
    draw(page)
    heads = page.locator("#draw-sheet th").all_inner_texts()
    assert heads == ["ddpm", "dfgan", "a red circle", EVIL]
    shows(page, 8)
    assert "unknown to this model" in page.locator(".t2i-warning").first.inner_text()
    with page.expect_download() as given:
        page.locator("#draw-zip").click()
    names = zipfile.ZipFile(given.value.path()).namelist()
    assert names[0] == "ddpm-000-0000-000.png"
    assert len(names) == 9
    link = page.locator("#draw-sheet a").nth(1)
    assert re.fullmatch(r"[\w.-]+\.png", link.get_attribute("download"))
    file = tmp_path / "a.png"
    file.write_bytes(page.request.get(studio.url.rstrip("/") + link.get_attribute("href")).body())
    assert sample_again(file, tmp_path / "again", load).same

    choose(page, "dfgan")
    fill(page, "two blue circles", seed=1, images=1)
    page.locator("#draw-back input[type=file]").set_input_files(file)
    prompts = page.locator("#draw-prompts textarea")
    page.wait_for_function("document.querySelector('#draw-seed input').value == '7'")
    assert prompts.input_value() == "a red circle"
    assert page.locator("#draw-images input").input_value() == "2"
    assert page.locator("#draw-steps input").input_value() == "3"
    assert "ddpm" in page.locator("#draw-models").inner_text()
    assert "dfgan" not in page.locator("#draw-models").inner_text()


def test_a_grid_over_two_settings(page):
    choose(page, "ddpm")
    fill(page, "a red circle", images=1)
    page.locator("#draw-grid > button").click()
    for side, name, values in (("x", "steps", "2, 3"), ("y", "seed", "0, 1, 2")):
        page.locator(f"#draw-{side} input").fill(name)
        page.keyboard.press("Enter")
        page.locator(f"#draw-{side}-values textarea, #draw-{side}-values input").fill(values)
    draw(page)
    heads = page.locator("#draw-sheet th").all_inner_texts()
    assert heads == ["steps 2", "steps 3", "seed 0", "seed 1", "seed 2"]
    assert page.locator("#draw-sheet caption").inner_text() == "ddpm · a red circle"
    shows(page, 6)


def test_a_drawing_is_cancelled_and_another_waits(page, visit, studio):
    choose(page, "ddpm")
    fill(page, "a red circle", steps=1000, images=60)  # long enough for all that is looked at
    other = visit(studio.url)
    other.locator("#draw-examples").get_by_text("a red circle").click()
    other.wait_for_function(
        "document.querySelector('#draw-prompts textarea').value == 'a red circle'"
    )
    page.locator("#draw-go").click()
    page.locator("progress").wait_for()
    page.get_by_text(re.compile(r"step \d+ of 1000")).wait_for()
    page.locator(".t2i-previews img").first.wait_for()
    other.locator("#draw-go").click()
    other.get_by_text("in the queue: 1 drawing before yours").wait_for()
    page.locator("#draw-stop").click()
    page.get_by_text(re.compile(r"cancelled; \d+ images? kept")).wait_for()
    other.locator(".t2i-done").wait_for()
    assert other.errors == []


def test_wrong_wishes_are_told_in_a_line(page, tmp_path):
    page.locator("#draw-go").click()
    page.locator(".t2i-error").get_by_text("write a prompt").wait_for()
    choose(page, "dfgan")
    fill(page, "a red circle", steps=5)
    page.locator("#draw-settings textarea").fill("nonsense=1")
    page.locator("#draw-go").click()
    page.locator(".t2i-error").get_by_text("nonsense").wait_for()
    told = PngInfo()
    told.add_text("t2i", '{"format": 1, "prompt": "<img onerror=alert(1)>"}')
    Image.new("RGB", (8, 8)).save(tmp_path / "damaged.png", pnginfo=told)
    page.locator("#draw-back input[type=file]").set_input_files(tmp_path / "damaged.png")
    page.locator(".t2i-error").get_by_text("is damaged").wait_for()


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "dark"),
        (1280, "light"),
        pytest.param(390, "light", marks=pytest.mark.slow),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_wider_than_the_screen(visit, studio, width, scheme):
    page = visit(studio.url, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.locator("#draw-examples").get_by_text("a red circle").click()
    page.wait_for_function("document.querySelector('#draw-prompts textarea').value != ''")
    draw(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


# --- scripts --------------------------------------------------------------------------------------


def ask(studio, path, method="GET", body=None, **headers):
    """Send one request as a script does, and return the status and the body."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(studio.url).netloc, timeout=60)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_no_file_outside_can_be_read(studio, untrained):
    secret = untrained.parent / "secret.txt"
    secret.write_text("what it says")
    (untrained / "link").symlink_to(secret)
    for path in (secret, "/etc/passwd", "/proc/self/environ", untrained / "link",
                 f"{untrained}/../secret.txt", untrained / "ddpm" / "config.json"):  # fmt: skip
        for way in ("file=", "file/", "static/", "proxy=file://"):
            quoted = urllib.parse.quote(str(path))
            status, body = ask(studio, f"/gradio_api/{way}{quoted}")
            assert status in (403, 404), (way, path)
            assert b"what it says" not in body
    for path in (
        "/static/../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file=/tmp/../etc/passwd",
        "/gradio_api/file=http://127.0.0.1:1/x",
    ):
        status, body = ask(studio, path)
        assert b"root:" not in body
        assert status in (403, 404), path


def test_other_sites_are_refused(studio):
    assert ask(studio, "/", Host="evil.example")[0] == 403
    assert ask(studio, "/config", Origin="http://evil.example")[0] == 403
    join = {"data": [], "fn_index": 0, "session_hash": "x"}
    crossing = {"Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"}
    assert ask(studio, "/gradio_api/queue/join", "POST", json.dumps(join), **crossing)[0] == 403
    assert ask(studio, "/")[0] == 200


def test_uploads_are_bounded(studio):
    mark = b"--x\r\nContent-Disposition: form-data; name=files; filename=../../a.png\r\n\r\n"
    large = io.BytesIO(mark + bytes(18 * 2**20) + b"\r\n--x--\r\n")
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(2**30)}
    assert ask(studio, "/gradio_api/upload", "POST", b"", **headers)[0] == 413
    del headers["Content-Length"]
    parts = iter(lambda: large.read(2**16), b"")
    try:
        status, _ = ask(studio, "/gradio_api/upload", "POST", parts, **headers)
        assert status == 413
    except ConnectionError:
        pass  # the server stopped reading
    assert ask(studio, "/")[0] == 200


def test_two_hundred_requests_at_once(studio, untrained):
    """Each is answered or refused, and the server lives."""
    config = json.loads(ask(studio, "/config")[1])
    go = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "draw-go")
    number = next(
        one["id"] for one in config["dependencies"] if [go, "click"] in map(list, one["targets"])
    )
    values = [["ddpm"], "a red circle", "", "", 2, None, 0, 1, "", "model", "", "prompt", ""]

    def join(k):
        document = {"data": values, "fn_index": number, "session_hash": f"script{k}"}
        headers = {"Content-Type": "application/json"}
        return ask(studio, "/gradio_api/queue/join", "POST", json.dumps(document), **headers)[0]

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(join, range(200)))
    assert set(answers) <= {200, 429, 503}
    assert ask(studio, "/")[0] == 200
    assert studio.process.poll() is None
