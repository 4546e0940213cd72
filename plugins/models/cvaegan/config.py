"""Settings of CVAE-GAN."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from t2i.core.settings import Preset
from t2i.plugins.common.gan.config import QUICK, SHAPES_TEXT, TINY, GANConfig, quick_batch
from t2i.plugins.common.sizing import by_memory
from t2i.plugins.common.text.config import TextPretraining

START = 4  # pixels: the side of the smallest feature maps


class CVAEGANConfig(GANConfig, TextPretraining):
    """Settings of CVAE-GAN. The weights of the losses are the paper's."""

    width: int = Field(64, ge=4)
    """Channels of the encoder, the discriminator and the matcher at half the size of the image.
    Each smaller size has twice as many, up to eight times."""

    gf: int = Field(64, ge=4)
    """Channels of the generator at the size of the image. Each smaller size has twice as many, up
    to four times."""

    z_dim: int = Field(128, ge=1)
    """Size of the latent vector z of an image."""

    kl: float = Field(3.0, ge=0)
    """Weight of the KL term in the encoder's loss (lambda_1). The term is a sum over z."""

    posterior_bound: float = Field(0.0, ge=0)
    """Bound of the posterior's means, and twice that of its log scales: softly, by c tanh(x / c) as
    in NVAE (Vahdat & Kautz 2020). Without it high learning rates may let the KL explode. 0: there
    is none, as in the paper."""

    pairs: float = Field(1.0, ge=0)
    """Weight of the error between an image and its reconstruction, in pixels and in the features of
    discriminator and matcher (lambda_2). The errors are sums."""

    pixel: float = Field(1.0, ge=0)
    """Weight of the pixels within that error. 1, as in the paper."""

    pair_features: float = Field(1.0, ge=0)
    """Weight of the two networks' features within that error. 1, as in the paper."""

    mean_d: float = Field(1e-3, ge=0)
    """Weight of matching the mean features of the discriminator (lambda_3)."""

    mean_c: float = Field(1e-3, ge=0)
    """Weight of matching the mean features of the matcher, word by word (lambda_4)."""

    centre_decay: float = Field(0.99, ge=0, lt=1)
    """Decay of the moving means of features: of all real images, and of those whose captions have
    a word. 0: the means are those of a batch."""

    generated_decay: float = Field(0.9, ge=0, lt=1)
    """Decay of the moving means of generated images' features, whose gradient is that of the
    batch's mean. Smaller ones follow the generator more closely."""

    words: int = Field(512, ge=1)
    """Number of centres. A word's centre is its hash modulo this."""

    adversarial: float = Field(0.0, ge=0)
    """Weight of -log D(G(z, c)) in the generator's loss. 0, as in the paper, whose generator only
    matches features, so that a good discriminator does not leave it without gradients."""

    matched: float = Field(0.0, ge=0)
    """Weight of the matcher's cross entropy for generated images in the generator's loss. 0: it is
    left out, as in the paper."""

    temperature: float = Field(10.0, gt=0)
    """Factor of the cosines that the matcher's softmax compares over the batch."""

    fused: bool = False
    """Whether the generator fuses [z; e] into every block, as DF-GAN's does. False: they enter its
    first layer only, as in the paper."""

    recalibrate: int = Field(0, ge=0)
    """Batches over which batch norm's statistics are recomputed with the averaged weights when the
    stage ends. 0: they stay those of the last weights."""

    @field_validator("image_size")
    @classmethod
    def _power_of_two(cls, size: int) -> int:
        if size & (size - 1):
            raise ValueError(
                "must be a power of two (the generator doubles 4x4 pixels): 16, 32, 64, 128 ..."
            )
        return size

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(_TINY, encoder=("words", {"layers": 1})),
            "cub": Preset(_PAPER, data=("cub", {}), encoder=("char-cnn-rnn", {})),
            "flowers": Preset(_PAPER, data=("flowers", {}), encoder=("char-cnn-rnn", {})),
            "shapes": Preset(_SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**_TINY, "image_size": size}
        if memory is None:
            gf, width = (24, 24) if size <= 64 else (12, 12)
            settings |= {"gf": gf, "width": width, "batch_size": quick_batch(size)}
        else:
            gf, width = (by_memory(memory, (32, 48, 64, 96)),) * 2
            settings |= {"gf": gf, "width": width, "lr_g": 3e-4, "lr_d": 3e-4, "warmup": 200}
        return Preset(settings, encoder=("words", {"layers": 1}))


# 128 pixels, as the paper. Its optimizer, batch and steps are not known to us: these are DCGAN's.
_PAPER = {
    "image_size": 128,
    "batch_size": 64,
    "steps": 100_000,
    "ema_decay": 0.0,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "z_dim": 256,
    "augment": {"scale": 76 / 64, "flip": True},
}

_TINY = {
    **TINY,
    "steps": 5000,
    "text_share": 0.1,
    "warmup": 50,
    "width": 24,
    "gf": 24,
    "z_dim": 32,
    "lr_g": 1.5e-3,
    "lr_d": 5e-4,
    "fused": True,
    "kl": 1.0,
    "posterior_bound": 4.0,
    "grad_clip": 1000.0,
    "adversarial": 10.0,
    "matched": 10.0,
    "mean_d": 0.1,
    "mean_c": 0.1,
}

# The errors are sums over the image: the outline's is too, at this weight.
_SHAPES = {**_TINY, **QUICK, "outline": 100.0}
