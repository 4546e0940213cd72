"""Settings of diffusion models, their U-Nets and their samplers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from t2i.core.families.continuous import CONTINUOUS
from t2i.core.families.prediction import Prediction
from t2i.core.families.schedule import MOST_NOISE, Spacing
from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.settings import MOST_LAYERS, Config, ModelConfig
from t2i.plugins.common.diffusion.respacing import respaced_steps
from t2i.plugins.common.latent.config import AutoencoderConfig
from t2i.plugins.common.sizing import by_memory, patch_of

MOST_TIMESTEPS = 1_000_000
"""Largest T of a noise schedule, whose betas are listed."""

LEAST_TOLERANCE = 1e-9
"""Smallest tolerance of a solver. Networks compute in float32, and cannot meet a smaller one."""

Ending = Literal["x_0", "first"]
"""Where the last step of sampling ends: at x_0, or at the schedule's first timestep (as in Stable
Diffusion)."""


class GuidedConfig(SamplerConfig):
    """Settings of guidance, which every sampler of diffusion models has."""

    renamed: ClassVar[Mapping[str, str]] = {
        "interval": "guidance_interval",
        "rescale": "guidance_rescale",
    }

    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Noise levels between which guidance is on, from 0 (clean) to 1 (pure noise). Outside them
    only the conditional branch is run (Kynkaanniemi et al. 2024)."""

    guidance_rescale: float = Field(0.0, ge=0, le=1)
    """How far to rescale a guided prediction to the standard deviation of the conditional one, 0
    (not) to 1 (fully). It counters over-exposed images at high guidance (Lin et al. 2024, equation
    16)."""

    @field_validator("guidance_interval")
    @classmethod
    def _ascending(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= interval[0] <= interval[1] <= 1:
            raise ValueError("two ascending numbers between 0 and 1")
        return interval


class DiffusionSamplerConfig(GuidedConfig):
    """Settings of the samplers that choose their timesteps by a `TimeGrid`."""

    renamed: ClassVar[Mapping[str, str]] = {"offset": "steps_offset", "noisiest": "sigma_max"}

    spacing: Spacing = "trailing"
    """How the sampling steps are chosen among the T steps of a discrete schedule. "trailing" starts
    at pure noise; "leading" is the DDIM paper's and starts a little below it; "linspace" includes
    both ends. Continuous schedules accept only "trailing"."""

    steps_offset: int = Field(0, ge=0)
    """Number that is added to the timesteps of spacing "leading". Stable Diffusion uses 1."""

    sigma_max: float | None = Field(MOST_NOISE, gt=0)
    """Highest noise level to start from, as sigma / alpha, if sampling takes fewer than all T
    steps. None: no bound, as in diffusers' pipelines, except that the default still applies to
    paths that end without any signal."""


class RespacedConfig(DiffusionSamplerConfig):
    """Settings of the samplers that choose their timesteps in ADM's notation too."""

    respacing: str | None = None
    """Timesteps of the chain in the notation of ADM and GLIDE, in the place of `spacing`. "N": N
    timesteps with both ends; "a,b,..": so many of each equal section, the clean end first;
    "ddimN": N by a whole number apart; "fast27": GLIDE's. `steps` then follows from it. None:
    `spacing` and `steps` choose."""

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, given: Any) -> Any:
        """Fill in `steps`, where only `respacing` is given."""
        respacing = given.get("respacing") if isinstance(given, dict) else None
        if not isinstance(respacing, str) or given.get("steps") is not None:
            return given
        return {**given, "steps": respaced_steps(respacing)}

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.respacing is not None:
            steps = respaced_steps(self.respacing)
            if self.steps != steps:
                raise ValueError(
                    f"respacing={self.respacing} makes {steps} steps, steps is {self.steps}: set "
                    f"steps={steps}, or respacing=null"
                )
        return self


NoiseSchedule = Literal["linear", "scaled_linear", "cosine", "mixing", "vp", "sub-vp"]
Attention = Literal["none", "self", "cross"]


class TextMapConfig(Config):
    """Settings of the spatial map of the text that joins a network's input."""

    text_map: int = Field(0, ge=0)
    """Channels of a spatial map of the text that is joined to the input of the network. 0: no map,
    and `map_hops`, `map_heads` and `outline` have no effect. The map tells a small network where
    things belong; cross-attention learns this late, because its queries do not know their position.
    """

    map_hops: int = Field(0, ge=0, le=MOST_LAYERS)
    """Number of blocks in which the places of the text map attend to the words. This separates the
    objects of a caption that has several. 0: the map depends on the sentence vector only."""

    map_queries: Literal["random", "sinusoids"] = "random"
    """How the places of the text map start in these blocks: with "random" vectors, or with
    "sinusoids" of their coordinates, so that near places are alike. With the latter the map learns
    faster."""

    map_sentence: bool = True
    """Whether the sentence vector also makes a map, by a linear layer, that is added. Not needed
    where `map_hops` is above 0."""

    map_heads: int = Field(4, ge=1)
    """Attention heads in the blocks of the text map."""

    outline: float = Field(0.0, ge=0)
    """Weight of an auxiliary loss: predict x_0 from the text map alone, with a 1x1 convolution. 0:
    off. This prediction is what the network should output at pure noise; with the loss, the map
    learns it from every image rather than only from the few that are almost pure noise."""

    @model_validator(mode="after")
    def _made_of_something(self) -> Self:
        if self.text_map and not (self.map_hops or self.map_sentence):
            raise ValueError("text_map is made of nothing: set map_hops above 0, or map_sentence")
        return self


class UNetConfig(TextMapConfig):
    """Settings of a U-Net of diffusers.

    It is a UNet2DConditionModel if any part attends to words, else a UNet2DModel, which is the DDPM
    paper's.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Channels of each level. Each level after the first has half the resolution of the one before.
    """

    layers: int = Field(2, ge=1, le=MOST_LAYERS)
    """Residual blocks in each level."""

    attention: tuple[Attention, ...] = ("cross", "cross", "cross", "none")
    """Attention in the blocks of each level. "none"; "self": among the places of the image;
    "cross": also to the words of the caption (thesis 2.33). One entry for each level."""

    middle: Attention = "cross"
    """Attention in the middle block: "none", "self" or "cross". It must be "cross" if any level has
    "cross"."""

    head_width: int | None = Field(64, ge=1)
    """Channels of one attention head. None: one head of all channels."""

    heads: int | None = Field(None, ge=1)
    """Number of heads in every cross-attention, whatever its width. None: it follows from
    `head_width`."""

    context: Literal["words", "sentence"] = "words"
    """What cross-attention attends to: all words of the caption, or the sentence vector alone (as
    in the thesis)."""

    groups: int = Field(32, ge=1)
    """Groups in each group normalisation."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout rate in residual blocks, 0 to below 1."""

    sentence: bool = False
    """Whether the sentence vector is added to the timestep embedding (as in GLIDE)."""

    weights: str | None = Field(None, min_length=1)
    """A pretrained network: a folder in diffusers' layout, or a name on the Hugging Face hub. None:
    a new network. A pretrained network brings its own configuration, so that the settings above
    only describe it."""

    @model_validator(mode="after")
    def _levels_agree(self) -> UNetConfig:
        if len(self.attention) != len(self.channels):
            raise ValueError(
                f"attention has {len(self.attention)} levels, channels {len(self.channels)}"
            )
        if "cross" in self.attention and self.middle != "cross":
            raise ValueError(
                "where a level attends to words, the middle does too: set middle=cross"
            )
        if self.heads and not self.words:
            raise ValueError("heads: nothing attends to words; set head_width")
        last, described = self.channels[-1], self.weights is not None
        if (
            self.attention[-1] == "self"
            and self.words
            and not described
            and self.heads_of(last) != self.head_width
        ):
            raise ValueError(
                "diffusers has one number for the last level and the middle, heads there and their "
                "width here: where that level attends to itself and the middle to words, "
                "head_width must be the root of its channels"
            )
        if self.weights and (self.text_map or self.sentence):
            raise ValueError(
                "a U-Net that comes with its weights has no other way in for text: no text_map, no "
                "sentence"
            )
        return self

    def heads_of(self, channels: int) -> int:
        """Return the number of cross-attention heads in a level.

        Args:
            channels: Channels of the level.

        Returns:
            `heads` if it is set, else the number that follows from `head_width`.
        """
        return self.heads or channels // (self.head_width or channels)

    @property
    def words(self) -> bool:
        """Whether any part attends to the words."""
        return self.middle == "cross"


class DiffusionSettings(Config):
    """Settings of the training of any diffusion network: captions, and Adam.

    They are those of a model (`DiffusionConfig`), or of one part of a cascade.
    """

    caption_dropout: float = Field(0.1, ge=0, le=1)
    """Share of captions that are dropped in training, for classifier-free guidance, 0 to 1."""

    lr: float = Field(1e-4, gt=0)
    """Learning rate of Adam for the network."""

    lr_text: float = Field(1e-4, gt=0)
    """Learning rate of a text encoder that is trained together with the network. It should be
    smaller than `lr`."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's two decay rates."""


class DiffusionConfig(DiffusionSettings, ModelConfig):
    """Settings of any diffusion model."""


class SpaceConfig(DiffusionConfig):
    """Settings of a diffusion model on pixels, or on the latents of a pretrained autoencoder."""

    autoencoder: AutoencoderConfig | None = None
    """The pretrained autoencoder whose latents are denoised. It needs `weights`, and is not
    trained. None: pixels are denoised."""

    @property
    def ratio(self) -> int:
        """Ratio of the image's side to the side of what is denoised."""
        return self.autoencoder.reduction if self.autoencoder else 1

    @property
    def channels(self) -> int:
        """Channels of what is denoised."""
        return self.autoencoder.latent_channels if self.autoencoder else 3

    @field_validator("autoencoder")
    @classmethod
    def _pretrained(cls, autoencoder: AutoencoderConfig | None) -> AutoencoderConfig | None:
        if autoencoder and autoencoder.weights is None:
            raise ValueError(
                "set autoencoder.weights to a pretrained autoencoder (model ldm trains one)"
            )
        return autoencoder


class DenoisingSettings(DiffusionSettings):
    """Settings of a network that predicts noise, x_0 or v, and of its training."""

    renamed: ClassVar[Mapping[str, str]] = {
        "weight_cap": "min_snr_gamma",
        "levels": "noise_level_beta",
    }

    schedule: NoiseSchedule = "linear"
    """Noise schedule. "linear", "scaled_linear" and "cosine" are DDPM's kind, with `timesteps`
    steps. "mixing" is the straight path x_t = (1 - t) x_0 + t eps with t in [0, 1], as in the
    thesis and in flow matching. "vp" and "sub-vp" are the paths of Song et al. 2021, with t in (0,
    1]."""

    timesteps: int = Field(1000, ge=1, le=MOST_TIMESTEPS)
    """Number of timesteps T of the schedule. Continuous schedules ignore it."""

    trained_betas: tuple[float, ...] = ()
    """List of all beta_t, for a schedule that has no name here. It must have `timesteps` entries.
    Empty: use `schedule`."""

    prediction: Prediction = "epsilon"
    """What the network predicts. "epsilon": the noise; "sample": x_0; "v": alpha eps - sigma x_0;
    "velocity": dx_t/dt, which is eps - x_0 and needs schedule "mixing"; "score": -eps / sigma."""

    error: Literal["prediction", "x_0"] = "prediction"
    """Which error the loss measures: that of the prediction itself, or that of the x_0 it implies.
    With "v", the error of x_0 weights a timestep by sigma^2: most where the noise is strong and the
    text decides. With "score", the error of the prediction is weighted by sigma^2, which makes it
    that of the noise (Song et al. 2021)."""

    min_snr_gamma: float = Field(1.0, ge=1)
    """Upper bound of the weight by which the error of x_0 is multiplied: min(1 / sigma^2, gamma),
    at least 1. Only with error=x_0. In a variance-preserving schedule the weight is min(1 + SNR,
    gamma) (after Hang et al. 2023). 1 leaves the error of x_0 as it is; a large gamma gives the
    error of v, with equal weight for all noise levels. In between, fine details count more than in
    the former and less than in the latter."""

    loss: Literal["l2", "l1"] = "l2"
    """Mean squared error ("l2") or mean absolute error ("l1")."""

    learned_range: bool = False
    """Whether the network has twice the output channels, and predicts the variance of each step of
    a chain too, between beta~_t and beta_t (Nichol & Dhariwal 2021, equation 15). The loss is then
    the sum of `loss` and of the variational bound in bits, in which the prediction is held. The
    sampler `ddpm` reads the variance with variance=learned."""

    noise_level_beta: tuple[float, float] | None = None
    """Parameters (a, b) of a Beta distribution from which training draws noise levels, both above
    0. None: uniform."""

    @model_validator(mode="after")
    def _defined(self) -> Self:
        if self.schedule not in CONTINUOUS and self.prediction == "velocity":
            raise ValueError(
                "velocity is the derivative of x_t in continuous time, and "
                f"schedule={self.schedule} counts steps: set schedule=mixing, or prediction=v"
            )
        if self.noise_level_beta is not None and min(self.noise_level_beta) <= 0:
            raise ValueError(
                "noise_level_beta: the two parameters of a Beta distribution are positive"
            )
        if self.learned_range and self.schedule in CONTINUOUS:
            raise ValueError(
                f"learned_range needs a chain of steps, schedule={self.schedule} is continuous: "
                "set schedule=linear, scaled_linear or cosine"
            )
        if self.trained_betas and len(self.trained_betas) != self.timesteps:
            raise ValueError(
                f"trained_betas are {len(self.trained_betas)}, timesteps {self.timesteps}"
            )
        return self


class DenoisingConfig(DenoisingSettings, DiffusionConfig):
    """Settings of a diffusion model that predicts noise, x_0 or v, and of its training."""


class PixelSettings(DiffusionSettings):
    """Settings of a U-Net on pixels."""

    if TYPE_CHECKING:
        image_size: int

    unet: UNetConfig = UNetConfig()
    """The U-Net that denoises images."""

    patch: int = Field(1, ge=1)
    """Side in pixels of the squares whose pixels become channels of the U-Net's input
    (space-to-depth). This keeps a small network's convolutions on a small grid. 1: off."""

    @property
    def uses_unet(self) -> bool:
        """Whether `unet` is the network."""
        return True

    @property
    def ratio(self) -> int:
        """Ratio of the image's side to the side of what is denoised."""
        return 1

    @property
    def channels(self) -> int:
        """Channels of what is denoised."""
        return 3

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        smallest = self.ratio * self.patch * 2 ** (len(self.unet.channels) - 1)
        if self.uses_unet and self.image_size % smallest:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of {smallest} for this network"
            )
        return self


class PixelConfig(PixelSettings, DiffusionConfig):
    """Settings of a diffusion model whose network is a U-Net on pixels."""


SHAPES_TEXT = ("words", {"weights": "shapes-clip"})
"""The text encoder of the presets `shapes`: the text half of the CLIP that the data set ships. It
is trained further."""

HELD = {"lr": 3e-3, "lr_schedule": "linear", "lr_hold": 0.5, "ema_decay": 0.98}
"""The presets `shapes` of a few hundred steps, laid over QUICK: high learning rates for half of the
training, then falling. As they fall, the weights need little averaging."""

# Settings with which a small diffusion model of any kind trains fast on a CPU (docs/learning.md).
QUICK_TRAINING = {
    "image_size": 32,
    "steps": 6000,
    "batch_size": 24,
    "ema_decay": 0.998,
    "grad_clip": 1.0,
    "warmup": 100,
    "lr_schedule": "cosine",
    "lr_floor": 0.02,
    "sample_every": 1000,
    "checkpoint_every": 1000,
    "channels_last": True,
    "lr": 1.5e-3,
    "lr_text": 1e-4,
    "betas": (0.9, 0.99),
}

# The same, with the schedule and the loss of `ldm` and `ddpm`.
QUICK = {**QUICK_TRAINING, "schedule": "cosine", "prediction": "v", "error": "x_0"}

# The U-Net of the presets `tiny` on pixels, behind patches of 4x4 pixels.
SMALL_UNET: dict[str, Any] = {
    "channels": (64, 128), "layers": 1, "attention": ("none", "none"), "middle": "none",
    "head_width": 32, "groups": 8, "text_map": 64, "sentence": True,
}  # fmt: skip

# The same in the presets `shapes`: with a map of the words, and its loss.
MAPPED_UNET: dict[str, Any] = {
    **SMALL_UNET, "map_hops": 2, "map_queries": "sinusoids", "map_sentence": False, "outline": 0.5,
}  # fmt: skip

# The autoencoder that the data set `shapes` ships, with latents of 8x8x8 at 32 pixels.
SHAPES_AUTOENCODER: dict[str, Any] = {
    "weights": "shapes-autoencoder", "patch": 4, "channels": (56,), "layers": 1,
    "latent_channels": 8, "attention": False, "groups": 8,
}  # fmt: skip

# Its latents, and a U-Net on them: the rest of the presets `shapes` on latents.
SHAPES_LATENTS: dict[str, Any] = {
    "patch": 1,
    "autoencoder": SHAPES_AUTOENCODER,
    "unet": {**MAPPED_UNET, "middle": "cross", "head_width": 4},
    "lr_text": 3e-4,
}  # fmt: skip

# Settings of the presets `auto` on an accelerator, laid over QUICK: wider networks have smaller
# learning rates and slower averages.
WIDE = {"batch_size": 64, "ema_decay": 0.9995, "warmup": 500, "lr": 3e-4}


def quick_batch(size: int) -> int:
    """Return the batch size of a diffusion model's preset `auto` on a CPU.

    Args:
        size: Height and width of the images in pixels.

    Returns:
        That of QUICK up to 32 pixels, else 16.
    """
    return 24 if size <= 32 else 16


def quick_pixels(size: int) -> dict[str, Any]:
    """Return the network of a preset `auto` on a CPU: a U-Net on at most 16x16 patches.

    Args:
        size: Height and width of the images in pixels.

    Returns:
        The settings `batch_size`, `patch` and `unet`.
    """
    patch = patch_of(size, 16, 4)
    channels = (64, 128) if patch == 4 else (96, 192)
    unet = {**SMALL_UNET, "channels": channels}
    return {"batch_size": quick_batch(size), "patch": patch, "unet": unet}


def wide_pixels(size: int, memory: int) -> dict[str, Any]:
    """Return the network of a preset `auto` on an accelerator: a U-Net on at most 64x64 places.

    Args:
        size: Height and width of the images in pixels.
        memory: Memory of the accelerator in bytes.

    Returns:
        The settings `patch` and `unet`.
    """
    patch = patch_of(size, 64, 1)
    large = size // patch > 32
    width = by_memory(memory, (64, 96, 128, 192))
    unet = {
        "channels": tuple(width * n for n in ((1, 2, 3, 4) if large else (1, 2, 2))), "layers": 2,
        "attention": ("none", *(("none",) if large else ()), "cross", "cross"), "middle": "cross",
        "head_width": 32, "text_map": 64, "map_hops": 2, "sentence": True,
    }  # fmt: skip
    return {"patch": patch, "unet": unet}
