"""The engine where it is easily wrong: precision, frozen parts, memory formats, stage ends, refused
starts."""

import json
import os
import random
import shutil
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from t2i.core.engine import resume, train
from t2i.core.engine.reporting import Silent
from t2i.core.errors import Interrupted, UserError
from t2i.core.io.tensors import load_tensors
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run

pytestmark = pytest.mark.usefixtures("toy")


def go(out, *sets):
    return train(resolve_config("toy", sets=sets), out, reporter=Silent())


def pull(trainer, batch, engine):
    """A step that pulls the generator's last bias towards 0."""
    loss = trainer.generator.out.bias.square().sum()
    engine.update("generator", loss)
    return {"generator": loss}


@pytest.fixture
def changed(monkeypatch):
    """`changed(step=, made=)`: the toy's trainers with another step, and `made(trainer)` called on
    each new one."""
    toy = sys.modules["t2i_toy"]
    original = toy.stages

    def change(step=None, made=lambda trainer: None):
        def altered(make):
            def trainer(networks):
                trainer = make(networks)
                if step:
                    trainer.step = lambda batch, engine: step(trainer, batch, engine)
                made(trainer)
                return trainer

            return trainer

        def stages(config, encoder):
            return [
                replace(stage, trainer=altered(stage.trainer))
                for stage in original(config, encoder)
            ]

        monkeypatch.setattr(toy, "stages", stages)

    return change


def test_channels_last_weights_are_averaged_too(tmp_path, changed):
    def made(trainer):
        trainer.generator.conv = torch.nn.Conv2d(3, 3, 3, padding=1)
        trainer.optimizers["generator"].add_param_group(
            {"params": trainer.generator.conv.parameters()}
        )

    def step(trainer, batch, engine):
        loss = (trainer.generator.conv(batch.images) - 1).square().mean()
        engine.update("generator", loss)
        return {"generator": loss}

    changed(step, made)
    averages = []
    for name, last in (("a", "true"), ("b", "false")):
        run = go(tmp_path / name, f"channels_last={last}", "ema_decay=0.5")
        averages.append(
            load_tensors(run.checkpoints / "step-3" / "ema.safetensors", "x")[
                "generator.conv.weight"
            ]
        )
    assert torch.allclose(*averages, atol=1e-5)


def test_bf16_computes_with_the_weights_of_the_last_update(tmp_path, changed):
    seen = []

    def step(trainer, batch, engine):
        critic, x = trainer.modules["critic"], batch.images.flatten(1)
        with torch.no_grad():
            critic(x)
        loss = critic(x).float().square().mean()
        engine.update("critic", loss)
        truth = torch.nn.functional.linear(
            x.bfloat16(), critic.weight.bfloat16(), critic.bias.bfloat16()
        )
        seen.append(torch.equal(critic(x), truth))
        return {"critic": loss}

    changed(step)
    go(tmp_path / "run", "precision=bf16", "lr=0.5")
    assert seen == [True] * 6


def test_fp16_without_a_gpu_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        go(tmp_path / "run", "precision=fp16")
    assert not (tmp_path / "run").exists()


def test_a_frozen_parameter_may_be_in_an_optimizer(tmp_path, changed):
    changed(made=lambda trainer: trainer.generator.hidden.bias.requires_grad_(False))
    run = go(tmp_path / "run")
    biases = [
        load_tensors(run.checkpoints / step / "modules.generator.safetensors", "x")["hidden.bias"]
        for step in ("step-3", "step-6")
    ]
    assert torch.equal(*biases)


@pytest.mark.parametrize("frozen", ["true", "false"])
def test_no_caption_is_the_encoders_own_affair(tmp_path, changed, monkeypatch, frozen):
    toy = sys.modules["t2i_toy"]
    build = toy.encoder

    def encoder(config, assets):
        made = build(config, assets)
        made.null = lambda n: replace(made.encode([""] * n), sentence=torch.full((n, 5), 7.0))
        return made

    def step(trainer, batch, engine):
        assert torch.equal(batch.null().sentence, torch.full((4, 5), 7.0))
        return pull(trainer, batch, engine)

    monkeypatch.setattr(toy, "encoder", encoder)
    changed(step)
    go(tmp_path / "run", f"encoder.frozen={frozen}")


def test_extras_are_tensors_where_they_are_numbers(tmp_path, changed):
    def step(trainer, batch, engine):
        assert batch.extras["id"].tolist() == [
            int(key.removeprefix("train-")) for key in batch.keys
        ]
        return pull(trainer, batch, engine)

    changed(step)
    go(tmp_path / "run")


def test_the_log_is_json_whatever_a_loss_is(tmp_path):
    run = go(tmp_path / "run", "explode_at=4", "on_nan=skip", "log_every=1", "checkpoint_every=1")
    lines = [
        json.loads(line, parse_constant=pytest.fail)
        for line in run.metrics_file.read_text().splitlines()
    ]
    assert [line["losses"]["generator"] is None for line in lines] == [False] * 4 + [True, False]


def test_a_checkpoint_between_two_lines_of_the_log_holds_what_was_lost_since(tmp_path):
    go(tmp_path / "run", "explode_at=4", "on_nan=skip", "log_every=6", "checkpoint_every=5")


def test_parameters_are_counted_once(tmp_path):
    one, two = (
        go(tmp_path / stages, f"two_stages={stages}").summary()["parameters"]
        for stages in ("false", "true")
    )
    critic = 3 * 8 * 8 + 1
    assert one["all"] == one["trained"]  # the toy trains everything that it has
    assert two == {
        **one,
        "all": one["all"] + critic,
        "trained": one["trained"] + critic,
    }  # a critic for each stage


def test_a_stage_finishes_without_gradients_in_evaluation_mode_on_whole_batches(tmp_path, changed):
    seen = []

    def finish(trainer, batches):
        keys = batches().keys, batches().keys
        seen.append((torch.is_grad_enabled(), [m.training for m in trainer.modules.values()], keys))

    changed(
        made=lambda trainer: setattr(trainer, "finish", lambda batches: finish(trainer, batches))
    )
    go(tmp_path / "run", "accumulate=2")
    ((gradients, training, (first, second)),) = seen
    assert not gradients
    assert training == [False] * 3
    assert len(first) == 4
    assert first != second


def test_previews_see_the_present_weights_and_the_captions_of_the_grid(tmp_path, changed):
    seen = []

    def preview(batch):
        seen.append((batch.captions, batch.text.sentence.clone()))
        return batch.images

    changed(made=lambda trainer: setattr(trainer, "preview", preview))
    run = go(tmp_path / "run", "sample_every=2", "lr=0.5")
    captions = json.loads((run.samples / "captions.json").read_text())["captions"]
    assert all(list(shown) == captions for shown, _ in seen)
    assert not torch.equal(seen[0][1], seen[1][1])


def test_every_random_generator_starts_the_same(tmp_path, changed):
    draws = []

    def step(trainer, batch, engine):
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
        return pull(trainer, batch, engine)

    changed(step)
    go(tmp_path / "a")
    go(tmp_path / "b")
    assert draws[:6] == draws[6:]


def test_a_network_that_one_stage_compiles_may_be_eager_in_the_next(tmp_path, changed, monkeypatch):
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda self: setattr(self, "_compiled_call_impl", self._call_impl),
    )
    made, compiled = [], []

    def note(trainer):
        made.append(trainer)
        trainer.eager = ("generator",) if len(made) == 2 else ()

    def step(trainer, batch, engine):
        compiled.append(trainer.generator._compiled_call_impl is not None)
        return pull(trainer, batch, engine)

    changed(step, note)
    go(tmp_path / "run", "two_stages=true", "compile=true")
    assert compiled == [True, True, False, False, False, False]


def test_learning_rates_warm_up_and_then_fall_over_the_rest(tmp_path, changed):
    rates = []

    def step(trainer, batch, engine):
        rates.append(trainer.optimizers["generator"].param_groups[0]["lr"])
        return pull(trainer, batch, engine)

    changed(step)
    go(tmp_path / "run", "steps=10", "warmup=2", "lr_schedule=linear", "lr_floor=0.5", "lr=1")
    assert rates == pytest.approx([0.5, 1.0] + [1 - i / 16 for i in range(8)])


def test_learning_rates_are_halved_after_equal_parts_of_a_stage(tmp_path, changed):
    rates = []

    def step(trainer, batch, engine):
        rates.append(trainer.optimizers["generator"].param_groups[0]["lr"])
        return pull(trainer, batch, engine)

    changed(step)
    go(tmp_path / "run", "steps=10", "warmup=1", "lr_schedule=halving", "lr_halvings=2", "lr=1")
    assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_a_stage_may_have_its_own_number_of_halvings(tmp_path, changed, monkeypatch):
    rates = []

    def step(trainer, batch, engine):
        rates.append(trainer.optimizers["generator"].param_groups[0]["lr"])
        return pull(trainer, batch, engine)

    changed(step)
    toy = sys.modules["t2i_toy"]
    plain = toy.stages
    monkeypatch.setattr(
        toy,
        "stages",
        lambda config, encoder: [
            replace(s, settings={"lr_halvings": n}) for n, s in enumerate(plain(config, encoder))
        ],
    )
    go(
        tmp_path / "run",
        "steps=8",
        "two_stages=true",
        "lr_schedule=halving",
        "lr_halvings=3",
        "lr=1",
    )
    assert rates == [1, 1, 1, 1, 1, 1, 0.5, 0.5]


def kill_at(step_number, number=signal.SIGINT):
    def step(trainer, batch, engine):
        if batch.noise.at == step_number:
            os.kill(os.getpid(), number)
        return pull(trainer, batch, engine)

    return step


def test_a_signal_in_the_last_step_of_a_stage_is_answered_after_its_end(tmp_path, changed):
    changed(kill_at(1))
    with pytest.raises(Interrupted, match="stopped, saved at step 2"):
        go(tmp_path / "run", "two_stages=true", "checkpoint_every=100")
    run = Run(tmp_path / "run")
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-0", "step-2"]
    assert [stage["name"] for stage in resume(run.path, reporter=Silent()).summary()["stages"]] == [
        "first",
        "second",
    ]


def test_a_signal_in_the_last_step_of_all_leaves_a_complete_run(tmp_path, changed):
    changed(kill_at(5, signal.SIGTERM))
    with pytest.raises(Interrupted, match="complete") as caught:
        go(tmp_path / "run")
    assert caught.value.exit_code == 143
    assert Run(tmp_path / "run").complete


def test_a_signal_cuts_a_drawing_short_and_training_does_not_notice(tmp_path, changed, monkeypatch):
    whole = go(tmp_path / "whole", "sample_every=2")
    from t2i.core.models.model import Model

    draw = Model.stream

    def interrupted(self, *arguments, **settings):
        torch.rand(1)
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the drawing went on")
        return draw(self, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(Model, "stream", interrupted)
        with pytest.raises(Interrupted):
            go(tmp_path / "part", "sample_every=2")
    part = resume(tmp_path / "part", reporter=Silent())
    ours, theirs = (
        {p.name: load_tensors(p, "x") for p in run.checkpoints.glob("step-6/*.safetensors")}
        for run in (whole, part)
    )
    assert ours.keys() == theirs.keys()
    assert all(
        torch.equal(ours[file][name], theirs[file][name]) for file in ours for name in ours[file]
    )


def test_a_run_that_died_before_its_first_step_begins(tmp_path):
    run = go(tmp_path / "run")
    run.summary_file.unlink()
    shutil.rmtree(run.checkpoints)
    with pytest.raises(UserError, match="no sound checkpoint"):  # they were taken away
        resume(run.path, reporter=Silent())
    shutil.rmtree(run.model)
    run.metrics_file.unlink()
    assert resume(run.path, reporter=Silent()).summary()["steps"] == 6
    assert len(run.metrics_file.read_text().splitlines()) == 1


def test_a_refused_start_leaves_the_folder_free(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 100))
        with pytest.raises(UserError, match="GB are free"):
            go(tmp_path / "run")
    assert go(tmp_path / "run").complete


def test_a_full_disk_names_the_last_sound_checkpoint(tmp_path, monkeypatch):
    from t2i.core.engine import checkpoint

    write = checkpoint.write

    def full(folder, state, *arguments):
        write(folder, state, *arguments)
        if state.step == 6:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", full)
        with pytest.raises(UserError, match=r"save step 6: No space.*step-3.*--resume"):
            go(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "step-0",
        "step-3",
    ]
    assert resume(tmp_path / "run", reporter=Silent()).complete


def test_a_damaged_later_checkpoint_does_not_push_a_sound_one_out(tmp_path, changed):
    run = go(tmp_path / "run", "keep=1", "checkpoint_every=100")
    run.summary_file.unlink()
    (run.checkpoints / "step-6").rename(run.checkpoints / "step-900")
    (run.checkpoints / "step-900" / "state.json").write_text("{}")
    shutil.rmtree(run.model)
    go(tmp_path / "other", "keep=9", "checkpoint_every=2")
    shutil.copytree(tmp_path / "other" / "checkpoints" / "step-4", run.checkpoints / "step-4")
    changed(kill_at(4))
    with pytest.raises(Interrupted):
        resume(run.path, reporter=Silent())
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-5", "step-900"]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_data_sets_own_error_reaches_the_user_whole(tmp_path, monkeypatch, workers):
    def broken(self, index):
        raise UserError("data set toydata: image 3 is torn; remove it")

    def build(config, split):
        made = Toy(config, split)
        if split == "train":
            made.__class__ = type(
                "Torn", (Toy,), {"__getitem__": broken, "vocabulary": lambda self: ["a"]}
            )
        return made

    Toy = sys.modules["t2i_toy"].data
    monkeypatch.setattr(sys.modules["t2i_toy"], "data", build)
    with pytest.raises(UserError, match=r"^data set toydata: image 3 is torn; remove it$"):
        go(tmp_path / "run", f"workers={workers}")


@pytest.mark.parametrize("name", ["from", "device"])
def test_entries_of_a_record_that_are_no_texts_are_named(tmp_path, name):
    run = go(tmp_path / "run")
    document = json.loads(run.config_file.read_text())
    run.config_file.write_text(json.dumps(document | {name: {"x": 1}}))
    with pytest.raises(UserError, match=rf"config\.json: '{name}' must be a text, not {{'x': 1}}"):
        resume(run.path, reporter=Silent())
