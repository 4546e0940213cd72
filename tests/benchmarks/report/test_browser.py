"""The report in Chromium: sorting, the slider, the switch, enlarging; and without scripts."""

from pathlib import Path

import pytest

from t2i.benchmarks.report.page import write_report

CHROMIUM = Path("/usr/bin/chromium")
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium")
MOST = 30_000  # milliseconds that anything may take


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox"], timeout=MOST
        )
        yield found
        found.close()


def opened(browser, results, **settings):
    context = browser.new_context(**settings)
    context.set_default_timeout(MOST)
    page = context.new_page()
    page.wrong = []
    page.on("console", lambda message: page.wrong.append(message.text))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("dialog", lambda dialog: (page.wrong.append("dialog"), dialog.dismiss()))
    page.on("request", lambda r: r.url.startswith("http") and page.wrong.append(r.url))
    page.goto(write_report(results).as_uri())
    return page


def names(page):
    return page.locator("#table-ranking tbody th").all_inner_texts()


def test_the_page_sorts_compares_and_enlarges(browser, results, row):
    results.rows.insert(3, row("edm", 60.0, 40.0))
    page = opened(browser, results)
    assert names(page) == ["real", "ldm", "edm", "gan", "wrong"]
    head = page.locator("#table-ranking thead th", has_text="FD, cnn")
    head.get_by_role("button").click()
    assert names(page) == ["real", "ldm", "gan", "edm", "wrong"]
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    assert names(page) == ["real", "edm", "gan", "ldm", "wrong"]
    page.locator("#table-ranking thead th").first.get_by_role("button").click()
    assert names(page) == ["real", "ldm", "edm", "gan", "wrong"]

    left = page.locator("#compare img.left")
    assert left.get_attribute("alt").startswith("ldm, image 1: <script>")
    page.locator("#compare select.left").select_option("real")
    assert left.get_attribute("alt").startswith("real, ")
    page.locator("#compare input").fill("20")
    assert "80%" in left.evaluate("image => getComputedStyle(image).clipPath")
    box = page.locator("#compare .wipe").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 20)
    page.mouse.up()
    assert int(page.locator("#compare input").input_value()) == pytest.approx(90, abs=3)

    enlarge(page)
    page.keyboard.press("Escape")
    assert page.locator(".zoom img").first.bounding_box()["width"] < 200
    assert page.wrong == []


def enlarge(page):
    image = page.locator(".zoom img").first
    assert image.bounding_box()["width"] < 200
    image.click()
    assert image.bounding_box()["width"] == page.viewport_size["width"]


def test_the_captions_are_switched_without_scripts_too(browser, results):
    page = opened(browser, results, java_script_enabled=False)
    caption = page.locator(".caption p")
    assert caption.is_visible()
    page.get_by_label("captions", exact=True).uncheck()
    assert not caption.is_visible()


def test_the_page_without_scripts_says_the_same(browser, results):
    page = opened(browser, results, java_script_enabled=False)
    said = page.locator("section").all_inner_texts()
    assert not page.locator("#compare").is_visible()
    enlarge(page)
    page.locator(".zoom img").first.click()  # and small again
    with page.expect_download() as download:
        page.locator("#table-ranking").locator("xpath=../..").get_by_text("CSV").first.click()
        page.get_by_role("link", name="Save ranking.csv").click()
    assert "ldm" in Path(download.value.path()).read_text()
    with_scripts = opened(browser, results)
    with_scripts.locator("#compare").evaluate("box => box.remove()")
    assert with_scripts.locator("section").all_inner_texts() == said


@pytest.mark.parametrize(
    "width", [375, *(pytest.param(width, marks=pytest.mark.slow) for width in (800, 1440))]
)
def test_no_width_scrolls_sideways_and_dark_is_dark(browser, results, width):
    page = opened(browser, results, viewport={"width": width, "height": 800}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = (
        page.evaluate(f"getComputedStyle(document.body).{name}")
        for name in ("color", "backgroundColor")
    )
    assert (ink, paper) == ("rgb(229, 231, 235)", "rgb(20, 24, 31)")
    text = page.locator("svg text").first
    assert text.evaluate("text => getComputedStyle(text).fill") == ink
