"""The benchmark `coco`: its protocols, its choice of captions, and what it does without data or
weights."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from t2i.benchmarks.benchmark_request import BenchmarkRequest
from t2i.benchmarks.run.caption_choice import Chosen
from t2i.benchmarks.run.caption_sets import caption_set, reference_of
from t2i.benchmarks.run.chosen_benchmark import find_benchmark, with_samples
from t2i.benchmarks.run.plan import make_plan
from t2i.benchmarks.run.protocol_fit import caption_sets, left_out
from t2i.benchmarks.runner import run_benchmark
from t2i.benchmarks.score.available_measures import with_what_is_there
from t2i.benchmarks.score.scorer import Scorer
from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import Dataset, Example
from t2i.core.interfaces.scoring import Measure
from t2i.plugins.datasets.coco import benchmark as protocols


@pytest.fixture
def coco(tmp_path):
    """Sixty photographs to score with and ten to train on, in COCO's layout; two captions each."""
    root = tmp_path / "coco"
    for split, count in (("train", 10), ("val", 60)):
        folder = root / f"{split}2017"
        folder.mkdir(parents=True)
        images, notes = [], []
        for i in range(count):
            colours = np.random.default_rng([count, i]).integers(0, 255, (2, 2, 3), np.uint8)
            Image.fromarray(colours).resize((80, 60)).save(folder / f"{i:012d}.jpg")
            images.append({"id": i, "file_name": f"{i:012d}.jpg"})
            notes += [
                {"id": 2 * i + k, "image_id": i, "caption": f"{split} scene {i}, said {k}"}
                for k in (0, 1)
            ]
        place = root / "annotations" / f"captions_{split}2017.json"
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps({"images": images, "annotations": notes}))
    return root


def test_the_protocols_are_those_of_the_field_and_of_the_thesis():
    field, thesis = find_benchmark("coco", None), find_benchmark("coco", "thesis-5k-128")
    assert (field.protocol, field.image_size, field.headline_set.count, field.reference) == (
        "coco-30k-256", 256, 30_000, "all"
    )  # fmt: skip
    assert (thesis.image_size, thesis.headline_set.count, thesis.reference, thesis.grid[1]) == (
        128,
        5000,
        "captions",
        8,
    )
    assert len(thesis.grid_captions) == 6
    assert {p.model: dict(p.scores) for p in thesis.published}["real images"] == {
        "FID": 6.09,
        "IS": 34.88,
    }
    assert {p.model: p.scores["FID"] for p in field.published}["GALIP"] == 5.85
    for benchmark in (field, thesis):
        assert [m.name for m in benchmark.measures if not m.optional] == [
            "fid",
            "kid",
            "isc",
            "diversity",
        ]
        assert sum(m.metric == "clip-score" for m in benchmark.measures) == 2


def test_without_data_the_command_to_get_it_is_named():
    with pytest.raises(
        UserError, match="needs the data set 'coco': 't2i fetch coco' gets it, or say where it is"
    ):
        make_plan(BenchmarkRequest("coco"))


@pytest.mark.parametrize(
    ("protocol", "size"), [("coco-30k-256", 256), ("thesis-5k-128", 128), ("coco-tiny", 64)]
)
def test_models_are_trained_at_the_protocols_size(protocol, size, tmp_path):
    plan = make_plan(
        BenchmarkRequest("coco", protocol, models=["ldm", "dfgan", "ddpm"], data_dir=tmp_path)
    )
    assert [entry.config.settings.image_size for entry in plan.runs] == [size] * 3
    assert {entry.config.data.config.dir for entry in plan.runs} == {str(tmp_path)}


def test_half_of_the_photographs_fit_the_small_protocol_alone(coco):
    for i in range(0, 10):
        (coco / "val2017" / f"{i:012d}.jpg").unlink()
    tiny = replace(find_benchmark("coco", "coco-tiny"), image_size=8)
    sets = caption_sets(tiny, str(coco))
    assert len(sets[0].whole) == 50
    assert left_out(sets) == ["split 'val' is used without: 10 x photograph that is not there"]
    for protocol in ("coco-30k-256", "thesis-5k-128"):
        asked = find_benchmark("coco", protocol)
        with pytest.raises(UserError, match=r"no captions_val2014.*fits --protocol coco-tiny$"):
            caption_sets(asked, str(coco))
        of_2017 = replace(asked, data={}, prompts=[replace(asked.headline_set, count=20)])
        with pytest.raises(
            UserError, match=r"all 40,504 images .* and 50 are there; .*--protocol coco-tiny$"
        ):
            caption_sets(of_2017, str(coco))
        assert len(caption_sets(with_samples(of_2017, 8), str(coco))) == 1  # a trial
    for path in (coco / "val2017").iterdir():
        path.unlink()
    with pytest.raises(
        UserError, match=r"none of the 60 images .*or name another folder"
    ) as caught:
        caption_sets(tiny, str(coco))
    assert "fits" not in str(caught.value)


def test_the_plan_says_what_will_be_trained_and_for_how_long(tmp_path):
    for asked, told in [
        ({}, "plan: ldm, ldm-seed1; to train: 2, 24 hours each, 2 days in all"),
        ({"minutes": 1.5}, "plan: ldm, ldm-seed1; to train: 2, 1.5 minutes each, 3 minutes in all"),
        ({"steps": 20}, "plan: ldm, ldm-seed1; to train: 2, 20 steps each"),
    ]:
        request = BenchmarkRequest("coco", models=["ldm"], seeds=2, data_dir=tmp_path, **asked)
        assert make_plan(request).told() == told


class Sayings(Dataset):
    """Captions alone."""

    image_size = 8

    def __init__(self, captions):
        self.said = captions

    def __len__(self):
        return len(self.said)

    def __getitem__(self, index):
        return Example(np.zeros((8, 8, 3), np.uint8), self.captions(index), str(index))

    def captions(self, index):
        return self.said[index]

    def fingerprint(self):
        return "sayings"


def test_the_choice_hangs_on_captions_and_key_alone():
    said = [tuple(f"picture {i} caption {k}" for k in range(5)) for i in range(40)]
    chosen = [Chosen(Sayings(said), "key").captions(i) for i in range(40)]
    backwards = Chosen(Sayings([tuple(reversed(captions)) for captions in reversed(said)]), "key")
    assert [backwards.captions(i) for i in range(40)] == chosen
    assert [Chosen(Sayings(said), "other").captions(i) for i in range(40)] != chosen
    # Settled for good: another choice would be another protocol.
    assert [caption for (caption,) in chosen[:3]] == [
        "picture 18 caption 0",
        "picture 36 caption 4",
        "picture 4 caption 4",
    ]
    example = Chosen(Sayings(said), "key")[0]
    assert example.captions == chosen[0]
    assert example.captions[0] in said[int(example.key)]


def test_the_reference_is_what_the_protocol_says(coco):
    benchmark = replace(find_benchmark("coco", "coco-tiny"), image_size=8)
    captions = caption_set(benchmark, benchmark.headline_set, str(coco))
    own = reference_of(benchmark, captions)
    assert (own.count, own.data[5].captions) == (48, (captions.captions[5],))
    every = reference_of(replace(benchmark, reference="all"), captions)
    assert (every.count, every.data[5].key) == (60, "5")
    assert captions.source == "10 examples of split 'train', with their own captions"
    assert captions.real(9, 0).captions == (captions.real_caption(9),)
    assert captions.real(9, 0).captions[0].startswith("train scene")
    assert captions.real(10, 0) is captions.real(0, 1) is None


def test_what_cannot_be_scored_here_is_left_out_and_said():
    """Weights that were not fetched, features that are not installed; those that are needed are
    asked for."""
    inception, absent = (
        Measure("fid", {"features": "inception/pool"}),
        Measure("kid", {"features": "absent"}),
    )
    pixels = Measure("diversity", {"features": "pixels"})
    optional = [replace(measure, optional=True) for measure in (inception, absent, pixels)]
    benchmark, left_out = with_what_is_there(
        replace(find_benchmark("coco", "coco-tiny"), measures=optional)
    )
    assert benchmark.measures == [optional[2]]
    assert "t2i fetch inception" in left_out["fid"]
    assert "'absent'" in left_out["kid"]
    needed, left_out = with_what_is_there(replace(benchmark, measures=[inception]))
    assert (needed.measures, left_out) == ([inception], {})
    with pytest.raises(UserError, match="t2i fetch inception"):
        Scorer(needed, "cpu")


@pytest.mark.usefixtures("toy")
def test_a_handful_of_photographs_is_enough_to_try_it(tmp_path, coco, engine, words, monkeypatch):
    tiny = protocols.PROTOCOLS["coco-tiny"]("coco-tiny")
    unhubbed = [
        m for m in tiny.measures if m.metric != "clip-score"
    ]  # whose weights may be there, and load for long
    monkeypatch.setattr(
        protocols, "PROTOCOLS", {"coco-tiny": lambda protocol: replace(tiny, measures=unhubbed)}
    )
    results = run_benchmark(
        "coco",
        protocol="coco-tiny",
        data_dir=coco,
        models=["toy"],
        steps=2,
        out=tmp_path / "out",
        reporter=words,
    )
    assert [standing.name for standing in results.ranking()] == [
        "real images",
        "toy",
        "real images, wrong captions",
    ]
    real, toy, _ = results.rows
    assert real.scores["val"]["fd-pixels"]["fid"] < toy.scores["val"]["fd-pixels"]["fid"]
    assert list(results.left_out) == ["fid"]
    assert set(results.protocol["measures"]) == {"fd-pixels", "kid-pixels", "diversity"}
    assert engine.trained[0][0].settings.image_size == 64
    assert (
        results.protocol["real_images"] == "10 examples of split 'train', with their own captions"
    )
    assert any(line.startswith("left out: fid") for line in words.lines)
