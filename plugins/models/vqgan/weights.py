"""Import of the transformers that VQGAN's authors released (CompVis/taming-transformers).

Theirs have no captions. Those without any condition (FacesHQ, FFHQ, CelebA-HQ) are imported. Those
with classes, depth maps, segmentations or boxes are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.causal.generator import TokenGenerator
from t2i.plugins.common.causal.prior import Prior
from t2i.plugins.common.tokens.taming import translated
from t2i.plugins.common.tokens.tokenizer import ImageTokenizer, fill
from t2i.plugins.common.weights.legacy import read_lightning, side
from t2i.plugins.models.vqgan.config import VQGANConfig

FIRST, NETWORK = "first_stage_model.", "transformer."


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model from a checkpoint of the authors (`t2i import`).

    Args:
        config: The run's configuration. Its tokenizer and transformer become those of the file, its
            number of heads is kept.
        files: The checkpoint.

    Returns:
        The model. Its images do not depend on captions.

    Raises:
        UserError: There is another number of files, the file is no such checkpoint, or the model
            has a condition.
    """
    if len(files) != 1:
        raise UserError(f"vqgan: {len(files)} files; give the authors' checkpoint alone")
    where = f"weights {files[0]}"
    state = read_lightning(files[0])
    network = network_state(state, where)
    described, own = translated(
        {k.removeprefix(FIRST): v for k, v in state.items() if k.startswith(FIRST)}, where
    )
    settings = config.settings
    assert isinstance(settings, VQGANConfig)
    vocabulary = side(network, "tok_emb.weight", where)
    if vocabulary != described.vocabulary:
        raise UserError(
            f"{where}: its transformer knows {vocabulary} tokens, its images have "
            f"{described.vocabulary}: the others are a condition, which is not imported"
        )
    layers = 1 + max(int(k.split(".")[1]) for k in network if k.startswith("blocks."))
    sizes = {
        "width": side(network, "tok_emb.weight", where, 1), "layers": layers,
        "heads": settings.transformer.heads,
    }  # fmt: skip
    settings = VQGANConfig.of(
        {
            "tokenizer": described.model_dump(), "transformer": sizes, "words": False,
            "block": side(network, "pos_emb", where, 1), "text": {}, "caption_dropout": 0.0,
        },
        "vqgan", settings.model_dump(),
    )  # fmt: skip
    choice = registry().encoders.choose("none", {}, "text encoder")
    encoder = import_object(registry().encoders["none"].build)(choice.config, None)
    tokenizer = ImageTokenizer(settings.tokenizer, settings.image_size)
    fill(tokenizer, own, str(files[0]))
    prior = Prior(settings, vocabulary, tokenizer.side, encoder.shape)
    load_state(prior, network, f"{where}: transformer")
    generator = TokenGenerator(tokenizer, prior)
    return Model(replace(config, settings=settings, encoder=choice), generator, encoder)


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
            f"{where}: its condition is an image (depth, segmentation); only models without a "
            "condition are imported (FacesHQ, FFHQ, CelebA-HQ), for captions cannot say it"
        )
    return network
