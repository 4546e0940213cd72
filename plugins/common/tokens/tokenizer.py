"""Tokenizers: networks that turn images into tokens, and tokens into images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t2i.core.errors import UserError
from t2i.core.io.json_files import read_object, write_json
from t2i.core.io.sealed import seal, verify
from t2i.core.io.tensors import load_tensors, save_tensors
from t2i.core.registry.tables import registry
from t2i.plugins.common.tokens.dvae import DVAEDecoder, DVAEEncoder, quantizer_of_dvae
from t2i.plugins.common.tokens.dvae_weights import MARK, dvae_of, refuse_pickles
from t2i.plugins.common.tokens.quantizers import Quantised, Quantizer, quantizer_of
from t2i.plugins.common.tokens.taming import CHECKPOINTS, translated
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig
from t2i.plugins.common.tokens.vit import ViTDecoder, ViTEncoder
from t2i.plugins.common.tokens.vqgan import VQGANDecoder, VQGANEncoder
from t2i.plugins.common.tokens.vqvae import VQVAEDecoder, VQVAEEncoder
from t2i.plugins.common.weights.legacy import read_lightning
from t2i.plugins.common.weights.network_types import LEAST, shapes_saved

EPSILON = 0.1
"""Margin of the logit-Laplace distribution: images are mapped to [EPSILON, 1 - EPSILON]."""
DESCRIPTION = "tokenizer.json"
WEIGHTS = "tokenizer.safetensors"
COUNTS = ("quantizer.steps", "quantizer.counts", "quantizer.sums")
"""What a quantizer keeps for its training only."""


class ImageTokenizer(nn.Module):
    """A tokenizer: an encoder, a quantizer of K vectors, and a decoder.

    Args:
        config: Its settings.
        image_size: Height and width of the images in pixels.
        pretrained: Whether its weights are from elsewhere. It is frozen then.

    Attributes:
        config: Its settings.
        vocabulary: Number K of different tokens.
        code_width: Length D of the vector that a token stands for.
        pretrained: Whether it is not trained.
        image_size: Height and width of the images in pixels.
        quantizer: The quantizer.

    Raises:
        UserError: The image size is no multiple of the reduction.
    """

    def __init__(
        self, config: TokenizerConfig, image_size: int, *, pretrained: bool = False
    ) -> None:
        super().__init__()
        if image_size % config.reduction:
            raise UserError(
                f"image_size ({image_size}) must be a multiple of {config.reduction}, the pixels "
                "that a side of a token spans in this tokenizer"
            )
        self.config, self.image_size, self.pretrained = config, image_size, pretrained
        self.vocabulary, self.code_width = config.vocabulary, config.code_width
        self.laplace = config.losses.reconstruction == "logit_laplace"
        self.encoder: Any
        self.decoder: Any
        self.quant_conv: nn.Module
        self.post_quant_conv: nn.Module
        self.encoder, self.decoder, self.quant_conv, self.post_quant_conv = _networks(
            config, self.side
        )
        self.quantizer: Quantizer
        if config.kind == "dvae":
            self.quantizer = quantizer_of_dvae(config)
        else:
            self.quantizer = quantizer_of(config.quantizer, config.vocabulary, config.code_width)
        if pretrained:
            self.requires_grad_(False).eval()

    @property
    def side(self) -> int:
        """Height and width of the grid of tokens."""
        return self.image_size // self.config.reduction

    @property
    def length(self) -> int:
        """Number of tokens of an image."""
        return self.side**2

    def train(self, mode: bool = True) -> ImageTokenizer:
        """Set the training mode. A pretrained tokenizer stays in evaluation mode.

        Args:
            mode: Whether it is in training mode.

        Returns:
            The tokenizer.
        """
        return super().train(mode and not self.pretrained)

    def features(self, images: Tensor) -> Tensor:
        """Encode images, without quantising.

        Args:
            images: Images (B, 3, H, W) in [-1, 1].

        Returns:
            Features z, (B, D, h, w).
        """
        z: Tensor = self.quant_conv(self.encoder(shrunk(images) if self.laplace else images))
        return z

    def quantise(
        self, z: Tensor, temperature: float = 1.0, noise: Tensor | None = None
    ) -> Quantised:
        """Quantise features, so that gradients go through.

        Args:
            z: Features (B, D, h, w).
            temperature: Temperature of the Gumbel-softmax. Other quantizers ignore it.
            noise: Standard Gumbel numbers (B, K, h, w), for the Gumbel-softmax. None: nothing is
                drawn.

        Returns:
            Vectors, tokens and the quantizer's loss.
        """
        quantised: Quantised = self.quantizer(z, temperature, noise)
        return quantised

    def encode(self, images: Tensor) -> Tensor:
        """Turn images into tokens.

        Args:
            images: Images (B, 3, H, W) in [-1, 1].

        Returns:
            Tokens, int64 (B, L), row by row.
        """
        return self.quantizer.tokens(self.features(images))

    def vectors(self, tokens: Tensor) -> Tensor:
        """Look up the vectors of tokens.

        Args:
            tokens: Tokens, int64 (B, L).

        Returns:
            Vectors (B, D, h, w).
        """
        return self.quantizer.vectors(tokens, self.side)

    def decoded(self, vectors: Tensor) -> Tensor:
        """Decode vectors, as the loss needs it.

        Args:
            vectors: Vectors (B, D, h, w).

        Returns:
            Images (B, 3, H, W), not clamped; for the logit-Laplace loss location and log scale
            (B, 6, H, W).
        """
        raw: Tensor = self.decoder(self.post_quant_conv(vectors))
        return raw

    def shown(self, raw: Tensor) -> Tensor:
        """Turn the decoder's output into images.

        Args:
            raw: What `decoded` returns.

        Returns:
            Images (B, 3, H, W).
        """
        return widened(raw[:, :3].sigmoid()) if self.laplace else raw

    def reconstruct(self, vectors: Tensor) -> Tensor:
        """Decode vectors.

        Args:
            vectors: Vectors (B, D, h, w).

        Returns:
            Images (B, 3, H, W), not clamped to [-1, 1].
        """
        return self.shown(self.decoded(vectors))

    def decode(self, tokens: Tensor) -> Tensor:
        """Turn tokens into images.

        Args:
            tokens: Tokens, int64 (B, L).

        Returns:
            Images (B, 3, H, W), not clamped to [-1, 1].
        """
        return self.reconstruct(self.vectors(tokens))


def shrunk(images: Tensor) -> Tensor:
    """Map images from [-1, 1] to [EPSILON, 1 - EPSILON].

    Args:
        images: Images in [-1, 1].

    Returns:
        Images in [EPSILON, 1 - EPSILON].
    """
    return (1 - 2 * EPSILON) * (images + 1) / 2 + EPSILON


def widened(images: Tensor) -> Tensor:
    """Map images back from [EPSILON, 1 - EPSILON] to [-1, 1].

    Args:
        images: Images in [0, 1].

    Returns:
        Images, clamped to [-1, 1].
    """
    return ((images - EPSILON) / (1 - 2 * EPSILON)).clamp(0, 1) * 2 - 1


def _networks(
    config: TokenizerConfig, side: int
) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
    """Build encoder, decoder, and the layers after the one and before the other."""
    D, channels = config.code_width, 6 if config.losses.reconstruction == "logit_laplace" else 3
    if config.kind == "vqvae":
        width = config.vqvae.channels
        decoder = VQVAEDecoder(config.vqvae, D, channels)
        return VQVAEEncoder(config.vqvae), decoder, nn.Conv2d(width, D, 1), nn.Identity()
    if config.kind == "vit":
        return (
            ViTEncoder(config.vit, side),
            ViTDecoder(config.vit, side, channels),
            nn.Conv2d(config.vit.encoder.width, D, 1),
            nn.Conv2d(D, config.vit.decoder.width, 1),
        )
    if config.kind == "dvae":
        decoder_d = DVAEDecoder(config.dvae, D, channels)
        return DVAEEncoder(config.dvae), decoder_d, nn.Identity(), nn.Identity()
    width = config.vqgan.latent_channels
    return (
        VQGANEncoder(config.vqgan),
        VQGANDecoder(config.vqgan, channels),
        nn.Conv2d(width, D, 1),
        nn.Conv2d(D, width, 1),
    )


def tokenizer_of(
    config: TokenizerConfig, image_size: int, assets: Path | None = None
) -> ImageTokenizer:
    """Build or load a tokenizer.

    Args:
        config: Its settings.
        image_size: Height and width of the images in pixels.
        assets: Folder of a saved model, which describes a pretrained tokenizer; its weights are
            loaded later. None: a new model.

    Returns:
        The tokenizer. A pretrained one is frozen.

    Raises:
        UserError: The weights cannot be found or read, or do not fit the image size.
    """
    if config.weights is None:
        return ImageTokenizer(config, image_size)
    if assets is not None:
        described = read_description(assets / "tokenizer")
        if (saved := shapes_saved(assets)) is not None:
            _check_size(described, image_size, saved, str(assets))
        return ImageTokenizer(described, image_size, pretrained=True)
    described, state, where = _pretrained(config.weights)
    _check_size(described, image_size, (tuple(t.shape) for t in state.values()), where)
    tokenizer = ImageTokenizer(described, image_size, pretrained=True)
    # Before torch 2.8, torch.get_default_device() ignores `with torch.device(...)`.
    if not torch.empty(0).is_meta:  # there, weights have no values
        fill(tokenizer, state, where)
    return tokenizer


def _pretrained(name: str) -> tuple[TokenizerConfig, Mapping[str, Tensor], str]:
    """Read what `tokenizer.weights` names: its settings, its weights, and where they are."""
    path = registry().shipped(name) or Path(name).expanduser()
    if (path / DESCRIPTION).is_file():
        verify(path, "tokenizer")
        return read_description(path), load_tensors(path / WEIGHTS, "tokenizer"), str(path)
    file = next((path / one for one in CHECKPOINTS if (path / one).is_file()), path)
    if not file.is_file():
        raise UserError(
            f"tokenizer.weights = {name}: neither a name of shipped weights, nor a folder of a "
            f"tokenizer ({DESCRIPTION} and {WEIGHTS}), nor a checkpoint of a VQGAN; check the path"
        )
    refuse_pickles(file)
    document = read_lightning(file)
    if MARK in document:
        return *dvae_of(document, str(file)), str(file)
    return *translated(document, str(file)), str(file)


def _check_size(
    config: TokenizerConfig, image_size: int, shapes: Iterable[tuple[int, ...]], where: str
) -> None:
    """Raise UserError if a description asks for more numbers than there are.

    A small file could otherwise keep a process building for ever.
    """
    with torch.device("meta"):
        needed = sum(t.numel() for t in ImageTokenizer(config, image_size).state_dict().values())
    if needed > max(sum(map(math.prod, shapes)), LEAST):
        raise UserError(
            f"tokenizer {where}: {DESCRIPTION} describes {needed} numbers, more than the weights "
            "have; get it again from where the weights are from"
        )


def fill(tokenizer: ImageTokenizer, state: Mapping[str, Tensor], where: str) -> None:
    """Load weights into a tokenizer.

    Args:
        tokenizer: The tokenizer.
        state: The weights by name; they may be in half precision.
        where: Where they are from, for errors.

    Raises:
        UserError: A tensor is missing, misfits, or belongs to nothing.
    """
    own = tokenizer.state_dict()
    wrong = [
        name
        for name in sorted({*own, *state})
        if name not in own or name not in state or own[name].shape != state[name].shape
    ]
    if wrong:
        raise UserError(
            f"tokenizer {where}: '{wrong[0][:80]}' is missing, misfits or is of nothing; is it "
            "the right file?"
        )
    tokenizer.load_state_dict(dict(state))


def read_description(folder: Path) -> TokenizerConfig:
    """Read the settings of a saved tokenizer.

    Args:
        folder: Its folder.

    Returns:
        The settings.

    Raises:
        UserError: The file is missing, damaged or has unknown settings.
    """
    document = read_object(folder / DESCRIPTION, f"tokenizer {folder}")
    return TokenizerConfig.of(document, str(folder / DESCRIPTION))


def keep_tokenizer(tokenizer: ImageTokenizer, folder: Path) -> None:
    """Save the description of a pretrained tokenizer beside a model (`Generator.save_assets`).

    Args:
        tokenizer: The tokenizer. One that was not pretrained is described by the model's settings.
        folder: Folder of the saved model.
    """
    if tokenizer.pretrained:
        (folder / "tokenizer").mkdir(exist_ok=True)
        write_json(folder / "tokenizer" / DESCRIPTION, _described(tokenizer))


def save_tokenizer(tokenizer: ImageTokenizer, folder: Path, dtype: torch.dtype) -> None:
    """Write a tokenizer into a folder that `tokenizer.weights` may name.

    What only its training needs is left out: the counts of its quantizer.

    Args:
        tokenizer: The tokenizer.
        folder: The folder.
        dtype: Precision of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DESCRIPTION, _described(tokenizer))
    kept = {
        name: tensor.to(dtype).contiguous()
        for name, tensor in tokenizer.state_dict().items()
        if name not in COUNTS
    }
    save_tensors(folder / WEIGHTS, kept)
    seal(folder)


def _described(tokenizer: ImageTokenizer) -> dict[str, Any]:
    """Return the settings of a tokenizer that is not trained any more."""
    config = tokenizer.config
    quantizer = config.quantizer.model_copy(update={"restart": 0.0})
    if quantizer.kind == "ema":
        quantizer = quantizer.model_copy(update={"kind": "codebook"})
    frozen = config.model_copy(update={"weights": None, "quantizer": quantizer})
    return frozen.model_dump(mode="json")


def gumbel(uniform: Tensor) -> Tensor:
    """Turn uniform numbers into standard Gumbel numbers.

    Args:
        uniform: Numbers in [0, 1).

    Returns:
        -log(-log u), with u kept off 0 and 1.
    """
    tiny = math.ldexp(1.0, -25)
    return -(-uniform.clamp(tiny, 1 - 2 * tiny).log()).log()
