"""Export of CLIP's text encoder to a pipeline in diffusers' layout."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextEncoder
from t2i.plugins.encoders.clip.encoder import ClipEncoder


def export(encoder: TextEncoder, folder: Path) -> dict[str, tuple[str, str]]:
    """Write the folders text_encoder and tokenizer of a pipeline.

    Args:
        encoder: A `ClipEncoder`.
        folder: The folder of the pipeline.

    Returns:
        (library, class) of each part, by the part's name.

    Raises:
        UserError: The word vectors are not those of Stable Diffusion's pipeline, which takes the
            last block's, after the final norm, and attends to all 77.
    """
    assert isinstance(encoder, ClipEncoder)
    config, clip = encoder.config, encoder.clip
    unlike = {
        f"encoder.layer={config.layer}": config.layer != -1,
        "encoder.final_norm=false": not config.final_norm,
        "encoder.attend_padding=false": not config.attend_padding,
    }
    found = [setting for setting, there in unlike.items() if there]
    if found:
        raise UserError(
            f"diffusers' pipelines cannot express {', '.join(found)}: this run cannot be exported"
        )
    state = {
        name: tensor for name, tensor in clip.state_dict().items() if name.startswith("text_model.")
    }
    clip.config.save_pretrained(folder / "text_encoder", architectures=["CLIPTextModel"])
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(plain, folder / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    encoder.tokenizer.save_pretrained(folder / "tokenizer")
    return {
        "text_encoder": ("transformers", "CLIPTextModel"),
        "tokenizer": ("transformers", "CLIPTokenizer"),
    }
