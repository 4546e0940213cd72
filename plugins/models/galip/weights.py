"""Import of the weights that GALIP's authors released: {"model": {"netG": ..., "netD": ..., "netC": ...}, ...}."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from t2i.core.errors import UserError
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state, owned_tensors
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.gan.fusion import AUTHORS
from t2i.plugins.common.weights.legacy import read_legacy, renamed, state_dict, without_prefix
from t2i.plugins.models.galip.config import GALIPConfig
from t2i.plugins.models.galip.networks import Discriminator, GALIPGenerator, QualityAssessor

CLIP = "clip.network.vision_model."
HEAD = (CLIP + "post_layernorm.", "clip.network.visual_projection.")
"""What G never runs of CLIP, and the authors' G does not hold: the way from the last block to the embedding."""

GENERATOR = [
    *AUTHORS,
    (r"^fc_code\.", "start."),
    (r"^mapping\.FBlocks\.", "bridge."),
    (r"^mapping\.conv_fuse\.", "to_clip."),
    (r"^mapping\.conv\.", "from_clip."),
    (r"^mapping\.fc_prompt\.", "prompts."),
    (r"^GBlocks\.(\d+)\.c([12])\.", r"blocks.\1.conv\2."),
    (r"^GBlocks\.(\d+)\.c_sc\.", r"blocks.\1.shortcut."),
    (r"^GBlocks\.", "blocks."),
    (r"^to_rgb\.1\.", "to_rgb."),
    (r"^mapping\.CLIP_ViT\.", CLIP),
    (r"\.(class_embedding)$", r".embeddings.\1"),
    (r"\.positional_embedding$", ".embeddings.position_embedding.weight"),
    (r"vision_model\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"\.ln_pre\.", ".pre_layrnorm."),
    (r"\.transformer\.resblocks\.", ".encoder.layers."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
]
JUDGE = [
    (r"^DBlocks\.", "blocks."),
    (r"^main\.", "last."),
    (r"\.conv_r\.0\.", ".conv1."),
    (r"\.conv_r\.2\.", ".conv2."),
    (r"\.conv_s\.", ".shortcut."),
]
ASSESSOR = [(r"^joint_conv\.0\.", "joint."), (r"^joint_conv\.2\.", "score.")]


def load_weights(config: RunConfig, files: Sequence[Path]) -> Model:
    """A model with the authors' generator, drawn with the CLIP that lies inside its own keys.

    The text half of CLIP, and the head of its image half, are what the configuration names: both are OpenAI's own and
    were never trained. Discriminator and assessor are checked where the file has them; sampling needs neither.
    UserError if there is not exactly one file, or its tensors do not fit.
    """
    if len(files) != 1:
        raise UserError(f"galip: one file holds the authors' whole model, {len(files)} are given")
    where, document = str(files[0]), read_legacy(files[0])
    settings = config.settings
    assert isinstance(settings, GALIPConfig)
    model = build(config)
    assert isinstance(model.generator, GALIPGenerator)
    load_generator(model.generator, state_dict(document, where, "model", "netG"), where)
    clip = model.generator.clip
    judges = {
        "netD": (Discriminator(settings, clip.width), JUDGE),
        "netC": (QualityAssessor(settings, model.text_encoder.shape.sentence, clip.grid), ASSESSOR),
    }
    for name in judges.keys() & document["model"].keys():
        load_judge(*judges[name], state_dict(document, where, "model", name), f"{where}: {name}")
    return model


def load_generator(generator: GALIPGenerator, released: Mapping[str, Tensor], where: str) -> None:
    """Puts a released netG into our generator; of CLIP's head the generator keeps its own."""
    head = {
        name: tensor for name, tensor in owned_tensors(generator).items() if name.startswith(HEAD)
    }
    state = _split_attention(renamed(without_prefix(released, "module."), GENERATOR))
    load_state(generator, {**head, **state}, f"{where}: netG")


def load_judge(
    network: nn.Module, rules: Sequence[tuple[str, str]], released: Mapping[str, Tensor], what: str
) -> None:
    """Puts a released netD or netC into ours, less the 1x1 shortcuts of blocks that change no channels, which the
    authors' network holds and never uses."""
    state = renamed(without_prefix(released, "module."), rules)
    unused = re.compile(r"^blocks\.\d+\.shortcut\.")
    load_state(
        network, {name: tensor for name, tensor in state.items() if not unused.match(name)}, what
    )


def _split_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's attention keeps queries, keys and values in one matrix (3 width, width), transformers' in three."""
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        packed = re.fullmatch(r"(.*)\.attn\.in_proj_(weight|bias)", name)
        if not packed:
            split[name] = tensor
            continue
        for part, rows in zip("qkv", torch.tensor_split(tensor, 3), strict=True):
            split[f"{packed[1]}.self_attn.{part}_proj.{packed[2]}"] = rows
    return split
