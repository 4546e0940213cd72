"""Noise schedules against the papers' formulas and diffusers."""

import diffusers
import pytest
import torch

from t2i.core.families.schedule import DiscreteSchedule, add_noise, predicted_x_0, target

NAMES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
ENDS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012), "cosine": (1e-4, 0.02)}


@pytest.mark.parametrize("name", NAMES)
def test_betas_are_those_of_diffusers(name):
    theirs = diffusers.DDPMScheduler(1000, *ENDS[name], beta_schedule=NAMES[name])
    ours = DiscreteSchedule.named(name)
    torch.testing.assert_close(ours.betas, theirs.betas, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(ours.alphas_cumprod.float(), theirs.alphas_cumprod, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_steps_end_at_the_same_noise(name):
    few, many = DiscreteSchedule.named(name, 250), DiscreteSchedule.named(name, 1000)
    assert float(few.sigma(torch.tensor([249]))) == pytest.approx(float(many.sigma(torch.tensor([999]))), abs=2e-3)


def test_variance_is_preserved():
    schedule = DiscreteSchedule.named("linear")
    t = torch.arange(1000)
    torch.testing.assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones(1000))


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
def test_x_0_comes_back_from_each_prediction(prediction):
    schedule = DiscreteSchedule.named("linear")
    x_0, eps, t = torch.randn(5, 2, 3), torch.randn(5, 2, 3), torch.tensor([0, 10, 300, 600, 900])
    x_t = add_noise(schedule, x_0, t, eps)
    output = target(schedule, prediction, x_0, t, eps)
    torch.testing.assert_close(predicted_x_0(schedule, prediction, x_t, t, output), x_0, rtol=1e-3, atol=1e-3)


def test_hand_computed():
    # Two steps of beta 0.19 and 0.5: abar = 0.81, 0.405.
    schedule = DiscreteSchedule(torch.tensor([0.19, 0.5]))
    x_t = add_noise(schedule, torch.tensor([[2.0]]), torch.tensor([0]), torch.tensor([[1.0]]))
    torch.testing.assert_close(x_t, torch.tensor([[0.9 * 2 + 0.19**0.5]]))
    v = target(schedule, "v", torch.tensor([[2.0]]), torch.tensor([0]), torch.tensor([[1.0]]))
    torch.testing.assert_close(v, torch.tensor([[0.9 - 0.19**0.5 * 2]]))


@pytest.mark.parametrize("betas", [[0.0, 0.1], [0.1, 1.0], [[0.1]], [float("nan")]])
def test_senseless_betas_are_refused(betas):
    with pytest.raises(ValueError, match="betas"):
        DiscreteSchedule(torch.tensor(betas))
