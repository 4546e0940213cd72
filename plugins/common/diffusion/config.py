"""Settings of diffusion models, their U-Nets and their samplers. Light: no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.settings import MOST_LAYERS, Config, ModelConfig

Spacing = Literal["trailing", "leading", "linspace"]


Ending = Literal["x_0", "first"]

NOISIEST = 200.0
"""sigma / alpha that shortened chains begin below. Cosine and mixing schedules end (almost) without signal, where
solvers of the differential equation in sigma / alpha take one enormous step, and predictions divided by alpha are lost
to rounding. DDPM's linear schedule ends at 157, Stable Diffusion's at 14.6: they are taken whole."""


class DiffusionSamplerConfig(SamplerConfig):
    """What every sampler of diffusion models can be told.

    interval: of noise levels, from 0 (clean) to 1 (pure noise), within which guidance is on; outside it the
    unconditional network is not run (Kynkaanniemi et al. 2024). rescale: how far a guided prediction's standard
    deviation is drawn back to that of the conditional one, 0 to 1 (Lin et al. 2024, equation 16).
    spacing: how the `steps` times are chosen among the schedule's T. "trailing" begins at pure noise, as sampling does;
    "leading" is the DDIM paper's; "linspace" takes both ends. offset: added to "leading" times (Stable Diffusion: 1).
    noisiest: sigma / alpha that a chain of fewer than T steps begins below (None: no bound, as in diffusers' pipelines;
    continuous noise levels need one, and keep the usual).
    """

    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = Field(0.0, ge=0, le=1)
    spacing: Spacing = "trailing"
    offset: int = Field(0, ge=0)
    noisiest: float | None = Field(NOISIEST, gt=0)

    @field_validator("interval")
    @classmethod
    def _ascending(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= interval[0] <= interval[1] <= 1:
            raise ValueError("two ascending numbers between 0 and 1")
        return interval


NoiseSchedule = Literal["linear", "scaled_linear", "cosine", "mixing"]
Attention = Literal["none", "self", "cross"]


class UNetConfig(Config):
    """A diffusers U-Net: UNet2DConditionModel if anything attends to words, else UNet2DModel, the DDPM paper's.

    channels: of each level. layers: residual blocks a level. attention: what each level's blocks attend to: nothing,
    themselves, or themselves and the words (thesis 2.33). middle: the same for the middle block. head_width: channels
    of one attention head (None: one head of all). heads: of every attention to words, whatever their width (None:
    head_width says). dropout: in residual blocks.
    context: what cross-attention sees: all words, or the sentence as the only one (the thesis).
    text_map: channels of a spatial map of the sentence that joins the input at the stem (0: none). It tells a small
    network where things belong, which cross-attention alone learns late: its queries do not know where they are.
    Without a map the next three say nothing.
    map_hops: how often the places of that map attend to the words besides, one time after the other (0: they do not),
    which is what tells apart the objects of a caption that has several; map_heads: with how many heads.
    outline: weight of a second loss, the squared error of x_0 as a linear function of that map tells it (0: none).
    It is what the network is to say where all is noise, so the map learns from every picture what else it would learn
    from the few that are noised so far.
    sentence: whether the sentence is added to the time embedding (as GLIDE does).
    weights: a network that was trained elsewhere, as a folder in diffusers' layout or a hub name. It comes with its own
    configuration; the settings above only describe it.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers: int = Field(2, ge=1, le=MOST_LAYERS)
    attention: tuple[Attention, ...] = ("cross", "cross", "cross", "none")
    middle: Attention = "cross"
    head_width: int | None = Field(64, ge=1)
    heads: int | None = Field(None, ge=1)
    context: Literal["words", "sentence"] = "words"
    groups: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    text_map: int = Field(0, ge=0)
    map_hops: int = Field(0, ge=0, le=MOST_LAYERS)
    map_heads: int = Field(4, ge=1)
    outline: float = Field(0.0, ge=0)
    sentence: bool = False
    weights: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _levels_agree(self) -> UNetConfig:
        if len(self.attention) != len(self.channels):
            raise ValueError(f"attention has {len(self.attention)} levels, channels {len(self.channels)}")
        if "cross" in self.attention and self.middle != "cross":
            raise ValueError("where a level attends to words, the middle does too: set middle=cross")
        if self.heads and not self.words:
            raise ValueError("heads: nothing attends to words; set head_width")
        last, described = self.channels[-1], self.weights is not None
        if self.attention[-1] == "self" and self.words and not described and self.heads_of(last) != self.head_width:
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
    """Diffusion and its training.

    schedule: the noise added: the three of DDPM's kind, over `timesteps` steps, or "mixing", x_t = (1 - t) x_0 + t eps
    with continuous t (the thesis'). trained_betas: all beta_t, of a schedule that has no name here.
    prediction: what the network predicts. error: whether the loss is of that, or of the x_0 it implies, which with v
    weighs a step by sigma^2 (most where the noise is strong and the text decides). weight_cap: the squared error of x_0
    is multiplied by min(1 / sigma^2, cap) = min(1 + SNR, cap): 1 leaves it as it is; a large cap gives the error of v,
    all noise levels alike; between them, details count more than in the one and less than in the other (after Hang et
    al. 2023, whose gamma is the cap).
    loss: mean squared (l2) or mean absolute (l1) error. levels: (a, b), the noise level being drawn from Beta(a, b)
    instead of uniformly. caption_dropout: share of captions that are dropped, for classifier-free guidance.
    lr, betas: Adam's; lr_text: of a text encoder that is trained with the network, which wants a smaller one.
    """

    schedule: NoiseSchedule = "linear"
    timesteps: int = Field(1000, ge=1)
    trained_betas: tuple[float, ...] = ()
    prediction: Literal["epsilon", "sample", "v"] = "epsilon"
    error: Literal["prediction", "x_0"] = "prediction"
    weight_cap: float = Field(1.0, ge=1)
    loss: Literal["l2", "l1"] = "l2"
    levels: tuple[float, float] | None = None
    caption_dropout: float = Field(0.1, ge=0, le=1)
    lr: float = Field(1e-4, gt=0)
    lr_text: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)

    @model_validator(mode="after")
    def _defined(self) -> Self:
        if self.schedule == "mixing" and self.prediction == "v":
            raise ValueError("v needs a schedule that preserves variance: choose another prediction for 'mixing'")
        if self.levels is not None and min(self.levels) <= 0:
            raise ValueError("levels: the two parameters of a Beta distribution are positive")
        if self.trained_betas and len(self.trained_betas) != self.timesteps:
            raise ValueError(f"trained_betas are {len(self.trained_betas)}, timesteps {self.timesteps}")
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
