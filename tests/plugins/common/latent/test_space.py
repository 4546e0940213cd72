"""Models that denoise pixels, or the latents of a pretrained autoencoder."""

import pytest
import torch
from diffusers import AutoencoderKL

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.models.edm.config import EDMConfig
from t2i.plugins.models.edm.networks import EDMGenerator
from t2i.plugins.models.ncsn.config import NCSNConfig
from t2i.plugins.models.ncsn.networks import NCSNGenerator
from t2i.plugins.models.scoresde.config import ScoreSDEConfig
from t2i.plugins.models.scoresde.networks import UNetScore

TEXT = TextShape(6, 6)
SIZES = {"patch": 2, "channels": (8, 8), "layers": 1, "latent_channels": 3, "groups": 4}
UNET = {
    "channels": (8, 8), "layers": 1, "attention": ("none", "none"), "middle": "self",
    "head_width": 8, "groups": 4, "sentence": True,
}  # fmt: skip
KINDS = {
    "edm": (EDMConfig, EDMGenerator, {"unet": UNET}),
    "scoresde": (ScoreSDEConfig, UNetScore, {"unet": UNET, "network": "unet"}),
    "ncsn": (NCSNConfig, NCSNGenerator, {"network": {"ngf": 4, "sentence": True}, "levels": 3}),
}


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """A random autoencoder with a shift and a scale, in the layout of diffusers."""
    torch.manual_seed(0)
    network = AutoencoderKL(
        12, 12, ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2, (8, 8), 1,
        latent_channels=3, norm_num_groups=4, sample_size=16, scaling_factor=0.3, shift_factor=0.7,
        mid_block_add_attention=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("vae")
    network.save_pretrained(folder)
    return folder, network.eval()


def settings(vae, name, **more):
    config, _, own = KINDS[name]
    weights = {"weights": str(vae[0]), "attention": False}
    of = {"image_size": 32, "autoencoder": {**SIZES, **weights}, **own, **more}
    return config.of(of, "test")


@pytest.mark.parametrize("name", KINDS)
def test_latents_are_the_autoencoders_shifted_and_scaled(vae, name):
    generator = KINDS[name][1](settings(vae, name), TEXT)
    assert generator.noise_shape == (3, 8, 8)
    assert generator.size_step == 8
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    patches = torch.nn.functional.pixel_unshuffle(images, 2)
    with torch.no_grad():
        z = (vae[1].encode(patches).latent_dist.mode() - 0.7) * 0.3
        torch.testing.assert_close(generator.encode(images), z)
        drawn = torch.nn.functional.pixel_shuffle(vae[1].decode(z / 0.3 + 0.7).sample, 2)
        torch.testing.assert_close(generator.decode(z), drawn, rtol=1e-4, atol=1e-5)
        text = generator.condition(TextFeatures.of(sentence=torch.randn(2, 6)))
        assert generator(z, torch.tensor([0.5, 0.9]), text).shape == z.shape
    trained = {n for n, p in generator.named_parameters() if p.requires_grad}
    assert trained
    assert not any(n.startswith("autoencoder") for n in trained)


def test_a_saved_model_needs_no_folder_of_its_autoencoder(vae, tmp_path):
    config = settings(vae, "edm")
    saved = EDMGenerator(config, TEXT)
    saved.save_assets(tmp_path)
    gone = config.model_copy(
        update={"autoencoder": config.autoencoder.model_copy(update={"weights": "gone"})}
    )
    opened = EDMGenerator(gone, TEXT, tmp_path)
    opened.load_state_dict(saved.state_dict())
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(opened.encode(images), saved.encode(images))


@pytest.mark.parametrize(
    ("name", "more", "named"),
    [
        ("edm", {"autoencoder": SIZES}, "autoencoder.weights"),
        ("edm", {"network": {"channels": 4, "multipliers": (1,)}}, "work on pixels"),
        ("edm", {"image_size": 28}, "multiple of 8"),
        ("scoresde", {"network": "ncsnpp"}, "network=unet"),
        ("ncsn", {"dequantise": True}, "leave it out on latents"),
    ],
)
def test_settings_that_do_not_fit_are_refused(vae, name, more, named):
    with pytest.raises(UserError, match=named):
        settings(vae, name, **more)
