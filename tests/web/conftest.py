"""A real browser, and real `t2i web` processes for it."""

import json
import os
import re
import select
import shutil
import subprocess
import sys
import time

import pytest

PATIENCE = 120.0
"""Seconds that anything may take on a busy machine."""


@pytest.fixture(scope="session")
def browser():
    """Chromium, driven by playwright."""
    pytest.importorskip("gradio", reason="the page needs Gradio")
    driver = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("needs Chromium")
    driver.expect.set_options(timeout=PATIENCE * 1000)
    with driver.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


class Served:
    """A `t2i web` process.

    Attributes:
        process: The process.
        url: The page.
    """

    def __init__(self, arguments, folder):
        command = [
            sys.executable,
            "-P",
            "-m",
            "t2i.cli",
            "web",
            "--port",
            "0",
            *map(str, arguments),
        ]
        self.process = subprocess.Popen(
            command, cwd=folder, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        self.url = self._address()

    def _address(self):
        """Wait for the line with the address."""
        said, end = b"", time.monotonic() + PATIENCE
        while not (found := re.search(rb"http://\S+", said)):
            ready, _, _ = select.select(
                [self.process.stderr], [], [], max(0, end - time.monotonic())
            )
            new = os.read(self.process.stderr.fileno(), 4096) if ready else b""
            assert new, f"no address in {said!r}"
            said += new
        return found[0].decode()

    def kill(self):
        """End the process as SIGKILL does."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self.process.stderr.close()


@pytest.fixture
def served(tmp_path):
    """`served(*arguments)`: a `t2i web` process in TMP with these arguments, while a test runs."""
    begun = []

    def serve(*arguments):
        begun.append(Served(arguments, tmp_path))
        return begun[-1]

    yield serve
    for one in begun:
        one.kill()


@pytest.fixture
def visit(browser):
    """`visit(url)`: a page in a browser context of its own, as another visitor has it."""
    contexts = []

    def visit(url, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("dialog", lambda dialog: (page.errors.append(dialog.message), dialog.dismiss()))
        page.goto(url)
        return page

    yield visit
    for context in contexts:
        context.close()


WORDS = "encoder.vocabulary=[a, red, blue, circle, square, of, two]"
CAPTIONS = ("a red circle", "two blue circles")


@pytest.fixture(scope="session")
def untrained(tmp_path_factory, small):
    """A folder with a run of a GAN and one of a diffusion model, untrained."""
    import torch

    from t2i.core.models.building import build
    from t2i.core.runs.configure import resolve_config

    folder = tmp_path_factory.mktemp("web") / "runs"
    for name, sets in (("dfgan", ()), ("ddpm", ("sampler.guidance=2", "sampler.clip=1"))):
        config = resolve_config(name, sets=[*small(name), WORDS, *sets])
        torch.manual_seed(0)
        build(config).save(folder / name / "model")
        (folder / name / "config.json").write_text(json.dumps({"run": config.dump()}))
        (folder / name / "samples").mkdir()
        (folder / name / "samples" / "captions.json").write_text(json.dumps({"captions": CAPTIONS}))
    return folder


@pytest.fixture(scope="session")
def studio(untrained):
    """A `t2i web` process that serves `untrained`, for all tests."""
    pytest.importorskip("gradio", reason="the page needs Gradio")
    one = Served(("--runs", untrained), untrained.parent)
    yield one
    one.kill()
