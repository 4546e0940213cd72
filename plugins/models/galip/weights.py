"""Import of the weights that GALIP's authors released.

A file holds {"model": {"netG": ..., "netD": ..., "netC": ...}, ...}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from t2i.core.errors import UserError
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state, owned_tensors
from t2i.core.runs.configure import RunConfig
from t2i.plugins.common.clip.weights import split_attention
from t2i.plugins.common.gan.conditioning.fusion import AUTHORS
from t2i.plugins.common.weights.legacy import read_legacy, renamed, state_dict, without_prefix
from t2i.plugins.models.galip.config import GALIPConfig
from t2i.plugins.models.galip.networks import Discriminator, GALIPGenerator, QualityAssessor

CLIP = "clip.network.vision_model."
HEAD = (CLIP + "post_layernorm.", "clip.network.visual_projection.")
"""CLIP's layers behind the last block. The generator never runs them, and the authors' netG does
not contain them."""

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
    """Build a model with the authors' generator (`t2i import`).

    The image half of CLIP is the one inside netG. The text half, and the head of the image half,
    come from the configuration: both are OpenAI's own and were never trained. Discriminator and
    assessor are checked against the file if it has them, and then dropped: sampling needs neither.

    Args:
        config: The run's configuration.
        files: The authors' checkpoint, exactly one file.

    Returns:
        The model.

    Raises:
        UserError: There is not exactly one file, or its tensors do not fit the settings.
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
        "netD": (Discriminator(settings, clip), JUDGE),
        "netC": (QualityAssessor(settings, model.text_encoder.shape.sentence, clip.grid), ASSESSOR),
    }
    for name in judges.keys() & document["model"].keys():
        load_judge(*judges[name], state_dict(document, where, "model", name), f"{where}: {name}")
    return model


def load_generator(generator: GALIPGenerator, released: Mapping[str, Tensor], where: str) -> None:
    """Load a released netG into a generator. The generator keeps its own CLIP head.

    Args:
        generator: The generator to load into.
        released: State dict of the authors' netG, with or without the prefix "module.".
        where: Name of the file in errors.

    Raises:
        UserError: The tensors do not fit.
    """
    head = {
        name: tensor for name, tensor in owned_tensors(generator).items() if name.startswith(HEAD)
    }
    state = split_attention(renamed(without_prefix(released, "module."), GENERATOR))
    load_state(generator, {**head, **state}, f"{where}: netG")


def load_judge(
    network: nn.Module, rules: Sequence[tuple[str, str]], released: Mapping[str, Tensor], what: str
) -> None:
    """Load a released netD or netC into our network.

    The authors' netD also holds 1x1 shortcuts in blocks that keep their channels. It never uses
    them, and they are left out.

    Args:
        network: The discriminator or the quality assessor to load into.
        rules: Rules that turn the authors' names into ours, `JUDGE` or `ASSESSOR`.
        released: State dict of the authors' network, with or without the prefix "module.".
        what: Name of the file and the network in errors.

    Raises:
        UserError: The tensors do not fit.
    """
    state = renamed(without_prefix(released, "module."), rules)
    unused = re.compile(r"^blocks\.\d+\.shortcut\.")
    load_state(
        network, {name: tensor for name, tensor in state.items() if not unused.match(name)}, what
    )
