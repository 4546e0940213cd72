"""`--precision auto` measures where it can pay, and weights are cast once between two updates."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from t2i.core.engine import precision, trial
from t2i.core.engine.automatic import settle
from t2i.core.engine.casting import casts_once, forget_casts
from t2i.core.engine.trial import Trial
from t2i.core.runs.configure import resolve_config

CPU = torch.device("cpu")
SMALL = ["nf=2", "z_dim=4", "image_size=32", "encoder.width=8", "batch_size=4"]


def chosen(*sets):
    said = []
    config = resolve_config("dfgan", sets=[*SMALL, *sets])
    return settle(config, {"precision"}, "cpu", said.append).settings.precision, said


@pytest.mark.parametrize(("factor", "name"), [(0.5, "bf16"), (0.95, "no"), (3.0, "no")])
def test_bf16_is_taken_where_its_steps_are_faster(monkeypatch, factor, name):
    clock, precisions = [0.0], []
    monkeypatch.setattr(precision, "has_bf16", lambda _: True)
    monkeypatch.setattr("t2i.core.engine.precision.time.perf_counter", lambda: clock[0])

    class Timed(Trial):
        def steps(self, count):
            bf16 = self.settings.precision == "bf16"

            def step():
                precisions.append(self.settings.precision)
                clock[0] += factor if bf16 else 1.0

            return step

    monkeypatch.setattr(precision, "Trial", Timed)
    shown = "bf16" if name == "bf16" else "float32"
    expected = f"precision {shown} (auto): a step in bf16 takes {factor:.2f} of the time in float32"
    assert chosen() == (name, [expected])
    assert precisions.count("no") == precisions.count("bf16") >= 4


def test_the_measurement_changes_no_random_numbers(monkeypatch):
    monkeypatch.setattr(precision, "has_bf16", lambda _: True)
    monkeypatch.setattr(precision, "ROUNDS", 1)

    def numbers():
        return float(torch.rand(1)), random.random(), np.random.rand()

    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    before = numbers()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    chosen()
    assert numbers() == before


def test_a_processor_without_bfloat16_is_not_measured(monkeypatch):
    monkeypatch.setattr(precision, "has_bf16", lambda _: False)
    monkeypatch.setattr(precision, "measured_share", None)
    assert chosen() == ("no", ["precision float32 (auto): cpu does not compute bfloat16 itself"])


def test_several_processes_do_not_measure(monkeypatch):
    monkeypatch.setattr(precision, "has_bf16", lambda _: True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert chosen() == ("no", ["precision float32 (auto): several processes do not time it"])


def test_what_does_not_fit_in_float32_runs_in_bf16(monkeypatch):
    def too_large(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(precision, "has_bf16", lambda _: True)
    monkeypatch.setattr(precision, "measured_share", too_large)
    name, (said,) = chosen()
    assert name == "bf16"
    assert "does not fit" in said


class Casts(TorchDispatchMode):
    """Counts the tensors of some shapes that become bfloat16."""

    def __init__(self, shapes):
        super().__init__()
        self.shapes, self.count = set(shapes), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if (
            func is torch.ops.aten._to_copy.default
            and (kwargs or {}).get("dtype") is torch.bfloat16
        ):
            self.count += args[0].shape in self.shapes
        return func(*args, **(kwargs or {}))


def test_weights_are_cast_once_until_they_change():
    assert casts_once()
    layer, x = nn.Linear(7, 5, bias=False), torch.randn(3, 7)
    sgd = torch.optim.SGD(layer.parameters(), 0.5)
    with Casts([(5, 7)]) as casts, torch.autocast("cpu", torch.bfloat16, cache_enabled=True):
        with torch.no_grad():
            layer(x)
        seen = casts.count
        before = layer(x)
        layer(x).sum().backward()
        assert casts.count <= seen + 1
        sgd.step()
        forget_casts()
        after = layer(x)
        assert casts.count <= seen + 2
    assert not torch.equal(before, after)
    assert layer.weight.grad is not None


def steps(monkeypatch, cached):
    """Return the weights after two steps of a GAN with a double backward, and the casts of one."""
    monkeypatch.setattr(trial, "keeps_casts", lambda settings: cached)
    torch.manual_seed(0)
    made = Trial(resolve_config("dfgan", sets=[*SMALL, "precision=bf16"]), "gan", CPU)
    trained = [p for o in made.prepared.optimizations.values() for p in o.parameters]
    torch.manual_seed(1)
    step = made.steps(4)
    step()
    with Casts(p.shape for p in trained if p.dim() == 4) as casts:
        step()
    return [p.detach() for p in trained], casts.count


def test_a_gan_trains_alike_with_fewer_casts(monkeypatch):
    kept, few = steps(monkeypatch, True)
    anew, many = steps(monkeypatch, False)
    assert few < 0.8 * many
    difference = sum(float((a - b).square().sum()) for a, b in zip(kept, anew, strict=True))
    size = sum(float(b.square().sum()) for b in anew)
    assert difference < 1e-4 * size
