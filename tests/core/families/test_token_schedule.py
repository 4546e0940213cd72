"""Token schedules against matrices: products of single steps, Bayes' rule by enumeration, drawn
frequencies."""

import math
from itertools import pairwise

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.token_schedule import DiscreteTokenSchedule, MaskingSchedule
from t2i.core.interfaces.noise import StepNoise

K, T = 4, 6


def uneven():
    """Masks and replacements at uneven rates: nothing cancels by chance."""
    gbar = torch.tensor([0, 0.05, 0.2, 0.21, 0.5, 0.5, 0.8], dtype=torch.float64)
    intact = torch.tensor([1, 0.99, 0.7, 0.6, 0.6, 0.3, 0.1], dtype=torch.float64)
    return DiscreteTokenSchedule(K, gbar, intact)


SCHEDULES = {
    "uneven": uneven(),
    "paper": DiscreteTokenSchedule.linear(K, T),
    "masks": DiscreteTokenSchedule.linear(K, T, masked=1),
    "replacements": DiscreteTokenSchedule.linear(K, T, masked=0),
    "code": DiscreteTokenSchedule.vq_diffusion(K, T),
    "cosine": MaskingSchedule(K, "cosine"),
    "straight": MaskingSchedule(K, "linear"),
    "cosine in steps": DiscreteTokenSchedule.cosine(K, T),
}
TIMES = {name: schedule.times(T).flip(0) for name, schedule in SCHEDULES.items()}
each = pytest.mark.parametrize("name", SCHEDULES)


def matrix(alpha, beta, gamma):
    """The (K + 1, K + 1) matrix of one transition, from column to row, written out as
    VQ-Diffusion's equation 7."""
    q = torch.zeros(K + 1, K + 1, dtype=torch.float64)
    q[:K, :K] = beta
    q[range(K), range(K)] += alpha
    q[K, :K] = gamma
    q[K, K] = 1
    return q


def cumulative(schedule, t):
    return matrix(schedule.abar(t), schedule.bbar(t), schedule.gbar(t))


def between(schedule, s, t):
    return matrix(*schedule.transition(s, t))


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@each
def test_every_matrix_is_a_distribution_of_what_follows(name):
    schedule, times = SCHEDULES[name], TIMES[name]
    for i, t in enumerate(times):
        close(cumulative(schedule, t).sum(0), torch.ones(K + 1, dtype=torch.float64))
        for s in times[:i]:
            q = between(schedule, s, t)
            assert (q >= -1e-12).all()
            close(q.sum(0), torch.ones(K + 1, dtype=torch.float64))


@each
def test_products_of_steps_are_the_cumulatives_and_the_strided_transitions(name):
    schedule, times = SCHEDULES[name], TIMES[name]
    product = torch.eye(K + 1, dtype=torch.float64)
    steps = [between(schedule, s, t) for s, t in pairwise(times)]
    for number, step in enumerate(steps, start=1):
        product = step @ product
        close(product[:, :K], cumulative(schedule, times[number])[:, :K])
    close(between(schedule, times[1], times[4]), steps[3] @ steps[2] @ steps[1])
    close(between(schedule, times[0], times[3]), steps[2] @ steps[1] @ steps[0])


@each
def test_time_zero_is_clean(name):
    zero = TIMES[name][:1]
    assert (SCHEDULES[name].abar(zero), SCHEDULES[name].bbar(zero), SCHEDULES[name].gbar(zero)) == (
        1,
        0,
        0,
    )


@each
@pytest.mark.parametrize(("i", "j"), [(0, 1), (0, T), (1, 2), (2, 5), (3, T)])
def test_the_posterior_is_bayes_rule(name, i, j):
    """By enumeration of x_0 and x_s: q(x_s | x_t) = sum over x_0 of q(x_s | x_t, x_0) p(x_0), p of
    what can be."""
    schedule, s, t = SCHEDULES[name], TIMES[name][i], TIMES[name][j]
    logits = torch.tensor([0.3, -1.2, 2.0, -torch.inf])
    p = logits.double().softmax(-1)
    q_s, q_t, q_st = cumulative(schedule, s), cumulative(schedule, t), between(schedule, s, t)
    for x_t in range(K + 1):
        prior = torch.where(q_t[x_t, :K] > 0, p, 0.0)
        if not q_t[x_t, :K].any():
            continue  # such an x_t is never seen
        if not prior.any():
            prior = (q_t[x_t, :K] > 0).double()
        expected = torch.zeros(K + 1, dtype=torch.float64)
        for x_0 in range(K):
            if prior[x_0] > 0:
                expected += prior[x_0] * q_st[x_t] * q_s[:, x_0] / q_t[x_t, x_0]
        found = schedule.posterior(torch.tensor([[x_t]]), logits[None, None], s[None], t[None])[
            0, 0
        ]
        close(found.exp(), expected / expected.sum())
        assert found.shape == (K + 1,)
        if i == 0:
            assert found[K] == -torch.inf  # clean tokens are no masks


@each
@pytest.mark.parametrize(("i", "j"), [(0, 1), (0, T), (1, 2), (2, 5), (3, T)])
def test_the_divergence_is_that_of_the_posteriors(name, i, j):
    """For every pair of x_0 and x_t, with its gradient."""
    schedule, s, t = SCHEDULES[name], TIMES[name][i : i + 1], TIMES[name][j : j + 1]
    pairs = torch.cartesian_prod(torch.arange(K), torch.arange(K + 1))
    possible = cumulative(schedule, t[0])[pairs[:, 1], pairs[:, 0]] > 0
    x_0, x_t = pairs[possible].T[:, None]
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(1, x_0.shape[1], K, generator=generator).double().requires_grad_()
    sure = torch.nn.functional.one_hot(x_0, K).double().log()
    true = schedule.posterior(x_t, sure, s, t)
    model = schedule.posterior(x_t, logits, s, t)
    there = ~true.isneginf()
    expected = torch.where(there, true.exp() * (true - model.masked_fill(~there, 0)), 0.0).sum(-1)
    found = schedule.divergence(x_t, x_0, logits, s, t)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    gradients = [torch.autograd.grad(kl.sum(), logits)[0] for kl in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)
    if i == 0 and schedule.replaces and j == 1:
        log_p = logits.log_softmax(-1).gather(-1, x_0[..., None])[..., 0]
        torch.testing.assert_close(found, -log_p, rtol=1e-7, atol=1e-9)
    single = schedule.divergence(x_t, x_0, logits.float(), s, t)
    torch.testing.assert_close(single, found, rtol=1e-4, atol=1e-5)


def test_where_tokens_are_only_masked_nothing_else_is_possible():
    """Probabilities of 0 are 0, not a rounding error, and what a network says of a visible token
    does not matter."""
    for schedule in (SCHEDULES["masks"], SCHEDULES["cosine"]):
        s, t = schedule.times(T)[3:4], schedule.times(T)[2:3]
        assert schedule.bbar(t) == 0
        wrong = torch.zeros(1, 1, K).index_fill(2, torch.tensor(1), -torch.inf)
        log_q = schedule.posterior(torch.tensor([[1]]), wrong, s, t)[0, 0]
        assert log_q.exp().tolist() == [0, 1, 0, 0, 0]


def test_the_posterior_of_rows_at_times_of_their_own_and_its_gradient():
    schedule = uneven()
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randint(0, K + 1, (3, 5), generator=generator)
    logits = torch.randn(3, 5, K, generator=generator, requires_grad=True)
    s, t = torch.tensor([0, 2, 3]), torch.tensor([1, 5, 6])
    log_q = schedule.posterior(x_t, logits, s, t)
    for row in range(3):
        one = slice(row, row + 1)
        close(log_q[one], schedule.posterior(x_t[one], logits[one], s[one], t[one]))
    log_q.masked_fill(log_q.isneginf(), 0).sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad != 0).any()


def test_the_released_schedule_is_the_papers_authors():
    """Values worked out by hand from the released code: both curves linear over t = 1..100."""
    schedule = DiscreteTokenSchedule.vq_diffusion(2887)
    t = torch.tensor([1, 50, 100])
    close(
        schedule.abar(t),
        torch.tensor([0.99999, 0.99999 - 49 / 99 * 0.999981, 0.000009], dtype=torch.float64),
    )
    close(
        schedule.gbar(t),
        torch.tensor([0.000009, 0.000009 + 49 / 99 * 0.999981, 0.99999], dtype=torch.float64),
    )
    torch.testing.assert_close(
        schedule.bbar(t) * 2887, torch.full((3,), 1e-6, dtype=torch.float64), rtol=1e-6, atol=0
    )
    assert len(schedule) == 100


def test_the_special_cases():
    u = torch.arange(T + 1, dtype=torch.float64) / T
    t = torch.arange(T + 1)
    for masked in (0, 0.9, 1):
        schedule = DiscreteTokenSchedule.linear(K, T, masked)
        close(schedule.abar(t), 1 - u)
        close(schedule.gbar(t), masked * u)
    # MaskGIT: of N tokens cos(pi/2 (i + 1) / n) N are masked after step i.
    shares = MaskingSchedule(K).gbar(MaskingSchedule(K).times(8))
    close(
        shares,
        torch.tensor([math.cos(math.pi / 2 * i / 8) for i in range(9)], dtype=torch.float64).abs(),
    )


def test_times():
    assert DiscreteTokenSchedule.linear(K, T).times().tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert DiscreteTokenSchedule.linear(K, 100).times(3).tolist() == [100, 67, 33, 0]
    assert MaskingSchedule(K).times(4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert len(MaskingSchedule(K).times()) == 13
    with pytest.raises(UserError, match="7 sampling steps: the model was trained with 6"):
        DiscreteTokenSchedule.linear(K, T).times(7)


def test_a_schedule_that_makes_noise_fewer_is_refused():
    down = torch.tensor([0, 0.5, 0.4])
    for gbar, intact in [
        (down, torch.ones(3)),
        (torch.zeros(3), down),
        (torch.ones(3), torch.ones(3)),
    ]:
        with pytest.raises(ValueError, match="clean at time 0"):
            DiscreteTokenSchedule(K, gbar, intact)


def step_noise(rows, at=0):
    return StepNoise(5, at, 0, rows, rows)


def within(counts, expected):
    """Each count of a multinomial draw within five standard deviations of what is expected."""
    n = counts.sum()
    spread = (n * expected * (1 - expected)).sqrt()
    assert ((counts - n * expected).abs() <= 5 * spread + 1e-9).all(), (counts / n, expected)


@each
def test_noised_tokens_come_as_often_as_the_matrix_says(name):
    schedule, t = SCHEDULES[name], TIMES[name][3]
    clean = torch.full((2, 20_000), 2)
    noisy = schedule.add_noise(clean, t.expand(2), step_noise(2))
    assert noisy.dtype == torch.long
    within(torch.bincount(noisy.flatten(), minlength=K + 1).double(), cumulative(schedule, t)[:, 2])


def test_rows_are_noised_at_times_of_their_own():
    schedule = DiscreteTokenSchedule.linear(K, T, masked=1)
    clean = torch.randint(0, K, (2, 50), generator=torch.Generator().manual_seed(1))
    noisy = schedule.add_noise(clean, torch.tensor([0, T]), step_noise(2))
    assert torch.equal(noisy[0], clean[0])
    assert (noisy[1] == schedule.mask).all()


@each
def test_a_chain_starts_as_the_last_time_leaves_it(name):
    """What is not masked is any token: the clean one plays no part."""
    schedule = SCHEDULES[name]
    masked = float(schedule.gbar(schedule.times()[:1]))
    start = schedule.start(step_noise(2), 20_000)
    expected = torch.tensor([(1 - masked) / K] * K + [masked], dtype=torch.float64)
    within(torch.bincount(start.flatten(), minlength=K + 1).double(), expected)


def test_times_to_train_at_are_all_but_zero():
    t = DiscreteTokenSchedule.linear(K, T).random_times(step_noise(6000))
    assert t.dtype == torch.long
    within(
        torch.bincount(t, minlength=T + 1)[1:].double(),
        torch.full((T,), 1 / T, dtype=torch.float64),
    )
    assert not (t == 0).any()
    t = MaskingSchedule(K).random_times(step_noise(6000))
    assert 0 < t.min() < 0.01
    assert 0.99 < t.max() <= 1
    assert abs(t.mean() - 0.5) < 0.02
