"""Settings of ADM's U-Net and of its encoder."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Config

Factor = Annotated[float, Field(gt=0)]
Blocks = Annotated[int, Field(ge=1, le=MOST_LAYERS)]
Side = Annotated[int, Field(ge=1)]


class AdmConfig(Config):
    """Settings of ADM's U-Net. The defaults are those that its models share."""

    base: int = Field(256, ge=2)
    """Channels that `multipliers` multiply. An even number."""

    multipliers: tuple[Factor, ...] = Field((1, 1, 2, 2, 4, 4), min_length=1)
    """Factor of the channels in each level. Each level after the first has half the resolution."""

    blocks: Blocks | tuple[Blocks, ...] = 2
    """Residual blocks in each level of the encoder: one number for all levels, or one for each. The
    decoder has one more in each level."""

    attention: tuple[Side, ...] = (32, 16, 8)
    """Heights in pixels at which every residual block is followed by attention. The middle always
    has attention."""

    head_width: int | None = Field(64, ge=1)
    """Channels of one attention head. None: `heads` says how many heads there are."""

    heads: int = Field(4, ge=1)
    """Number of attention heads, where `head_width` is None."""

    qkv: Literal["heads", "kinds"] = "heads"
    """Order of the channels of queries, keys and values. "heads": those of the first head come
    first; "kinds": the queries of all heads come first, as in ADM's network for 64 pixels."""

    scale_shift: bool = True
    """Whether the embedding scales and shifts the normalised channels in residual blocks. False: it
    is added before the normalisation."""

    residual_resampling: bool = True
    """Whether residual blocks halve and double the resolution. False: convolutions do."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout rate in residual blocks, 0 to below 1."""

    activation: Literal["silu", "gelu"] = "silu"
    """Nonlinearity. DeepFloyd IF has "gelu"."""

    skip_scale: float = Field(1.0, gt=0)
    """Factor of the sum in which a residual block ends. DeepFloyd IF II has 0.7071."""

    embedding: Factor = 4
    """Width of the timestep embedding, as a multiple of `base`."""

    groups: int = Field(32, ge=1)
    """Groups in each group normalisation."""

    encoder_kv: int = Field(0, ge=0)
    """Width of the vectors, such as words, whose keys and values precede those of the image in
    every attention (GLIDE). 0: there are none."""

    encoder_norm: bool = False
    """Whether these vectors pass a group normalisation in every attention (DeepFloyd IF)."""

    encoder_only: tuple[Side, ...] = ()
    """Heights in pixels at which attention reads these vectors only, and no places of the image
    (DeepFloyd IF, Imagen)."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.base % 2:
            raise ValueError(f"base ({self.base}) must be even")
        if isinstance(self.blocks, tuple) and len(self.blocks) != len(self.multipliers):
            raise ValueError(
                f"blocks has {len(self.blocks)} levels, multipliers {len(self.multipliers)}"
            )
        if not self.encoder_kv and (self.encoder_norm or self.encoder_only):
            raise ValueError("encoder_norm and encoder_only need encoder_kv above 0")
        for width in self.widths:
            if width % self.groups:
                raise ValueError(f"{width} channels cannot be divided into {self.groups} groups")
        if self.encoder_norm and self.encoder_kv % self.groups:
            raise ValueError(
                f"encoder_kv ({self.encoder_kv}) cannot be divided into {self.groups} groups"
            )
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(int(factor * self.base) for factor in self.multipliers)

    @property
    def depths(self) -> tuple[int, ...]:
        """Residual blocks of each level of the encoder."""
        if isinstance(self.blocks, tuple):
            return self.blocks
        return (self.blocks,) * len(self.multipliers)

    @property
    def embedding_width(self) -> int:
        """Width of the timestep embedding."""
        return int(self.base * self.embedding)

    @property
    def step(self) -> int:
        """Height and width of the input may be any multiples of it: what all levels halve."""
        return int(2 ** (len(self.multipliers) - 1))

    def heads_of(self, width: int) -> int:
        """Return the number of attention heads.

        Args:
            width: Channels of the level.

        Returns:
            The number.

        Raises:
            ValueError: The channels cannot be divided into such heads.
        """
        heads = width // self.head_width if self.head_width else self.heads
        if not heads or width % heads or (self.head_width and width % self.head_width):
            raise ValueError(
                f"attention: {width} channels cannot be divided into heads "
                f"(head_width={self.head_width}, heads={self.heads})"
            )
        return heads
