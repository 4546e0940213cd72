"""`parallel = fsdp`: two processes share weights, gradients, moments and averages out, and train
what one process trains."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from t2i.core.engine import blocks, resume
from t2i.core.engine.blocks import blocks_of, outermost
from t2i.core.engine.reporting import Silent
from t2i.core.engine.shardable import check_shardable
from t2i.core.errors import UserError
from t2i.core.runs.folder import Run
from t2i.core.settings.engine import EngineConfig

HERE = Path(__file__).parent


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def two(script):
    """What each of two processes of a script says in its last line."""
    shared = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, str(script)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=1800)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    return [json.loads(text.splitlines()[-1]) for text in said]


def test_two_processes_that_share_weights_out_train_what_one_trains():
    """Two optimizers, parts of a batch, clipping for all and for groups, a parameter without a
    gradient, a scalar, a method that is no forward; and all again from what was saved."""
    first, second = two(HERE / "two_shards.py")
    for said in (first, second):
        assert said["apart"] < 1e-5
        assert said["resumed"] == 0
        assert 0.4 < said["share"] < 0.6  # of the numbers that the optimizer has in one process
        assert "changes the weights net.stem.weight itself" in said["refused"]
    assert first["averages"] < 1e-5
    assert [7, 5] in first["moments"]


class Layer(nn.Module):
    """A module that is only ever called."""

    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x):
        return self.inner(x)


class Coder(Layer):
    """A module with a method of its own."""

    def encode(self, x):
        return self.inner(x)


def test_blocks_are_the_smallest_large_parts_that_are_only_called(monkeypatch):
    monkeypatch.setattr(blocks, "LEAST", 50)
    large, small, coder, tied = Layer(8), Layer(4), Coder(8), Layer(8)
    also = Layer(8)
    also.inner.weight = tied.inner.weight
    network = nn.Sequential(nn.ModuleList([large, small]), coder, nn.Linear(8, 8), tied, also)
    assert blocks_of(network, set(network.parameters())) == [large]
    assert blocks_of(network, set()) == []


def test_parts_of_other_networks_are_left_out():
    inner, listed = Layer(2), nn.ModuleList([Layer(3)])
    outer = nn.Sequential(inner)
    networks = outermost({"inner": inner, "outer": outer, "again": outer, "all": listed})
    assert networks == {"outer": outer, "all.0": listed[0]}


@pytest.mark.parametrize(
    "settings", [{"compile": True}, {"channels_last": True}, {"precision": "fp16"}]
)
def test_what_does_not_go_with_fsdp_is_refused_by_name(settings):
    (name,) = settings
    with pytest.raises(UserError, match=f"parallel=fsdp does not go with {name}"):
        EngineConfig().with_(parallel="fsdp", **settings)


def test_double_backward_and_optimizers_of_whole_parameters_are_refused():
    trainer = SimpleNamespace(eager=("critic",), optimizers={})
    with pytest.raises(UserError, match=r"stage gan differentiates through .* 'critic'"):
        check_shardable(trainer, "gan")
    main = torch.optim.LBFGS([nn.Parameter(torch.ones(1))])
    with pytest.raises(UserError, match="the optimizer 'main' of stage gan is LBFGS"):
        check_shardable(SimpleNamespace(eager=(), optimizers={"main": main}), "gan")


# --- whole runs -------------------------------------------------------------------------------


def processes():
    """The module test_processes, whose helpers start whole runs."""
    spec = importlib.util.spec_from_file_location("t2i_processes", HERE / "test_processes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_sharded_run_has_the_gradients_of_one_process_and_goes_on_with_any_number(tmp_path):
    """Both stages of `ldm`: a checkpoint of two processes is one process's, and back."""
    helpers = processes()
    sets = [*helpers.SHARED, *helpers.SMALL["ldm"], "channels_last=false", "grad_clip=0.05"]
    sets += ["checkpoint_every=1", "keep=9"]
    one, sharded = helpers.script(), ("ldm", *sets, "parallel=fsdp")
    one.do(helpers.job(tmp_path, "one", "ldm", *sets))
    one.do(helpers.job(tmp_path, "on-two", *sharded, stop_at={"0": 2}))
    least = {"least": 1000}
    said, _ = helpers.answered(
        tmp_path,
        {
            "two": (sharded, least),
            "on-two": ((), least),
            "on-one": (sharded, {"stop_at": {"1": 2}, **least}),
        },
    )
    assert said["two"][0] == said["two"][1]
    assert said["two"][0]["said"] == said["on-two"][0]["said"] == ""
    helpers.check_gradients(tmp_path / "one", tmp_path / "two")
    resume(tmp_path / "on-one", reporter=Silent())
    for name in ("two", "on-two", "on-one"):
        assert Run(tmp_path / name).complete
        # Adam turns rounding into steps where a gradient is next to nothing.
        assert helpers.relative(Run(tmp_path / "one"), Run(tmp_path / name), "step-4") < 5e-3
    assert helpers.relative(Run(tmp_path / "one"), Run(tmp_path / "two"), "step-1") < 1e-5
