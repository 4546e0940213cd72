"""BERT, frozen, from the Hugging Face hub or a local folder: a text encoder, and its download."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadSpec, HubFiles, TextEncoderSpec


@hookimpl
def t2i_text_encoders() -> list[TextEncoderSpec]:
    """Declare the text encoder `bert`.

    Returns:
        Its specification.
    """
    return [
        TextEncoderSpec(
            name="bert",
            summary="BERT, frozen; by hub name or from a local folder (encoder.weights)",
            config="t2i.plugins.encoders.bert.config:BertTextConfig",
            build="t2i.plugins.encoders.bert.encoder:build",
        )
    ]


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    """Declare the download `bert`, the encoder's default weights.

    Returns:
        Its specification.
    """
    return [
        DownloadSpec(
            name="bert",
            summary="BERT base, uncased, the default of the text encoder bert, with its tokenizer",
            licence="Apache-2.0",
            licence_url="https://huggingface.co/google-bert/bert-base-uncased",
            hub=(HubFiles(repository="google-bert/bert-base-uncased"),),
        )
    ]
