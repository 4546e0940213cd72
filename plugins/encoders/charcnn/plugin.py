"""The character-level text encoder that StackGAN's released weights expect."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import TextEncoderSpec


@hookimpl
def t2i_text_encoders() -> list[TextEncoderSpec]:
    """Declare the text encoder `char-cnn-rnn`.

    Returns:
        Its specification.
    """
    return [
        TextEncoderSpec(
            name="char-cnn-rnn",
            summary=(
                "Reed et al.'s character-level encoder (1024): the authors' weights from a file, "
                "or trained"
            ),
            config="t2i.plugins.encoders.charcnn.config:CharCnnRnnConfig",
            build="t2i.plugins.encoders.charcnn.encoder:build",
        )
    ]
