"""Files of VQGANs that the authors released (CompVis/taming-transformers, latent-diffusion).

A checkpoint holds the autoencoder besides the networks of its loss, which are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from t2i.core.errors import UserError
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig
from t2i.plugins.common.weights.legacy import read_lightning, side

KEPT = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "quantize.")
CHECKPOINTS = ("checkpoints/last.ckpt", "ckpts/last.ckpt")
"""Where the checkpoint is in a folder that the authors released."""


def read_taming(path: Path) -> tuple[TokenizerConfig, dict[str, Tensor]]:
    """Read a VQGAN of the authors.

    Args:
        path: Its checkpoint.

    Returns:
        The settings that its tensors describe, and the tensors by the names of `ImageTokenizer`.

    Raises:
        UserError: The file cannot be read, or holds no VQGAN.
    """
    return translated(read_lightning(path), str(path))


def translated(
    state: Mapping[str, Tensor], where: str
) -> tuple[TokenizerConfig, dict[str, Tensor]]:
    """Translate the tensors of a VQGAN of the authors.

    Args:
        state: Its tensors; those of its losses are left out.
        where: Where they are from, for errors.

    Returns:
        The settings that the tensors describe, and the tensors by the names of `ImageTokenizer`.

    Raises:
        UserError: The tensors are not those of a VQGAN.
    """
    state = {name: tensor for name, tensor in state.items() if name.startswith(KEPT)}
    config = described(state, where)
    prefix, own = "quantize.", "quantizer."
    return config, {
        own + name.removeprefix(prefix) if name.startswith(prefix) else name: tensor
        for name, tensor in state.items()
    }


def described(state: Mapping[str, Tensor], where: str) -> TokenizerConfig:
    """Describe a VQGAN by the sizes of its tensors.

    Args:
        state: Its tensors by the authors' names.
        where: Where they are from, for errors.

    Returns:
        The settings.

    Raises:
        UserError: The tensors are not those of a VQGAN.
    """
    channels = side(state, "encoder.conv_in.weight", where)
    levels = _count(state, "encoder.down.{}.block.0.conv1.weight")
    widths = [side(state, f"encoder.down.{i}.block.0.conv1.weight", where) for i in range(levels)]
    gumbel = "quantize.proj.weight" in state
    codes = "quantize.embed.weight" if gumbel else "quantize.embedding.weight"
    if codes not in state:
        raise UserError(
            f"weights {where}: it has no '{codes}', so it is no VQGAN (an autoencoder with a KL "
            "term has no tokens)"
        )
    return TokenizerConfig.of(
        {
            "kind": "vqgan",
            "vocabulary": side(state, codes, where),
            "code_width": side(state, codes, where, 1),
            "vqgan": {
                "channels": channels,
                "multiples": [width // channels for width in widths],
                "blocks": _count(state, "encoder.down.0.block.{}.conv1.weight"),
                "attention": [
                    i for i in range(levels) if f"encoder.down.{i}.attn.0.q.weight" in state
                ],
                "latent_channels": side(state, "encoder.conv_out.weight", where),
            },
            "quantizer": (
                {"kind": "gumbel", "kl_weight": 1e-8, "hard": True}
                if gumbel
                else {"kind": "codebook", "legacy": True}
            ),
        },
        where,
    )


def _count(state: Mapping[str, Tensor], name: str) -> int:
    """Count the numbers from 0 on for which there is a tensor of this name."""
    n = 0
    while name.format(n) in state:
        n += 1
    return n
