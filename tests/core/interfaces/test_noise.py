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
def test_a_image_gets_the_same_draws_in_any_batch(keys, seed):
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
    parts = [
        StepNoise(5, 7, r * 8 // world, 8 // world, 8).normal("eps", 0, (3,)) for r in range(world)
    ]
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
    code = "from t2i.core.interfaces.noise import PromptNoise as P; print(P(3, ((1, 2),)).normal('z', 0, (4,)).tolist())"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(PromptNoise(3, ((1, 2),)).normal("z", 0, (4,)).tolist())


def test_generators_for_libraries_are_keyed_too():
    a = PromptNoise(3, ((1, 2), (0, 0))).generators("step", 4)
    b = PromptNoise(3, ((0, 0),)).generators("step", 4)
    assert torch.equal(torch.randn(3, generator=a[1]), torch.randn(3, generator=b[0]))


SOURCES = {
    "prompt": lambda: PromptNoise(3, tuple((p, s) for p in range(3) for s in range(2))),
    "step": lambda: StepNoise(3, 7, 2, 6, 12),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_scope_shares_no_draw_with_any_other(source):
    noise = SOURCES[source]()
    scopes = [
        noise,
        noise.scope("base"),
        noise.scope("upsampler"),
        noise.scope("base").scope("upsampler"),
    ]
    draws = [scope.normal("x_T", 0, (200,)) for scope in scopes]
    seeds = [tuple(g.initial_seed() for g in scope.generators("chain", 0)) for scope in scopes]
    assert len(set(seeds)) == len(scopes)
    for i, a in enumerate(draws):
        assert torch.equal(a, scopes[i].normal("x_T", 0, (200,)))
        for b in draws[:i]:
            assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs() < 0.1


def test_the_small_draw_of_one_stage_is_no_prefix_of_the_large_draw_of_the_next():
    noise = PromptNoise(0, ((0, 0),))
    small = noise.scope("base").normal("x_T", 0, (3, 8, 8)).flatten()
    large = noise.scope("upsampler").normal("x_T", 0, (3, 32, 32)).flatten()
    assert not torch.equal(small, large[: len(small)])
    # Without scopes they would be: that is what scopes are for.
    unscoped = [noise.normal("x_T", 0, (3, size, size)).flatten() for size in (8, 32)]
    assert torch.equal(unscoped[0], unscoped[1][: len(small)])


def test_a_scope_is_no_draw_of_its_name():
    noise = PromptNoise(0, ((0, 0),))
    assert not torch.equal(noise.scope("a").normal("b", 0, (8,)), noise.normal("a", 0, (8,)))
    assert not torch.equal(
        noise.scope("a").normal("b", 0, (8,)), noise.scope("b").normal("a", 0, (8,))
    )


def test_scopes_keep_rows_and_a_given_start_stays_outside_them():
    given = torch.arange(6.0).view(3, 2)
    noise = PromptNoise(0, ((0, 0), (1, 0), (1, 1)), given=given)
    assert torch.equal(noise.start("x_T", (2,)), given)
    inner = noise.scope("part")
    assert not torch.equal(inner.start("x_T", (2,)), given)
    assert torch.equal(inner[1:].normal("n", 0, (2,)), inner.normal("n", 0, (2,))[1:])


@pytest.mark.parametrize("source", SOURCES)
def test_training_and_sampling_sources_start_alike(source):
    """A trainer's preview may call a sampler: both sources have a start and generators, one an
    image."""
    noise = SOURCES[source]()
    assert torch.equal(noise.start("x_T", (2, 3)), noise.normal("x_T", 0, (2, 3)))
    assert len(noise.generators("chain", 0)) == len(noise) == 6


def test_step_noise_of_several_processes_has_the_generators_of_one():
    def seeds(noise):
        return [g.initial_seed() for g in noise.generators("chain", 2)]

    whole = seeds(StepNoise(5, 7, 0, 8, 8))
    assert [seed for r in range(4) for seed in seeds(StepNoise(5, 7, 2 * r, 2, 8))] == whole


def test_categorical_draws_follow_the_softmax():
    logits = torch.tensor([2.0, 0.0, -torch.inf, 1.0, -3.0])
    n = 4000
    drawn = PromptNoise(0, tuple((i, 0) for i in range(n))).categorical(
        "token", 0, logits.expand(n, 3, 5)
    )
    assert drawn.shape == (n, 3)
    assert drawn.dtype == torch.int64
    found = torch.bincount(drawn.flatten(), minlength=5).double() / drawn.numel()
    p = logits.double().softmax(0)
    assert ((found - p).abs() <= 4 * (p * (1 - p) / drawn.numel()).sqrt()).all()
    assert found[2] == 0


def test_categorical_draws_are_the_images_own():
    noise = PromptNoise(1, tuple((i, 0) for i in range(5)))
    logits = torch.randn(5, 7, 11, generator=torch.Generator().manual_seed(0))
    together = noise.categorical("token", 4, logits)
    apart = torch.cat(
        [noise[i : i + 1].categorical("token", 4, logits[i : i + 1]) for i in range(5)]
    )
    assert torch.equal(together, apart)
    assert not torch.equal(together, noise.categorical("token", 5, logits))


def test_a_categorical_draw_never_leaves_the_classes_nor_takes_a_forbidden_one():
    noise = PromptNoise(0, tuple((i, 0) for i in range(500)))
    forbidden = torch.full((500, 4, 6), -torch.inf)
    forbidden[..., 3] = 0.0
    assert (noise.categorical("only", 0, forbidden) == 3).all()
    sharp = torch.zeros(500, 4, 6)
    sharp[..., 0] = 800.0
    assert (noise.categorical("sharp", 0, sharp) == 0).all()


def test_categorical_draws_reach_rare_classes():
    """Of 2^20 classes alike each is as likely: float32 draws alone, multiples of 2^-24, would
    favour some."""
    noise = PromptNoise(0, ((0, 0),))
    drawn = noise.categorical("token", 0, torch.zeros(1, 64, 2**18))
    assert len(drawn.unique()) == 64
    assert (drawn % 2 == 1).float().mean() == pytest.approx(0.5, abs=0.25)
