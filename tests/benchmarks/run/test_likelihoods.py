"""The likelihood of real images in a benchmark: asked for, kept apart, and ranked with its like."""

import json

import numpy as np
import pytest
import torch

from t2i.benchmarks import runner
from t2i.benchmarks.report.table import likelihood_note
from t2i.benchmarks.results import Column, Row
from t2i.benchmarks.run import likelihoods
from t2i.benchmarks.run.likelihoods import protocol_of, ranked_apart
from t2i.benchmarks.runner import run_benchmark
from t2i.benchmarks.score.metrics.bits_per_dim import BitsPerDim, BitsPerDimConfig
from t2i.core.errors import UserError
from t2i.core.interfaces.likelihood import Likelihood
from t2i.core.interfaces.scoring import ImageBatch

DIMS = 3 * 8 * 8


class Uniform(Likelihood):
    """All levels are equally probable: 8 bits; brighter images get a little more."""

    kind, calls = "exact", 0

    def __init__(self, solver="none"):
        self.solver = solver

    def nats(self, images, text, noise):
        Uniform.calls += len(images)
        assert images.dtype == torch.uint8
        assert len(text) == len(noise) == len(images)
        extra = images.double().flatten(1).mean(1) / 255
        return (8 + extra) * DIMS * float(np.log(2))

    def protocol(self):
        return {"dequantisation": "none", "solver": self.solver}


@pytest.fixture(autouse=True)
def toys(squares, engine, monkeypatch):
    monkeypatch.setattr(runner, "write_report", lambda results: None)
    monkeypatch.setattr(likelihoods, "likelihood_of", lambda model, settings: Uniform())
    Uniform.calls = 0


def bench(tmp_path, words, **arguments):
    return run_benchmark("squares", out=tmp_path / "out", reporter=words, **arguments)


def bits(results):
    (toy,) = (row for row in results.rows if row.kind == "model")
    return toy.scores["val"].get("bits-per-dim")


def test_it_is_computed_only_if_asked_for_and_changes_no_other_score(tmp_path, words):
    plain = bench(tmp_path, words)
    assert bits(plain) is None
    assert Uniform.calls == 0
    asked = bench(tmp_path, words, likelihood=6)
    assert "toy: scored before" in words.lines
    assert asked.protocol_hash == plain.protocol_hash
    assert Uniform.calls == 6
    assert 8 < bits(asked)["bits_per_dim"] < 9
    toy = asked.rows[1]
    low, high = toy.intervals["val"]["bits-per-dim"]["bits_per_dim"]
    assert low < bits(asked)["bits_per_dim"] < high
    assert toy.likelihood == {
        "bit_depth": 8, "kind": "exact", "dequantisation": "none", "solver": "none",
    }  # fmt: skip
    assert "Likelihood of toy: bit_depth 8, kind exact" in likelihood_note(asked)
    assert [c.better for c in asked.columns if c.title == "bits/dim"] == ["lower"]


def test_a_finished_likelihood_is_kept_and_another_number_of_images_is_not(tmp_path, words):
    first = bench(tmp_path, words, likelihood=6)
    again = bench(tmp_path, words, likelihood=6)
    assert Uniform.calls == 6
    assert again.rows == first.rows
    bench(tmp_path, words, likelihood=4)
    assert Uniform.calls == 10
    file = tmp_path / "out" / "likelihoods" / "toy.json"
    document = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**document, "scores": {"bits_per_dim": "many"}}), "utf-8")
    with pytest.raises(UserError, match=r"toy.json: .*remove the file"):
        bench(tmp_path, words, likelihood=4)


def test_models_without_a_likelihood_have_no_value(tmp_path, words, monkeypatch):
    monkeypatch.setattr(likelihoods, "likelihood_of", lambda model, settings: None)
    results = bench(tmp_path, words, likelihood=6)
    assert bits(results) is None
    assert likelihood_note(results) == ""


class Failing(Uniform):
    """It cannot be computed."""

    def nats(self, images, text, noise):
        raise UserError("the solver's steps became too small")


class Infinite(Uniform):
    """It is no number for one of the images."""

    def nats(self, images, text, noise):
        found = super().nats(images, text, noise)
        return torch.where(torch.arange(len(found)) == 1, float("nan"), found)


@pytest.mark.parametrize(
    ("kind", "reason"), [(Failing, "steps became too small"), (Infinite, "it is not finite")]
)
def test_a_likelihood_that_cannot_be_had_costs_no_other_score(
    tmp_path, words, monkeypatch, kind, reason
):
    monkeypatch.setattr(likelihoods, "likelihood_of", lambda model, settings: kind())
    results = bench(tmp_path, words, likelihood=6)
    assert bits(results) is None
    assert results.rows[1].scores["val"]
    assert any("warning: toy: no likelihood: " in line and reason in line for line in words.lines)
    assert not (tmp_path / "out" / "likelihoods" / "toy.json").exists()


def test_too_few_images_are_refused_before_training(tmp_path, words, engine):
    with pytest.raises(UserError, match="--likelihood 60 or less"):
        bench(tmp_path, words, likelihood=61)
    with pytest.raises(UserError, match="at least 2"):
        bench(tmp_path, words, likelihood=1)
    assert engine.trained == []


def test_likelihoods_of_different_ways_are_not_ranked():
    column = Column("val", "bits", "bits_per_dim", "bits/dim", "lower")
    rows = [Row(name, "model", name) for name in ("a", "b", "c")]
    rows[0].likelihood = protocol_of(Uniform())
    rows[1].likelihood = protocol_of(Uniform())
    prototypes = {"bits": BitsPerDim(BitsPerDimConfig())}
    assert ranked_apart([column], rows, prototypes) == [column]
    rows[1].likelihood = protocol_of(Uniform("euler"))
    assert [c.better for c in ranked_apart([column], rows, prototypes)] == ["none"]


def test_the_interval_is_students():
    metric = BitsPerDim(BitsPerDimConfig())
    nats = torch.tensor([3.0, 3.5, 4.0, 5.5]) * DIMS * float(np.log(2))
    images = np.zeros((4, 8, 8, 3), np.uint8)
    metric.update(ImageBatch(images, ("",) * 4, (0, 1, 2, 3), nats=nats))
    assert metric.compute()["bits_per_dim"] == pytest.approx(4.0)
    low, high = metric.intervals()["bits_per_dim"]
    # t(3, 0.975) = 3.18245 and the standard deviation is 1.08012.
    assert high - 4 == pytest.approx(3.18245 * 1.08012 / 2, rel=1e-4)
    assert 4 - low == pytest.approx(high - 4)


def test_densities_of_latents_have_bits_per_latent():
    metric = BitsPerDim(BitsPerDimConfig())
    nats = torch.tensor([24.0, 48.0]) * float(np.log(2))
    images = np.zeros((2, 8, 8, 3), np.uint8)
    metric.update(ImageBatch(images, ("",) * 2, (0, 1), nats=nats, dims=24))
    assert metric.compute()["bits_per_dim"] == pytest.approx(1.5)
