"""Settings of diffusion models, their U-Nets and their samplers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from t2i.core.families.prediction import Prediction
from t2i.core.families.schedule import MOST_NOISE, Spacing
from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.settings import MOST_LAYERS, Config, ModelConfig

Ending = Literal["x_0", "first"]
"""Where the last sampling step ends: at x_0, or at the first noise level (Stable Diffusion)."""


class DiffusionSamplerConfig(SamplerConfig):
    """Settings that all samplers of diffusion models share."""

    renamed: ClassVar[Mapping[str, str]] = {
        "interval": "guidance_interval",
        "rescale": "guidance_rescale",
        "offset": "steps_offset",
        "noisiest": "sigma_max",
    }

    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Range of noise levels in which classifier-free guidance is on.

    Two ascending numbers from 0 (clean) to 1 (pure noise). Outside the range, the network runs on
    the captions alone.
    Source: Kynkaanniemi et al. 2024.
    """

    guidance_rescale: float = Field(0.0, ge=0, le=1)
    """Strength with which guided predictions get the standard deviation of conditional ones.

    From 0 (off) to 1 (the same deviation). Guidance makes predictions too large, which over-exposes
    images.
    Source: Lin et al. 2024, eq. 16.
    """

    spacing: Spacing = "trailing"
    """How the sampling steps are chosen among the T timesteps of a discrete schedule.

    "trailing" includes the noisiest timestep, where sampling starts; "leading" is the DDIM paper's
    spacing; "linspace" includes both ends. Schedules in continuous time support only "trailing".
    """

    steps_offset: int = Field(0, ge=0)
    """Number added to every timestep of "leading" spacing.

    At least 0; Stable Diffusion uses 1. Other spacings ignore it.
    """

    sigma_max: float | None = Field(MOST_NOISE, gt=0)
    """Largest noise-to-signal ratio sigma / alpha at which sampling starts.

    Above 0. None sets no bound, as in diffusers' pipelines, except where a path in continuous time
    ends without any
    signal: there the default of 200 still holds. Sampling with all T steps of a discrete schedule
        ignores it.
    """

    @field_validator("guidance_interval")
    @classmethod
    def _ascending(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= interval[0] <= interval[1] <= 1:
            raise ValueError("two ascending numbers between 0 and 1")
        return interval


NoiseSchedule = Literal["linear", "scaled_linear", "cosine", "mixing"]
Attention = Literal["none", "self", "cross"]


class UNetConfig(Config):
    """Settings of a U-Net from diffusers.

    It is a UNet2DConditionModel if a part of it attends to words, otherwise a UNet2DModel, the DDPM
    paper's network.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Channels of each level of the U-Net.

    Each level after the first has half the height and width of the one before.
    """

    layers: int = Field(2, ge=1, le=MOST_LAYERS)
    """Number of residual blocks in each level, at least 1."""

    attention: tuple[Attention, ...] = ("cross", "cross", "cross", "none")
    """Attention in the blocks of each level, one entry for each entry of `channels`.

    "none", "self" (between the places of the feature map) or "cross" (that, and to the words;
    thesis 2.33).
    """

    middle: Attention = "cross"
    """Attention in the middle block: "none", "self" or "cross".

    It must be "cross" if a level's is.
    """

    head_width: int | None = Field(64, ge=1)
    """Channels of one attention head.

    At least 1. None: one head with all channels.
    """

    heads: int | None = Field(None, ge=1)
    """Number of heads in blocks that attend to words, whatever the width of a head.

    At least 1. None: the number follows from `head_width`.
    """

    context: Literal["words", "sentence"] = "words"
    """Text that cross-attention attends to: all words, or the sentence vector alone.

    "words" or "sentence"; the thesis uses "sentence".
    """

    groups: int = Field(32, ge=1)
    """Number of groups in each group normalisation, at least 1."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout rate in residual blocks, from 0 to below 1."""

    text_map: int = Field(0, ge=0)
    """Channels of a spatial map of the sentence, which is concatenated to the network's input.

    It gives a small network the place of each object. Cross-attention alone learns that late, since
    its queries do not contain their own position. 0: no map; `map_hops`, `map_heads` and `outline`
    then have no effect.
    """

    map_hops: int = Field(0, ge=0, le=MOST_LAYERS)
    """Number of successive attention blocks in which the places of the text map attend to the
    words.

    Their result is added to the map. It separates the objects of a caption that names several. 0:
    no such attention.
    """

    map_heads: int = Field(4, ge=1)
    """Number of heads in the attention blocks of the text map.

    At least 1. It must divide the width of a word vector.
    """

    outline: float = Field(0.0, ge=0)
    """Weight of an auxiliary loss: the squared error of predicting x_0 from the text map alone.

    The prediction is a 1x1 convolution of the map. It is what the network should predict at pure
    noise: with this loss the map learns from every training image, not only from the few that are
    noised that far. 0: no such loss.
    """

    sentence: bool = False
    """Whether the sentence vector is added to the time embedding, as in GLIDE."""

    weights: str | None = Field(None, min_length=1)
    """Pretrained network to start from: a folder in diffusers' layout, or a name on the hub.

    It is built from its own configuration; the other settings of the U-Net only describe it. None:
    a new network.
    """

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
                "diffusers has one number for both the width of a head in the last level and the "
                "number of heads in "
                "the middle: with attention self there and middle=cross, set head_width to the "
                "square root of the last "
                "level's channels"
            )
        if self.weights and (self.text_map or self.sentence):
            raise ValueError(
                "a U-Net with pretrained weights takes text by cross-attention only: leave out "
                "text_map and sentence"
            )
        return self

    def heads_of(self, channels: int) -> int:
        """Return the number of heads of cross-attention in a level.

        Args:
            channels: Channels of the level.

        Returns:
            `heads` if it is set, otherwise channels // head_width (1 if that is None).
        """
        return self.heads or channels // (self.head_width or channels)

    @property
    def words(self) -> bool:
        """Whether any part of the network uses cross-attention, to the words or the sentence."""
        return self.middle == "cross"


class DenoisingConfig(ModelConfig):
    """Settings of a diffusion model and its training."""

    renamed: ClassVar[Mapping[str, str]] = {
        "weight_cap": "min_snr_gamma",
        "levels": "noise_level_beta",
    }

    schedule: NoiseSchedule = "linear"
    """Noise schedule of the diffusion process.

    "linear", "scaled_linear" and "cosine" are discrete schedules (DDPM) of `timesteps` steps.
    "mixing" is the straight path x_t = (1 - t) x_0 + t eps with t in [0, 1] (the thesis; flow
    matching).
    """

    timesteps: int = Field(1000, ge=1)
    """Number T of timesteps of a discrete schedule.

    At least 1. Schedule "mixing" ignores it.
    """

    trained_betas: tuple[float, ...] = ()
    """All beta_t of a custom discrete schedule, which replaces the one that `schedule` names.

    `timesteps` numbers between 0 and 1. Empty: use `schedule`.
    """

    prediction: Prediction = "epsilon"
    """What the network predicts.

    "epsilon" (the noise), "sample" (x_0), "v" (alpha eps - sigma x_0), "velocity" (dx_t/dt, which
    is eps - x_0; only with schedule "mixing") or "score" (-eps / sigma).
    """

    error: Literal["prediction", "x_0"] = "prediction"
    """What the loss compares: the network's prediction, or the x_0 that it implies.

    "prediction" or "x_0". With prediction "v", "x_0" weights a timestep by sigma^2: most where the
    noise is strong and the text decides. With prediction "score", "prediction" weights the squared
    error by sigma^2 (Song et al. 2021), which makes it the error of the noise.
    """

    min_snr_gamma: float = Field(1.0, ge=1)
    """Upper bound gamma of the weight min(1 / sigma^2, gamma) of the squared error of x_0.

    Used only with error "x_0"; at least 1. In a variance-preserving schedule the weight is min(1 +
    SNR, gamma), after Hang et al. 2023. 1 leaves the error of x_0 as it is; a large gamma gives the
    error of v, with all noise levels weighted alike. Values in between weight details more than the
    former and less than the latter.
    """

    loss: Literal["l2", "l1"] = "l2"
    """Error that is minimised: "l2" (mean squared) or "l1" (mean absolute)."""

    noise_level_beta: tuple[float, float] | None = None
    """Parameters (a, b) of the Beta distribution from which training noise levels are drawn.

    Both above 0. Levels go from 0 (clean) to 1 (pure noise). None: uniform.
    """

    caption_dropout: float = Field(0.1, ge=0, le=1)
    """Fraction of captions dropped in training, which classifier-free guidance needs.

    From 0 to 1.
    """

    lr: float = Field(1e-4, gt=0)
    """Learning rate of the U-Net (Adam), above 0."""

    lr_text: float = Field(1e-4, gt=0)
    """Learning rate of the text encoder (Adam), above 0.

    Used only if the text encoder is trained with the network; it then needs a smaller rate than
    `lr`.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of Adam's averages of gradients and of squared gradients."""

    @model_validator(mode="after")
    def _defined(self) -> Self:
        if self.schedule != "mixing" and self.prediction == "velocity":
            raise ValueError(
                f"velocity is the derivative of x_t in continuous time, and "
                f"schedule={self.schedule} counts steps: "
                "set schedule=mixing, or prediction=v"
            )
        if self.noise_level_beta is not None and min(self.noise_level_beta) <= 0:
            raise ValueError(
                "noise_level_beta: the two parameters of a Beta distribution must be positive"
            )
        if self.trained_betas and len(self.trained_betas) != self.timesteps:
            raise ValueError(
                f"trained_betas has {len(self.trained_betas)} numbers, but timesteps is "
                f"{self.timesteps}"
            )
        return self


# Settings with which a small diffusion model trains quickly on a CPU (docs/learning.md).
QUICK = {
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
    "schedule": "cosine",
    "prediction": "v",
    "error": "x_0",
    "lr": 1.5e-3,
    "lr_text": 1e-4,
    "betas": (0.9, 0.99),
}
