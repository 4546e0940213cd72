"""Loading of CLIP's text half from a folder or the hub."""

from __future__ import annotations

from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from t2i.core.errors import UserError
from t2i.plugins.common.clip.tokenizer import FOLDER
from t2i.plugins.common.clip.weights import load_clip
from t2i.plugins.common.weights.hub import Wanted
from t2i.plugins.common.weights.transformers_folders import check_vocabulary
from t2i.plugins.encoders.clip.config import ClipConfig

WHAT = "text encoder 'clip'"
PROJECTION = "text_projection.weight"


def wanted_weights(config: ClipConfig) -> Wanted:
    """Describe the weights that the text encoder's settings name.

    Args:
        config: Settings of the text encoder.

    Returns:
        The description, which errors quote.
    """
    return Wanted(WHAT, "encoder.weights", config.weights, config.revision, FOLDER)


def load_text_model(config: ClipConfig) -> CLIPTextModelWithProjection:
    """Load CLIP's text half with its weights.

    Args:
        config: Settings of the text encoder.

    Returns:
        The network. Without a projection in the file, it is a new one, which "pooled" sentences do
        not use.

    Raises:
        UserError: The weights cannot be found or are incomplete.
    """
    # The text half of Stable Diffusion has no projection.
    pooled = config.sentence == "pooled"
    return load_clip(
        CLIPTextModelWithProjection,
        wanted_weights(config),
        optional=[PROJECTION] if pooled else [],
        advice={PROJECTION: "it has no projection; use --set encoder.sentence=pooled"},
    )


def checked(config: ClipConfig, clip: CLIPTextConfig, tokenizer: CLIPTokenizer) -> None:
    """Check that settings, network and tokenizer fit together.

    Args:
        config: Settings of the text encoder.
        clip: Configuration of the network.
        tokenizer: The tokenizer.

    Raises:
        UserError: `layer` is beyond the first block, or the tokenizer belongs to another network.
    """
    if -config.layer > clip.num_hidden_layers:
        raise UserError(
            f"{WHAT}: encoder.layer = {config.layer}, but {config.weights} has "
            f"{clip.num_hidden_layers}"
        )
    remedy = "name the right one with --set encoder.tokenizer=..."
    check_vocabulary(WHAT, clip.vocab_size, tokenizer, remedy)
