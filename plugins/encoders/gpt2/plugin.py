"""GPT-2's tokens, without a network: a text encoder."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import TextEncoderSpec


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
