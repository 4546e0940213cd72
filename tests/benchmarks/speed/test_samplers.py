"""One model under every sampler: the same captions and noise at each point, scored as the benchmark
scores."""

import json

import numpy as np
import pytest
import torch
from rich.console import Console

from t2i.benchmarks.speed.samplers import compare_samplers
from t2i.core.errors import UserError
from t2i.core.io.json_files import write_json
from t2i.core.models.building import build
from t2i.core.models.loading import load
from t2i.core.runs.configure import resolve_config

pytestmark = pytest.mark.usefixtures("squares")
SMALL = (
    "data.name=squares", "image_size=8", "patch=1", "unet.channels=[8,8]",
    "unet.attention=[none,none]",
    "unet.middle=none", "unet.groups=4", "unet.head_width=8", "unet.text_map=4",
    "sampler.guidance=1",
)  # fmt: skip


def saved(folder, *sets):
    torch.manual_seed(0)
    config = resolve_config("ddpm", sets=[*SMALL, *sets])
    build(config).save(folder / "model")
    write_json(folder / "config.json", {"format": 1, "run": config.dump()})
    return folder


@pytest.fixture
def run(tmp_path):
    return saved(tmp_path / "run")


def test_a_point_for_each_sampler_and_number_of_steps(run, words, tmp_path):
    results = compare_samplers(
        "squares", run, samplers=["ddim", "heun"], steps=[1, 3], samples=4, reporter=words
    )
    assert [(p.sampler, p.steps) for p in results.points] == [
        ("ddim", 1),
        ("ddim", 3),
        ("heun", 1),
        ("heun", 3),
    ]
    document = json.loads((run / "bench-samplers" / "samplers.json").read_text())
    assert document["points"][1]["settings"]["steps"] == 3
    assert document["protocol"]["captions"] == 4
    # The score is the benchmark's own metric of the images that the model draws for the headline
    # captions.
    captions = [f"a {colour} square" for colour in ("red", "green", "blue", "red")]
    drawn = load(run, "cpu").sample(captions, sampler="ddim", steps=3, seed=0)
    strongest = [int(np.asarray(image).mean((0, 1)).argmax()) for image in drawn]
    right = 25 * sum(a == b for a, b in zip(strongest, (0, 1, 2, 0), strict=True))
    assert results.points[1].scores["colour-right"]["all"] == right
    assert results.curves()["ddim"][3] == right
    svg = (run / "bench-samplers" / "samplers.svg").read_text()
    assert all(text in svg for text in ("ddim", "heun", "sampling steps", "all right %"))
    with (tmp_path / "table").open("w") as file:
        results.show(Console(width=100, file=file))
    assert "heun" in (tmp_path / "table").read_text()


def test_all_that_fit_are_taken_and_wrong_ones_refused(run, words, tmp_path):
    results = compare_samplers(
        "squares", run, steps=[2], samples=4, out=tmp_path / "out", reporter=words
    )
    names = [point.sampler for point in results.points]
    assert {"ddpm", "ddim", "unipc"} <= set(names)
    assert "direct" not in names
    with pytest.raises(UserError, match="direct"):
        compare_samplers("squares", run, samplers=["direct"], steps=[2], samples=4, reporter=words)


def test_what_does_not_fit_the_schedule_or_the_steps_is_left_out(words, tmp_path):
    run = saved(tmp_path / "vp", "schedule=vp")
    results = compare_samplers("squares", run, steps=[1, 2], samples=4, reporter=words)
    points = {(point.sampler, point.steps) for point in results.points}
    assert {("ddim", 1), ("langevin", 2), ("pc", 1)} <= points
    assert points.isdisjoint({("langevin", 1), ("scheduler", 1), ("scheduler", 2)})
    told = [line for line in words.lines if line.startswith("left out: ")]
    assert any("scheduler with 2 steps (this model's noise levels are cont" in x for x in told)
    assert any("langevin with 1 steps" in line for line in told)
    with pytest.raises(UserError, match="noise levels are continuous"):
        compare_samplers("squares", run, samplers=["scheduler"], steps=[2], samples=4)
