"""The engine's options that change how numbers are computed, with every GAN: they change no more than the rounding."""

from __future__ import annotations

import json

import pytest

from t2i.core.engine import train
from t2i.core.runs import resolve

WORDS = ["encoder.layers=1", "encoder.width=16"]
SMALL = {
    "attngan": ["gf=4", "df=4", "scales=2", "c_dim=8", "z_dim=4", "damsm.batch_size=4", "damsm_share=0.34"],
    "dfgan": ["nf=4", "text_share=0.34", *WORDS],
    "galip": ["nf=4", "text_share=0.34", "clip.width=16", "clip.layers=3", "bridge_width=8", "bridge_middle=8", *WORDS],
    "stackgan": ["gf=4", "df=4", "c_dim=8", "z_dim=4", "text_share=0.34", *WORDS],
}


def losses(model, folder, *settings):
    """What the first step of each stage loses, by stage and name."""
    small = [*SMALL[model], "steps=6", "batch_size=4", "log_every=1", "sample_every=100", "warmup=0"]
    run = train(resolve(model, sets=[*small, *settings]), folder)
    first = {}
    for line in run.metrics_file.read_text().splitlines():
        row = json.loads(line)
        if "losses" in row:
            first.setdefault(row["stage"], row["losses"])
    return {f"{stage}.{name}": value for stage, named in first.items() for name, value in named.items()}


@pytest.mark.parametrize("channels_last", ["true", "false"])
@pytest.mark.parametrize("model", SMALL)
def test_bfloat16_changes_no_more_than_the_rounding(tmp_path, model, channels_last):
    """`found` counts pictures of a small batch: one that rounding turns is a quarter."""
    whole = losses(model, tmp_path / "whole")
    half = losses(model, tmp_path / "half", "precision=bf16", f"channels_last={channels_last}")
    assert half.keys() == whole.keys()
    assert half != whole
    named = [name for name in whole if not name.endswith("found")]
    assert [half[n] for n in named] == pytest.approx([whole[n] for n in named], rel=0.1, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("model", SMALL)
def test_compiled_networks_learn_what_eager_ones_learn(tmp_path, model, capfd):
    """A compiler runs for minutes here. What is under a double backward pass stays eager, and the engine says so."""
    eager = losses(model, tmp_path / "eager")
    compiled = losses(model, tmp_path / "compiled", "compile=true")
    assert compiled == pytest.approx(eager, rel=1e-3, abs=1e-4)
    told = capfd.readouterr()
    assert ("stays eager" in told.out + told.err) == (model in ("dfgan", "galip"))
