"""Measure every sampler of diffusion models on every schedule, on data whose answer is known.

    python .ci/samplers.py                  # print the page
    python .ci/samplers.py --write          # write docs/samplers.md

The data are points from a Gaussian in two dimensions. The exact network is known for them, and so
is what a perfect sampler would return: the mean and the covariance of the data.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.continuous import FlowSchedule, SubVPSchedule, VESchedule, VPSchedule
from t2i.core.families.prediction import Prediction
from t2i.core.families.schedule import DiscreteSchedule, Schedule
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.core.registry.tables import registry

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "plugins" / "samplers"))

from gaussians import COVARIANCE, MEAN, Points  # noqa: E402

PAGE = ROOT / "docs" / "samplers.md"
SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "linear": lambda: DiscreteSchedule.named("linear"),
    "scaled_linear": lambda: DiscreteSchedule.named("scaled_linear"),
    "cosine": lambda: DiscreteSchedule.named("cosine"),
    "vp": VPSchedule,
    "sub-vp": SubVPSchedule,
    "ve": VESchedule,
    "mixing": FlowSchedule,
}
STEPS = 40
POINTS = 20_000
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)


class Cell(NamedTuple):
    """What one sampler does on one schedule.

    Attributes:
        mean: Largest error of the mean.
        covariance: Largest error of an entry of the covariance.
        order: Measured order of convergence. None: the sampler is random.
    """

    mean: float
    covariance: float
    order: float | None


def names() -> list[str]:
    """List the samplers of diffusion models that are registered by t2i itself.

    Returns:
        Their names.
    """
    return [spec.name for spec in registry().samplers if "diffusion" in spec.families]


@torch.no_grad()
def drawn(name: str, schedule: str, prediction: Prediction, steps: int, noise: Tensor) -> Tensor:
    """Sample points.

    Args:
        name: Name of the sampler.
        schedule: Name of the schedule.
        prediction: What the network predicts.
        steps: Number of steps.
        noise: Noise that the points start from, (2, n).

    Returns:
        The points, float64 (2, n).

    Raises:
        UserError: The sampler does not work with the schedule.
    """
    generator = Points(SCHEDULES[schedule](), prediction, noise.shape[1])
    sampler = registry().samplers.build(registry().samplers.choose(name, {"steps": steps}))
    sampler.check(generator)
    text = TextFeatures.of(sentence=torch.zeros(1, 2))
    source = PromptNoise(0, ((0, 0),), given=noise[None].float())
    return sampler.sample(generator, Request(text=text, noise=source))[0].double()


def measured(
    name: str, schedule: str, predictions: Iterable[Prediction] = PREDICTIONS
) -> Cell | None:
    """Measure one sampler on one schedule.

    For Gaussian data a deterministic sampler is an affine map of its noise, x = A z + b. Three
    points give A and b, and so the exact mean b and covariance A A^T. A random sampler is measured
    on many points. The order is that by which the distance between samples of k, 2 k and 4 k steps
    falls.

    Args:
        name: Name of the sampler.
        schedule: Name of the schedule.
        predictions: Predictions of which the largest errors are taken, for deterministic samplers.

    Returns:
        The errors with `STEPS` steps. None: the sampler refuses the schedule.
    """
    basis = torch.cat([torch.zeros(2, 1), torch.eye(2)], 1).double()
    try:
        if not _repeats(name, schedule):
            torch.manual_seed(0)
            points = drawn(name, schedule, "epsilon", STEPS, torch.randn(2, POINTS).double())
            return Cell(*_errors(points.mean(1), torch.cov(points)), None)
        found = [drawn(name, schedule, prediction, STEPS, basis) for prediction in predictions]
    except UserError:
        return None
    errors = []
    for points in found:
        b, a = points[:, 0], points[:, 1:] - points[:, :1]
        errors.append(_errors(b, a @ a.T))
    few, some = (drawn(name, schedule, "epsilon", n, basis) for n in (STEPS // 4, STEPS // 2))
    many = drawn(name, schedule, "epsilon", STEPS, basis)
    order = math.log2(float((few - some).abs().max() / (some - many).abs().max()))
    return Cell(max(e[0] for e in errors), max(e[1] for e in errors), order)


def _errors(mean: Tensor, covariance: Tensor) -> tuple[float, float]:
    return float((mean - MEAN).abs().max()), float((covariance - COVARIANCE).abs().max())


@cache
def _repeats(name: str, schedule: str) -> bool:
    """Return whether a sampler is deterministic: equal noise gives equal points."""
    points = drawn(name, schedule, "epsilon", 4, torch.zeros(2, 2).double())
    return torch.equal(points[:, 0], points[:, 1])


def text(value: float | None) -> str:
    """Write an error.

    Args:
        value: The error. None: the sampler refuses the schedule.

    Returns:
        The text of a cell.
    """
    if value is None:
        return "refused"
    return "0.0001" if value < 1e-4 else f"{value:.2g}"


HEAD = """# Samplers, measured

A sampler is right if it returns the data's distribution for an exact network. For Gaussian data the
exact network is known on every schedule. This page holds the errors of all samplers of diffusion
models. `python .ci/samplers.py --write` writes it; tests check that it is current.

- The data are points from a Gaussian in two dimensions, with mean (0.7, -1.2) and covariance (0.5,
  0.3; 0.3, 0.4).
- All samplers take 40 steps, with their default settings otherwise. `heun`, `edm-heun`, `pc` and
  `ode` call the network more than once in a step; `ode` takes steps of one size here, of order 4.
- Deterministic samplers: the errors are exact, and the largest over the five predictions (epsilon,
  sample, v, velocity, score). Random samplers: from 20,000 points, so that an error below 0.01 is
  chance. They get the prediction epsilon; tests hold that the others give the same images.
- 0.0001 means that or less. "refused": the default class of `scheduler` works with discrete
  timesteps only (on `mixing`, FlowMatchEulerDiscreteScheduler is another that works).
- An error that does not fall with the number of steps is that of the start: sampling starts from
  N(0, I), but at the noisiest level the data still count a little. `scaled_linear` ends at
  sigma / alpha = 14.6, hence its errors. Its other end is 0.029: below that `ode` holds the score,
  which costs its order.
"""

ORDER = """From the distances between the points of 10, 20 and 40 steps: a method of order p has p.
A dash: the sampler is random. `pndm`, `lms` and `unipc` start with steps of lower order, so that
few steps show another order than theirs. Where errors of two signs
cancel, as for `dpmpp-2m` on `sub-vp`, the order says nothing."""


def page() -> str:
    """Measure everything, and write the page.

    Returns:
        The page, Markdown.
    """
    cells = {(n, s): measured(n, s) for n in names() for s in SCHEDULES}
    return "\n".join([
        HEAD,
        "## Error of the mean",
        "",
        *_table(lambda n, s: text(cells[n, s] and cells[n, s].mean)),
        "",
        "## Error of the covariance",
        "",
        *_table(lambda n, s: text(cells[n, s] and cells[n, s].covariance)),
        "",
        "## Order of convergence",
        "",
        ORDER,
        "",
        *_table(lambda n, s: _order(cells[n, s])),
        "",
    ])  # fmt: skip


def _order(cell: Cell | None) -> str:
    if cell is None:
        return "refused"
    return "-" if cell.order is None else f"{cell.order:.1f}"


def _table(cell: Callable[[str, str], str]) -> list[str]:
    """Return a table with a line for each sampler and a column for each schedule."""
    lines = [f"| sampler | {' | '.join(SCHEDULES)} |", f"|---|{'---|' * len(SCHEDULES)}"]
    return [
        *lines,
        *(f"| `{name}` | {' | '.join(cell(name, s) for s in SCHEDULES)} |" for name in names()),
    ]


if __name__ == "__main__":
    written = page()
    if "--write" in sys.argv:
        PAGE.write_text(written, "utf-8")
    else:
        sys.stdout.write(written)
