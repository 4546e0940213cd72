"""The data set `coco`: captions in annotations, and photographs in folders or in zip files.

DIR/annotations/captions_val2017.json   or in DIR/annotations_trainval2017.zip
DIR/val2017/000000000139.jpg            or in DIR/val2017.zip; also under DIR/images
DIR/dataset_coco.json                   Karpathy's splits, instead of the annotations
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.fetch.downloads import fetched
from t2i.core.interfaces.dataset import Contents
from t2i.plugins.common.images.image_files import (
    Archive,
    Entry,
    Folder,
    ImageFiles,
    Source,
    data_folder,
    open_archive,
)
from t2i.plugins.common.images.splits import in_val, safe_share
from t2i.plugins.datasets.coco.annotations import (
    NAME,
    OTHER,
    REMEDY,
    Annotations,
    read_annotations,
)
from t2i.plugins.datasets.coco.config import CocoConfig

ABSENT = "photograph that is not there"


def build(config: CocoConfig, split: str) -> ImageFiles:
    """Build one split.

    Args:
        config: Settings.
        split: "train" or "val".

    Returns:
        The images that are there, in the order of their ids, each with its captions in the order of
        theirs.

    Raises:
        UserError: Annotations or all images are missing, or the annotations are neither COCO's nor
            Karpathy's.
    """
    root = _root(config)
    found = _split(root, config, split)
    if not found.images:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in (+found.left).items())
        raise UserError(
            f"{found.where}: no image has a caption ({reasons or 'no image is listed'})"
        )
    source = _images(root, found)
    entries, absent = _entries(source, found)
    left = found.left + Counter({ABSENT: absent} if absent else {})
    if not entries:
        raise UserError(
            f"data set '{NAME}': none of the {absent} images of {found.where} is in "
            f"{source.where('')}; {REMEDY}"
        )
    told = f"captions: {found.where}", f"images: {len(entries)} in {source.where('')}"
    return ImageFiles(config, NAME, source, entries, Contents(told, dict(left)))


def _root(config: CocoConfig) -> Path:
    """Return the folder of the data set."""
    if config.dir is None:
        return fetched(NAME)
    try:
        return data_folder(config, NAME)
    except UserError:
        raise UserError(f"data set '{NAME}': {config.dir} is no folder; {REMEDY}") from None


def _split(root: Path, config: CocoConfig, split: str) -> Annotations:
    """Read the annotations of a split, or of the only one that is there and split that."""
    share = config.val_share
    if share is None:
        return read_annotations(root, config, split)
    readable = {}
    for name in OTHER:
        try:
            readable[name] = read_annotations(root, config, name)
        except UserError as error:
            refused = error
    if not readable:
        raise refused
    if len(readable) == 2:
        raise UserError(
            f"data set '{NAME}': both splits are there ({readable['val'].where}); leave out "
            "data.val_share, which is for one alone"
        )
    (found,) = readable.values()
    if len(found.images) > 1:
        share = safe_share([image.key for image in found.images], share)
        found.images = [
            image for image in found.images if in_val(image.key, share) == (split == "val")
        ]
    return found


def _entries(source: _Known, found: Annotations) -> tuple[list[Entry], int]:
    """Return the images that are there, and how many are not."""
    places = source.locate([image.file for image in found.images])
    entries = [
        Entry(image.key, place, image.captions)
        for image, place in zip(found.images, places, strict=True)
        if place is not None
    ]
    return entries, len(places) - len(entries)


class _Known(Source):
    """Several folders and archives as one, whose files are listed once.

    Args:
        parts: Folders and archives by what the paths of their files begin with: "", or a name and
            "/".
        name: Name of the whole in messages.
    """

    def __init__(self, parts: Mapping[str, Source], name: str) -> None:
        self._sources, self._name = dict(parts), name

    def __getstate__(self) -> dict[str, Any]:
        return {"_sources": self._sources, "_name": self._name}

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {
            prefix + file: size
            for prefix, source in self._sources.items()
            for file, size in source.sizes().items()
        }

    def locate(self, files: Sequence[str]) -> list[str | None]:
        """Find files by their paths; if none is there, by the ends of their paths, in any case.

        Ends that are the same for two of the files, or two files that are there, are not used.

        Args:
            files: Paths as annotations have them.

        Returns:
            The path of each file here; None for those that are not here.
        """
        found = [file if file in self._sizes else None for file in files]
        if any(found):
            return found
        ends = self._ends()
        for cut in range(max((file.count("/") for file in files), default=0) + 1):
            keys = [_end(file, cut) for file in files]
            if len(set(keys)) < len(set(files)):
                break
            if any(found := [ends.get(key) for key in keys]):
                break
        return found

    def _ends(self) -> dict[str, str | None]:
        """Return the files by every end of their paths; None where several have the same."""
        places: dict[str, str | None] = {}
        for file in self._sizes:
            for cut in range(file.count("/") + 1):
                end = _end(file, cut)
                places[end] = None if end in places else file
        return places

    def _part(self, file: str) -> tuple[Source, str]:
        first = file.partition("/")[0] + "/"
        prefix = first if first in self._sources else next(iter(self._sources))
        return self._sources[prefix], file.removeprefix(prefix)

    def open(self, file: str) -> Path | bytes:
        source, name = self._part(file)
        return source.open(name)

    def holder(self, file: str) -> Path:
        source, name = self._part(file)
        return source.holder(name)

    def sizes(self) -> Mapping[str, int]:
        return self._sizes

    def where(self, file: str) -> str:
        if not file:
            return self._name
        source, name = self._part(file)
        return source.where(name)


def _end(file: str, cut: int) -> str:
    """Return a path in lower case without its first `cut` folders."""
    return "/".join(file.lower().split("/")[min(cut, file.count("/")) :])


def _images(root: Path, found: Annotations) -> _Known:
    """Return the folders or zips with the images of a split."""
    own = found.folder
    names = {image.file.partition("/")[0] for image in found.images if "/" in image.file} - {own}
    parts = {f"{name}/": place for name in sorted(names) if (place := _place(root, name))}
    if not own:
        return _Known(parts or {"": Folder(root)}, str(root))
    candidates = dict.fromkeys([own, own.rstrip("0123456789"), "images", "Images"])
    source = next((place for name in candidates if (place := _place(root, name))), None)
    if source is None and not parts:
        raise UserError(f"data set '{NAME}': there is neither {root / own} nor {own}.zip; {REMEDY}")
    if source is None or parts:
        return _Known(parts | ({f"{own}/": source} if source else {}), str(root))
    return _Known({"": source}, source.where(""))


def _place(root: Path, name: str) -> Source | None:
    """Return the folder or zip of a name, such as "val2017"."""
    places = (root, root / "images")
    for folder in (place / name for place in places):
        if folder.is_dir():
            return Folder(folder)
    for archive in (place / f"{name}.zip" for place in places):
        if archive.is_file():
            open_archive(archive).close()  # raise an error now if the zip is damaged
            return Archive(archive, f"{name}/")
    return None
