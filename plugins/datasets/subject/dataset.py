"""The data set `subject`: a few images of one subject, and many of its class.

Images of the class keep the model from turning every member of the class into the subject. The
model samples them itself before training. Source: Ruiz et al. 2023 (DreamBooth), section 3.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import Asked, Dataset, Example, Original, Written
from t2i.plugins.common.images.image_files import Entry, Folder, ImageFiles, data_folder
from t2i.plugins.common.images.walk import walk
from t2i.plugins.datasets.subject.config import SubjectConfig

NAME = "subject"
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def build(config: SubjectConfig, split: str) -> Subject:
    """Build the data set.

    Args:
        config: Settings.
        split: "train".

    Returns:
        The data set.

    Raises:
        UserError: A folder or the prompt is missing, or there are no images.
    """
    return Subject(config)


class Subject(Dataset):
    """The images of a subject, then those of its class, each repeated until their ratio is right.

    Args:
        config: Settings.

    Raises:
        UserError: A folder or the prompt is missing, or there are no images.
    """

    def __init__(self, config: SubjectConfig) -> None:
        root = data_folder(config, NAME)
        if config.prompt is None:
            raise UserError(
                f"data set '{NAME}': say what its images show, such as "
                '--set data.prompt="a photo of sks dog"'
            )
        self.image_size = config.image_size
        self.max_broken, self.few_broken = config.max_broken, config.few_broken
        self._config = config
        self._own = ImageFiles(config, NAME, Folder(root), _entries(root, config.prompt, None))
        self._class_folder = (
            Path(config.class_dir).expanduser()
            if config.class_dir
            else root.resolve().with_name(f"{root.resolve().name}-class")
        )
        # The mean loss is then proportional to the subject's plus prior_weight times the class's.
        own, weight = len(self._own), config.prior_weight
        self._visits = max(own, round(self._count / weight)) if self._count else own
        self._class_visits = max(self._count, round(self._visits * weight)) if self._count else 0

    @property
    def _count(self) -> int:
        """Number of images of the class."""
        return self._config.class_images if self._config.class_prompt else 0

    @cached_property
    def _class(self) -> ImageFiles | None:
        """The images of the class, which must be there by now. None: the settings want none."""
        if self._config.class_prompt is None:
            return None
        entries = _entries(self._class_folder, self._config.class_prompt, self._count)
        if len(entries) < self._count:
            raise UserError(
                f"data set '{NAME}': {self._class_folder} has {len(entries)} of "
                f"{self._count} images of the class: 't2i train' samples them when a run begins"
            )
        return ImageFiles(self._config, f"{NAME}-class", Folder(self._class_folder), entries)

    def asked(self) -> Asked | None:
        if self._config.class_prompt is None:
            return None
        there = len(_entries(self._class_folder, "", self._count))
        if there == self._count:
            return None
        return Asked(self._config.class_prompt, self._count - there, self._class_folder)

    def __len__(self) -> int:
        return self._visits + self._class_visits

    def _place(self, index: int) -> tuple[ImageFiles, int]:
        """Return the images that an example is among, and its number there."""
        if index < self._visits:
            return self._own, index % len(self._own)
        assert self._class is not None
        return self._class, (index - self._visits) % self._count

    def __getitem__(self, index: int) -> Example:
        files, number = self._place(index)
        example = files[number]
        return replace(example, key=f"{'subject' if files is self._own else 'class'}-{index}")

    def captions(self, index: int) -> tuple[str, ...]:
        prompt = self._config.prompt if index < self._visits else self._config.class_prompt
        return (str(prompt),)

    def original(self, index: int) -> Original:
        files, number = self._place(index)
        return files.original(number)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self._own.fingerprint()} {self._visits}".encode())
        if self._class is not None:
            digest.update(self._class.fingerprint().encode())
        return digest.hexdigest()

    def written(self) -> Written:
        own = self._own.written()
        if self._class is None:
            return own
        other = self._class.written()
        return Written(own.times + other.times, own.changes + other.changes)

    def prepare(self, say: Callable[[str], None]) -> None:
        self._own.prepare(say)


def _entries(folder: Path, caption: str, most: int | None) -> list[Entry]:
    """List the images in a folder, by name, all or the first ones."""
    if not folder.is_dir():
        return []
    names = sorted(name for name in walk(folder).sizes if name.lower().endswith(ENDINGS))
    return [Entry(name, name, (caption,)) for name in names[:most]]
