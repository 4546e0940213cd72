"""Two processes (gloo, as torchrun would start them) do what one does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from t2i.core.engine import train
from t2i.core.engine.reporting import Silent
from t2i.core.files import load_tensors
from t2i.core.runs import Run
from t2i.core.runs import resolve as resolve_run

SCRIPT = Path(__file__).with_name("two_processes.py")


def together(out, *sets):
    """What each of two processes prints."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"OMP_NUM_THREADS": "1", "T2I_PLUGINS": "direct"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(out), *sets],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return [json.loads(text.splitlines()[-1]) for text in said]


def relative(one, other, step):
    """The largest difference of two runs' weights at a step, relative to the largest weight of each tensor."""
    worst = 0.0
    for path in one.checkpoints.glob(f"{step}/modules.*.safetensors"):
        ours, theirs = load_tensors(path, "x"), load_tensors(other.checkpoints / step / path.name, "x")
        worst = max(worst, *(float((ours[n] - theirs[n]).abs().max() / ours[n].abs().max()) for n in ours))
    return worst


@pytest.mark.usefixtures("toy")
def test_two_processes_train_what_one_trains(tmp_path):
    sets = ("two_stages=true", "checkpoint_every=1", "keep=9", "grad_clip=0.05", "ema_decay=0.5")
    one = train(resolve_run("toy", sets=sets), tmp_path / "one", reporter=Silent())
    (said, first), (_, second) = together(tmp_path / "two", *sets)
    assert said == ""
    two = Run(tmp_path / "two")
    assert relative(one, two, "step-0") == 0
    assert relative(one, two, "step-1") < 1e-5
    assert relative(one, two, "step-6") < 1e-4
    # Mismatched pairs are taken over the whole batch, and words of different lengths find together.
    numbers, words, lengths = ([*a, *b] for a, b in zip(first, second, strict=True))
    assert numbers == words == [7, 0, 1, 2, 3, 4, 5, 6]
    assert lengths == [2, 5, 2, 3, 1, 2, 1, 2]


def test_a_nan_in_one_process_stops_both_before_the_update(tmp_path):
    for said, _ in together(tmp_path / "run", "explode_at=0"):
        assert "'critic' is not finite" in said
        assert "step-3" in said
