"""The tab Watch in a real browser: a run that grows, is stopped, resumed, and vanishes."""

import json
import shutil
import subprocess
import sys

import pytest
from PIL import Image

HOLD = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("training", flush=True)
try:
    time.sleep(200)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
"""Stands for a training process: it holds a run's lock until SIGINT."""


def line(step, **more):
    entry = {"stage": "gan", "step": step, "losses": {"real": 1 / step, "fake": -0.5},
             "images_per_second": 7.5, "seconds": float(step)}  # fmt: skip
    return json.dumps({**entry, **more})


@pytest.fixture
def run(tmp_path):
    """A run that has begun, as far as the page looks at it."""
    path = tmp_path / "runs/bench/runs/toy"  # in the folder of a benchmark
    (path / "samples").mkdir(parents=True)
    config = {"model": "toy", "preset": "tiny", "steps": 100, "data": {"name": "shapes"}}
    (path / "config.json").write_text(json.dumps({"run": config}))
    (path / "metrics.jsonl").write_text(f'{line(10)}\n{line(20)}\n{{"stage": "ga')
    (path / "samples/captions.json").write_text(json.dumps({"captions": ["a <i>red</i> circle"]}))
    Image.new("RGB", (20, 10), "red").save(path / "samples/step-10.png")
    return path


def test_a_run_is_watched_stopped_resumed_and_vanishes(served, visit, run):
    from playwright.sync_api import expect

    training = subprocess.Popen(
        [sys.executable, "-c", HOLD, run / ".lock"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert training.stdout.readline().strip() == "training"
        page = visit(served("--control").url)
        page.get_by_role("tab", name="Watch").click()
        expect(page.locator("#runs tbody tr")).to_have_count(1)
        row = page.locator("#runs tbody tr")
        for text in ("bench/runs/toy", "toy (tiny)", "shapes", "training", "20 %", "1:20", "7.5"):
            expect(row).to_contain_text(text)
        expect(page.locator("#charts figcaption", has_text="real")).to_contain_text("0.05")
        expect(page.locator("#grid img")).to_have_attribute("alt", "samples at step 10")
        expect(page.locator("#grid")).to_contain_text("a <i>red</i> circle")

        with open(run / "metrics.jsonl", "a") as file:  # the rest of the half line, and a score
            file.write('n", "step": 25, "losses": {"real": 0.125}}\n')
            score = {"all right": {"value": 12.5, "interval": [10, 15]}}
            file.write(line(50, scores=score) + "\n")
        Image.new("RGB", (20, 10), "blue").save(run / "samples/step-50.png")
        expect(page.locator("#charts figcaption", has_text="all right")).to_contain_text("12.5")
        expect(page.locator("#facts")).to_contain_text("step 50")
        expect(page.locator("#grid img")).to_have_attribute("alt", "samples at step 50")
        page.locator("input[value=log]").check()
        expect(page.locator("#charts")).to_contain_text("no positive values")  # "fake" is negative

        page.locator("#stop").click()
        assert training.stdout.readline().strip() == "stopped"
        expect(page.locator("#control-state")).to_contain_text("SIGINT")
        expect(page.locator("#facts")).to_contain_text("interrupted")
        page.locator("#resume").click()
        expect(page.locator("#control-state")).to_contain_text("resume.log")
        expect(page.locator("#facts .t2i-note")).to_contain_text("error")  # it is no real run

        shutil.rmtree(run)
        expect(page.locator("#facts")).to_contain_text("vanished")
        assert not page.errors
    finally:
        training.kill()
        training.wait(60)
        training.stdout.close()
