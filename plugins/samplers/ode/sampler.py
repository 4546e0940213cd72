"""The probability flow equation, solved to a tolerance, and its inversion.

Source: Song et al. 2021, eq. 13 and section 4.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i.plugins.common.diffusion.denoiser import (
    Denoiser,
    Start,
    exact_type,
    largest_ratio,
    least_ratio,
)
from t2i.plugins.common.diffusion.flow import Flow, masked, percent
from t2i.plugins.common.diffusion.ode import Field, Solver, fixed_steps
from t2i.plugins.samplers.ode.config import ODEConfig


class ODESampler(Sampler):
    """The probability flow from noise to x_0.

    The solver chooses its steps for each image by itself, or takes a fixed number of them.

    Args:
        config: Settings of the sampler.
    """

    config: ODEConfig

    def check(self, generator: Generator) -> None:
        self._ends(generator)

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, DiffusionGenerator)
        least, most = self._ends(generator)
        start = Start.of(generator, request)
        first = start.strength * math.atan(most)
        field = masked(Flow(Denoiser(generator, request, self.config), least), start)
        u = self._solved(field, start.u(math.tan(first)), first, 0.0, percent(request.step_done))
        return generator.decode(start.kept(u, 0.0).float())

    def inverts(self, generator: Generator) -> bool:
        return True

    def invert(self, generator: Generator, images: Tensor, request: Request) -> Tensor:
        """Return the noise from which `sample` makes these images.

        The equation is followed from x_0 to noise. The result is exact up to the tolerance.

        Args:
            generator: The diffusion model, in evaluation mode.
            images: Images in [-1, 1], (B, 3, H, W).
            request: Its text, null and guide belong to the images; its noise is not read.

        Returns:
            The noise, (B, *noise_shape).

        Raises:
            UserError: The tolerance cannot be met.
        """
        assert isinstance(generator, DiffusionGenerator)
        least, most = self._ends(generator)
        u = generator.encode(images)
        field = Flow(Denoiser(generator, request, self.config), least)
        end = math.atan(most)
        noise = self._solved(field, u.to(exact_type(u.device)), 0.0, end, lambda share: None)
        return noise.float()

    def _solved(
        self, field: Field, u: Tensor, start: float, end: float, progress: Callable[[float], None]
    ) -> Tensor:
        config = self.config
        if config.steps is not None:
            steps = config.steps if start != end else 0
            return fixed_steps(field, u, start, end, steps, progress) if steps else u
        solver = Solver(config.method, config.rtol, config.atol)
        return solver.solve(field, u, start, end, progress)

    def _ends(self, generator: Generator) -> tuple[float, float]:
        """Return the least and the largest sigma / alpha at which the network is called."""
        assert isinstance(generator, DiffusionGenerator)
        least = max(self.config.sigma_min, least_ratio(generator.schedule))
        most = largest_ratio(generator.schedule, self.config.sigma_max)
        if least >= most:
            raise UserError(
                f"sigma_min ({least:.3g} with this model's schedule) must be below sigma_max "
                f"({most:.3g}): change one of them"
            )
        return least, most
