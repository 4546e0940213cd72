"""`t2i sample --best-of N` as a process of its own, and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image

from t2i.core.models.best import Judge

CAPTION = "a red circle"


@pytest.mark.slow
def test_the_best_of_several_is_kept_and_can_be_sampled_again(toy_process):
    work = toy_process.work
    done = toy_process("train", "--model", "toy", "--steps", "2", "--out", "run")
    assert done.returncode == 0, done.stderr
    request = ("sample", "--run", "run", "-p", CAPTION, "--seed", "3")
    best = toy_process(
        *request, "-n", "2", "--best-of", "4", "--judge", "shapes-clip", "--out", "best", "--json"
    )
    assert best.returncode == 0, best.stderr
    assert "each the best of 4 by shapes-clip (8 images in all, 4 times the work)" in best.stderr
    assert toy_process(*request, "-n", "8", "--out", "every").returncode == 0

    def image(folder, number):
        return np.asarray(Image.open(work / folder / f"0000-{number:03}.png"))

    lines = json.loads(best.stdout)["samples"]
    judge = Judge.named("shapes-clip", "shapes")
    for number, line in enumerate(lines):
        candidates = [image("every", 4 * number + c) for c in range(4)]
        scores = judge.scores(candidates, [CAPTION] * 4)
        np.testing.assert_allclose(line["best"]["scores"], scores, atol=1e-5)
        assert line["best"]["candidate"] == int(np.argmax(scores))
        assert line["settings"]["best_of"]["weights_sha256"] == judge.network.weights_sha256
        np.testing.assert_array_equal(image("best", number), candidates[np.argmax(scores)])
    again = toy_process("sample", "--again", "best/0000-001.png", "--out", "again")
    assert again.returncode == 0, again.stderr
    assert "the same bytes" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("-p", "x", "--best-of", "2"), "'toydata' names no features that rank"),
        (("-p", "x", "--judge", "shapes-clip"), "with --best-of N"),
        (("-p", "x", "--best-of", "2", "--judge", "shapes"), "'shapes' read no text"),
        (("-p", "x", "--best-of", "2", "--judge", "shape-clip"), "shapes-clip"),
        (("--interpolate", "a.png", "b.png", "--best-of", "2"), "leave out --best-of"),
        (("--features", "v.npy", "--best-of", "2"), "leave out --features"),
        (("--again", "a.png", "--best-of", "2"), "leave out --best-of"),
    ],
)
def test_what_does_not_go_together_is_refused(here, refused, tmp_path, arguments, line):
    run = ("--run", "run")
    if "--again" in arguments:
        run = ()
    elif "-p" in arguments:
        assert here("train", "--model", "toy", "--steps", "2", "--out", "run")[0] == 0
    assert line in refused("sample", *run, *arguments)
    assert not (tmp_path / "samples").exists()
