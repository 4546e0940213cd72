"""The harness on the real engine, and the benchmark `shapes` on its real images."""

import json
from dataclasses import replace

import pytest

from t2i.benchmarks.run.caption_sets import caption_set, real_source, wrong_source
from t2i.benchmarks.run.chosen_benchmark import find_benchmark, with_samples
from t2i.benchmarks.runner import run_benchmark
from t2i.benchmarks.score.scorer import Scorer

STEP = 2 * 4 * (2 * 192 + 3 * 9 * 8 + 3 * 8 * 192)
"""Operations of a step of the toy, by hand: 4 images; the critic forwards and to its weights, both
layers of the generator forwards, to their weights and to their inputs."""


@pytest.mark.usefixtures("squares")
def test_a_model_is_trained_scored_and_reported(tmp_path, words):
    out = tmp_path / "out"
    results = run_benchmark(
        "squares", steps=5, out=out, reporter=words, engine_reporter=Said(words)
    )
    (toy,) = (row for row in results.rows if row.kind == "model")
    assert toy.training["steps"] == 5
    assert toy.training["parameters"]["trained"] > 0
    operations = toy.training["operations"]
    assert operations["per_step"]["only"] == STEP
    assert operations["stages"] == {"only": 5 * STEP}
    assert operations["total"] == 5 * STEP
    assert operations["machine_rate"] > 0
    assert "arithmetic" in (out / "report.html").read_text()
    assert toy.sampling["name"] == "direct"
    assert toy.curve[-1]["step"] == 5
    assert set(toy.curve[-1]["losses"]) == {"generator", "critic"}
    assert "Training" in (out / "report.html").read_text()
    assert json.loads((out / "results.json").read_text())["ranking"] == [
        {"rank": 1, "name": "toy", "tied": False}
    ]


class Said:
    """The engine's reporter, into the harness's words."""

    def __init__(self, words):
        self.say = words.say

    def status(self, status):
        pass

    def close(self):
        pass


@pytest.fixture
def shapes():
    return with_samples(find_benchmark("shapes", None), 40)


def test_shapes_scores_real_images_at_the_ceiling_and_wrong_ones_at_chance(shapes):
    shapes = replace(
        shapes,
        measures=[m for m in shapes.measures if m.metric in ("caption-accuracy", "diversity")],
    )
    scorer, captions = Scorer(shapes, "cpu"), caption_set(shapes, shapes.headline_set, None)
    assert captions.has_variants
    scores, intervals = scorer.score(
        scorer.metrics(captions.prompts), real_source(captions, 40, 1).draw(range(40))
    )
    assert scores["caption-accuracy"]["all"] > 97
    assert intervals["caption-accuracy"]["all"][0] > 85
    scores, _ = scorer.score(
        scorer.metrics(captions.prompts), wrong_source(captions, 40, 1).draw(range(40))
    )
    assert scores["caption-accuracy"]["all"] < 10


def test_shapes_variants_show_the_same_in_another_image(shapes):
    data = caption_set(shapes, shapes.headline_set, None).data
    images = [data[3].image, *(data.variant(3, number).image for number in (1, 2, 1))]
    assert data.variant(3, 1).captions == data[3].captions
    assert (images[1] == images[3]).all()
    assert all((images[a] != images[b]).any() for a, b in ((0, 1), (0, 2), (1, 2)))


def test_shapes_shows_other_captions_in_every_set(shapes):
    first = [caption_set(shapes, prompts, None).captions[:3] for prompts in shapes.prompts]
    assert len({caption for captions in first for caption in captions}) == 12
    assert all(
        "star" not in c and " and " not in c
        for c in caption_set(shapes, shapes.prompts[3], None).captions
    )


def test_shapes_has_its_headline_and_its_bars(shapes):
    scorer = Scorer(shapes, "cpu")
    assert scorer.headline() == scorer.table_columns()[0]
    assert [c.title for c in scorer.bars()][:4] == ["shape", "colour", "size", "position"]
