"""What `benchmarks.speed.memory` counts, against sizes that are known by arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from t2i.benchmarks.speed.memory import FLOAT, LiveStorages, StageMemory, count_memory, main
from t2i.core.engine.trial import Trial
from t2i.core.runs.configure import resolve_config


def test_storages_count_until_they_are_freed_and_views_count_once() -> None:
    with LiveStorages() as live:
        first = torch.zeros(10, 25)
        assert live.now == 1000
        row = first[3].view(5, 5)
        assert live.now == 1000
        second = first + 1
        assert (live.now, live.peak) == (2000, 2000)
        del first
        assert live.now == 2000  # the view keeps it
        del row, second
        assert (live.now, live.peak) == (0, 2000)


@pytest.mark.parametrize("fake", [False, True])
def test_a_step_of_convolutions_takes_what_arithmetic_says(fake: bool) -> None:
    """Real tensors and fake ones are counted alike."""
    with FakeTensorMode() if fake else torch.no_grad(), LiveStorages() as live, torch.enable_grad():
        net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 1, 1))
        weights = (16 * 3 * 9 + 16 + 16 + 1) * FLOAT
        assert live.now == weights
        adam = torch.optim.Adam(net.parameters(), fused=True)
        net(torch.ones(2, 3, 8, 8)).sum().backward()
        adam.step()
        # Gradients, two moments, and a count of steps for each of the four parameters.
        assert live.now == 4 * weights + 4 * FLOAT
        images = torch.ones(2, 3, 64, 64)
        before, pixels = live.now, 2 * 64 * 64 * FLOAT
        out = net(images)
        # Of the two maps of 16 channels tanh keeps its output alone.
        assert live.now - before == (16 + 1) * pixels
        assert live.peak - before == (16 + 16) * pixels
        del out
        assert live.now == before


def test_the_count_of_a_model_is_that_of_real_steps() -> None:
    sets = ["ema_decay=0", "batch_size=32", "accumulate=2"]
    config = resolve_config("dfgan", preset="tiny", sets=sets)
    memory = count_memory(config, "text")
    # Weights, and for what is trained Adam's two moments; buffers and counts of steps are small.
    known = FLOAT * (3 * memory.trained + memory.frozen)
    assert known <= memory.standing < 1.05 * known
    assert memory.part == 16
    with LiveStorages() as live:
        step = Trial(config, "text", torch.device("cpu")).steps(16)
        step()
        live.peak = live.now
        step()
    assert live.peak == pytest.approx(memory.taken(16), rel=0.05)


def test_the_images_that_fit_use_85_percent_of_the_memory() -> None:
    memory = StageMemory("gan", 10**8, 0, 10**9, fixed=5e8, image=2e8, part=16)
    assert memory.fits(8e9) == 31  # (6.8 - 0.5) / 0.2
    assert memory.taken(31) == 6.7e9
    assert memory.fits(1e15) == 4096
    assert memory.taken(1) == 1.4e9  # gradients beside what stands
    assert (memory.fits(1.6e9), memory.fits(1.7e9)) == (0, 4)


def test_the_command_says_why_a_row_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--model", "dfgan", "--preset", "tiny", "--stage", "nonsense"])
    assert "dfgan tiny: left out (model 'dfgan' has no training stage nonsense)" in (
        capsys.readouterr().out
    )
