"""GPT-2's tokens, without a network: a text encoder, and its download."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DownloadSpec, HubFiles, TextEncoderSpec


@hookimpl
def t2i_text_encoders() -> list[TextEncoderSpec]:
    """Declare the text encoder `gpt2`.

    Returns:
        Its specification.
    """
    return [
        TextEncoderSpec(
            name="gpt2",
            summary="GPT-2's tokens without a network, for models that embed them (glide)",
            config="t2i.plugins.encoders.gpt2.config:GPT2TokensConfig",
            build="t2i.plugins.encoders.gpt2.encoder:build",
        )
    ]


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    """Declare the download `gpt2`, the encoder's default tokenizer.

    Returns:
        Its specification.
    """
    return [
        DownloadSpec(
            name="gpt2",
            summary="GPT-2's tokenizer, the default of the text encoder gpt2 (3 MB, no network)",
            licence="MIT",
            licence_url="https://huggingface.co/openai-community/gpt2",
            hub=(
                HubFiles(
                    repository="openai-community/gpt2",
                    patterns=("config.json", "merges.txt", "tokenizer.json", "vocab.json"),
                ),
            ),
        )
    ]
