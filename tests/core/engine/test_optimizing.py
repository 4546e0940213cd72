"""What an optimizer brings of its own: clipping and schedule, in the engine of runs and in the one
of one process."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from t2i.core.engine import train
from t2i.core.engine.local import LocalEngine
from t2i.core.engine.optimizing import Optimizing, learning_rate_factor
from t2i.core.engine.reporting import Silent
from t2i.core.engine.updates import Updates
from t2i.core.interfaces.trainer import Optimization, Trainer, optimizations
from t2i.core.io.json_files import read_json
from t2i.core.io.tensors import load_tensors
from t2i.core.runs.configure import resolve_config
from t2i.core.settings.engine import EngineConfig


class Pulls(Trainer):
    """Two parameter groups, (3,) and (2,), pulled by a loss whose gradients are known: 6 x and 10
    y."""

    def __init__(self, clip=None, schedule=None):
        self.x, self.y = (
            torch.nn.Parameter(torch.tensor([1.0, 2.0, 2.0])),
            torch.nn.Parameter(torch.tensor([3.0, 4.0])),
        )
        self.modules = {}
        groups = [{"params": [self.x]}, {"params": [self.y], "lr": 0.5}]
        self.sgd = torch.optim.SGD(groups, lr=1.0)
        self.optimizers = {"pull": Optimization(self.sgd, clip, schedule)}

    def step(self, batch, engine):
        engine.update("pull", 3 * self.x.square().sum() + 5 * self.y.square().sum())
        return {}


def local(trainer, settings):
    return LocalEngine(trainer, settings, progress=0.25), None


def real(trainer, settings):
    optimizing = Optimizing(optimizations(trainer), settings)
    return Updates(Accelerator(cpu=True), settings, optimizing, lambda: 0.25), optimizing


def moved(made, settings, **own):
    """By how much a step of one of the engines moves x and y."""
    trainer = Pulls(**own)
    x, y = trainer.x.detach().clone(), trainer.y.detach().clone()
    engine, optimizing = made(trainer, settings)
    if optimizing is None:
        engine.begin_step(7)
    else:
        optimizing.set_learning_rates(7, 0.25, 0.0)
    trainer.step(None, engine)
    return x - trainer.x.detach(), y - trainer.y.detach()


@pytest.mark.parametrize("made", [local, real])
@pytest.mark.parametrize(
    ("settings", "own", "x", "y"),
    [
        ({}, {}, 6.0, 5.0),  # |gradients| 18 and 50; rates 1 and 0.5
        ({"grad_clip": 1.0}, {}, 6.0 / 2824**0.5, 5.0 / 2824**0.5),  # 18 ** 2 + 50 ** 2 = 2824
        ({"grad_clip": 1.0}, {"clip": 2.0}, 12.0 / 2824**0.5, 10.0 / 2824**0.5),
        ({"grad_clip": 1.0}, {"clip": 0.0}, 6.0, 5.0),
        ({"grad_clip": 1.0}, {"clip": (None, 5.0)}, 6.0, 0.5),  # the second group's norm becomes 5
        ({"grad_clip": 1.0}, {"clip": [3.0, 0.0]}, 1.0, 5.0),
        ({}, {"schedule": lambda progress: 1 - progress}, 4.5, 3.75),
        (
            {"lr_schedule": "linear"},
            {"schedule": lambda progress: 2.0},
            9.0,
            7.5,
        ),  # 0.75 of the engine's own
    ],
)
def test_clipping_and_schedule_are_the_optimizers_own(made, settings, own, x, y):
    by_x, by_y = moved(made, EngineConfig(**settings), **own)
    torch.testing.assert_close(by_x, x * torch.tensor([1.0, 2.0, 2.0]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(by_y, y * torch.tensor([3.0, 4.0]), rtol=1e-5, atol=1e-6)


def test_a_clip_for_other_groups_is_refused():
    with pytest.raises(
        ValueError, match="clip has 3 entries, the optimizer has 2 parameter groups"
    ):
        Pulls(clip=(1.0, 2.0, 3.0))


def test_rates_are_set_anew_each_step_whatever_came_before():
    trainer = Pulls(schedule=lambda progress: 0.5)
    optimizing = Optimizing(optimizations(trainer), EngineConfig(warmup=4))
    for _ in range(3):
        optimizing.set_learning_rates(1, 0.0, 0.0)
    assert [group["lr"] for group in trainer.sgd.param_groups] == [
        0.25,
        0.125,
    ]  # 2 of 4 steps of warm-up, halved
    assert optimizing.learning_rates() == {"pull": 0.25}


def test_factors_of_the_schedules():
    cosine = EngineConfig(lr_schedule="cosine", lr_floor=0.2)
    assert [learning_rate_factor(cosine, 9, p, 0.2) for p in (0.2, 0.6, 1.0)] == pytest.approx(
        [1, 0.6, 0.2]
    )
    held = EngineConfig(lr_schedule="linear", lr_floor=0.2, lr_hold=0.5)
    assert [learning_rate_factor(held, 9, p, 0.2) for p in (0.3, 0.6, 0.8, 1.0)] == pytest.approx(
        [1, 1, 0.6, 0.2]
    )
    halving = EngineConfig(lr_schedule="halving", lr_halvings=2)
    assert [learning_rate_factor(halving, 9, p, 0.0) for p in (0.3, 0.5, 0.7, 1.0)] == [
        1,
        0.5,
        0.25,
        0.25,
    ]


def test_a_frozen_parameter_is_neither_updated_nor_counted():
    trainer = Pulls(clip=5.0)
    trainer.y.requires_grad_(False)
    before = trainer.y.clone()
    trainer.step(None, LocalEngine(trainer, EngineConfig()))
    assert torch.equal(trainer.y, before)
    torch.testing.assert_close(trainer.x.detach(), torch.tensor([1.0, 2.0, 2.0]) * (1 - 5 * 6 / 18))


def test_the_engine_of_one_process_accumulates_and_may_leave_updates_out():
    trainer = Pulls()
    engine = LocalEngine(trainer, EngineConfig(batch_size=2, accumulate=2))
    before = trainer.x.detach().clone()
    engine.part = 0
    trainer.step(None, engine)
    assert torch.equal(trainer.x, before)
    engine.part = 1
    trainer.step(None, engine)
    torch.testing.assert_close(
        trainer.x.detach(), before - 6 * before
    )  # the mean of two equal parts
    assert trainer.x.grad is None
    idle = LocalEngine(trainer, EngineConfig(), progress=1.0, updates=False)
    before = trainer.x.detach().clone()
    trainer.step(None, idle)
    assert torch.equal(trainer.x, before)
    assert trainer.x.grad is None
    assert idle.progress == 1
    rows = torch.arange(3)
    assert idle.shifted(rows).tolist() == [2, 0, 1]
    assert idle.gathered(rows) is rows


@pytest.mark.usefixtures("toy")
def test_a_run_uses_and_logs_what_an_optimizer_brings(tmp_path, monkeypatch):
    """A schedule that stands still at a tenth, and a clip so small that the critic hardly moves."""
    toy = sys.modules["t2i_toy"]
    plain = toy.stages

    def made(networks):
        (stage,) = plain(resolve_config("toy").settings, networks.text_encoder)
        trainer = stage.trainer(networks)
        chosen = Optimization(trainer.optimizers["critic"], 1e-3, lambda progress: 0.1)
        trainer.optimizers = {**trainer.optimizers, "critic": chosen}
        return trainer

    monkeypatch.setattr(
        toy,
        "stages",
        lambda config, encoder: [replace(stage, trainer=made) for stage in plain(config, encoder)],
    )
    run = train(
        resolve_config("toy", sets=["log_every=1", "keep=9"]), tmp_path / "run", reporter=Silent()
    )
    rates = [
        json.loads(line)["learning_rates"] for line in run.metrics_file.read_text().splitlines()
    ]
    assert rates == [{"generator": 0.01, "critic": pytest.approx(0.001)}] * 6
    first, last = (
        load_tensors(run.checkpoints / step / "modules.critic.safetensors", "x")["weight"]
        for step in ("step-0", "step-3")
    )
    # Three steps of momentum 0.9 at rate 1e-3, each of a gradient of norm 1e-3: 1 + 1.9 + 2.71 of
    # them at most.
    assert 0 < (first - last).norm() < 1.01 * 5.61e-6
    assert set(read_json(run.checkpoints / "step-3" / "state.json", "x")["optimizers"]) == {
        "generator",
        "critic",
    }
