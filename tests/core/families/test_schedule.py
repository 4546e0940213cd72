"""Noise schedules against the papers' formulas, numerical derivatives and diffusers."""

import math

import diffusers
import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.continuous import (
    FlowSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
    named_schedule,
)
from t2i.core.families.schedule import DiscreteSchedule, Schedule, add_noise

NAMES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
ENDS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012), "cosine": (1e-4, 0.02)}
INSIDE = {  # a schedule of each kind, and times well inside its path
    "discrete": (DiscreteSchedule.named("linear"), [10.0, 70.0, 333.25, 900.5]),
    "vp": (VPSchedule(), [0.01, 0.2, 0.7, 0.99]),
    "sub-vp": (SubVPSchedule(), [0.01, 0.2, 0.7, 0.99]),
    "ve": (VESchedule(), [0.01, 0.5, 3.0, 70.0]),
    "flow": (FlowSchedule(), [0.01, 0.3, 0.5, 0.99]),
}
kinds = pytest.mark.parametrize("kind", INSIDE)


def inside(kind):
    schedule, times = INSIDE[kind]
    return schedule, torch.tensor(times, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_betas_are_those_of_diffusers(name):
    theirs = diffusers.DDPMScheduler(1000, *ENDS[name], beta_schedule=NAMES[name])
    ours = DiscreteSchedule.named(name)
    torch.testing.assert_close(ours.betas, theirs.betas, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(
        ours.alphas_cumprod.float(), theirs.alphas_cumprod, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
def test_fewer_steps_end_at_the_same_noise(name):
    few, many = DiscreteSchedule.named(name, 250), DiscreteSchedule.named(name, 1000)
    assert float(few.sigma(torch.tensor([249]))) == pytest.approx(
        float(many.sigma(torch.tensor([999]))), abs=2e-3
    )


@pytest.mark.parametrize("schedule", [DiscreteSchedule.named("linear"), VPSchedule()])
def test_variance_is_preserved(schedule):
    for t in (
        torch.arange(1000),
        torch.rand(1000) * (999 if isinstance(schedule, DiscreteSchedule) else 1),
    ):
        if t.is_floating_point() or isinstance(schedule, DiscreteSchedule):
            torch.testing.assert_close(
                schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones(1000)
            )


def test_the_continuous_path_is_the_limit_of_ddpms():
    """beta_i = beta(i / T) / T with T = 1000 is the linear schedule (Song et al. 2021, section
    3.4)."""
    t = torch.tensor([99, 499, 999])
    discrete, continuous = DiscreteSchedule.named("linear"), VPSchedule()
    torch.testing.assert_close(
        continuous.alpha((t + 1) / 1000.0), discrete.alpha(t), rtol=0.05, atol=0
    )
    torch.testing.assert_close(
        continuous.alpha(torch.tensor([0.5])), torch.tensor([math.exp(-0.5 * (0.05 + 2.4875))])
    )


def test_hand_computed():
    # Two steps of beta 0.19 and 0.5: abar = 0.81, 0.405.
    schedule = DiscreteSchedule(torch.tensor([0.19, 0.5]))
    x_t = add_noise(schedule, torch.tensor([[2.0]]), torch.tensor([0]), torch.tensor([[1.0]]))
    torch.testing.assert_close(x_t, torch.tensor([[0.9 * 2 + 0.19**0.5]]))
    t = torch.tensor([0.0, 0.25, 1.0])
    assert FlowSchedule().alpha(t).tolist() == [1.0, 0.75, 0.0]
    assert FlowSchedule().sigma(t).tolist() == [0.0, 0.25, 1.0]
    assert VESchedule().alpha(t).tolist() == [1.0, 1.0, 1.0]
    assert VESchedule().sigma(t).tolist() == [0.0, 0.25, 1.0]
    assert isinstance(named_schedule("mixing"), FlowSchedule)


@kinds
def test_the_time_of_a_ratio_is_the_inverse(kind):
    schedule, t = inside(kind)
    torch.testing.assert_close(
        schedule.time_of(schedule.sigma(t) / schedule.alpha(t)), t, rtol=1e-9, atol=1e-9
    )
    single = t.float()
    assert schedule.time_of(schedule.sigma(single) / schedule.alpha(single)).dtype == torch.float32
    first, last = schedule.time_of(torch.tensor([0.0, math.inf], dtype=torch.float64)).tolist()
    expected = {
        "discrete": (0, 999),
        "vp": (0, 1),
        "sub-vp": (0, 1),
        "ve": (0.002, 80),
        "flow": (0, 1),
    }[kind]
    assert (first, last) == pytest.approx(expected)


def test_a_discrete_schedule_is_interpolated_in_the_log_ratio():
    schedule = DiscreteSchedule.named("cosine", 50)
    t = torch.arange(50)
    for of in (schedule.alpha, schedule.sigma):
        torch.testing.assert_close(of(t.float()), of(t), rtol=1e-5, atol=1e-6)
    ratio = ((1 - schedule.alphas_cumprod) / schedule.alphas_cumprod).sqrt()
    between = torch.tensor([20.25], dtype=torch.float64)
    expected = ratio[20] ** 0.75 * ratio[21] ** 0.25
    torch.testing.assert_close(schedule.sigma(between) / schedule.alpha(between), expected[None])
    one = DiscreteSchedule(torch.tensor([0.3]))
    assert one.time_of(torch.tensor([0.1, 7.0])).tolist() == [0, 0]


@kinds
def test_rates_are_the_derivatives(kind):
    schedule, t = inside(kind)
    step = (
        1.0 if kind == "discrete" else 1e-6
    )  # of a discrete schedule: central differences from step to step
    t = t.round() if kind == "discrete" else t
    for rate, of in zip(schedule.rates(t), (schedule.alpha, schedule.sigma), strict=True):
        expected = (of(t + step) - of(t - step)) / (2 * step)
        torch.testing.assert_close(
            rate, expected, rtol=0.05 if kind == "discrete" else 1e-6, atol=1e-7
        )
    if kind != "discrete":  # what a schedule without rates of its own has
        torch.testing.assert_close(Schedule.rates(schedule, t), schedule.rates(t))


@kinds
def test_times_ascend_and_stay_on_the_path(kind):
    schedule, _ = INSIDE[kind]
    for n in (1, 2, 7, 40, 900):
        times = schedule.times(n).double()
        assert times.shape == (n,)
        assert (times.diff() > 0).all()
        ratio = schedule.sigma(times) / schedule.alpha(times)
        assert ratio[0] > 0
        assert ratio[-1] == pytest.approx(min(schedule.max_ratio, 200), rel=1e-9)
        assert schedule.sigma(schedule.times(n, most=3.0).double())[-1] < 3.1 or kind == "discrete"


def test_times_by_hand():
    assert FlowSchedule().times(4).tolist() == pytest.approx([0.25, 0.5, 0.75, 200 / 201])
    many = FlowSchedule().times(1000)
    assert (many[0], many[-1]) == pytest.approx((0.001 * 200 / 201, 200 / 201))
    sigmas = [0.002, ((0.002 ** (1 / 7) + 80 ** (1 / 7)) / 2) ** 7, 80.0]
    assert VESchedule().times(3).tolist() == pytest.approx(sigmas)
    assert VPSchedule().times(4).tolist() == pytest.approx([0.25, 0.5, 0.75, 1.0])
    discrete = DiscreteSchedule(torch.full((10,), 0.1))
    assert discrete.times(None).tolist() == list(range(10))
    assert discrete.times(3).tolist() == [2, 6, 9]
    assert discrete.times(3, spacing="leading", offset=1).tolist() == [1, 4, 7]
    assert discrete.times(3, spacing="linspace").tolist() == [0, 4, 9]
    cosine = DiscreteSchedule.named("cosine", 1000)
    assert cosine.times(10)[-1] < 999
    assert cosine.times(10, most=None)[-1] == cosine.times(1000)[-1] == 999


def test_times_that_there_are_not_are_refused():
    with pytest.raises(UserError, match="51 sampling steps: the model was trained with 50"):
        DiscreteSchedule.named("linear", 50).times(51)
    for schedule in (FlowSchedule(), VPSchedule(), SubVPSchedule(), VESchedule()):
        with pytest.raises(UserError, match="name a number of sampling steps"):
            schedule.times(None)
        with pytest.raises(UserError, match="spacing = leading"):
            schedule.times(10, spacing="leading")


@kinds
def test_levels_run_from_clean_to_noise_and_back(kind):
    schedule, t = inside(kind)
    level = schedule.level(t)
    assert (level.diff() > 0).all()
    assert 0 <= level[0] < 0.12
    assert 0.9 < level[-1] <= 1
    back = schedule.time_at(level - (7e-4 if kind == "discrete" else 0))
    assert back.tolist() == (
        [10, 70, 333, 900] if kind == "discrete" else pytest.approx(t.tolist())
    )


def test_what_a_network_sees_of_a_time():
    t = torch.rand(5)
    assert torch.equal(FlowSchedule().embedded(t), t * 1000)
    assert torch.equal(VPSchedule().embedded(t), t * 1000)
    assert torch.equal(DiscreteSchedule.named("linear").embedded(torch.arange(9)), torch.arange(9))
    assert VESchedule().embedded(torch.tensor([0.0, 1.0, 4.0])).tolist() == pytest.approx(
        [0, 500, 800]
    )


@pytest.mark.parametrize("betas", [[0.0, 0.1], [0.1, 1.0], [[0.1]], [float("nan")]])
def test_senseless_betas_are_refused(betas):
    with pytest.raises(ValueError, match="betas"):
        DiscreteSchedule(torch.tensor(betas))
    for kind, numbers in ((VPSchedule, (1.0, 0.5)), (VESchedule, (0.0, 1.0))):
        with pytest.raises(ValueError, match="is needed"):
            kind(*numbers)
