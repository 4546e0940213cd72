"""Damage and full disks: what was saved before stays whole, nothing half-written stays, and a line
says what to do."""

import json
import os
import random
import shutil
import signal
import subprocess

import pytest

from t2i.core.errors import UserError
from t2i.core.io.sealed import verify


def litter(run):
    return [path for path in run.rglob(".*") if path.name.endswith((".tmp", ".old"))]


def one_line(process, code):
    """The one line of the error of a command that has ended with `code`."""
    lines = [line for line in process.err.splitlines() if line.startswith("error: ")]
    assert process.code == code, process.err
    assert len(lines) == 1, process.err
    assert "Traceback" not in process.err
    return lines[0]


def unfinished(whole, out, *steps):
    """A copy of a run, as it was when only these checkpoints were there."""
    shutil.copytree(whole, out)
    shutil.copy(f"{whole}.order", f"{out}.order")
    (out / "summary.json").unlink()
    for folder in (out / "checkpoints").iterdir():
        if folder.name not in [f"step-{step}" for step in steps]:
            shutil.rmtree(folder)
    return out


# --- full disks -----------------------------------------------------------------------------------


def largest(folder):
    return max(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_limit_of_file_size_leaves_the_old_checkpoint_whole(
    tmp_path, train, reference, assert_same
):
    """RLIMIT_FSIZE: a write beyond it fails with EFBIG, as one on a full disk does with ENOSPC."""
    whole = reference("dfgan")
    sizes = {step: largest(whole / "checkpoints" / f"step-{step}") for step in (0, 1, 2)}
    assert sizes[2] > max(sizes[0], sizes[1], largest(whole / "model"))
    out = tmp_path / "run"
    line = one_line(train(out, "dfgan", fsize=sizes[2] - 1).wait(), 2)
    assert line == (
        f"error: cannot save step 2: File too large; the last sound checkpoint is "
        f"{out / 'checkpoints' / 'step-1'}: "
        f"'t2i train --resume {out}' goes on from it"
    )
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-0", "step-1"]
    for folder in (*(out / "checkpoints").iterdir(), out / "model"):
        verify(folder, "x")
    assert litter(out) == []
    assert train(out, "dfgan").wait().code == 0
    assert_same(whole, out)


@pytest.mark.slow
def test_whatever_file_is_the_one_that_is_too_large(tmp_path, train, reference, assert_same):
    whole = reference("galip")
    sizes = sorted({path.stat().st_size for path in whole.rglob("*") if path.is_file()})
    for size in [size for size in sizes if size > 4096][
        ::3
    ]:  # what the command says is in a file too
        out = tmp_path / str(size)
        assert one_line(train(out, "galip", fsize=size - 1).wait(), 2).count("File too large") == 1
        assert litter(out) == []
        for folder in (out / "checkpoints").glob("step-*"):
            verify(folder, "x")
        assert train(out, "galip").wait().code == 0
        assert_same(whole, out)
        shutil.rmtree(out)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of so many bytes; skipped where only root may."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(size):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True
        )
        if done.returncode:
            pytest.skip("needs the right to mount")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


UNCHECKED = """
import os, sys
from t2i.cli.main import main
from t2i.core.engine import training
training._check_disk = lambda context: None
code = main({argv!r})
sys.stderr.flush()
os._exit(code)
"""


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_checkpoint_whole(nursery, small, reference, small_disk):
    """As when others fill a disk that had room enough when the run began."""
    kept = sum(
        path.stat().st_size + 4096
        for path in (reference("dfgan") / "checkpoints" / "step-4").iterdir()
    )
    disk = small_disk(4 * kept)
    settings = [word for setting in small("dfgan") for word in ("--set", setting)]
    argv = ["train", "--model", "dfgan", "--out", str(disk / "run"), *settings]
    process = nursery(script=UNCHECKED.format(argv=argv))
    assert "No space left on device" in one_line(process, 2)
    saved = list((disk / "run" / "checkpoints").iterdir())
    assert saved
    for folder in saved:
        verify(folder, "x")
    assert litter(disk / "run") == []


@pytest.mark.slow
def test_a_disk_that_cannot_hold_a_run_is_refused_before_it_begins(train, small_disk):
    disk = small_disk(200_000)
    assert "only 0.0 GB are free" in one_line(train(disk / "run", "dfgan").wait(), 2)
    assert not (disk / "run").exists()


# --- damage ---------------------------------------------------------------------------------------


def damaged(path, draw):
    """The file with one byte changed or its end cut off."""
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data))
    if draw.random() < 0.5:
        del data[at:]
    else:
        data[at] ^= draw.randint(1, 255)
    path.write_bytes(data)


def test_a_damaged_checkpoint_is_passed_over_and_the_run_ends_the_same(
    tmp_path, train, reference, assert_same
):
    whole = reference("dfgan")
    out = unfinished(whole, tmp_path / "run", 0, 1, 2, 4)
    damaged(out / "checkpoints" / "step-4" / "optimizers.safetensors", random.Random(0))
    process = train(out, "dfgan").wait()
    assert process.code == 0, process.err
    assert process.err.count("warning: skipped: checkpoint ") == 1
    assert "step-4/optimizers.safetensors is damaged" in process.err
    assert "resuming dfgan at step 2" in process.err
    assert_same(whole, out)


@pytest.mark.slow
def test_every_file_of_a_checkpoint_is_watched(tmp_path, reference):
    draw, folder = random.Random(1), reference("attngan") / "checkpoints" / "step-4"
    for path in sorted(folder.iterdir()):
        for attempt in range(60):
            copy = tmp_path / f"{path.name}-{attempt}"
            shutil.copytree(folder, copy)
            damaged(copy / path.name, draw)
            with pytest.raises(UserError) as caught:
                verify(copy, "checkpoint")
            assert "\n" not in str(caught.value)
            shutil.rmtree(copy)


def test_nothing_sound_is_one_line(tmp_path, train, reference):
    out = unfinished(reference("dfgan"), tmp_path / "run", 2, 4)
    for folder in (out / "checkpoints").iterdir():
        damaged(folder / "modules.generator.safetensors", random.Random(2))
    process = train(out, "dfgan").wait()
    assert (
        one_line(process, 2)
        == f"error: {out} has no sound checkpoint: begin again with another --out"
    )
    assert process.err.count("warning: skipped") == 2


def test_a_log_that_ends_in_half_a_line_goes_on(tmp_path, train, reference, assert_same):
    whole = reference("dfgan")
    out = unfinished(whole, tmp_path / "run", 4)
    lines = (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (out / "metrics.jsonl").write_bytes(lines[0] + lines[1] + lines[2][:20])
    for step in (0, 1, 2):
        shutil.copytree(
            whole / "checkpoints" / f"step-{step}", out / "checkpoints" / f"step-{step}"
        )
    assert train(out, "dfgan").wait().code == 0
    assert_same(whole, out)
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_kill_while_the_disk_is_full_is_survived_too(tmp_path, train, reference, assert_same):
    whole = reference("dfgan")
    out = tmp_path / "run"
    train(out, "dfgan", fsize=largest(whole / "checkpoints" / "step-2") - 1).wait()
    process = train(out, "dfgan", watched=out, kill_at=20).wait()
    assert process.code == -signal.SIGKILL
    assert os.path.exists(out / "checkpoints" / "step-1")
    assert train(out, "dfgan").wait().code == 0
    assert_same(whole, out)
