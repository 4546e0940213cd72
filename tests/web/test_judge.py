"""The tab Judge in a real browser: two raters, keys, no leak, and a kill that loses no vote."""

import json

import pytest
from PIL import Image

from t2i.benchmarks.votes.record import ScaleVote, read_votes

EVIL = "a <img src=x onerror=alert(1)> ${alert(2)} {{value}} star"
CAPTIONS = ("a red circle", EVIL, "two squares")
MODELS = ("secretalpha", "secretbeta")
AWAKE = "performance.now() > window.shown + 500"
"""Earlier clicks are taken for a double click on the ballot before."""


@pytest.fixture
def folders(tmp_path):
    """Arguments that name two folders of images of other programs."""
    for number, name in enumerate(MODELS):
        place = tmp_path / "pics" / name
        place.mkdir(parents=True)
        rows = [{"file_name": f"{k}.png", "text": text} for k, text in enumerate(CAPTIONS)]
        (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        for k in range(len(CAPTIONS)):
            Image.new("RGB", (16, 16), (90 * number, 60 * k, 50)).save(place / f"{k}.png")
    return [part for name in MODELS for part in ("--run", f"{name}=pics/{name}")]


def begin(page, name):
    """Open the tab, and begin as a rater."""
    page.get_by_role("tab", name="Judge").click()
    # The page lists the studies when all that it does at the start is done.
    page.wait_for_function("document.querySelector('#study input')?.value")
    page.locator("#rater input, #rater textarea").fill(name)
    page.locator("#begin").click()
    page.locator("#ballot .t2i-count").wait_for()


def pass_on(route, told):
    """Fetch an answer for the browser, and keep its text: Chromium forgets what it streams."""
    answer = route.fetch()
    told.append(answer.text())
    route.fulfill(response=answer)


def make_study(page):
    """Make a study of the two folders with the form."""
    page.get_by_role("tab", name="Judge").click()
    page.locator("#make-study button").first.click()
    for name in MODELS:
        page.locator("#sources input").fill(name)
        page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.locator("#make").click()
    page.get_by_text("Made: study").wait_for()
    page.locator("#make-study button").first.click()


def count(page):
    return page.locator("#ballot .t2i-count").inner_text()


def vote(page, act):
    """Vote by an act, and wait for the next ballot."""
    before = count(page)
    page.evaluate("window.shown = performance.now()")
    page.wait_for_function(AWAKE)
    act()
    page.wait_for_function(
        "before => document.querySelector('#ballot .t2i-count')?.innerText.trim() !== before",
        arg=before.strip(),
    )


def test_raters_vote_and_a_kill_loses_nothing(served, visit, folders, tmp_path):
    server = served(*folders)
    ann = visit(server.url)
    make_study(ann)
    told = []
    ann.route("**/queue/data*", lambda route: pass_on(route, told))
    begin(ann, "Ann")
    images = ann.locator("#ballot img")
    assert [images.nth(n).get_attribute("alt") for n in range(2)] == ["left", "right"]
    assert all(images.nth(n).get_attribute("src").startswith("data:image/png;base64,")
               for n in range(2))  # fmt: skip
    html = ann.locator("#ballot").inner_html()
    assert not any(name in html for name in MODELS)
    said = "".join(told)
    assert "data:image/png" in said
    assert not any(name in said for name in MODELS)
    assert ann.locator("#stop, #resume").count() == 0  # without --control
    bob = visit(server.url)
    begin(bob, "Bob")

    vote(ann, lambda: ann.keyboard.press("ArrowLeft"))
    vote(bob, lambda: bob.locator("#vote-bad").click())
    vote(ann, lambda: ann.locator("#vote-right").dblclick())
    votes = tmp_path / "runs/votes.jsonl"
    found = read_votes([votes])
    assert [(v.rater, v.choice) for v in found] == [
        ("Ann", "left"),
        ("Bob", "bad"),
        ("Ann", "right"),
    ]
    ann.locator("#rater input, #rater textarea").press("a")  # a letter in a text field is no vote
    ann.locator("#rater input, #rater textarea").press("Backspace")
    assert "2 of 3" in count(ann)

    ann.reload()
    ann.get_by_role("tab", name="Judge").click()
    ann.wait_for_function("document.querySelector('#rater input, #rater textarea').value == 'Ann'")

    server.kill()
    server = served(*folders)
    ann = visit(server.url)
    begin(ann, "Ann")
    assert "2 of 3" in count(ann)
    vote(ann, lambda: ann.keyboard.press("w"))
    ann.get_by_text("You have judged everything").wait_for()
    found = read_votes([votes])
    own = [v for v in found if v.rater == "Ann"]
    assert [v.choice for v in own] == ["left", "right", "tie"]
    assert [v.order for v in own] == [0, 1, 2]
    assert {v.caption for v in own} == set(CAPTIONS)
    assert not ann.errors
    assert not bob.errors


@pytest.mark.slow
def test_grades_of_models_that_the_page_samples(visit, studio, untrained):
    """The form samples real models in the queue of drawings."""
    page = visit(studio.url)
    page.get_by_role("tab", name="Judge").click()
    page.locator("#make-study button").first.click()
    for name in ("ddpm", "dfgan"):
        page.locator("#sources input").fill(name)
        page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.locator("#study-captions textarea").fill("a red circle")
    page.get_by_label("grades from 0 to 4").check()
    page.get_by_label("Images of each caption").fill("1")
    page.locator("#make").click()
    page.get_by_text("Made: study").wait_for()
    begin(page, "Ann")
    assert "0 of 2" in count(page)
    assert page.locator("#scale-buttons button").count() == 5
    vote(page, lambda: page.keyboard.press("3"))
    vote(page, lambda: page.locator("#vote-0").click())
    page.get_by_text("You have judged everything").wait_for()
    votes = read_votes([untrained / "votes.jsonl"])
    assert all(isinstance(one, ScaleVote) for one in votes)
    assert [one.value for one in votes] == [3, 0]
    assert {one.model for one in votes} == {"ddpm", "dfgan"}
    assert not page.errors
