"""The sampler `inverse`: temperature, denoising, guidance, inversion."""

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.families.flow import FlowRun
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.plugins.models.tarflow.config import TarFlowConfig
from t2i.plugins.models.tarflow.networks import build
from t2i.plugins.samplers.inverse.config import InverseConfig
from t2i.plugins.samplers.inverse.sampler import InverseSampler
from tests.core.families.test_flow import Affine, Uniform
from tests.plugins.models.flow_checks import TEXT, captions, drawn

SMALL = {"image_size": 8, "patch": 4, "width": 8, "head_width": 4, "layers": (1, 1)}


def sampler(**settings):
    return InverseSampler(InverseConfig.of(settings, "test"))


def request(text, **more):
    return Request(text=text, noise=PromptNoise(0, ((0, 0), (1, 0))), **more)


@pytest.fixture(scope="module")
def tarflow():
    config = TarFlowConfig.of({**SMALL, "noise_std": 0.2, "words": True}, "test")
    return drawn(build(config, TEXT))


def test_temperature_multiplies_the_noise():
    generator, asked = Affine(0.1, 0.05), request(captions(2))
    z = asked.noise.normal("z", 0, (3, 4, 4))
    images = sampler(temperature=0.5).sample(generator, asked)
    torch.testing.assert_close(images, 0.1 + 0.05 * 0.5 * z)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kind", [lambda: Affine(0.1, 0.05), Uniform])
def test_images_are_inverted(kind, temperature):
    generator, asked, chosen = kind(), request(captions(2)), sampler(temperature=temperature)
    images = chosen.sample(generator, asked)
    noise = chosen.invert(generator, images, asked)
    torch.testing.assert_close(
        noise.float(), asked.noise.normal("z", 0, (3, 4, 4)), atol=1e-3, rtol=0
    )


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_it_guides_denoises_and_sweeps(tarflow, guidance):
    text, null = tarflow.condition(captions(2)), tarflow.condition(captions(2, seed=8))
    asked = request(text, null=null)
    asked.noise.__dict__["given"] = torch.randn(2, *tarflow.noise_shape).double() * 0.2
    noisy = sampler(guidance=guidance, denoise=False)
    images = noisy.sample(tarflow, asked)
    assert noisy.inverts(tarflow)
    assert noisy.needs_null == (guidance != 1)
    if float(images.abs().max()) < 1:
        found = noisy.invert(tarflow, images, asked)
        torch.testing.assert_close(found, asked.noise.start("z", ()))
    swept = sampler(guidance=guidance, denoise=False, parallel=True).sample(tarflow, asked)
    torch.testing.assert_close(swept, images, rtol=0, atol=1e-3)
    clean = sampler(guidance=guidance).sample(tarflow, asked)
    run = FlowRun(null=null if guidance != 1 else None, guidance=guidance)
    x = tarflow(asked.noise.start("z", ()), text, run)
    torch.testing.assert_close(images, x.clamp(-1, 1))
    torch.testing.assert_close(clean, tarflow.denoised(x, text).clamp(-1, 1))


def test_what_it_cannot_do_is_refused(tarflow):
    asked = request(captions(2), null=captions(2))
    with pytest.raises(UserError, match="set 0"):
        sampler(guidance=-1.0).check(tarflow)
    with pytest.raises(UserError, match="this flow has no guidance"):
        sampler(guidance=2.0).sample(Affine(0.0, 1.0), asked)
    with pytest.raises(UserError, match="this flow has no guidance"):
        sampler(guidance=2.0).check(Affine(0.0, 1.0))
    image = request(captions(2), image=torch.zeros(2, 3, 4, 4))
    with pytest.raises(UserError, match="starts from noise"):
        sampler().sample(Affine(0.0, 1.0), image)
