"""Export of CLIP's text encoder to a pipeline in diffusers' layout."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from t2i.core.interfaces.text import TextEncoder
from t2i.plugins.encoders.clip.encoder import ClipEncoder

PROJECTION = "text_projection."


def export(encoder: TextEncoder, folder: Path, sentence: bool) -> dict[str, tuple[str, str]]:
    """Write the folders text_encoder and tokenizer of a pipeline.

    Args:
        encoder: A `ClipEncoder`.
        folder: The folder of the pipeline.
        sentence: Whether the pipeline reads sentence vectors: whether to write the projection that
            they come from, too.

    Returns:
        (library, class) of each part, by the part's name.
    """
    assert isinstance(encoder, ClipEncoder)
    clip, projected = encoder.clip, sentence and encoder.config.sentence == "projected"
    kind = "CLIPTextModelWithProjection" if projected else "CLIPTextModel"
    state = {
        name: tensor
        for name, tensor in clip.state_dict().items()
        if projected or not name.startswith(PROJECTION)
    }
    clip.config.save_pretrained(folder / "text_encoder", architectures=[kind])
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(plain, folder / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    encoder.tokenizer.save_pretrained(folder / "tokenizer")
    return {
        "text_encoder": ("transformers", kind),
        "tokenizer": ("transformers", "CLIPTokenizer"),
    }
