"""Settings of score-based models through stochastic differential equations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Config, Preset
from t2i.plugins.common.diffusion.config import PixelConfig, SpaceConfig

MOST_RATE = 150.0
"""Largest `beta_1`. alpha(1) is then exp(-37.5), whose square is still a number in float32."""


class NCSNppConfig(Config):
    """Settings of the paper's networks. The defaults are NCSN++ for CIFAR-10.

    DDPM++ is the same network with positional embedding, and without filter and pyramid.
    """

    width: int = Field(128, ge=8, multiple_of=4)
    """Channels of the first level."""

    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    """Channels of each level, as multiples of `width`. Each level after the first has half the
    resolution of the one before."""

    layers: int = Field(4, ge=1, le=MOST_LAYERS)
    """Residual blocks in each level."""

    attention: tuple[int, ...] = (16,)
    """Heights (in pixels) of the features whose blocks attend to each other. The middle always
    does."""

    embedding: Literal["fourier", "positional"] = "fourier"
    """How the noise level is embedded: by random Fourier features of its logarithm ("fourier"), or
    by sinusoids of the time ("positional")."""

    fourier_scale: float = Field(16.0, gt=0)
    """Standard deviation of the frequencies of the Fourier features."""

    fir: bool = True
    """Whether features are resampled with the filter [1, 3, 3, 1]. Otherwise pixels are repeated,
    and averaged."""

    progressive_input: Literal["none", "residual", "input_skip"] = "residual"
    """How smaller copies of the input join the levels: "none"; "residual", by filtered
    convolutions; or "input_skip", by the filter and a 1x1 convolution."""

    progressive: Literal["none", "output_skip"] = "none"
    """How the output is made: by the last level ("none"), or as the sum of outputs of all levels
    ("output_skip")."""

    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout rate in residual blocks, 0 to below 1."""

    sentence: bool = False
    """Whether a linear map of the sentence is added to the embedding of the noise level. It is not
    in the paper."""

    words: bool = False
    """Whether the places of the image attend to the words after each attention to each other. It is
    not in the paper."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError("multipliers: at least one number, all of them at least 1")
        pyramids = (self.progressive_input, self.progressive) != ("none", "none")
        if pyramids and not self.fir:
            raise ValueError("progressive_input and progressive use the filter: set fir=true")
        return self


class ScoreSDEConfig(SpaceConfig, PixelConfig):
    """Settings of score-based models."""

    sde: Literal["ve", "vp", "sub-vp"] = "ve"
    """The stochastic differential equation: variance exploding ("ve"), variance preserving ("vp")
    or "sub-vp"."""

    sigma_min: float = Field(0.01, gt=0)
    """Smallest noise level of "ve", as a standard deviation for images in [0, 1]. For images in
    [-1, 1] it is twice that."""

    sigma_max: float = Field(50.0, gt=0)
    """Largest noise level of "ve", in the same unit: about the largest distance between two images.
    """

    beta_0: float = Field(0.1, gt=0)
    """Rate of "vp" and "sub-vp" at time 0."""

    beta_1: float = Field(20.0, gt=0, le=MOST_RATE)
    """Rate of "vp" and "sub-vp" at time 1, at most 150: above, float32 cannot hold alpha(1)^2."""

    t_min: float = Field(1e-5, gt=0, lt=1)
    """Smallest time of training, a share of the path. Times are uniform from it to 1."""

    weighting: Literal["std", "likelihood"] = "std"
    """Weight of the error of the score: sigma^2 ("std"), or g^2 ("likelihood"), which makes the
    loss a bound of the likelihood (Song et al. 2021, arXiv:2101.09258)."""

    weight_bounds: tuple[float, float] | None = None
    """Smallest and largest weight of the squared error of x_0. None: as the weighting says, which
    is from almost 0 to a million. Behind patches a small network cannot pass on all of the noise,
    and learns better with (1, 5)."""

    reduction: Literal["mean", "half-sum"] = "mean"
    """How squared errors of the values of an image are joined: their "mean", or half of their sum.
    The paper's VE models have the latter."""

    network: Literal["unet", "ncsnpp", "diffusers"] = "ncsnpp"
    """The network: `unet`, `ncsnpp`, or the one of a folder of diffusers ("diffusers"), which
    `unet.weights` names."""

    prediction: Literal["epsilon", "sample", "v"] = "epsilon"
    """What the network `unet` computes: eps, x_0 ("sample") or v. The other networks compute eps.
    The loss is that of the score in any case."""

    ncsnpp: NCSNppConfig = NCSNppConfig()
    """The paper's network, where `network` is "ncsnpp"."""

    @property
    def uses_unet(self) -> bool:
        return self.network != "ncsnpp"

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        from t2i.plugins.models.scoresde.presets import PRESETS

        return PRESETS

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        from t2i.plugins.models.scoresde.presets import sized

        return sized(size, memory)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError("sigma_min must be below sigma_max")
        if self.beta_0 >= self.beta_1:
            raise ValueError("beta_0 must be below beta_1")
        bounds = self.weight_bounds
        if bounds is not None and not 0 <= bounds[0] <= bounds[1]:
            raise ValueError("weight_bounds: two ascending numbers from 0")
        if self.network != "unet" and self.prediction != "epsilon":
            raise ValueError(f"network={self.network} computes eps: set prediction=epsilon")
        if self.network != "unet" and self.autoencoder is not None:
            raise ValueError("autoencoder: on latents set network=unet")
        if self.network == "diffusers" and (self.sde != "ve" or not self.unet.weights):
            raise ValueError("network=diffusers has sde=ve, and unet.weights names its folder")
        if self.network == "ncsnpp":
            self._fits()
        return self

    def _fits(self) -> None:
        """Raise ValueError if the paper's network does not fit the equation or the image size."""
        if self.sde == "ve" and self.ncsnpp.embedding == "positional":
            raise ValueError("ncsnpp.embedding=positional is for times: set sde=vp or sub-vp")
        step = 2 ** (len(self.ncsnpp.multipliers) - 1)
        if self.image_size % step:
            raise ValueError(f"image_size ({self.image_size}) must be a multiple of {step}")
