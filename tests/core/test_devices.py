"""The device that a user names: what there is, and what an error lists."""

import platform
import subprocess
import sys

import pytest
import torch

from t2i.core import devices
from t2i.core.devices import available_devices, best_precision, memory_of, named_device
from t2i.core.errors import UserError


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(devices, "best_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)


def test_the_devices_of_a_machine(two_gpus, monkeypatch):
    assert available_devices() == ["cpu", "cuda:0", "cuda:1"]
    assert named_device(None) == torch.device("cuda")
    for name in ("cpu", "cuda", "cuda:1", " CUDA:0 ", "cpu:0"):
        assert named_device(name) == torch.device(name.strip().lower())
    with pytest.raises(UserError, match=r"'cuda:2': .*it has: cpu, cuda:0, cuda:1"):
        named_device("cuda:2")
    monkeypatch.setattr(devices, "best_device", lambda: torch.device("mps"))
    assert available_devices() == ["cpu", "mps"]
    assert named_device("mps") == torch.device("mps")


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "meta", "xpu", "cpu:3"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name, monkeypatch):
    monkeypatch.setattr(devices, "best_device", lambda: torch.device("cpu"))
    with pytest.raises(UserError, match=rf"device '{name}': this machine has no .*it has: cpu$"):
        named_device(name)


@pytest.mark.parametrize("name", ["gpu", "0", "", "cuda:-1", "cuda:x"])
def test_what_is_no_name_of_a_device(name):
    with pytest.raises(UserError, match=rf"no device is named '{name}'; this machine has: cpu"):
        named_device(name)


def test_a_torch_without_cuda_is_said_to_be_the_reason(monkeypatch):
    monkeypatch.setattr(devices, "best_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UserError, match="the installed torch is built without CUDA"):
        named_device("cuda")


def test_memory_and_precision_of_the_cpu(tmp_path, monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(devices, "CGROUP_LIMIT", tmp_path / "none")
    whole = memory_of(cpu)
    assert whole > 2**28
    (tmp_path / "limit").write_text("1000000\n")
    monkeypatch.setattr(devices, "CGROUP_LIMIT", tmp_path / "limit")
    assert memory_of(cpu) == 1_000_000
    (tmp_path / "limit").write_text("max\n")
    assert memory_of(cpu) == whole
    assert best_precision(cpu) == "no"


FAULTS = """
import resource, sys, torch
from t2i.core.devices import keep_freed_memory

torch.set_num_threads(1)
if sys.argv[1] == "keeps":
    keep_freed_memory()

def make():
    for _ in range(20):
        torch.ones(10, 1 << 20).sum()  # 40 MB: 10,240 pages

make()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
make()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is about glibc")
def test_the_memory_of_a_step_is_kept_for_the_next_one():
    """Counted are the pages that the system had to clear."""
    command = [sys.executable, "-c", FAULTS]
    counts = [
        int(subprocess.run([*command, how], capture_output=True, text=True).stdout)
        for how in ("keeps", "gives back")
    ]
    assert counts[0] < 10_000
    assert counts[1] > 100_000
