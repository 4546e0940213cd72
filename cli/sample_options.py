"""Options of `t2i sample` beside model, prompts and sampler."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from t2i.cli.command import path_option, registered
from t2i.core.errors import UserError
from t2i.core.registry.tables import registry

if TYPE_CHECKING:
    from t2i.core.models.best import BestOf
    from t2i.core.models.model import Model
    from t2i.core.models.options import Options

WITH_AGAIN = frozenset(
    {"again", "run", "guide", "image", "mask", "out", "as_json", "device", "upsample", "loras"}
)
"""Parameters of the command that have a meaning beside --again."""


@dataclass(frozen=True)
class Further:
    """Further options of a request to sample, as the command line gives them.

    Args:
        negative: Negative prompts.
        image: File of the image to start from. None: noise.
        mask: File of the mask. None: the whole image may change.
        strength: Share of the chain. None: the default.
        width: Width in pixels. None: the model's own.
        height: Height in pixels. None: the model's own.
        part: The last part of a cascade that is sampled. None: the cascade's last one.
        again: An image that is to be sampled again. None: none.
        best_of: Number of candidates of each image, of which the best one is kept. None: one.
        judge: Registry name of the features that compare them. None: the data set's.
    """

    negative: tuple[str, ...]
    image: Path | None
    mask: Path | None
    strength: float | None
    width: int | None
    height: int | None
    part: str | None
    again: Path | None
    best_of: int | None
    judge: str | None

    @property
    def sources(self) -> dict[str, Path]:
        """The files, by name."""
        files = {"image": self.image, "mask": self.mask}
        return {name: path for name, path in files.items() if path is not None}

    def given(self) -> list[str]:
        """List the options that were given.

        Returns:
            Such as "--image".
        """
        values = {name: value for name, value in vars(self).items() if value not in (None, ())}
        return [f"--{name.replace('_', '-')}" for name in values]

    def of(self, model: Model, augmentation: Any = None) -> Options:
        """Check the options against a model.

        Args:
            model: The model.
            augmentation: Level of the noise that an upsampler adds to `image`, as it was given with
                `--set`. None: its own.

        Returns:
            The options, for `write_samples`.

        Raises:
            UserError: An option does not fit.
        """
        own = model.generator.image_size
        sized = self.width is not None or self.height is not None
        return model.options(
            negative=self.negative,
            image=self.image,
            mask=self.mask,
            strength=self.strength,
            size=(self.height or own, self.width or own) if sized else None,
            augmentation=augmentation,
        )

    def check_judge(self) -> None:
        """Check the options of re-ranking, before anything slow is imported.

        Raises:
            UserError: There is a judge but no candidates, or the judge is unknown.
        """
        if self.judge is None:
            return
        if self.best_of in (None, 1):
            raise UserError("--judge compares candidates: say how many there are, with --best-of N")
        registry().features[self.judge]

    def best(self, model: Model) -> BestOf | None:
        """Build what ranks the candidates.

        Args:
            model: The model.

        Returns:
            The request, for `write_samples`. None: there is one candidate each.

        Raises:
            UserError: The judge reads no text, none is named, or its weights are missing.
        """
        if self.best_of in (None, 1):
            return None
        return model.best_of(self.best_of or 1, self.judge)


def further_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Declare the options, which the command's function receives as its parameter `further`.

    Args:
        function: The command's function.

    Returns:
        The decorated function.
    """

    @functools.wraps(function)
    def packed(**values: Any) -> Any:
        names = Further.__dataclass_fields__
        further = Further(**{name: values.pop(name) for name in names})
        return function(further=further, **values)

    for option in reversed(OPTIONS):
        packed = option(packed)
    return packed


OPTIONS = (
    click.option(
        "--negative",
        multiple=True,
        metavar="TEXT",
        help="Guidance leads away from this. One for all captions; repeated: one for each.",
    ),
    path_option(
        "--image",
        metavar="FILE",
        help="Start from this image, noised by --strength; an upsampler enlarges it.",
    ),
    path_option(
        "--mask", metavar="FILE", help="Where --image may change: white may, black may not."
    ),
    click.option(
        "--strength",
        type=float,
        metavar="S",
        help="How much --image may change, 0 to 1 (default: 0.8, or 1 with --mask).",
    ),
    click.option("--width", type=click.IntRange(1), metavar="W", help="Width in pixels."),
    click.option("--height", type=click.IntRange(1), metavar="H", help="Height in pixels."),
    click.option("--part", metavar="PART", help="Sample a cascade up to this part, such as base."),
    path_option(
        "--again", metavar="PNG", help="Sample this image again, as its file says; no prompt."
    ),
    click.option(
        "--best-of",
        type=click.IntRange(1),
        metavar="N",
        help="Sample N candidates of each image, and keep the one that fits its caption best. "
        "Takes N times as long.",
    ),
    click.option(
        "--judge",
        metavar="NAME",
        shell_complete=registered("features"),
        help="Features with text that compare the candidates (default: the data set's).",
    ),
)


def refuse_beside_again() -> None:
    """Check that no option is given beside --again that it takes from the image.

    Raises:
        UserError: One is.
    """
    context = click.get_current_context()
    given = click.core.ParameterSource.COMMANDLINE
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in WITH_AGAIN and context.get_parameter_source(name) == given:
            raise UserError(
                f"--again takes everything from the image: leave out {parameter.opts[0]}"
            )
