"""Settings of tokenizers, which turn images into tokens and back. This does not import torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Config

Kind = Literal["vqgan", "vqvae", "vit", "dvae"]
Width = Annotated[int, Field(ge=1, le=65536)]
Level = Annotated[int, Field(ge=0, le=16)]


class VQGANSizes(Config):
    """Sizes of VQGAN's encoder and decoder."""

    patch: int = Field(1, ge=1, le=256)
    """Side, in pixels, of the squares that become channels before the convolutions
    (space-to-depth). 1, as in the paper, turns this off."""

    channels: Width = 128
    """Channels of the first level."""

    multiples: tuple[Annotated[int, Field(ge=1, le=256)], ...] = Field(
        (1, 1, 2, 2, 4), min_length=1, max_length=16
    )
    """Channels of each level, relative to `channels`. Each level after the first is half the size
    of the one before it."""

    blocks: int = Field(2, ge=1, le=MOST_LAYERS)
    """Residual blocks in each level of the encoder. The decoder has one more."""

    attention: tuple[Level, ...] = (4,)
    """Levels with self-attention, from 0, the largest, on."""

    middle_attention: bool = True
    """Whether the middle block has self-attention, as in the paper."""

    latent_channels: Width = 256
    """Channels of the encoder's output and of the decoder's input."""

    groups: Width = 32
    """Groups in each group normalisation."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of dropout in residual blocks."""

    @property
    def reduction(self) -> int:
        """Ratio of the image's side to the grid's."""
        return self.patch << (len(self.multiples) - 1)


class VQVAESizes(Config):
    """Sizes of the VQ-VAE's encoder and decoder."""

    channels: Width = 128
    """Channels of the convolutions. The one at the largest size has half of them."""

    levels: int = Field(2, ge=1, le=16)
    """Number of convolutions that halve the size."""

    residual_layers: int = Field(2, ge=0, le=MOST_LAYERS)
    """Residual layers in the encoder, and as many in the decoder."""

    residual_channels: Width = 32
    """Channels inside a residual layer."""

    @property
    def reduction(self) -> int:
        """Ratio of the image's side to the grid's."""
        return 1 << self.levels


class ViTTransformerSizes(Config):
    """Sizes of the encoder or of the decoder of ViT-VQGAN. The defaults are its "base"."""

    layers: int = Field(12, ge=1, le=MOST_LAYERS)
    """Number of layers."""

    width: int = Field(768, ge=4, le=65536, multiple_of=4)
    """Width of a place. A multiple of 4."""

    heads: int = Field(12, ge=1)
    """Attention heads."""

    head_width: Width = 64
    """Channels of one attention head."""

    hidden: Width = 3072
    """Width of the perceptron's hidden layer."""


class ViTSizes(Config):
    """Sizes of ViT-VQGAN's encoder and decoder."""

    patch: int = Field(8, ge=1, le=256)
    """Side of the squares of pixels that become one token."""

    encoder: ViTTransformerSizes = ViTTransformerSizes()
    """The encoder."""

    decoder: ViTTransformerSizes = ViTTransformerSizes()
    """The decoder."""

    @property
    def reduction(self) -> int:
        """Ratio of the image's side to the grid's."""
        return self.patch


class DVAESizes(Config):
    """Sizes of the dVAE's encoder and decoder."""

    channels: Width = 256
    """Channels of the first group, a multiple of 4. Each group after it has twice as many."""

    groups: int = Field(4, ge=1, le=16)
    """Number of groups of blocks. Each after the first has half the size of the one before it."""

    blocks: int = Field(2, ge=1, le=MOST_LAYERS)
    """Residual blocks in each group."""

    @model_validator(mode="after")
    def _quarters(self) -> Self:
        if self.channels % 4:
            raise ValueError(f"channels ({self.channels}) must be a multiple of 4")
        return self

    @property
    def reduction(self) -> int:
        """Ratio of the image's side to the grid's."""
        return 1 << (self.groups - 1)

    @property
    def last(self) -> int:
        """Channels of the last group."""
        return self.channels << (self.groups - 1)


class QuantizerConfig(Config):
    """Settings of the quantizer, which takes the nearest of K vectors, or draws one of them."""

    kind: Literal["codebook", "ema", "gumbel"] = "codebook"
    """How the vectors are learned: "codebook" by gradients, "ema" as moving averages of what they
    stand for, "gumbel" with tokens drawn by the Gumbel-softmax relaxation."""

    beta: float = Field(0.25, ge=0)
    """Weight of the commitment term ||z - sg e||^2, beside the codebook's ||sg z - e||^2. With
    `legacy` it is that of the codebook's term."""

    legacy: bool = False
    """Whether `beta` weighs the codebook's term and not the commitment term, as in the released
    code of VQGAN (taming-transformers)."""

    weight: float = Field(1.0, ge=0)
    """Weight of the quantizer's loss. For "gumbel" it is multiplied by `kl_weight`."""

    normalised: bool = False
    """Whether z and the vectors are scaled to length 1 (Yu et al. 2022, ViT-VQGAN)."""

    decay: float = Field(0.99, ge=0, lt=1)
    """Decay of the moving averages of "ema", and of the counts that `restart` reads."""

    epsilon: float = Field(1e-5, gt=0)
    """Number that is added to the counts of "ema" (Laplace smoothing)."""

    restart: float = Field(0.0, ge=0, lt=1)
    """Usage below which a vector is replaced by a random output of the encoder.

    Usage is the share of tokens, times K: 1 if all are used alike. All vectors begin as outputs of
    the encoder then. 0, as in the papers, turns this off.
    """

    temperature: float = Field(1.0, gt=0)
    """Temperature of the Gumbel-softmax at the start of the training."""

    last_temperature: float = Field(0.0625, gt=0)
    """Temperature of the Gumbel-softmax at `cooled`; between them it follows a cosine."""

    cooled: float = Field(0.5, gt=0, le=1)
    """Share of the stage after which the temperature is `last_temperature`."""

    hard: bool = False
    """Whether "gumbel" takes one vector, with the gradients of the mixture (straight-through)."""

    kl_weight: float = Field(0.0, ge=0)
    """Weight of the KL term of "gumbel", between the tokens' probabilities and equal ones. It is
    averaged over tokens."""

    kl_warmup: float = Field(0.0, ge=0, le=1)
    """Share of the stage in which the weight of the KL term rises from 0, along a cosine."""


class DiscriminatorConfig(Config):
    """Sizes of the discriminator of patches, and its optimizer."""

    channels: Width = 64
    """Channels of the first convolution."""

    layers: int = Field(3, ge=1, le=16)
    """Number of convolutions that halve the size."""

    lr: float | None = Field(None, gt=0)
    """Learning rate of its Adam. None: that of the autoencoder."""


class AdversarialConfig(Config):
    """Perceptual and adversarial terms of an autoencoder's loss."""

    perceptual: float = Field(0.0, ge=0)
    """Weight of the perceptual term (LPIPS). 0 turns it off; else `t2i fetch lpips` is needed."""

    adversarial: float = Field(0.0, ge=0)
    """Weight of the adversarial term, beside the adaptive one. 0: there is no discriminator."""

    adversarial_start: float = Field(0.5, ge=0, lt=1)
    """Share of the stage after which the discriminator and its term begin."""

    adaptive: bool = True
    """Whether the adversarial term is scaled so that its gradient at the last layer is as large as
    that of the reconstruction."""

    adversarial_loss: Literal["hinge", "bce"] = "hinge"
    """Loss of the discriminator: "hinge" or "bce". The decoder maximises its output."""

    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    """The discriminator."""


class LossesConfig(AdversarialConfig):
    """Terms of a tokenizer's loss beside the quantizer's."""

    reconstruction: Literal["l1", "l2", "logit_laplace"] = "l1"
    """The error of the reconstruction: "l1", "l2" (both means over all values) or "logit_laplace",
    the likelihood of DALL-E's dVAE, for which the decoder returns a scale beside each value."""

    variance: float | None = Field(None, gt=0)
    """Number that the squared error is divided by: the variance of the training images (VQ-VAE).
    None: 1."""


class TokenizerConfig(Config):
    """Settings of a tokenizer and of its training."""

    weights: str | None = Field(None, min_length=1)
    """Pretrained tokenizer: a name that a data set ships (shapes-tokens), a folder of a tokenizer,
    or the authors' file of a VQGAN. It is not trained, and describes its own sizes: `kind` and all
    sizes here are ignored. None: a tokenizer of the settings below is trained."""

    kind: Kind = "vqgan"
    """Kind of the encoder and decoder: "vqgan", "vqvae", "vit" (ViT-VQGAN's) or "dvae" (DALL-E's),
    whose quantizer is "gumbel"."""

    vocabulary: int = Field(1024, ge=1, le=1 << 24)
    """Number K of different tokens."""

    code_width: Width = 256
    """Length D of the vector that a token stands for."""

    vqgan: VQGANSizes = VQGANSizes()
    """Sizes of the kind "vqgan"."""

    vqvae: VQVAESizes = VQVAESizes()
    """Sizes of the kind "vqvae"."""

    vit: ViTSizes = ViTSizes()
    """Sizes of the kind "vit"."""

    dvae: DVAESizes = DVAESizes()
    """Sizes of the kind "dvae"."""

    quantizer: QuantizerConfig = QuantizerConfig()
    """The quantizer."""

    losses: LossesConfig = LossesConfig()
    """Terms of the loss."""

    lr: float = Field(5.4e-5, gt=0)
    """Learning rate of Adam for the tokenizer."""

    betas: tuple[float, float] = (0.5, 0.9)
    """Adam's two decay rates for the tokenizer."""

    batch_size: int | None = Field(None, ge=1)
    """Images in one step of this stage. None: the model's batch size."""

    share: float = Field(0.3, gt=0, lt=1)
    """Share of the whole training budget for this stage. Between 0 and 1."""

    @model_validator(mode="after")
    def _relaxed(self) -> Self:
        if self.kind == "dvae" and self.quantizer.kind != "gumbel":
            raise ValueError("the kind dvae draws its tokens: set quantizer.kind=gumbel")
        return self

    @property
    def reduction(self) -> int:
        """Ratio of the image's side to that of the grid of tokens."""
        sizes: VQGANSizes | VQVAESizes | ViTSizes | DVAESizes = getattr(self, self.kind)
        return sizes.reduction
