"""Two processes (gloo, as torchrun would start them) do what one does: the toy model, and those of
the plugins that docs/architecture.md says it of."""

import importlib.util
import json
import math
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from t2i.core.engine import resume
from t2i.core.engine.reporting import Silent
from t2i.core.io.sealed import verify
from t2i.core.io.tensors import load_tensors
from t2i.core.models.building import build
from t2i.core.models.sample_folder import RECORDS
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run

SCRIPT = Path(__file__).with_name("two_processes.py")
TOY = ["two_stages=true", "checkpoint_every=1", "keep=9", "grad_clip=0.05", "ema_decay=0.5"]
KEPT = ["keep_best=quality", "stop_after=5"]
SHARED = [
    "batch_size=4",
    "steps=4",
    "threads=1",
    "sampler.guidance=1",
    "encoder.width=16",
    "data.train_length=20",
]
UNET = ["unet.channels=[16,32]", "unet.text_map=8", "sampler.steps=2"]
SMALL = {
    "ldm": [*UNET, "autoencoder.batch_size=4", "autoencoder.channels=[16]", "autoencoder.groups=8"],
    "ddpm": [*UNET, "unet.head_width=8"],
    "dfgan": ["nf=4", "z_dim=8", "matcher_width=8"],
    "galip": [
        "nf=4", "z_dim=8", "clip.width=16", "clip.patch=8", "bridge_width=8", "bridge_middle=4",
        "judge_width=16",
        "assessor_width=8",
    ],
}  # fmt: skip
"""The `tiny` presets, cut down."""
DRAWN = {"stackgan": ["gf=8", "df=4", "encoder.width=16"], "ldm": [*SHARED, *SMALL["ldm"]]}
SCORED = ["score_every=4", "score_images=4", "scores=[fid:pixels]", "keep_best=fid:pixels"]
STORED = ["data.endless=false", "cache_views=1"]


def script():
    spec = importlib.util.spec_from_file_location("t2i_two_processes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def together(jobs, world=2):
    """What each of several processes answers to the jobs."""
    shared = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"OMP_NUM_THREADS": "1", "MASTER_PORT": free_port()}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(jobs)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=1800)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * world
    return [json.loads(text.splitlines()[-1]) for text in said]


def job(root, name, model=None, *sets, **more):
    return {"out": str(root / name)} | ({"model": model, "sets": [*sets]} if model else {}) | more


def answered(root, jobs):
    """The answer of each process to each job, by the run's name, and what travelled between
    them."""
    told = together([job(root, name, *rest, **more) for name, (rest, more) in jobs.items()])
    assert len({len(answers) for answers, _ in told}) == 1
    return {name: [answers[i] for answers, _ in told] for i, name in enumerate(jobs)}, [
        moved for _, moved in told
    ]


@pytest.fixture(scope="module")
def kept():
    return {}


@pytest.fixture
def done(toy, kept, tmp_path_factory):
    """Runs of one process and of two, made once: the folder, what the two said of each, and what
    travelled."""
    if not kept:
        root, one = tmp_path_factory.mktemp("processes"), script()
        one.do(job(root, "toy-1", "toy", *TOY))
        one.do(job(root, "toy-1-2", "toy", *TOY, stop_at={"0": 3}))
        for model, sets in SMALL.items():
            one.do(job(root, f"{model}-1", model, *SHARED, *sets))
        jobs = {
            "toy-2": (("toy", *TOY), {}),
            "toy-2-1": (
                ("toy", *TOY),
                {"stop_at": {"1": 3}},
            ),  # the second process alone hears of it
            "toy-1-2": ((), {}),
            "toy-2-scored": (("toy", *TOY, "score_every=2", *KEPT), {"scores": True}),
            **{f"{model}-2": ((model, *SHARED, *sets), {}) for model, sets in SMALL.items()},
            "ldm-stored-2": (("ldm", *SHARED, *SMALL["ldm"], *STORED), {}),
            **{
                f"{model}-drawn-2": ((model, *sets), {"draws": {"batch_size": 2}})
                for model, sets in DRAWN.items()
            },
            "nan": (("toy", *TOY), {"spoil": {"1": 4}}),
        }
        one.do(job(root, "ldm-stored-1", "ldm", *SHARED, *SMALL["ldm"], *STORED))
        for model, sets in DRAWN.items():
            kept[model] = partial(one.sampled, model, sets)
        kept["said"], kept["moved"] = answered(root, jobs)
        kept["root"] = root
    return kept


def relative(one, other, step):
    """The largest difference of two runs' weights at a step, relative to the largest weight of each
    tensor."""
    worst = 0.0
    for path in one.checkpoints.glob(f"{step}/modules.*.safetensors"):
        ours, theirs = (
            load_tensors(path, "x"),
            load_tensors(other.checkpoints / step / path.name, "x"),
        )
        worst = max(
            worst, *(float((ours[n] - theirs[n]).abs().max() / ours[n].abs().max()) for n in ours)
        )
    return worst


def updates_of(path):
    """Gradients by update (stage/optimizer/step), each a dict by parameter."""
    found = {}
    for name, gradient in load_tensors(path, "gradients").items():
        update, _, parameter = name.rpartition("/")
        found.setdefault(update, {})[parameter] = gradient
    return found


def check_gradients(one, several):
    """Each update's gradients are one process's, within 1e-5 of their norm; and so are those of
    each parameter, but for those that are next to nothing beside the rest (biases of keys, that
    attention does not notice)."""
    alone, shared = (updates_of(run / "gradients-0.safetensors") for run in (one, several))
    assert alone.keys() == shared.keys()
    for update, ours in alone.items():
        theirs = shared[update]
        assert ours.keys() == theirs.keys()
        off = {name: float((ours[name] - theirs[name]).norm()) for name in ours}
        norms = {name: float(ours[name].norm()) for name in ours}
        whole = math.hypot(*norms.values())
        assert 0 < whole < math.inf
        assert math.hypot(*off.values()) < 1e-5 * whole, update
        assert max(off[name] / max(norms[name], 1e-3 * whole) for name in off) < 3e-5, update


def test_two_processes_train_what_one_trains(done):
    one, two = Run(done["root"] / "toy-1"), Run(done["root"] / "toy-2")
    assert relative(one, two, "step-0") == 0
    assert relative(one, two, "step-1") < 1e-5
    assert relative(one, two, "step-6") < 1e-4
    first, second = done["said"]["toy-2"]
    assert first == second
    assert first["said"] == ""


def test_rows_are_shifted_and_gathered_over_the_whole_batch(done):
    """Words of different lengths find together."""
    lengths = [5, 2, 3, 1, 2, 1, 2, 2]
    first, second = (moved["shifted"] for moved in done["moved"])
    numbers, words, found = ([*a, *b] for a, b in zip(first, second, strict=True))
    assert numbers == words == [7, 0, 1, 2, 3, 4, 5, 6]
    assert found == [lengths[-1], *lengths[:-1]]
    for numbers, words, found in (moved["gathered"] for moved in done["moved"]):
        assert numbers == words == list(range(8))
        assert found == lengths


@pytest.mark.parametrize("name", [*SMALL, "ldm-stored"])
def test_first_gradients_are_those_of_one_process_and_all_stay_in_step(done, name):
    """In every stage: contrastive pretraining compares all images of the global batch, MA-GP goes
    backward twice."""
    first, second = done["said"][f"{name}-2"]
    assert first == second
    check_gradients(done["root"] / f"{name}-1", done["root"] / f"{name}-2")


def test_the_second_process_stores_its_share_of_the_latents(done):
    stores = [
        next((done["root"] / f"ldm-stored-{n}" / "features").glob("*/manifest.json")).parent
        for n in (1, 2)
    ]
    one, two = (
        {path.name: load_tensors(path, "x") for path in s.glob("part-*.safetensors")}
        for s in stores
    )
    assert len(one) == 3
    for name, tensors in one.items():
        assert all(
            torch.allclose(tensor, two[name][key], atol=1e-5) for key, tensor in tensors.items()
        )


def test_a_run_goes_on_with_another_number_of_processes(done):
    root = done["root"]
    for end in done["said"]["toy-2-1"]:
        assert "stopped by SIGTERM, saved at step 4" in end["said"]
    resume(root / "toy-2-1", reporter=Silent())
    for name in ("toy-2-1", "toy-1-2"):
        assert Run(root / name).complete
        assert relative(Run(root / "toy-1"), Run(root / name), "step-6") < 1e-4


def test_scores_change_nothing_and_both_processes_know_the_best(done):
    """The first process scores; the second one keeps step, and the same weights."""
    scored, plain = done["said"]["toy-2-scored"], done["said"]["toy-2"]
    assert [end["digest"] for end in scored] == [end["digest"] for end in plain]
    run = Run(done["root"] / "toy-2-scored")
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    found = [
        (line["step"], line["scores"]["quality"]["value"]) for line in lines if "scores" in line
    ]
    assert found == [(2, 8.0), (4, 7.0), (6, 6.0)]
    assert run.summary()["best_score"]["step"] == 6
    verify(run.best, "best")


def contents(folder):
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}, [
        line["file"] for line in lines
    ]


@pytest.mark.parametrize("model", DRAWN)
def test_images_are_shared_out_and_are_those_of_one_process(done, model, tmp_path):
    """A GAN with batch norms, and a diffusion model."""
    first, second = done["said"][f"{model}-drawn-2"]
    assert (first["drawn"], second["drawn"]) == (6, 0)  # the first process answers for both
    shared = contents(done["root"] / f"{model}-drawn-2")
    assert set(shared[0]) == {*(f"000{i}-000.png" for i in range(6)), "grid.png"}
    assert shared[1] == [f"000{i}-000.png" for i in range(6)]
    done[model](tmp_path / "one", batch_size=2)
    assert contents(tmp_path / "one") == shared
    # Half done by two processes and finished by one: the second one's image, and its line, are not
    # there.
    lines = (tmp_path / "one" / "samples.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "one" / "samples.jsonl").write_text("".join(lines[:2]))
    (tmp_path / "one" / ".samples-1.jsonl").write_text("".join(lines[2:3]) + lines[3][:30])
    (tmp_path / "one" / "0003-000.png").unlink()
    done[model](tmp_path / "one", batch_size=2)
    assert contents(tmp_path / "one") == shared
    done[model](tmp_path / "other", batch_size=3)
    for name in shared[1]:
        ours, theirs = (
            np.asarray(Image.open(p)).astype(int)
            for p in (tmp_path / d / name for d in ("one", "other"))
        )
        assert np.abs(ours - theirs).max() <= 1


def test_a_nan_in_one_process_stops_both_before_the_update(done):
    for end in done["said"]["nan"]:
        assert "'critic' is not finite" in end["said"]
        assert "step-4" in end["said"]


@pytest.mark.slow
@pytest.mark.parametrize("model", SMALL)
def test_fifty_steps_in_step_and_on_with_another_number(model, tmp_path):
    """Bit-equal weights in both processes; and a run that was stopped goes on from two processes to
    one, and back."""
    sets = [*SHARED, *SMALL[model], "steps=50"]
    together([job(tmp_path, "on-two", model, *sets, stop_at={"0": 24})], world=1)
    jobs = {
        "fifty": ((model, *sets), {}),
        "on-two": ((), {}),
        "on-one": ((model, *sets), {"stop_at": {"1": 24}}),
    }
    said, _ = answered(tmp_path, jobs)
    for first, second in (said["fifty"], said["on-two"]):
        assert first == second
        assert first["said"] == ""
    assert all("stopped by SIGTERM, saved at step 25" in end["said"] for end in said["on-one"])
    together([job(tmp_path, "on-one")], world=1)
    for name in jobs:
        assert Run(tmp_path / name).complete
        assert Run(tmp_path / name).summary()["steps"] == 50


def launched(*command, launcher, cwd):
    """A command by `torchrun` in two processes, as a user starts them, or "alone"."""
    two = [
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        free_port(),
        "-m",
        "--",
    ]
    start = two if launcher == "torchrun" else []
    return subprocess.run(
        [sys.executable, "-m", *start, "t2i.cli", *map(str, command)], cwd=cwd, capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=1800,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("model", ["stackgan", "ldm"])
def test_torchrun_trains_and_draws(model, tmp_path):
    sets = [
        part for value in (*DRAWN[model], "steps=8", "batch_size=4", *SCORED)
        for part in ("--set", value)
    ]  # fmt: skip
    trained = launched(
        "train", "--model", model, *sets, "--out", "run", launcher="torchrun", cwd=tmp_path
    )
    assert trained.returncode == 0, trained.stderr
    summary = Run(tmp_path / "run").summary()
    assert (summary["processes"], summary["best_score"]["name"]) == (2, "fid:pixels")
    request = [
        "sample",
        "--run",
        "run",
        "-p",
        "a red circle",
        "-p",
        "two blue stars",
        "-n",
        "3",
        "--batch-size",
        "2",
    ]
    drawn = launched(*request, "--out", "two", "--json", launcher="torchrun", cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert len(json.loads(drawn.stdout)["samples"]) == 6  # one answer
    assert launched(*request, "--out", "one", launcher="alone", cwd=tmp_path).returncode == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    # Killed: begun by two processes, with lines of both; finished by one.
    lines = (tmp_path / "two" / "samples.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "two" / "samples.jsonl").write_text(lines[0] + lines[1][:40])
    (tmp_path / "two" / ".samples-1.jsonl").write_text(lines[2])
    for name in ("grid.png", "0001-001.png", "0001-002.png"):
        (tmp_path / "two" / name).unlink()
    assert launched(*request, "--out", "two", launcher="alone", cwd=tmp_path).returncode == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    changed = launched(*request, "--seed", "1", "--out", "two", launcher="torchrun", cwd=tmp_path)
    assert changed.returncode != 0
    assert "two holds images of another request (0000-000.png has another seed)" in changed.stderr
    request[request.index("--batch-size") + 1] = "5"
    assert launched(*request, "--out", "other", launcher="alone", cwd=tmp_path).returncode == 0
    for name in contents(tmp_path / "one")[1]:
        ours, theirs = (
            np.asarray(Image.open(p)).astype(int)
            for p in (tmp_path / d / name for d in ("one", "other"))
        )
        assert np.abs(ours - theirs).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("model", ["stackgan", "ldm"])
def test_a_killed_command_goes_on_to_the_same_bytes(model, tmp_path):
    build(resolve_config(model, sets=DRAWN[model])).save(tmp_path / "model")
    request = [
        "sample",
        "--run",
        "model",
        "-p",
        "a red circle",
        "-p",
        "two blue stars",
        "-n",
        "60",
        "--batch-size",
        "1",
    ]
    assert launched(*request, "--out", "whole", launcher="alone", cwd=tmp_path).returncode == 0
    command = [sys.executable, "-m", "t2i.cli", *request, "--out", "killed"]
    process, lines = (
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL),
        tmp_path / "killed" / RECORDS,
    )
    while not (lines.is_file() and lines.read_bytes().count(b"\n") > 20):
        assert process.poll() is None
    process.kill()
    process.wait()
    left = {path.name for path in (tmp_path / "killed").glob("0*.png")}
    assert 20 < len(left) < 120
    assert launched(*request, "--out", "killed", launcher="alone", cwd=tmp_path).returncode == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert sorted(p.name for p in (tmp_path / "killed").iterdir()) == sorted(
        p.name for p in (tmp_path / "whole").iterdir()
    )
