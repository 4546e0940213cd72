"""Loading CLIP (Radford et al. 2021), or one half of it, with its weights: from a folder, the hub's cache or the hub.

Only safetensors and JSON are read, and never any code.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from transformers import CLIPModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from t2i.core.errors import UserError
from t2i.plugins.common.weights.hub import Wanted, obtained, refuse_foreign_code
from t2i.plugins.common.weights.variants import variant_of

Network = TypeVar("Network", CLIPModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection)

TITLES: Mapping[type, str] = {
    CLIPModel: "CLIP",
    CLIPTextModelWithProjection: "CLIP text encoder",
    CLIPVisionModelWithProjection: "CLIP for images",
}
"""What errors call each network."""


def load_clip(
    kind: type[Network],
    wanted: Wanted,
    *,
    optional: Collection[str] = (),
    advice: Mapping[str, str] | None = None,
) -> Network:
    """Loads one of transformers' CLIP networks.

    Args:
        kind: The class of the network.
        wanted: Which weights, and on whose behalf; errors name both.
        optional: Tensors that the weights may lack.
        advice: What to do if one tensor alone is missing, by the tensor's name.

    Returns:
        The network in the precision of its file.

    Raises:
        UserError: The weights cannot be had, are damaged or incomplete, or ask for code.
    """

    def load(source: str, offline: bool) -> Network:
        place: Any = {"revision": wanted.revision, "local_files_only": offline}
        folder = Path(source)
        variant = variant_of(folder, "model") if folder.is_dir() else None
        refuse_foreign_code(kind.config_class, source, wanted.what, **place)
        loaded: Any = kind.from_pretrained(
            source, use_safetensors=True, output_loading_info=True, variant=variant, **place
        )
        network: Network = loaded[0]
        lacking = _lacking(loaded[1]) - set(optional)
        if lacking:
            name = min(lacking)
            remedy = (advice or {}).get(name) if len(lacking) == 1 else None
            raise UserError(
                f"{wanted.what}: {source} holds no whole {TITLES[kind]}: {name} is missing, or of "
                "another shape" + (f"; {remedy}" if remedy else "")
            )
        return network

    return obtained(wanted, load)


def _lacking(report: Mapping[str, Any]) -> set[str]:
    """The tensors that transformers found missing or misshapen."""
    return {str(name) for name in (*report["missing_keys"], *report["mismatched_keys"])}
