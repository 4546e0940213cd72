"""The built-in text encoder `words`: small, trainable, and with nothing to download."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import TextEncoderSpec


@hookimpl
def t2i_text_encoders() -> list[TextEncoderSpec]:
    """Declare the text encoder `words`, the default.

    Returns:
        Its specification.
    """
    return [
        TextEncoderSpec(
            default=True,
            name="words",
            summary="Small trainable transformer over the words of the data set's captions",
            config="t2i.plugins.encoders.words.config:WordsConfig",
            build="t2i.plugins.encoders.words.encoder:build",
            fit="t2i.plugins.encoders.words.vocabulary:fit",
        )
    ]
