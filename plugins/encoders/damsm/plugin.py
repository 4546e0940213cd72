"""DAMSM's text encoder: the bidirectional LSTM that AttnGAN and DF-GAN use."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import TextEncoderSpec


@hookimpl
def t2i_text_encoders() -> list[TextEncoderSpec]:
    """Declare the text encoder `damsm`.

    Returns:
        Its specification.
    """
    return [
        TextEncoderSpec(
            name="damsm",
            summary=(
                "Bidirectional LSTM over words (AttnGAN's, DF-GAN's); trainable, or the authors' "
                "weights"
            ),
            config="t2i.plugins.encoders.damsm.config:DamsmConfig",
            build="t2i.plugins.encoders.damsm.encoder:build",
            fit="t2i.plugins.encoders.damsm.weights:fit",
        )
    ]
