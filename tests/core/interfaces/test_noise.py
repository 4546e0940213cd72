"""Noise depends on its key alone; its distribution is the one it names."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t2i.core.interfaces.noise import PromptNoise, StepNoise

keys = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6)


@given(keys=keys, seed=st.integers(0, 2**63 - 1))
def test_a_picture_gets_the_same_draws_in_any_batch(keys, seed):
    whole = PromptNoise(seed, tuple(keys)).normal("x_T", 3, (2, 3))
    for i, key in enumerate(keys):
        assert torch.equal(whole[i], PromptNoise(seed, (key,)).normal("x_T", 3, (2, 3))[0])


@pytest.mark.parametrize(
    "other",
    [
        lambda: PromptNoise(2, ((0, 0),)).normal("a", 0, (64,)),
        lambda: PromptNoise(1, ((1, 0),)).normal("a", 0, (64,)),
        lambda: PromptNoise(1, ((0, 1),)).normal("a", 0, (64,)),
        lambda: PromptNoise(1, ((0, 0),)).normal("b", 0, (64,)),
        lambda: PromptNoise(1, ((0, 0),)).normal("a", 1, (64,)),
        lambda: StepNoise(1, 0, 0, 1, 1).normal("a", 0, (64,)),
    ],
)
def test_another_key_gives_other_draws(other):
    ours = PromptNoise(1, ((0, 0),)).normal("a", 0, (64,))
    assert abs(np.corrcoef(ours[0], other()[0])[0, 1]) < 0.5


def test_parts_of_keys_cannot_run_together():
    a = PromptNoise(1, ((1, 11),)).normal("a", 0, (8,))
    assert not torch.equal(a, PromptNoise(1, ((11, 1),)).normal("a", 0, (8,)))
    assert not torch.equal(a, PromptNoise(11, ((1, 1),)).normal("a", 0, (8,)))


@given(world=st.sampled_from([1, 2, 4]))
def test_training_noise_is_the_same_on_any_number_of_processes(world):
    whole = StepNoise(5, 7, 0, 8, 8).normal("eps", 0, (3,))
    parts = [StepNoise(5, 7, r * 8 // world, 8 // world, 8).normal("eps", 0, (3,)) for r in range(world)]
    assert torch.equal(torch.cat(parts), whole)


def test_distributions():
    noise = PromptNoise(0, tuple((p, 0) for p in range(50)))
    normal = noise.normal("n", 0, (2000,)).double()
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    assert abs((normal**4).mean() - 3) < 0.1
    uniform = noise.uniform("u", 0, (2000,)).double()
    assert 0 <= uniform.min() < 1e-3 < 0.999 < uniform.max() < 1
    counts = torch.bincount(noise.integers("i", 0, 10, (2000,)).flatten(), minlength=10)
    assert counts.sum() == 100_000
    assert len(counts) == 10
    assert (counts - 10_000).abs().max() < 500


def test_draws_are_the_same_in_another_process():
    code = (
        "from t2i.core.interfaces.noise import PromptNoise as P; print(P(3, ((1, 2),)).normal('z', 0, (4,)).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(PromptNoise(3, ((1, 2),)).normal("z", 0, (4,)).tolist())


def test_generators_for_libraries_are_keyed_too():
    a = PromptNoise(3, ((1, 2), (0, 0))).generators("step", 4)
    b = PromptNoise(3, ((0, 0),)).generators("step", 4)
    assert torch.equal(torch.randn(3, generator=a[1]), torch.randn(3, generator=b[0]))
