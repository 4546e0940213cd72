"""The text encoder `joined`: several text encoders that read the same caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.text import Reading, TextEncoder, TextFeatures, TextShape
from t2i.core.registry.tables import registry
from t2i.plugins.encoders.joined.config import JoinedConfig, Part


class JoinedEncoder(TextEncoder):
    """Several text encoders, whose features are joined.

    Args:
        config: Settings.
        beside: The encoders whose word vectors stand side by side.
        after: The encoder whose word vectors follow. None: there is none.

    Raises:
        UserError: The word vectors are wider than `width`.
    """

    def __init__(
        self, config: JoinedConfig, beside: Sequence[TextEncoder], after: TextEncoder | None
    ) -> None:
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleList([*beside, *([] if after is None else [after])])
        widths = [sum(part.shape.words for part in beside)]
        widths += [] if after is None else [after.shape.words]
        width = config.width or max(widths)
        if max(widths) > width:
            raise UserError(
                f"text encoder 'joined': encoder.width = {width}, but there are words of width "
                f"{max(widths)}: set it to that"
            )
        used = beside if config.sentence == "all" else beside[-1:]
        self.shape = TextShape(sum(part.shape.sentence for part in used), width)

    def parts(self) -> list[TextEncoder]:
        """List the encoders.

        Returns:
            Those side by side, then the one that follows.
        """
        return cast(list[TextEncoder], list(self.encoders))

    def described(self) -> list[tuple[str, TextEncoder, bool]]:
        """List the encoders with what the settings say of them.

        Returns:
            Registry name, encoder, and whether its sentence vectors are used, for each of `parts`.
        """
        count = len(self.config.beside)
        after = [] if self.config.after is None else [self.config.after]
        named = [str(part["name"]) for part in (*self.config.beside, *after)]
        return [
            (name, part, number < count if self.config.sentence == "all" else number == count - 1)
            for number, (name, part) in enumerate(zip(named, self.parts(), strict=True))
        ]

    def reading(self, caption: str) -> Reading | None:
        """Return the reading of the encoder that reads most of a caption."""
        known = [reading for part in self.parts() if (reading := part.reading(caption))]
        return max(known, key=_limit, default=None)

    def encode(self, captions: Sequence[str]) -> TextFeatures:
        count = len(self.config.beside)
        features = [part.encode(captions) for part in self.parts()]
        beside, after = features[:count], features[count:]
        length = max(text.words.shape[1] for text in beside)
        padded = [text.padded(length) for text in beside]
        words = self._widened(torch.cat([text.words for text in padded], -1))
        mask = torch.stack([text.mask for text in padded]).any(0)
        words = torch.cat([words, *(self._widened(text.words) for text in after)], 1)
        mask = torch.cat([mask, *(text.mask for text in after)], 1)
        used = beside if self.config.sentence == "all" else beside[-1:]
        return TextFeatures(
            torch.cat([text.sentence for text in used], -1),
            F.pad(words, (0, 0, 0, self.config.zeros)),
            F.pad(mask, (0, self.config.zeros), value=True),
            tuple(captions),
        )

    def null(self, n: int) -> TextFeatures:
        features = self.encode([""] * n)
        if self.config.empty == "encoded":
            return features
        return replace(
            features,
            sentence=torch.zeros_like(features.sentence),
            words=torch.zeros_like(features.words),
        )

    def _widened(self, words: Tensor) -> Tensor:
        """Pad word vectors (B, L, Dw) with zeros to the width of all."""
        return F.pad(words, (0, self.shape.words - words.shape[-1]))

    def save_assets(self, folder: Path) -> None:
        """Write the assets of each part into a folder of its own.

        Args:
            folder: The folder that they are written to.
        """
        for number, part in enumerate(self.parts()):
            (folder / str(number)).mkdir()
            part.save_assets(folder / str(number))


def _limit(reading: Reading) -> float:
    """Return how many units are read at most."""
    return float("inf") if reading.limit is None else reading.limit


def build(config: JoinedConfig, assets: Path | None) -> JoinedEncoder:
    """Build the encoder and its parts.

    Args:
        config: Settings.
        assets: Folder that `save_assets` wrote for a saved model, whose weights the caller loads
            afterwards. None for a new encoder.

    Returns:
        The encoder.

    Raises:
        UserError: A part is unknown, needs a data set, or cannot be built.
    """

    def part(number: int, described: Part) -> TextEncoder:
        settings = {key: value for key, value in described.items() if key != "name"}
        choice = registry().encoders.choose(str(described["name"]), settings)
        if registry().encoders[choice.name].fit is not None:
            raise UserError(
                f"text encoder 'joined': '{choice.name}' is fitted to a data set and cannot be a "
                "part of others: use one that comes with its weights, such as clip or t5"
            )
        place = None if assets is None else assets / str(number)
        made: TextEncoder = registry().encoders.build(choice, place)
        return made

    beside = [part(number, described) for number, described in enumerate(config.beside)]
    after = None if config.after is None else part(len(beside), config.after)
    return JoinedEncoder(config, beside, after)
