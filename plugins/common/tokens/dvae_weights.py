"""Import of openai's dVAE (github.com/openai/DALL-E), from one state dict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from t2i.core.errors import UserError
from t2i.plugins.common.tokens.tokenizer_config import TokenizerConfig
from t2i.plugins.common.weights.legacy import renamed

MARK = "decoder.blocks.input.w"
"""A tensor that only this file has."""

RULES = (
    (r"^encoder\.blocks\.output\.conv\.w$", "quantizer.proj.weight"),
    (r"^encoder\.blocks\.output\.conv\.b$", "quantizer.proj.bias"),
    (r"^decoder\.blocks\.input\.w$", "quantizer.embed.weight"),
    (r"^decoder\.blocks\.input\.b$", "decoder.bias"),
)
"""Names of openai's tensors where ours differ."""

CONVERT = (
    "python -c \"import torch; s = {n + '.' + k: v for n in ('encoder', 'decoder') for k, v in "
    "torch.load(n + '.pkl', weights_only=False).state_dict().items()}; torch.save(s, 'dvae.pth')\""
)
"""Command that makes one state dict of openai's pickles, where the package dall_e is installed."""


def refuse_pickles(path: Path) -> None:
    """Refuse openai's own files, which are pickled programs.

    Args:
        path: A file.

    Raises:
        UserError: It is named like one of them.
    """
    if path.suffix == ".pkl":
        raise UserError(
            f"{path} is a pickled network, which would run code and is not read; where openai's "
            f"package dall_e is installed, beside encoder.pkl and decoder.pkl, run {CONVERT} and "
            "give dvae.pth"
        )


def dvae_of(state: Mapping[str, Tensor], where: str) -> tuple[TokenizerConfig, dict[str, Tensor]]:
    """Translate openai's dVAE.

    Args:
        state: State dicts of encoder and decoder, under "encoder." and "decoder.".
        where: The file, for errors.

    Returns:
        Settings that describe it, and the state dict of its `ImageTokenizer`.

    Raises:
        UserError: A tensor that tells its sizes is missing.
    """
    first = state.get("encoder.blocks.input.w")
    if first is None or MARK not in state or state[MARK].dim() != 4:
        raise UserError(f"weights {where}: this is no dVAE with encoder and decoder")
    width, K = state[MARK].shape[:2]
    parts = [key.split(".") for key in state if key.startswith("encoder.blocks.group_")]
    config = TokenizerConfig.of(
        {
            "kind": "dvae",
            "vocabulary": K,
            "code_width": width,
            "dvae": {
                "channels": len(first),
                "groups": len({part[2] for part in parts}),
                "blocks": len({part[3] for part in parts if part[2] == "group_1"}),
            },
            "quantizer": {"kind": "gumbel"},
            "losses": {"reconstruction": "logit_laplace"},
        },
        f"weights {where}",
    )
    ours = renamed(state, RULES)
    ours["quantizer.embed.weight"] = ours["quantizer.embed.weight"][..., 0, 0].T.contiguous()
    return config, ours
