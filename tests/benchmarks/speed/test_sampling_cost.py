"""What drawing costs is split rightly between the network and the loop around it."""

import pytest
import torch

from t2i.benchmarks.speed import sampling_cost
from t2i.core.runs.configure import resolve_config


@pytest.mark.parametrize(
    ("model", "calls"), [("dfgan", 1), ("ldm", 4)], ids=["one call", "three calls and the decoder"]
)
def test_the_loop_is_charged_with_what_the_network_does_not_take(monkeypatch, model, calls):
    """On a clock that ticks once whenever it is read: each call takes one tick, each reading
    outside one more."""
    ticks = iter(range(1000))
    monkeypatch.setattr(sampling_cost, "_now", lambda: next(ticks))
    sets = ["sampler.steps=3", "autoencoder.channels=[32]"] if model == "ldm" else []
    found = sampling_cost.measure_drawing(resolve_config(model, sets=sets))
    # Readings: at the start, twice for each call, at the end. So the whole takes 2 calls + 1 ticks,
    # the calls 1 each.
    assert found.added == pytest.approx((2 * calls + 1) / calls - 1)
    assert found.seconds > 0
    assert torch.is_grad_enabled()
