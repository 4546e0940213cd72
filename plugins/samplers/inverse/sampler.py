"""The sampler `inverse`: a flow turns noise into data, which are decoded."""

from __future__ import annotations

from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.flow import FlowGenerator, FlowRun
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i.plugins.samplers.inverse.config import InverseConfig


class InverseSampler(Sampler):
    """Draw the noise `normal("z", 0, noise_shape)`, follow the flow, and denoise.

    Args:
        config: Settings of the sampler.
    """

    def __init__(self, config: InverseConfig) -> None:
        super().__init__(config)

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, FlowGenerator)
        self.check(generator)
        request.refuse(
            "inverse",
            guide="follows a flow once: there is no chain that a guide could steer",
            image="starts from noise, not from an image",
        )
        z = request.noise.start("z", generator.noise_shape) * self.config.temperature
        x = generator(z, request.text, self._run(request))
        if self.config.denoise and generator.noise_std:
            x = generator.denoised(x, request.text)
        images = generator.decode(x)
        request.step_done(1, 1)
        return images

    def check(self, generator: Generator) -> None:
        assert isinstance(generator, FlowGenerator)
        if self.config.guidance < 0:
            raise UserError(
                f"guidance {self.config.guidance}: below 0 there is no density to follow: set 0 "
                "(no caption) or more"
            )
        if self.config.guidance != 1 and not generator.guides:
            raise UserError(
                f"guidance {self.config.guidance}: this flow has no guidance, because its map is "
                "not a product of Gaussians: leave it out, or at 1"
            )

    def inverts(self, generator: Generator) -> bool:
        return isinstance(generator, FlowGenerator)

    def invert(self, generator: Generator, images: Tensor, request: Request) -> Tensor:
        assert isinstance(generator, FlowGenerator)
        noise, _ = generator.to_noise(generator.encode(images), request.text, self._run(request))
        temperature: float = self.config.temperature
        return noise / temperature

    def _run(self, request: Request) -> FlowRun:
        return FlowRun(
            null=request.null if self.config.guidance != 1 else None,
            guidance=self.config.guidance,
            anneal=self.config.anneal,
            parallel=self.config.parallel,
            tolerance=self.config.tolerance,
        )
