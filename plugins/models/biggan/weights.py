"""The names of BigGAN's authors (github.com/ajbrock/BigGAN-PyTorch) for our networks' weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from t2i.plugins.common.weights.legacy import renamed, without_prefix

LAYERS = (
    (r"^blocks\.(\d+)\.1\.theta\.", r"attention.\1.query."),
    (r"^blocks\.(\d+)\.1\.phi\.", r"attention.\1.key."),
    (r"^blocks\.(\d+)\.1\.g\.", r"attention.\1.value."),
    (r"^blocks\.(\d+)\.1\.o\.", r"attention.\1.out."),
    (r"^blocks\.(\d+)\.1\.gamma$", r"attention.\1.gamma"),
    (r"^blocks\.(\d+)\.0\.", r"blocks.\1."),
    (r"\.conv_sc\.", ".shortcut."),
    (r"\.u0$", ".u"),
)
GENERATOR = (
    *LAYERS,
    (r"\.bn(\d)\.stored_", r".norm\1.norm.running_"),
    (r"\.bn(\d)\.", r".norm\1."),
    (r"^linear\.", "start."),
    (r"^output_layer\.0\.gain$", "norm.weight"),
    (r"^output_layer\.0\.stored_", "norm.running_"),
    (r"^output_layer\.0\.", "norm."),
    (r"^output_layer\.2\.", "to_rgb."),
)
OUTPUT = (*LAYERS, (r"^linear\.", "score."))


def generator_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the authors' G.

    Their shared embedding of a class is our linear map of a one-hot sentence.

    Args:
        state: State dict of G, with or without the prefix "module.".

    Returns:
        The state dict of `BigGANGenerator`, without the counters of batch norm.

    Raises:
        UserError: Two tensors end under one name.
    """
    ours = renamed(_vectors(state), GENERATOR)
    ours["shared.weight"] = ours["shared.weight"].t()
    return ours


def discriminator_states(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Translate the authors' D.

    Args:
        state: State dict of D, with or without the prefix "module.".

    Returns:
        The state dicts of `Discriminator` and of `Projection`.

    Raises:
        UserError: Two tensors end under one name.
    """
    ours = renamed(_vectors(state), OUTPUT)
    ours["embed.weight"] = ours["embed.weight"].t()
    output = {k: v for k, v in ours.items() if k.startswith(("score.", "embed."))}
    return {k: v for k, v in ours.items() if k not in output}, output


def _vectors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out sv0, which is for logging only, and make vectors of u0 (1, out)."""
    plain = without_prefix(state, "module.")
    return {
        key: tensor[0] if key.endswith(".u0") else tensor
        for key, tensor in plain.items()
        if not key.endswith(".sv0")
    }
