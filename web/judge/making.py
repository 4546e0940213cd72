"""Make a study: sample the models, or read folders of images that any program made."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from t2i.core.errors import UserError
from t2i.core.io.files import place_bytes
from t2i.core.io.folders import arrive_numbered, filling
from t2i.core.io.images import png, read_whole
from t2i.web.judge.matching import Wanted, match
from t2i.web.judge.study import (
    IMAGES,
    Item,
    Kind,
    Names,
    Study,
    image_name,
    item_key,
    list_studies,
)  # fmt: skip
from t2i.web.site import Limits

if TYPE_CHECKING:
    from t2i.core.models.model import Model

MOST_ITEMS = 1000
"""Most items of a study."""

MOST_MODELS = 12
"""Most models of a study."""

LONGEST = 4000
"""The most letters of a caption."""

LARGEST = 1024
"""Longest side of an image that people judge, in pixels. Larger ones are reduced."""

Progress = Callable[[str, float, int], None]
"""Called with what is done, how much of the whole is done, and how much there is."""

Loader = Callable[[str], "Model"]
"""Loads a model by its name in the order."""


@dataclass(frozen=True)
class Order:
    """What a study is made of.

    Args:
        name: Name of the study, which becomes the name of its folder.
        models: Runs or other places of models (`t2i.load`), by name.
        folders: Folders of images, by name.
        captions: Captions to sample. Empty: those of the folders.
        each: Images of each caption.
        seed: Seed of the noise.
        most: Most items. Of more, some are chosen at random (`seed`).
        questions: Names of the questions.
        kind: "pair" or "scale".
        shown: When the models' names are shown.
        device: Where the models sample. None: the best device there is.
        limits: How many studies there may be, and how many images of each.
    """

    name: str
    models: Mapping[str, str | Path]
    folders: Mapping[str, Path]
    captions: Sequence[str] = ()
    each: int = 1
    seed: int = 0
    most: int = 50
    questions: tuple[str, ...] = ("overall",)
    kind: Kind = "pair"
    shown: Names = "after"
    device: str | None = None
    limits: Limits = field(default_factory=Limits)


def make_study(order: Order, root: Path, progress: Progress, load: Loader | None = None) -> Path:
    """Make a study. Its folder appears only when all images are in it.

    Args:
        order: What it is made of.
        root: The folder of all studies.
        progress: Called after each image, sampling step or batch. What it raises stops the work,
            and nothing is left of it.
        load: Loads a model. None: `t2i.load`.

    Returns:
        The study's folder: ROOT/NAME, or ROOT/NAME-2 and so on if there is one already.

    Raises:
        UserError: The order does not fit together, there are too many studies, a model cannot be
            loaded, or an image cannot be read.
    """
    _check(order)
    if len(list_studies(root)) >= order.limits.studies:
        raise UserError(f"there are {order.limits.studies} studies: remove some of {root}/ first")
    wanted = plan(order)
    load = load or _loader(order)
    models = (*order.models, *order.folders)
    base = root / folder_name(order.name)
    with filling(base) as place:
        (place / IMAGES).mkdir()
        digests: list[list[bytes]] = [[] for _ in wanted]
        sources: dict[str, Any] = {}
        for number, model in enumerate(models):

            def told(what: str, done: float, before: int = number * len(wanted)) -> None:
                progress(what, before + done, len(models) * len(wanted))

            images, source = _images(order, model, wanted, told, load)
            sources[model] = source
            for row, image in images:
                data = png(image)
                place_bytes(place / IMAGES / image_name(row, number), data)
                digests[row].append(hashlib.sha256(image.tobytes()).digest())
        items = [
            Item(item_key(one.caption, one.sample, own), one.caption)
            for one, own in zip(wanted, digests, strict=True)
        ]
        Study(
            base.name, models, _distinct(items), order.questions, order.kind, order.shown, sources
        ).write(place)
        return arrive_numbered(place, base)


def _loader(order: Order) -> Loader:
    """Return the function that loads the models of an order as `t2i.load` does."""
    from t2i.core.models.loading import load

    return lambda name: load(order.models[name], order.device)


def _check(order: Order) -> None:
    """Raise a UserError if an order cannot be carried out."""
    if both := set(order.models) & set(order.folders):
        raise UserError(f"'{min(both)}' is the name of a run and of a folder: rename one")
    count = len(order.models) + len(order.folders)
    if not (1 if order.kind == "scale" else 2) <= count <= MOST_MODELS:
        raise UserError(f"{count} models: choose 2 to {MOST_MODELS}, or 1 for scales")
    if not 1 <= order.most <= MOST_ITEMS or not 1 <= order.each <= MOST_ITEMS:
        raise UserError(f"choose 1 to {MOST_ITEMS} captions, and as many images of each")
    if len(order.captions) > MOST_ITEMS or any(len(text) > LONGEST for text in order.captions):
        raise UserError(f"give at most {MOST_ITEMS} captions of at most {LONGEST} letters")


def _distinct(items: Sequence[Item]) -> tuple[Item, ...]:
    """Tell items apart that are equal in all images, such as two all-black ones."""
    seen: Counter[str] = Counter()
    found = []
    for item in items:
        count = seen[item.key]
        seen[item.key] += 1
        found.append(Item(f"{item.key}-{count}", item.caption) if count else item)
    return tuple(found)


def folder_name(text: str) -> str:
    """Make the name of a folder from what a person typed.

    Args:
        text: Any text.

    Returns:
        Letters, digits, "-" and "_" of it, at most 60; "study" if nothing is left.
    """
    kept = "".join(c if c.isalnum() or c in "-_" else "-" for c in text.strip())
    return kept.strip("-_")[:60] or "study"


# --- what is wanted -------------------------------------------------------------------------------


def plan(order: Order) -> list[Wanted]:
    """Choose the items of a study.

    Args:
        order: The order.

    Returns:
        The items, at most `order.most`.

    Raises:
        UserError: There are no captions, or the folders have nothing in common.
    """
    if not order.folders:
        captions = list(dict.fromkeys(text.strip() for text in order.captions if text.strip()))
        if not captions:
            raise UserError("give captions, one a line: the models sample them")
        return [
            Wanted(captions[row // order.each], row % order.each, {})
            for row in _some(order, len(captions) * order.each)
        ]
    wanted = match(order.folders)
    if order.models and not all(one.caption for one in wanted):
        raise UserError(
            "the folders have no captions for the models to sample; put captions.csv with the "
            "columns file_name and text into one of them"
        )
    return [wanted[row] for row in _some(order, len(wanted))]


def _some(order: Order, count: int) -> list[int]:
    """Choose at most `order.most` of so many items, in order; say so if the study is too large."""
    chosen = min(count, order.most)
    models = len(order.models) + len(order.folders)
    if chosen * models > order.limits.study_images:
        raise UserError(
            f"{chosen} items of {models} models are {chosen * models} images, more than a study "
            f"has ({order.limits.study_images}): choose fewer items or models"
        )
    return sorted(random.Random(order.seed).sample(range(count), chosen))


# --- the images -----------------------------------------------------------------------------------

Images = Iterator[tuple[int, np.ndarray]]
"""Numbers of items and their images, uint8 (H, W, 3)."""

Told = Callable[[str, float], None]
"""Called with what is done, and how many images of the model are."""


def _images(
    order: Order, model: str, wanted: Sequence[Wanted], progress: Told, load: Loader
) -> tuple[Images, dict[str, Any]]:
    """Sample or read the images of one model; say where they come from."""
    if model in order.folders:
        folder = order.folders[model]
        return _read(model, folder, wanted, progress), {"folder": str(folder)}
    return _sampled(order, model, wanted, progress, load)


def _read(model: str, folder: Path, wanted: Sequence[Wanted], progress: Told) -> Images:
    for row, one in enumerate(wanted):
        file = one.files[model]
        if not file.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{file} is a link that leads out of {folder}: copy the image into it")
        image = read_whole(file)
        image.thumbnail((LARGEST, LARGEST))
        yield row, np.asarray(image)
        progress(f"{model}: reading images", row + 1)


def _sampled(
    order: Order, model: str, wanted: Sequence[Wanted], progress: Told, load: Loader
) -> tuple[Images, dict[str, Any]]:
    """Sample the images as `t2i sample` does: the noise depends on the caption and the seed."""
    progress(f"{model}: loading", 0)
    loaded = load(model)
    captions = list(dict.fromkeys(one.caption for one in wanted))
    rows = {(captions.index(one.caption), one.sample): row for row, one in enumerate(wanted)}
    sampler = loaded.sampler()

    def draw() -> Images:
        images = 0

        def images_done(done: int, _: int) -> None:
            nonlocal images
            images = done
            step(0, 1)

        def step(done: int, steps: int) -> None:
            now = f", step {done} of {steps}" if steps > 1 else ""
            told = f"{model}: {images} of {len(rows)} images{now}"
            progress(told, min(len(rows), images + done / steps))

        for batch in loaded.stream(
            captions, n=1 + max(one.sample for one in wanted), seed=order.seed, sampler=sampler,
            only=list(rows), progress=images_done, steps=step,
        ):  # fmt: skip
            for sample in batch:
                yield rows[sample.prompt, sample.sample], sample.image

    source = {
        "run": str(order.models[model]), "model": loaded.config.model,
        "sampler": sampler.dump(), "seed": order.seed,
    }  # fmt: skip
    return draw(), source
