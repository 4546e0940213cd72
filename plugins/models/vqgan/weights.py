"""Import of the transformers that VQGAN's authors released (CompVis/taming-transformers).

Theirs have no captions. Those without any condition (FFHQ, CelebA-HQ), and that of FacesHQ, which
reads the coordinates of the places, are imported. Those with classes, depth maps, segmentations or
boxes are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from t2i.core.errors import UserError, in_one_line
from t2i.core.io.files import read_file
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.config_file import UNREADABLE, parse_yaml
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.causal.generator import TokenGenerator
from t2i.plugins.common.causal.prior import Prior
from t2i.plugins.common.tokens.taming import CHECKPOINTS, translated
from t2i.plugins.common.tokens.tokenizer import ImageTokenizer, fill
from t2i.plugins.common.weights.legacy import read_lightning, side
from t2i.plugins.models.vqgan.config import VQGANConfig

FIRST, NETWORK = "first_stage_model.", "transformer."
IMPORTED = "only models without a condition are imported (FFHQ, CelebA-HQ, FacesHQ)"
CLASSES = (48, 1536)
"""Layers and width of the released transformer of ImageNet's classes."""


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model from a checkpoint of the authors (`t2i import`).

    Args:
        config: The run's configuration. Its tokenizer and transformer become those of the file, its
            number of heads is kept.
        files: The checkpoint, or the folder that the authors released it in.

    Returns:
        The model. Its images do not depend on captions.

    Raises:
        UserError: There is another number of files, the file is no such checkpoint, or the model
            has a condition.
    """
    if len(files) != 1:
        raise UserError(f"vqgan: {len(files)} files; give the authors' checkpoint alone")
    file = next((f for one in CHECKPOINTS if (f := files[0] / one).is_file()), files[0])
    refuse_condition(file)
    where = f"weights {file}"
    state = read_lightning(file)
    network = network_state(state, where)
    described, own = translated(
        {k.removeprefix(FIRST): v for k, v in state.items() if k.startswith(FIRST)}, where
    )
    settings = config.settings
    assert isinstance(settings, VQGANConfig)
    tokenizer = ImageTokenizer(described, settings.image_size)
    fill(tokenizer, own, str(file))
    settings = VQGANConfig.of(
        {
            "tokenizer": described.model_dump(), "words": False, "text": {},
            "caption_dropout": 0.0,
            **sizes_of(network, tokenizer, settings.transformer.heads, where),
        },
        "vqgan", settings.model_dump(),
    )  # fmt: skip
    choice = registry().encoders.choose("none", {}, "text encoder")
    encoder = import_object(registry().encoders["none"].build)(choice.config, None)
    prior = Prior(settings, tokenizer.vocabulary, tokenizer.side, encoder.shape)
    load_state(prior, network, f"{where}: transformer")
    generator = TokenGenerator(tokenizer, prior)
    return Model(replace(config, settings=settings, encoder=choice), generator, encoder)


def refuse_condition(file: Path) -> None:
    """Refuse a checkpoint beside which the authors' settings name a condition.

    A token of a class cannot be told from a start token by the weights.

    Args:
        file: The checkpoint, FOLDER/checkpoints/last.ckpt where it is in the authors' folder.

    Raises:
        UserError: A file FOLDER/configs/*.yaml has a condition, or cannot be read.
    """
    place = file.resolve().parent
    if place.name not in {Path(one).parent.name for one in CHECKPOINTS}:
        return
    for path in sorted(place.parent.glob("configs/*.yaml")):
        try:
            found: Any = parse_yaml(read_file(path, "settings").decode("utf-8"))
        except (OSError, *UNREADABLE) as error:
            raise UserError(
                f"settings {path}: they cannot be read ({in_one_line(error)}); get the authors' "
                "folder again"
            ) from None
        for key in ("model", "params"):
            found = found.get(key) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping) or found.get("unconditional"):
            continue
        condition = found.get("cond_stage_config", "__is_unconditional__")
        kind = condition.get("target") if isinstance(condition, Mapping) else condition
        if str(kind).rpartition(".")[2] not in ("__is_unconditional__", "CoordStage"):
            raise UserError(
                f"settings {path}: the condition is {kind!s:.80}, which captions cannot give; "
                f"{IMPORTED}"
            )


def sizes_of(
    network: Mapping[str, Tensor], tokenizer: ImageTokenizer, heads: int, where: str
) -> dict[str, Any]:
    """Return the settings of the authors' transformer.

    Its vectors of positions that training never reached are zero, as they were at first. So they
    tell how many tokens stand before those of the image.

    Args:
        network: The transformer, from `network_state`.
        tokenizer: Its VQGAN.
        heads: Number of heads, which tensors do not tell.
        where: The file, for errors.

    Returns:
        The settings.

    Raises:
        UserError: A tensor that tells a size is missing, or there is a condition.
    """
    vocabulary = side(network, "tok_emb.weight", where)
    if vocabulary != tokenizer.vocabulary:
        raise UserError(
            f"{where}: its transformer knows {vocabulary} tokens, its images have "
            f"{tokenizer.vocabulary}: the others are a condition; {IMPORTED}"
        )
    layers = [int(key.split(".")[1]) for key in network if key.startswith("blocks.")]
    width = side(network, "tok_emb.weight", where, 1)
    if (1 + max(layers, default=0), width) == CLASSES:
        raise UserError(f"{where}: this is the transformer of ImageNet's classes; {IMPORTED}")
    block = side(network, "pos_emb", where, 1)
    reached = network["pos_emb"].flatten(0, -2).any(-1).nonzero().flatten().tolist()
    before = 1 + max(reached, default=0) - (tokenizer.length - 1)
    if before > 1 and before != tokenizer.length:
        raise UserError(
            f"{where}: {before} tokens stand before those of an image of {tokenizer.image_size} "
            f"pixels, which are a condition; {IMPORTED}"
        )
    return {
        "transformer": {"width": width, "layers": 1 + max(layers, default=0), "heads": heads},
        "block": block, "coordinates": before > 1,
    }  # fmt: skip


def network_state(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Translate the authors' transformer, unless it has a condition.

    Args:
        state: All tensors of the checkpoint.
        where: The file, for errors.

    Returns:
        The state dict of `Prior`.

    Raises:
        UserError: There is no transformer, or it has a condition.
    """
    network = {
        k.removeprefix(NETWORK): v
        for k, v in state.items()
        if k.startswith(NETWORK) and not k.endswith("attn.mask")
    }
    if "tok_emb.weight" not in network or not any(k.startswith(FIRST) for k in state):
        raise UserError(
            f"{where}: it holds no transformer with its VQGAN; a VQGAN alone is what "
            "tokenizer.weights names"
        )
    if any(k.startswith("cond_stage_model.") for k in state):
        raise UserError(
            f"{where}: its condition is an image (depth, segmentation), which captions cannot "
            f"give; {IMPORTED}"
        )
    return network
