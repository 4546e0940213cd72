"""Export of several text encoders to a pipeline in diffusers' layout."""

from __future__ import annotations

from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextEncoder
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.plugins.encoders.joined.encoder import JoinedEncoder


def export(encoder: TextEncoder, folder: Path, sentence: bool) -> dict[str, tuple[str, str]]:
    """Write the folders text_encoder, tokenizer, text_encoder_2, tokenizer_2 and so on.

    Args:
        encoder: A `JoinedEncoder`.
        folder: The folder of the pipeline.
        sentence: Whether the pipeline reads the sentence vectors.

    Returns:
        (library, class) of each part, by the part's name.

    Raises:
        UserError: One of the encoders cannot be exported.
    """
    assert isinstance(encoder, JoinedEncoder)
    listed: dict[str, tuple[str, str]] = {}
    for number, (name, part, used) in enumerate(encoder.described(), 1):
        spec = registry().encoders[name]
        if spec.export is None:
            raise UserError(
                f"diffusers' pipelines cannot express the text encoder '{name}': this run cannot "
                "be exported"
            )
        suffix = f"_{number}" if number > 1 else ""
        place = folder / f"part{suffix}"
        for name, kind in import_object(spec.export)(part, place, sentence and used).items():
            (place / name).rename(folder / f"{name}{suffix}")
            listed[f"{name}{suffix}"] = kind
        place.rmdir()
    return listed
