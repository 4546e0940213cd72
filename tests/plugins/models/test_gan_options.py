"""The engine's options that change how numbers are computed, with every GAN: they change no more
than the rounding."""

from __future__ import annotations

import json

import pytest

from t2i.core.engine import train
from t2i.core.runs.configure import resolve_config

GANS = ("attngan", "dfgan", "galip", "stackgan")


@pytest.fixture
def losses(small, tmp_path):
    """`losses(model, *settings)`: what the first step of each stage loses, by stage and name."""

    def of(model, *settings):
        sets = small(
            model, "log_every=1", "sample_every=100", "checkpoint_every=100", "warmup=0", *settings
        )
        run = train(resolve_config(model, sets=sets), tmp_path / "-".join(("run", *settings)))
        first = {}
        for line in run.metrics_file.read_text().splitlines():
            row = json.loads(line)
            if "losses" in row:
                first.setdefault(row["stage"], row["losses"])
        return {
            f"{stage}.{name}": value
            for stage, named in first.items()
            for name, value in named.items()
        }

    return of


@pytest.mark.parametrize("model", GANS)
def test_bfloat16_changes_no_more_than_the_rounding_in_either_memory_format(losses, model):
    """`found` counts images of a small batch: one that rounding turns is a quarter."""
    whole = losses(model)
    named = [name for name in whole if not name.endswith("found")]
    for channels_last in ("true", "false"):
        half = losses(model, "precision=bf16", f"channels_last={channels_last}")
        assert half.keys() == whole.keys()
        assert half != whole
        assert [half[n] for n in named] == pytest.approx(
            [whole[n] for n in named], rel=0.1, abs=0.05
        )


@pytest.mark.slow
@pytest.mark.parametrize("model", GANS)
def test_compiled_networks_learn_what_eager_ones_learn(losses, model, capfd):
    """(Slow: compiling.) What is under a double backward pass stays eager, and the engine says
    so."""
    eager, compiled = losses(model), losses(model, "compile=true")
    assert compiled == pytest.approx(eager, rel=1e-3, abs=1e-4)
    told = capfd.readouterr()
    assert ("stays eager" in told.out + told.err) == (model in ("dfgan", "galip"))
