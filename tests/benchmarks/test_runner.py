"""The harness: what it trains, what it keeps, what it scores, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest

from t2i.benchmarks import runner
from t2i.benchmarks.benchmark_request import BenchmarkRequest
from t2i.benchmarks.results import VARIETY, Results
from t2i.benchmarks.run import partial
from t2i.benchmarks.run.caption_sets import ImageStream
from t2i.benchmarks.run.plan import make_plan
from t2i.benchmarks.runner import run_benchmark
from t2i.benchmarks.score.scorer import Scorer
from t2i.benchmarks.votes.record import PairVote, append_vote
from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import ImageBatch
from t2i.core.io.json_files import read_json, write_json
from t2i.core.io.processes import Group
from t2i.core.runs.configure import resolve_config

pytestmark = pytest.mark.usefixtures("squares", "unwritten")


def bench(tmp_path, words, **arguments):
    return run_benchmark("squares", out=tmp_path / "out", reporter=words, **arguments)


def test_a_misspelt_argument_is_refused_by_name():
    with pytest.raises(TypeError, match="minuets"):
        run_benchmark("squares", minuets=5)


def test_everything_is_made_from_nothing(tmp_path, engine, words):
    results = bench(tmp_path, words, command="t2i bench squares")
    assert [standing.name for standing in results.ranking()] == [
        "real images",
        "toy",
        "real images, wrong captions",
    ]
    ((config, out),) = engine.trained
    assert (config.model, config.settings.minutes, config.data.name) == ("toy", 1.0, "squares")
    assert out == tmp_path / "out" / "runs" / "toy"
    for name in ("results.json", "grids/real.png", "grids/toy.png", "grids/comparison.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0, name
    assert words.lines[0] == "plan: toy; to train: 1, 1 minute each, 1 minute in all"
    first = next(n for n, line in enumerate(words.lines) if line.endswith("grids/real.png"))
    assert first < next(n for n, line in enumerate(words.lines) if "training for" in line)
    assert Results.load(tmp_path / "out").document() == results.document()


def test_the_work_of_a_plan(tmp_path, trained_run):
    run = tmp_path / "run"
    trained_run(run, resolve_config("toy", data_needed=False))
    asked = {"models": ["toy"], "runs": {"old": run}, "out": tmp_path / "out", "samples": 5}

    def works(**more):
        return [
            (work.label, work.kind, work.budget, work.images)
            for work in runner.works_of(make_plan(BenchmarkRequest("squares", **asked, **more)))
        ]

    images = works()[0][3]
    assert works(minutes=2.0) == [("toy", "toy", 120.0, images), ("old", "old", 0.0, images)]
    assert works(steps=7)[0] == ("toy", "toy", None, images)
    assert [row[2] for row in works(minutes=2.0, seeds=2, jobs=2)] == [240.0, 240.0, 0.0]


def test_real_images_are_the_ceiling_and_wrong_captions_the_floor(tmp_path, engine, words):
    real, toy, floor = bench(tmp_path, words).rows
    assert real.scores["val"]["colour-right"]["all"] == 100
    assert floor.scores["val"]["colour-right"]["all"] == 0
    assert real.scores["val"]["fid"]["fid"] < toy.scores["val"]["fid"]["fid"]
    assert set(real.scores["other"]) == {
        "colour-right"
    }  # distances to the reference belong to the headline set
    assert set(floor.scores["val"]) == {
        "colour-right"
    }  # nor do they ask which caption an image belongs to
    assert (
        real.scores[VARIETY]["diversity"]["diversity"]
        < 50
        < floor.scores[VARIETY]["diversity"]["diversity"]
    )
    low, high = real.intervals["val"]["colour-right"]["all"]
    assert (low, high) == (pytest.approx(75.75, abs=0.01), 100)  # Wilson, 12 of 12


def test_each_extractor_sees_each_image_once(tmp_path, engine, words, random_cnn):
    random_cnn.calls = 0
    bench(tmp_path, words)
    # The reference (30), then 12 images of each of two rows, for fid, kid and prc together.
    assert random_cnn.calls == 30 + 2 * 12


def test_a_second_reference_is_not_extracted_again(tmp_path, engine, words, random_cnn):
    bench(tmp_path, words)
    random_cnn.calls = 0
    run_benchmark("squares", out=tmp_path / "again", reporter=words)
    assert random_cnn.calls == 2 * 12


def test_a_repeated_command_does_nothing_again(tmp_path, engine, words, random_cnn):
    first = bench(tmp_path, words)
    random_cnn.calls = 0
    second = bench(tmp_path, words)
    assert len(engine.trained) == 1
    assert random_cnn.calls == 0
    assert second.rows == first.rows


def test_votes_are_added_to_finished_rows_and_leave_them_as_they_are(tmp_path, engine, words):
    file = tmp_path / "votes.jsonl"
    for number in range(6):
        vote = PairVote(
            f"r{number}", "overall", "a", "k", "toy", "other", "left", 0, "2026-11-30T12:00Z", 1.0
        )
        append_vote(file, vote)
    first = bench(tmp_path, words).document()
    second = bench(tmp_path, words, votes=[file])
    assert len(engine.trained) == 1
    assert second.columns[-1].title == "wins % by votes, overall"
    [toy] = [row for row in second.rows if row.name == "toy"]
    assert toy.get(second.columns[-1]) > 50
    assert "votes: 'other' is no row here, and left out" in words.lines
    assert bench(tmp_path, words).document()["rows"] == first["rows"]
    append_vote(tmp_path / "others.jsonl", replace(vote, left="another"))
    with pytest.raises(UserError, match="--run NAME=RUN"):
        bench(tmp_path, words, votes=[tmp_path / "others.jsonl"])


def test_half_done_work_is_resumed(tmp_path, engine, words):
    bench(tmp_path, words)
    run = tmp_path / "out" / "runs" / "toy"
    (run / "summary.json").unlink()
    (run / "checkpoints" / "step-3").mkdir(parents=True)
    bench(tmp_path, words)
    assert engine.resumed == [run]
    assert len(engine.trained) == 1


def scores(results):
    """All that was scored; not what it cost."""
    return [(row.name, row.scores, row.intervals) for row in results.rows]


class Killed(BaseException):
    """Stands in for a signal: nothing catches it."""


def test_a_row_that_was_killed_goes_on_and_comes_out_the_same(
    tmp_path, engine, words, random_cnn, monkeypatch
):
    monkeypatch.setattr(partial, "CHUNK", 4)
    whole = bench(tmp_path, words)
    again, looked = tmp_path / "again", Scorer.look

    def look(self, images, names):
        if random_cnn.calls >= 12 + 8:  # the real images, then two of the model's three parts
            raise Killed
        return looked(self, images, names)

    random_cnn.calls = 0
    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "look", look)
        with pytest.raises(Killed):
            run_benchmark("squares", out=again, reporter=words)
    assert sorted(path.name for path in (again / "partial" / "toy" / "0").glob("0*")) == [
        "00000",
        "00001",
    ]
    random_cnn.calls = 0
    results = run_benchmark("squares", out=again, reporter=words)
    assert random_cnn.calls == 4  # what was missing, and no more
    assert scores(results) == scores(whole)
    assert not (again / "partial").exists()


def test_parts_of_another_model_and_damaged_ones_are_made_anew(tmp_path):
    source = ImageStream(
        10,
        lambda part: iter(
            [ImageBatch(np.zeros((len(part), 1, 1, 3), np.uint8), ("c",) * len(part), part)]
        ),
    )
    asked = []

    def fill(key):
        parts = partial.Parts(tmp_path / "parts", key, Group())
        seen = lambda images: asked.append(images.groups) or images  # noqa: E731
        parts.fill("0", source, seen, False, lambda done, total: None)
        return [group for images in parts.read("0", source) for group in images.groups]

    assert fill({"model": 1}) == fill({"model": 1}) == list(range(10))
    assert len(asked) == 1
    (tmp_path / "parts" / "0" / "00000" / "captions.json").write_text("[]")
    assert fill({"model": 1}) == list(range(10))
    fill({"model": 2})
    assert len(asked) == 3


def test_only_features_are_kept_unless_images_are_wished(
    tmp_path, engine, words, random_cnn, monkeypatch
):
    kept = []
    save = partial._save
    monkeypatch.setattr(
        partial, "_save", lambda folder, held, *rest: kept.append(held) or save(folder, held, *rest)
    )
    plain = bench(tmp_path, words)
    of_variety = [
        images for held in kept[2::3] for images in held
    ]  # scored by their features alone
    assert {len(images.images) for images in of_variety} == {0}
    folder = tmp_path / "out" / "pictures" / "toy"
    assert not (folder / "0").exists()
    wished = bench(tmp_path, words, keep_images=True)
    assert sorted(path.name for path in (folder / "0").iterdir()) == [
        f"{i:06d}-0.png" for i in range(12)
    ]
    assert len(list((folder / VARIETY).iterdir())) == 4 * 3
    assert scores(wished) == scores(plain)
    random_cnn.calls = 0
    bench(tmp_path, words, keep_images=True)
    assert random_cnn.calls == 0


def test_images_of_another_size_are_resized_and_marked(tmp_path, engine, words):
    bench(tmp_path, words)
    run = engine.train(
        resolve_config("toy", sets=["image_size=16"], data_needed=False), tmp_path / "large"
    )
    results = run_benchmark(
        "squares", out=tmp_path / "other", runs={"large": run.path}, reporter=words
    )
    row = results.rows[1]
    assert row.sampling["resized"] == "from 16 to 8 px (Lanczos, antialiased)"
    assert any("resized from 16 to 8 px" in warning for warning in row.warnings)
    assert row.scores["val"]["fid"]


def test_other_data_to_train_on(tmp_path, engine, words):
    bench(tmp_path, words, train_data="toydata", train_dir=tmp_path)
    ((config, _),) = engine.trained
    assert (config.data.name, config.data.config.dir) == ("toydata", str(tmp_path))


def test_another_model_in_the_same_run_is_scored_again(tmp_path, engine, words):
    first = bench(tmp_path, words)
    run = tmp_path / "out" / "runs" / "toy"
    config = engine.trained[0][0]
    engine.train(config, run)  # the same weights again
    assert bench(tmp_path, words).rows == first.rows
    engine.train(config, run, seed=5)
    assert bench(tmp_path, words).rows[1].scores != first.rows[1].scores


def test_a_run_trained_with_other_settings_is_refused(tmp_path, engine, words):
    bench(tmp_path, words)
    with pytest.raises(
        UserError,
        match=r"runs/toy was trained with other settings than these \(minutes: 1.0, now 2.0\); ",
    ):
        bench(tmp_path, words, minutes=2)


def test_a_setting_that_is_newer_than_the_record_of_a_run_is_no_other_setting(
    tmp_path, engine, words
):
    bench(tmp_path, words)
    asked = tmp_path / "out" / "runs" / "toy.json"
    settings = read_json(asked, "settings")
    del settings["data"]["few_broken"], settings["grad_clip"]
    write_json(asked, settings)
    bench(tmp_path, words)
    assert len(engine.trained) == 1


def test_seeds_make_a_row_each_and_one_place_in_the_ranking(tmp_path, engine, words):
    results = bench(tmp_path, words, seeds=2, steps=7)
    assert [config.settings.seed for config, _ in engine.trained] == [0, 1]
    assert [(config.settings.steps, config.settings.minutes) for config, _ in engine.trained] == [
        (7, None)
    ] * 2
    (toy,) = (standing for standing in results.ranking() if standing.kind == "model")
    scores = [row.get(results.headline) for row in toy.rows]
    value = toy.value(results.headline)
    assert (value.mean, value.low, value.high) == (sum(scores) / 2, min(scores), max(scores))


def test_a_given_run_is_scored_as_it_is(tmp_path, engine, words):
    bench(tmp_path, words)
    results = run_benchmark(
        "squares",
        out=tmp_path / "other",
        runs={"old": tmp_path / "out" / "runs" / "toy"},
        reporter=words,
    )
    assert len(engine.trained) == 1
    row = results.rows[1]
    assert (row.name, row.training["given"]) == ("old", True)


def test_the_same_images_for_the_same_noise(tmp_path, engine, words):
    """Two models with equal weights draw equal images: noise depends on the caption's number, not
    on the model."""
    bench(tmp_path, words)
    run = tmp_path / "out" / "runs" / "toy"
    results = run_benchmark(
        "squares", out=tmp_path / "pair", runs={"a": run, "b": run}, reporter=words
    )
    a, b = (row for row in results.rows if row.kind == "model")
    assert a.scores == b.scores
    first, second = (sorted((tmp_path / "pair" / "pictures" / name).iterdir()) for name in "ab")
    assert len(first) == 5 * 2  # two captions of each of two sets and one more, two samples each
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_fewer_samples_are_another_protocol(tmp_path, engine, words):
    whole = bench(tmp_path, words)
    part = run_benchmark("squares", out=tmp_path / "part", samples=6, reporter=words)
    assert [p["count"] for p in part.protocol["prompts"]] == [6, 6]
    assert part.protocol_hash != whole.protocol_hash
    assert read_json(tmp_path / "part" / "results.json", "x")["protocol_hash"] == part.protocol_hash


def test_the_protocol_says_what_scores_depend_on(tmp_path, engine, words):
    protocol = bench(tmp_path, words).protocol
    assert protocol["measures"]["prc"]["extractor"] == {
        "name": "random-cnn", "weights_sha256": "0" * 64, "dim": 12, "layer": "rest"
    }  # fmt: skip
    assert protocol["measures"]["kid"]["settings"] == {
        "features": "random",
        "subset_size": 8,
        "subsets": 5,
    }
    assert protocol["reference"] == {
        "split": "val",
        "count": 30,
        "pictures": "the first pictures of split 'val'",
        "fingerprint": "squares-val-8",
    }
    assert protocol["real_images"] == "other pictures of the same captions"


def test_a_model_trained_with_its_judge_is_marked(tmp_path, engine, words):
    bench(tmp_path, words)
    path = tmp_path / "out" / "scores" / "toy.json"
    document = json.loads(path.read_text())
    assert not any("published/judge" in warning for warning in document["row"]["warnings"])
    document["row"]["training"]["config"]["encoder"]["weights"] = "published/judge"
    write_json(path, document)
    assert any(
        "published/judge, which this model was trained with" in w
        for w in bench(tmp_path, words).rows[1].warnings
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": ["toi"]}, "no model is named 'toi'; did you mean 'toy'"),
        ({"protocol": "tony"}, "benchmark 'squares' has no protocol 'tony'; did you mean 'tiny'"),
        ({"minutes": 1, "steps": 1}, "give one of them"),
        ({"samples": 1}, "at least 2 images"),
        ({"samples": 61}, "needs 61 examples of 'squares', split 'val', but there are 60"),
        ({"seeds": 0}, "--seeds 0"),
        ({"runs": {"toy": "nowhere"}}, "--run toy=nowhere: run nowhere: no such file or directory"),
        ({"runs": {"../toy": "nowhere"}}, "is no name for a row"),
        ({"train_data": "squirls"}, "no dataset is named 'squirls'; did you mean 'squares'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(
    tmp_path, engine, words, arguments, message
):
    with pytest.raises(UserError, match=message):
        bench(tmp_path, words, **arguments)
    assert engine.trained == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, engine, words):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(UserError, match=r"--out .*: cannot make the folder"):
        bench(tmp_path, words)
