"""The adaptive solver against scipy's, and what it does on its own: steps for each image."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from t2i.core.errors import UserError
from t2i.plugins.common.diffusion import ode
from t2i.plugins.common.diffusion.ode import Solver, fixed_steps


def pendulum(position, y):
    """A damped, driven pendulum, whose state is (angle, speed)."""
    angle, speed = y.unbind(1)
    force = position.to(y).cos()
    return torch.stack([speed, force - 0.3 * speed - 2 * angle.sin()], 1)


STARTS = torch.tensor([[0.1, 0.0], [2.5, -1.0], [-1.0, 4.0]], dtype=torch.float64)


@pytest.mark.parametrize("method", ["rk45", "rk23"])
@pytest.mark.parametrize("ends", [(0.0, 6.0), (6.0, 0.5)])
def test_one_image_is_solved_as_scipy_does(method, ends):
    calls = []

    def counted(position, y):
        calls.append(float(position[0]))
        return pendulum(position, y)

    ours = Solver(method, 1e-5, 1e-6).solve(counted, STARTS[1:2], *ends)
    theirs = solve_ivp(
        lambda at, y: pendulum(torch.tensor([at]), torch.from_numpy(y)[None])[0].numpy(),
        ends, STARTS[1].numpy(), method=method.upper(), rtol=1e-5, atol=1e-6,
    )  # fmt: skip
    np.testing.assert_allclose(ours[0].numpy(), theirs.y[:, -1], rtol=1e-10)
    assert len(calls) == theirs.nfev


def test_an_image_does_not_depend_on_its_batch():
    solver = Solver("rk45", 1e-4, 1e-4)
    together = solver.solve(pendulum, STARTS, 0.0, 5.0)
    for row, start in enumerate(STARTS):
        alone = solver.solve(pendulum, start[None], 0.0, 5.0)
        torch.testing.assert_close(alone[0], together[row], rtol=1e-12, atol=1e-12)


def test_tolerance_is_met_and_progress_reported():
    exact = math.exp(-3.0)
    for tolerance in (1e-3, 1e-6, 1e-9):
        seen = []
        found = Solver("rk45", tolerance, tolerance).solve(
            lambda at, y: -y, torch.ones(1, 1, dtype=torch.float64), 0.0, 3.0, seen.append
        )
        assert abs(float(found) - exact) < 10 * tolerance
        assert seen == sorted(seen)
        assert seen[-1] == 1


def test_fixed_steps_are_of_order_four():
    errors = [
        abs(float(fixed_steps(lambda at, y: -y * at.to(y)[:, None],
                              torch.ones(1, 1, dtype=torch.float64), 0.0, 2.0, n)) - math.exp(-2))
        for n in (10, 20)
    ]  # fmt: skip
    assert 3.7 < math.log2(errors[0] / errors[1]) < 4.4


def test_what_cannot_be_solved_ends(monkeypatch):
    ones = torch.ones(1, 1, dtype=torch.float64)
    with pytest.raises(UserError, match="steps became too small"):
        Solver().solve(lambda at, y: y.square(), ones, 0.0, 2.0)  # infinite at 1
    monkeypatch.setattr(ode, "MOST_STEPS", 5)
    with pytest.raises(UserError, match="raise rtol and atol"):
        Solver("rk23", 1e-9, 1e-9).solve(pendulum, STARTS, 0.0, 9.0)
    broken = Solver().solve(lambda at, y: y * math.nan, ones, 0.0, 1.0)
    assert broken.isnan().all()
    assert torch.equal(Solver().solve(pendulum, STARTS, 1.0, 1.0), STARTS)


def test_a_step_that_overflows_is_retried():
    calls = []

    def field(at, y):
        calls.append(at)
        return torch.full_like(y, math.inf) if len(calls) == 5 else -y

    ones = torch.ones(2, 1, dtype=torch.float64)
    end = Solver(rtol=1e-9, atol=1e-9).solve(field, ones, 0.0, 3.0)
    assert len(calls) > 5
    torch.testing.assert_close(end, ones * math.exp(-3), rtol=1e-7, atol=0)
