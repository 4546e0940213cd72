"""T5, frozen, from the Hugging Face hub or a local folder: a text encoder, and its download."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadSpec, HubFiles, TextEncoderSpec


@hookimpl
def t2i_text_encoders() -> list[TextEncoderSpec]:
    """Declare the text encoder `t5`.

    Returns:
        Its specification.
    """
    return [
        TextEncoderSpec(
            name="t5",
            summary="T5's encoder, frozen; by hub name or from a local folder (encoder.weights)",
            config="t2i.plugins.encoders.t5.config:T5TextConfig",
            build="t2i.plugins.encoders.t5.encoder:build",
            export="t2i.plugins.encoders.t5.export:export",
        )
    ]


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    """Declare the download `t5`, the encoder's default weights.

    Returns:
        Its specification.
    """
    return [
        DownloadSpec(
            name="t5",
            summary="Flan-T5 base, the default of the text encoder t5, with its tokenizer",
            licence="Apache-2.0",
            licence_url="https://huggingface.co/google/flan-t5-base",
            hub=(HubFiles(repository="google/flan-t5-base"),),
        )
    ]
