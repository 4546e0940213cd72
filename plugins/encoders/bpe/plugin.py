"""The text encoder `bpe`: tokens of byte-pair encoding."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import TextEncoderSpec


@hookimpl
def t2i_text_encoders() -> list[TextEncoderSpec]:
    """Declare the text encoder `bpe`.

    Returns:
        Its specification.
    """
    return [
        TextEncoderSpec(
            name="bpe",
            summary="Tokens of byte-pair encoding, for models that read tokens (dalle)",
            config="t2i.plugins.encoders.bpe.config:BPEConfig",
            build="t2i.plugins.encoders.bpe.encoder:build",
            fit="t2i.plugins.encoders.bpe.encoder:fit",
        )
    ]
