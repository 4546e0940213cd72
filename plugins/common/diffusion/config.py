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
"""What the last step of a chain leads to: x_0, or the schedule's first time (Stable Diffusion's habit)."""


class DiffusionSamplerConfig(SamplerConfig):
    """Settings of every sampler of diffusion models."""

    renamed: ClassVar[Mapping[str, str]] = {
        "interval": "guidance_interval",
        "rescale": "guidance_rescale",
        "offset": "steps_offset",
        "noisiest": "sigma_max",
    }

    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Noise levels, from 0 (clean) to 1 (pure noise), within which guidance is on. Outside them the unconditional
    network is not run (Kynkaanniemi et al. 2024)."""

    guidance_rescale: float = Field(0.0, ge=0, le=1)
    """How far a guided prediction's standard deviation is drawn back to that of the conditional one, 0 to 1 (Lin et al.
    2024, equation 16)."""

    spacing: Spacing = "trailing"
    """How the steps are chosen among the T of a discrete schedule: "trailing" begins at pure noise, as sampling does;
    "leading" is the DDIM paper's; "linspace" takes both ends. Schedules in continuous time know "trailing" alone."""

    steps_offset: int = Field(0, ge=0)
    """Added to "leading" times (Stable Diffusion: 1)."""

    sigma_max: float | None = Field(MOST_NOISE, gt=0)
    """sigma / alpha that a chain begins below, unless it takes all T steps. None: no bound, as in diffusers' pipelines
    (where the path ends without any signal, the usual bound holds)."""

    @field_validator("guidance_interval")
    @classmethod
    def _ascending(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= interval[0] <= interval[1] <= 1:
            raise ValueError("two ascending numbers between 0 and 1")
        return interval


NoiseSchedule = Literal["linear", "scaled_linear", "cosine", "mixing"]
Attention = Literal["none", "self", "cross"]


class UNetConfig(Config):
    """A U-Net of diffusers: UNet2DConditionModel if anything attends to words, else UNet2DModel, the DDPM paper's."""

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Channels of each level. Each level after the first is half the size of the one before."""

    layers: int = Field(2, ge=1, le=MOST_LAYERS)
    """Residual blocks of each level."""

    attention: tuple[Attention, ...] = ("cross", "cross", "cross", "none")
    """What each level's blocks attend to: nothing, themselves, or themselves and the words (thesis 2.33)."""

    middle: Attention = "cross"
    """The same for the middle block."""

    head_width: int | None = Field(64, ge=1)
    """Channels of one attention head. None: one head of all channels."""

    heads: int | None = Field(None, ge=1)
    """Heads of every attention to words, whatever their width. None: head_width says."""

    context: Literal["words", "sentence"] = "words"
    """What cross-attention attends to: all words, or the sentence as the only one (the thesis)."""

    groups: int = Field(32, ge=1)
    """Groups of each group normalisation."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout in residual blocks."""

    text_map: int = Field(0, ge=0)
    """Channels of a spatial map of the sentence that joins the input at the stem. It tells a small network where things
    belong, which cross-attention alone learns late: its queries do not know where they are. 0: no map, and the next
    three settings mean nothing."""

    map_hops: int = Field(0, ge=0, le=MOST_LAYERS)
    """How often, one time after the other, the places of that map attend to the words besides. That tells apart the
    objects of a caption that has several. 0: they do not."""

    map_heads: int = Field(4, ge=1)
    """Heads of that attention."""

    outline: float = Field(0.0, ge=0)
    """Weight of a second loss, the squared error of x_0 as a linear function of that map. It is what the network should
    predict where all is noise: by it the map learns from every image what it would else learn from the few that are
    noised so far. 0: no such loss."""

    sentence: bool = False
    """Whether the sentence is added to the time embedding (as GLIDE does)."""

    weights: str | None = Field(None, min_length=1)
    """A network that was trained elsewhere: a folder in diffusers' layout, or a hub name. It comes with its own
    configuration; the settings above only describe it."""

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
                "diffusers has one number for the last level and the middle, heads there and their width here: where "
                "that level attends to itself and the middle to words, head_width must be the root of its channels"
            )
        if self.weights and (self.text_map or self.sentence):
            raise ValueError(
                "a U-Net that comes with its weights has no other way in for text: no text_map, no sentence"
            )
        return self

    def heads_of(self, channels: int) -> int:
        """How many heads cross-attention has in a level of so many channels."""
        return self.heads or channels // (self.head_width or channels)

    @property
    def words(self) -> bool:
        """Whether any part attends to the words."""
        return self.middle == "cross"


class DenoisingConfig(ModelConfig):
    """Settings of a diffusion model and its training."""

    renamed: ClassVar[Mapping[str, str]] = {
        "weight_cap": "min_snr_gamma",
        "levels": "noise_level_beta",
    }

    schedule: NoiseSchedule = "linear"
    """The noise that is added: the three of DDPM's kind, over `timesteps` steps, or "mixing", the straight path
    x_t = (1 - t) x_0 + t eps with t in [0, 1] (the thesis'; flow matching)."""

    timesteps: int = Field(1000, ge=1)
    """T, the steps of a schedule of DDPM's kind."""

    trained_betas: tuple[float, ...] = ()
    """All beta_t of a schedule that has no name here. Empty: the one that `schedule` names."""

    prediction: Prediction = "epsilon"
    """What the network predicts: the noise, x_0 ("sample"), v = alpha eps - sigma x_0, the path's velocity dx_t/dt (of
    schedule "mixing": eps - x_0), or the score -eps / sigma."""

    error: Literal["prediction", "x_0"] = "prediction"
    """Whether the loss is the error of what is predicted, or of the x_0 that this implies. With v the latter weighs a
    step by sigma^2: most where the noise is strong and the text decides. The error of a score is weighted by sigma^2
    (Song et al. 2021), which makes it that of the noise."""

    min_snr_gamma: float = Field(1.0, ge=1)
    """With error=x_0, the squared error is multiplied by min(1 / sigma^2, gamma); in a variance-preserving schedule
    that is min(1 + SNR, gamma) (after Hang et al. 2023). 1 leaves it as it is; a large gamma gives the error of v, all
    noise levels alike; between them, details count more than in the one and less than in the other."""

    loss: Literal["l2", "l1"] = "l2"
    """Mean squared (l2) or mean absolute (l1) error."""

    noise_level_beta: tuple[float, float] | None = None
    """(a, b): noise levels are drawn from Beta(a, b). None: uniformly."""

    caption_dropout: float = Field(0.1, ge=0, le=1)
    """Share of captions that are dropped in training, for classifier-free guidance."""

    lr: float = Field(1e-4, gt=0)
    """Learning rate of Adam."""

    lr_text: float = Field(1e-4, gt=0)
    """Learning rate of a text encoder that is trained with the network, which wants a smaller one."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's two decay rates."""

    @model_validator(mode="after")
    def _defined(self) -> Self:
        if self.schedule != "mixing" and self.prediction == "velocity":
            raise ValueError(
                f"velocity is the derivative of x_t in continuous time, and schedule={self.schedule} counts steps: "
                "set schedule=mixing, or prediction=v"
            )
        if self.noise_level_beta is not None and min(self.noise_level_beta) <= 0:
            raise ValueError(
                "noise_level_beta: the two parameters of a Beta distribution are positive"
            )
        if self.trained_betas and len(self.trained_betas) != self.timesteps:
            raise ValueError(
                f"trained_betas are {len(self.trained_betas)}, timesteps {self.timesteps}"
            )
        return self


# What a small diffusion model learns fast with on a processor (docs/learning.md).
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
