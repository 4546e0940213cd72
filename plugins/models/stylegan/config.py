"""Settings of StyleGAN2 with text, and of StyleGAN-T."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Preset
from t2i.plugins.common.clip.config import ClipVisionConfig
from t2i.plugins.common.gan.config import QUICK, SHAPES_TEXT, TINY, GANConfig, quick_batch
from t2i.plugins.common.sizing import by_memory
from t2i.plugins.common.text.config import TextPretraining


class StyleGANConfig(GANConfig, TextPretraining):
    """Settings of StyleGAN2 with text, and of StyleGAN-T.

    The defaults are those of StyleGAN2 in its authors' PyTorch code (configuration `stylegan2`).
    Generator and discriminator can be combined freely.
    """

    lr_g: float = Field(2e-3, gt=0)
    """Learning rate of the generator."""

    lr_d: float = Field(2e-3, gt=0)
    """Learning rate of the discriminator."""

    beta1: float = Field(0.0, ge=0, lt=1)
    """Decay rate of Adam's running mean of gradients, for generator and discriminator."""

    beta2: float = Field(0.99, ge=0, lt=1)
    """Decay rate of Adam's running mean of squared gradients, for generator and discriminator."""

    generator: Literal["stylegan2", "stylegan-t"] = "stylegan2"
    """Which generator is built."""

    discriminator: Literal["stylegan2", "projected"] = "stylegan2"
    """Which discriminator is built. "projected", StyleGAN-T's: heads on the tokens of a frozen
    vision transformer (`eye`)."""

    adversarial: Literal["softplus", "hinge"] = "softplus"
    """The adversarial loss of the model itself (`loss` = "own"). "softplus" is StyleGAN2's
    (non-saturating), "hinge" StyleGAN-T's."""

    wrong_pairs: bool = False
    """Whether real images with captions of others count as fake too, by half: (fake + wrong) / 2.
    The papers have no such pairs."""

    z_dim: int = Field(512, ge=1)
    """Size of the noise vector of an image. StyleGAN-T: 64."""

    w_dim: int = Field(512, ge=1)
    """Width of StyleGAN2's latent vectors w. StyleGAN-T's are [mapped z; sentence]."""

    mapping_layers: int = Field(8, ge=1, le=MOST_LAYERS)
    """Number of layers of the generator's mapping. StyleGAN-T: 2."""

    mapping_rate: float = Field(0.01, gt=0)
    """Factor of the learning rate of the mappings' layers."""

    text_norm: Literal["length", "moment", "none"] = "length"
    """How sentence vectors are scaled. "length": to length 1, as in StyleGAN-T's code. "moment": to
    a mean square of 1, so that they weigh as much as the noise beside them. "none": not at all."""

    channel_base: int = Field(32768, ge=1)
    """Channels times image size: a map of size s has min(channel_base / s, channel_max) channels.
    """

    channel_max: int = Field(512, ge=1)
    """Largest number of channels of the generator and of StyleGAN2's discriminator."""

    judge_channel_base: int | None = Field(None, ge=1)
    """`channel_base` of the discriminator. None: that of the generator."""

    noise: bool = True
    """Whether noise is added to the generator's maps. It is drawn anew in training and fixed in
    sampling."""

    res_blocks: int = Field(2, ge=1, le=MOST_LAYERS)
    """Number of pairs of convolutions of a size in StyleGAN-T's generator."""

    layer_scale: float = 1e-5
    """Initial factor of the residual convolutions in StyleGAN-T's generator."""

    norm_groups: int = Field(32, ge=1)
    """Groups of the group normalisation in StyleGAN-T's generator. They must divide the channels of
    each size."""

    bounded: bool = False
    """Whether the generator ends in a tanh. False, as in the papers: images are not bounded in
    training and clamped to [-1, 1] in sampling."""

    clamp: float | None = Field(256.0, gt=0)
    """Largest absolute value of activations. None: no limit. The authors need one for float16."""

    average_decay: float = Field(0.995, ge=0, lt=1)
    """Decay of the running mean of styles, towards which `psi` interpolates in sampling."""

    minibatch_group: int = Field(4, ge=0)
    """Images of a group in the discriminator's minibatch standard deviation. 0 or 1: it is left
    out. Groups are formed within a process."""

    projected: int | None = Field(None, ge=1)
    """Width of the space in which StyleGAN2's discriminator compares image and sentence. None: the
    channels of its last map."""

    judge_mapping_layers: int = Field(8, ge=1, le=MOST_LAYERS)
    """Number of layers of the discriminator's mapping of the sentence."""

    r1: float = Field(10.0, ge=0)
    """Weight gamma of R1, the penalty gamma/2 |grad D|^2 of real images. 0: there is none."""

    r1_every: int = Field(16, ge=1)
    """Steps between two steps with R1, in which it counts as many times, in an update of its own.
    1: it is part of each step's loss. With `accumulate` it is part of the loss of its steps."""

    path_length: float = Field(2.0, ge=0)
    """Weight of the path-length penalty of the generator. 0: there is none."""

    path_every: int = Field(4, ge=1)
    """Steps of the generator between two with the path-length penalty, in which it counts as many
    times, in an update of its own. 1: it is part of each step's loss. With `accumulate` it is part
    of the loss of its steps."""

    path_shrink: int = Field(2, ge=1)
    """The path-length penalty is computed on one of so many images of a batch."""

    path_decay: float = Field(0.01, gt=0, le=1)
    """Share of a batch's mean path length in the running mean."""

    mixing: float = Field(0.9, ge=0, le=1)
    """Probability that an image gets the styles of two z, with the same sentence: one up to a
    random layer, one from there on."""

    eye: Literal["dino", "clip"] = "dino"
    """The frozen network of the projected discriminator. "dino": DINO ViT-S/16 by timm
    (`dino_weights`). "clip": that of `clip`."""

    eye_blocks: tuple[int, ...] = (3, 6, 9, 12)
    """Blocks of that network whose tokens are judged, counted from 1. The tokens before the first
    block are judged too."""

    eye_pixels: bool = False
    """Whether one more head judges the pixels of the network's patches. The paper has none."""

    dino_weights: str = Field("timm/vit_small_patch16_224.dino", min_length=1)
    """DINO's weights: a name on the hub, a folder with model.safetensors, or such a file."""

    dino_revision: str = "main"
    """Branch, tag or commit of them on the hub."""

    head_width: int | None = Field(None, ge=1)
    """Channels of the heads of the projected discriminator. None: the width of the tokens."""

    head_projected: int = Field(64, ge=1)
    """Width of the space in which a head compares image and sentence."""

    head_kernel: int = Field(9, ge=1)
    """Places under the kernel of a head's convolution over the sequence of tokens, an odd number.
    """

    crop: float = Field(0.5, ge=0, le=1)
    """Probability that the projected discriminator sees a crop of an image that is larger than its
    network's input, not the whole image made smaller."""

    blur: float = Field(0.0, ge=0)
    """Initial width sigma of a blur of the images that the discriminator sees, in pixels. The
    weights fall to one half at sigma pixels. 0: none. StyleGAN-T: 32."""

    blur_images: int = Field(1_000_000, ge=1)
    """Number of real images over which the blur's width falls to 0."""

    clip: ClipVisionConfig = ClipVisionConfig(weights="openai/clip-vit-large-patch14",
                                              normalise="once", resize="bicubic")  # fmt: skip
    """CLIP's image encoder, for `guidance` and for `eye` = "clip". It is loaded only then."""

    guidance: float = Field(0.0, ge=0)
    """Weight of the CLIP loss in the generator's loss, the squared angle between image and
    sentence. 0: there is none. StyleGAN-T's paper has 0.2, which counts as 1.6 in its code at 8
    images a device."""

    trained: Literal["all", "beyond64"] = "all"
    """Which layers of the generator are trained. "beyond64": those above 64 pixels, and all that
    make images (the authors' `freeze64`), for the second phase of progressive training."""

    def sizes(self, start: int) -> list[int]:
        """Return the sizes of the maps, from `start` to the image's.

        Args:
            start: The smallest size, pixels.

        Returns:
            The sizes in pixels.
        """
        return [start << i for i in range((self.image_size // start).bit_length())]

    def channels(self, size: int) -> int:
        """Return the generator's channels at a size.

        Args:
            size: Height and width of the map, pixels.

        Returns:
            The number of channels.
        """
        return max(1, min(self.channel_base // size, self.channel_max))

    def judge_channels(self, size: int) -> int:
        """Return the channels of StyleGAN2's discriminator at a size.

        Args:
            size: Height and width of the map, pixels.

        Returns:
            The number of channels.
        """
        return max(1, min((self.judge_channel_base or self.channel_base) // size, self.channel_max))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.image_size & (self.image_size - 1) or self.image_size < 8:
            raise ValueError(
                f"image_size = {self.image_size}: the generator doubles 4x4 pixels: "
                "use 8, 16, 32, 64 ..."
            )
        if self.generator == "stylegan-t":
            for size in self.sizes(8):
                if self.channels(size) % self.norm_groups:
                    raise ValueError(
                        f"norm_groups = {self.norm_groups} must divide the {self.channels(size)} "
                        f"channels at {size} pixels (channel_base, channel_max)"
                    )
        if self.generator == "stylegan-t" and (self.mixing or self.path_length):
            raise ValueError(
                "stylegan-t has neither style mixing nor a path-length penalty: "
                "set mixing=0 and path_length=0"
            )
        if self.discriminator == "projected" and self.r1:
            raise ValueError("the projected discriminator has no R1 penalty: set r1=0")
        if not self.eye_blocks or list(self.eye_blocks) != sorted({*self.eye_blocks}):
            raise ValueError("eye_blocks must be ascending numbers of blocks, counted from 1")
        if self.eye_blocks[0] < 1:
            raise ValueError("eye_blocks are counted from 1")
        if self.head_kernel % 2 == 0:
            raise ValueError("head_kernel must be odd")
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        clip: tuple[str, Mapping[str, Any]] = ("clip", {"weights": "openai/clip-vit-large-patch14"})
        web: tuple[str, Mapping[str, Any]] = ("webdataset", {})
        return {
            "tiny": Preset(_TINY, encoder=("words", {"layers": 1})),
            "cub": Preset({**_PAPER256}, ("cub", {}), ("clip", {})),
            "coco": Preset({**_PAPER256}, ("coco", {}), ("clip", {})),
            "t-lite64": Preset({**_LITE, "image_size": 64}, web, clip),
            "t-full64": Preset({**_FULL, "image_size": 64}, web, clip),
            "t-full256": Preset({**_FULL, "image_size": 256, "trained": "beyond64"}, web, clip),
            "shapes": Preset(_SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**_TINY, "image_size": size}
        if memory is None:
            base = 1024 if size <= 64 else 2048
            settings |= {"channel_base": base, "batch_size": quick_batch(size)}
        else:
            settings |= {
                "channel_base": by_memory(memory, (8192, 8192, 16384, 16384)),
                "channel_max": by_memory(memory, (192, 256, 384, 512)), "z_dim": 128,
                "w_dim": 256, "noise": True, "mixing": 0.9, "ema_decay": 0.999,
                "mapping_layers": 4,
                "r1": 0.0002 * size**2 / TINY["batch_size"],  # type: ignore[operator]
            }  # fmt: skip
        return Preset(settings, encoder=("words", {"layers": 1}))


_PAPER256: dict[str, Any] = {
    # The authors' configuration `paper256`, for 8 devices. Half the batch has another sentence in
    # no loss: there are no wrong pairs.
    "image_size": 256,
    "augment": {"scale": 76 / 64, "flip": True},
    "batch_size": 64,
    "steps": 390_625,  # 25 million images
    "channel_base": 16384,
    "minibatch_group": 8,
    "lr_g": 2.5e-3,
    "lr_d": 2.5e-3,
    "r1": 1.0,
    "ema_decay": 0.5 ** (64 / 20_000),  # a half-life of 20,000 images
    "channels_last": True,
    "sample_every": 5000,
    "checkpoint_every": 5000,
}

_LITE: dict[str, Any] = {
    # The authors' example: 128 images a step, 8 a device.
    "generator": "stylegan-t",
    "discriminator": "projected",
    "adversarial": "hinge",
    "augment_images": "diffaugment",
    "z_dim": 64,
    "mapping_layers": 2,
    "mixing": 0.0,
    "path_length": 0.0,
    "r1": 0.0,
    "blur": 32.0,
    "guidance": 1.6,  # the paper's 0.2, times the 8 images by which its code divides the hinge loss
    "batch_size": 128,
    "accumulate": 16,
    "steps": 195_313,  # 25 million images
    "ema_decay": 0.5 ** (32 / 10_000),  # a half-life of batch_size * 10 / 32 thousand images
    "ema_rampup": 0.05,
    "channels_last": True,
    "sample_every": 2000,
    "checkpoint_every": 2000,
}
_FULL = {**_LITE, "channel_base": 65536, "channel_max": 2048, "res_blocks": 3}

_TINY: dict[str, Any] = {
    **TINY,
    "steps": 4000,
    "text_share": 0.1,
    "wrong_pairs": True,
    "z_dim": 32,
    "w_dim": 64,
    "mapping_layers": 2,
    "judge_mapping_layers": 2,
    "text_norm": "moment",
    "channel_base": 1024,
    "channel_max": 64,
    "noise": False,
    "clamp": None,
    "bounded": True,
    "path_length": 0.0,
    "mixing": 0.0,
    "r1": 0.5,
}

_SHAPES = {
    **_TINY,
    **QUICK,
    "discriminator": "projected",
    "adversarial": "hinge",
    "r1": 0.0,
    "eye_pixels": True,
    "head_kernel": 3,
    # Adam moves an equalised weight of a layer with n inputs by lr / sqrt(n): 64 inputs or 3x3x64
    # need ten times the rates of the other GANs.
    "lr_g": 0.015,
    "lr_d": 2e-3,
    "mapping_rate": 1.0,
    "eye": "clip",
    "eye_blocks": (1, 2, 3),
    "clip": {
        "weights": "shapes-clip", "normalise": "once", "image_size": 32, "patch": 8, "width": 64,
        "layers": 3, "heads": 4,
    },
}  # fmt: skip
