"""Settings of the variational autoencoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from t2i.core.settings import Config, Preset
from t2i.plugins.common.diffusion.config import SHAPES_AUTOENCODER, TextMapConfig
from t2i.plugins.common.gan.config import SHAPES_TEXT
from t2i.plugins.common.latent.config import AutoencoderConfig
from t2i.plugins.common.sizing import by_memory
from t2i.plugins.common.variational.config import BoundConfig
from t2i.plugins.models.vae.blocks import check_decoder, check_encoder, places

Output = Literal["gaussian", "logistic", "mixture"]
"""What p(x | z, t) is."""


class PlainConfig(Config):
    """Settings of the network with one vector z of latents."""

    z: int = Field(64, ge=1)
    """Number of latents."""

    width: int = Field(32, ge=4, multiple_of=4)
    """Channels at the size of the image. Each smaller size has twice as many, up to eight times."""

    prior: int = Field(256, ge=0)
    """Hidden features of the perceptron that makes the prior p(z | t). 0: it is N(0, I), and the
    text reaches the decoder and the posterior only."""


class DeepConfig(Config):
    """Settings of VDVAE's hierarchy of latents. The defaults are the authors' for CIFAR-10."""

    width: int = Field(384, ge=4)
    """Channels of all maps."""

    z: int = Field(16, ge=1)
    """Latent channels of each block of the decoder."""

    bottleneck: float = Field(0.25, gt=0, le=4)
    """Channels inside a block, as a share of `width`."""

    encoder_blocks: str = "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3"
    """Blocks of the encoder: "32x11" are eleven on maps of 32x32, "32d2" is one that makes its map
    two times smaller."""

    decoder_blocks: str = "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21"
    """Blocks of the decoder: "8m4" is one whose input is the 4x4 map, enlarged."""

    biases: int = Field(64, ge=0)
    """Largest size of maps that begin with a learnt bias of each place."""

    latents: int | None = Field(None, ge=1)
    """Largest size of maps with latents. Blocks on larger maps are deterministic, which is ours: a
    small model is not asked to fit details together that were drawn one by one. None: all blocks
    have latents, as the authors' do."""

    text_gain: float = Field(0.0, ge=0)
    """Initial spread of what the text adds to the first map of each size. 0: the text begins
    without influence, and the network is the authors'."""


class VAEConfig(BoundConfig):
    """Settings of a text-conditional variational autoencoder."""

    network: Literal["plain", "deep"] = "plain"
    """The networks: "plain" has one vector of latents, "deep" is VDVAE's hierarchy."""

    plain: PlainConfig = PlainConfig()
    """The networks of "plain"."""

    deep: DeepConfig = DeepConfig()
    """The networks of "deep"."""

    text: TextMapConfig = TextMapConfig()
    """The spatial map of the text, of at most 8x8 places, and its loss."""

    autoencoder: AutoencoderConfig | None = None
    """The pretrained autoencoder whose latents are x. It needs `weights`, and is not trained. Such
    a model has no likelihood of images. None: x are the pixels."""

    output: Output = "gaussian"
    """The likelihood p(x | z, t): "gaussian" of one learnt sigma for each channel; "logistic", a
    discretised one of one learnt scale for each channel; "mixture" of discretised logistics, as in
    VDVAE. The last two are of 8-bit pixels."""

    mixtures: int = Field(10, ge=1)
    """Components of the output "mixture"."""

    first_log_sigma: float = Field(-1.0, ge=-7, le=2)
    """Initial log scale of the outputs "gaussian" and "logistic", where images are in [-1, 1]."""

    least_log_sigma: float = Field(-5.0, ge=-7, le=2)
    """Smallest log scale of these outputs. Flat colours have a density without a bound otherwise.
    """

    sigma_pace: float = Field(3.0, gt=0)
    """Learning rate of that log scale, as a multiple of `lr`."""

    temperature: float = Field(1.0, ge=0, le=2)
    """Factor of the prior's standard deviations in sampling. 1 samples the model; less gives less
    variety and more typical images, 0 one image a caption."""

    sample_output: bool = False
    """Whether sampled images are draws from p(x | z, t), as the authors' of VDVAE are. False: its
    mean, or that of its most probable component, which has no noise of the pixels."""

    input_mean: float = 127.5
    """What is subtracted from 8-bit pixels before the encoder. The likelihood does not see it."""

    input_std: float = Field(127.5, gt=0)
    """What they are divided by then."""

    lr: float = Field(1e-3, gt=0)
    """Learning rate of AdamW."""

    lr_text: float = Field(1e-4, gt=0)
    """Learning rate of a text encoder that is trained together with the networks."""

    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's two decay rates."""

    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""

    clip: float = Field(0.0, ge=0)
    """Largest norm of all gradients, of nats per dimension. 0: they are not clipped."""

    skip: float = Field(0.0, ge=0)
    """Norm of the gradients from which on a step is skipped. 0: none is."""

    @property
    def channels(self) -> int:
        """Channels of x."""
        return self.autoencoder.latent_channels if self.autoencoder else 3

    @property
    def side(self) -> int:
        """Height and width of x."""
        return self.image_size // (self.autoencoder.reduction if self.autoencoder else 1)

    @field_validator("autoencoder")
    @classmethod
    def _pretrained(cls, autoencoder: AutoencoderConfig | None) -> AutoencoderConfig | None:
        if autoencoder and autoencoder.weights is None:
            raise ValueError(
                "set autoencoder.weights to a pretrained autoencoder (model ldm trains one)"
            )
        return autoencoder

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.autoencoder and self.output != "gaussian":
            raise ValueError("output: latents are no 8-bit pixels: set output=gaussian")
        if self.autoencoder and self.image_size % self.autoencoder.reduction:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of {self.autoencoder.reduction}"
            )
        if self.network == "deep":
            maps = check_encoder(places(self.deep.encoder_blocks), self.side)
            check_decoder(places(self.deep.decoder_blocks), self.side, maps)
        elif self.side % 4 or (self.side // 4) & (self.side // 4 - 1):
            raise ValueError("image_size: the network doubles 4x4 places: 16, 32, 64, 128 ...")
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1})),
            "deep": Preset(DEEP, encoder=("words", {})),
            "imagenet32": Preset(IMAGENET32, data=("coco", {}), encoder=("clip", {})),
            "imagenet64": Preset(IMAGENET64, data=("coco", {}), encoder=("clip", {})),
            "plain": Preset(PLAIN, encoder=("words", {"layers": 1})),
            "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        width = 64 if memory is None else by_memory(memory, (96, 128, 192, 256))
        settings = {
            **TINY,
            "image_size": size,
            "batch_size": (32 if size <= 64 else 16) if memory is None else 64,
            "deep": {**TINY["deep"], **ladder(size), "width": width},
        }
        if memory is not None:
            settings |= {"lr": 5e-4, "ema_decay": 0.9995, "warmup": 200}
        return Preset(settings, encoder=("words", {"layers": 1}))


def ladder(size: int) -> dict[str, Any]:
    """Return blocks of a small hierarchy for a size of x.

    Args:
        size: Height and width of x: 4 times a power of two.

    Returns:
        The settings `encoder_blocks` and `decoder_blocks`.
    """
    encoder, decoder, side = ["4x1,4d4,1x1"], ["1x2,4m1,4x1"], 8
    while side <= size:
        encoder.insert(0, f"{side}x1,{side}d2")
        decoder.append(f"{side}m{side // 2}" + (f",{side}x1" if side <= 16 else ""))
        side *= 2
    return {"encoder_blocks": ",".join(encoder), "decoder_blocks": ",".join(decoder)}


MAP = {
    "text_map": 64, "map_hops": 2, "map_queries": "sinusoids", "map_sentence": True, "outline": 0.5,
}  # fmt: skip

# Ours, on pixels. A learnt scale of one logistic learns sooner than a mixture on flat colours.
TINY: dict[str, Any] = {
    "image_size": 32,
    "steps": 4000,
    "batch_size": 32,
    "ema_decay": 0.995,
    "warmup": 100,
    "lr_schedule": "linear",
    "lr_hold": 0.5,
    "lr_floor": 0.02,
    "channels_last": True,
    "network": "deep",
    "deep": {
        "width": 64, "z": 8, "bottleneck": 0.5, "latents": 4, "text_gain": 1.0, **ladder(32),
    },
    "text": MAP,
    "output": "logistic",
    "first_log_sigma": -1.5,
    "kl_warmup": 0.2,
    "lr": 2e-3,
    "betas": (0.9, 0.99),
    "clip": 1.0,
}  # fmt: skip

# The classical network, for comparison: one vector, the Gaussian of a learnt sigma.
PLAIN: dict[str, Any] = {
    **TINY, "network": "plain", "output": "gaussian",
}  # fmt: skip

# On the latents of the autoencoder that the data set ships. Outlines are sharp there, whatever the
# hierarchy leaves open.
SHAPES: dict[str, Any] = {
    **TINY,
    "batch_size": 24,
    "ema_decay": 0.99,
    "lr": 3e-3,
    "output": "gaussian",
    "first_log_sigma": 0.0,
    "least_log_sigma": -3.0,
    "text": {**MAP, "map_sentence": False},
    "deep": {
        "width": 128, "z": 8, "bottleneck": 0.5, "latents": 4, "text_gain": 1.0,
        "encoder_blocks": "8x2,8d2,4x2,4d4,1x1", "decoder_blocks": "1x2,4m1,4x2,8m4,8x4",
    },
    "autoencoder": SHAPES_AUTOENCODER,
}  # fmt: skip

# hps.py of openai/vdvae: two processes of 16 images; the input is normalised by the data's
# statistics. Steps are 1.1 million (table 5 of the paper, from memory).
DEEP: dict[str, Any] = {
    "image_size": 32,
    "steps": 1_100_000,
    "batch_size": 32,
    "ema_decay": 0.9999,
    "warmup": 100,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "network": "deep",
    "output": "mixture",
    "sample_output": True,
    "input_mean": 120.63838,
    "input_std": 64.16736,
    "lr": 2e-4,
    "betas": (0.9, 0.9),
    "weight_decay": 0.01,
    "clip": 200.0,
    "skip": 400.0,
}

IMAGENET32: dict[str, Any] = {
    **DEEP,
    "steps": 1_700_000,
    "batch_size": 256,
    "accumulate": 8,
    "ema_decay": 0.999,
    "input_mean": 116.2373,
    "input_std": 69.37404,
    "lr": 1.5e-4,
    "skip": 300.0,
    "deep": {
        "width": 512,
        "encoder_blocks": "32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6",
        "decoder_blocks": "1x2,4m1,4x4,8m4,8x9,16m8,16x19,32m16,32x40",
    },
}

IMAGENET64: dict[str, Any] = {
    **IMAGENET32,
    "image_size": 64,
    "steps": 1_600_000,
    "batch_size": 128,
    "clip": 220.0,
    "skip": 380.0,
    "input_mean": 115.92961967,
    "input_std": 69.37404,
    "deep": {
        "width": 512,
        "encoder_blocks": "64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5",
        "decoder_blocks": "1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
    },
}
