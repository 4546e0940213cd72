"""Sets of images that any program made: a folder, a zip file, an array, or images in memory."""

from __future__ import annotations

import io
import os
import zipfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from t2i.benchmarks.score.images.arrays import StoredArray, kinds, stored_arrays
from t2i.benchmarks.score.images.captions import RECORDS, recorded
from t2i.core.errors import UserError
from t2i.core.io.files import check_regular
from t2i.core.io.images import FORMATS, SUFFIXES
from t2i.core.io.transparency import on_white

LARGEST = 2**28
"""Largest size of an image in a zip file, in bytes. A small archive can claim to hold any number.
"""
ARRAYS = (".npz", ".npy")
TRANSPARENT = "transparency dropped, so that what lies under it counts; --on-white lays it on white"
PLAIN = ("RGB", "L", "P", "1", "CMYK", "YCbCr")
"""Pillow's modes that become RGB without loss of meaning."""


class Images(ABC):
    """A set of images in a fixed order. Each is read when its turn comes.

    Args:
        where: Where the images are, for people.
        names: Name of each image.
        passed_over: Number of files that are left out, by reason.
        told: Captions of images by name, where the set itself has some.

    Attributes:
        white: Whether transparent images are laid on white. False: the transparency is dropped.
        remarks: Number of images that were changed on reading, by what was done to them. It grows
            while images are read.
    """

    def __init__(
        self,
        where: str,
        names: Sequence[str],
        passed_over: Counter[str],
        told: dict[str, str] | None = None,
    ) -> None:
        self.where, self.names, self.passed_over = where, tuple(names), passed_over
        self.told = told or {}
        self.white = False
        self.remarks: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def __iter__(self) -> Iterator[np.ndarray]:
        """Read the images in order, uint8 (H, W, 3) each. UserError names one that is broken."""

    def suffixes(self) -> Counter[str]:
        """Count the images by the extension of their file.

        Returns:
            The counts, by extension in lower case with the dot.
        """
        return Counter(PurePosixPath(name).suffix.lower() for name in self.names)

    def _as_rgb(self, image: Image.Image) -> Image.Image:
        """Convert an image to RGB, and take note of what that loses."""
        if image.has_transparency_data and self.white:
            return on_white(image)
        if image.has_transparency_data:
            self.remarks[TRANSPARENT] += 1
        elif image.mode not in PLAIN:
            self.remarks[f"mode {image.mode} cut to 8 bits"] += 1
        return image.convert("RGB")

    def _decoded(self, source: Path | io.BytesIO, name: str) -> np.ndarray:
        """Decode an image as the field's programs do: converted to RGB, and nothing else."""
        if isinstance(source, Path):
            check_regular(source, "")
        try:
            with Image.open(source, formats=FORMATS) as image:
                return np.asarray(self._as_rgb(image))
        except (Image.DecompressionBombError, MemoryError):
            raise UserError(f"{name}: too large to decode; remove it") from None
        except Exception as error:  # Pillow raises anything at all on damaged files
            raise UserError(
                f"{name}: cannot be read as an image ({str(error)[:80]}); remove it or mend it"
            ) from None


class FolderImages(Images):
    """The image files of a folder, in the order of their names.

    Where `t2i sample` wrote the folder, the images are those that its samples.jsonl lists, with
    their captions.

    Args:
        folder: The folder.
        recursive: Whether its subfolders are read too.

    Raises:
        UserError: There are no images in it.
    """

    def __init__(self, folder: Path, recursive: bool) -> None:
        self.folder = folder
        files, passed = _walked(folder, recursive)
        told = recorded(folder / RECORDS)
        names = [name for name in files if not told or name in told]
        passed[f"not listed in {RECORDS}"] += len(files) - len(names)
        passed[f"listed in {RECORDS}, but not there"] += len(set(told) - set(names))
        super().__init__(str(folder), names, +passed, told)
        if not names:
            raise UserError(_nothing_in(folder, recursive, files))

    def __iter__(self) -> Iterator[np.ndarray]:
        for name in self.names:
            yield self._decoded(self.folder / name, str(self.folder / name))


def _walked(folder: Path, recursive: bool) -> tuple[list[str], Counter[str]]:
    """Return the image files of a folder, sorted, and what else is in it, counted."""
    files: list[str] = []
    passed: Counter[str] = Counter()
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise UserError(f"{folder}: {error.strerror}")
        passed["folder that may not be read"] += 1

    for place, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [name for name in folders if recursive and not _hidden(name)]
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        base = Path(place).relative_to(folder)
        for name in names:
            if _hidden(name):
                passed["hidden"] += 1
            elif Path(name).suffix.lower() in SUFFIXES:
                files.append((base / name).as_posix())
            else:
                passed[f"no image ({Path(name).suffix.lower() or 'no extension'})"] += 1
    return sorted(files), passed


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _nothing_in(folder: Path, recursive: bool, files: Sequence[str]) -> str:
    """Say what to do about a folder without images."""
    none = f"{folder}: there are no images in it"
    if files:
        return f"{none} that {RECORDS} lists; remove that file, or name another folder"
    if (folder / "model").is_dir():
        return f"{none}: it is a run; 't2i sample --run {folder}' makes images"
    deeper = [] if recursive else _walked(folder, True)[0]
    if deeper:
        first = PurePosixPath(deeper[0]).parent
        return f"{none}, but {len(deeper)} below: name a subfolder ({first}), or give --recursive"
    return f"{none} ({', '.join(sorted(SUFFIXES))}); name another folder"


class ZipImages(Images):
    """The image files in a zip file, in all of its folders, in the order of their names.

    Args:
        path: The zip file.

    Raises:
        UserError: It cannot be read, or there are no images in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        names, passed = [], Counter[str]()
        try:
            with zipfile.ZipFile(path) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise UserError(f"{path}: no sound zip file ({error}); get it again") from None
        for entry in entries:
            parts = PurePosixPath(entry.filename).parts
            if any(map(_hidden, parts)):
                passed["hidden"] += 1
            elif PurePosixPath(entry.filename).suffix.lower() in SUFFIXES:
                names.append(entry.filename)
            else:
                suffix = PurePosixPath(entry.filename).suffix.lower()
                passed[f"no image ({suffix or 'no extension'})"] += 1
        if not names:
            raise UserError(f"{path}: there are no images in it; name another file")
        super().__init__(str(path), sorted(names), passed)

    def __iter__(self) -> Iterator[np.ndarray]:
        with zipfile.ZipFile(self.path) as archive:
            for name in self.names:
                where = f"{self.path}:{name}"
                if archive.getinfo(name).file_size > LARGEST:
                    raise UserError(f"{where}: more than {LARGEST} bytes; remove it")
                try:
                    data = archive.read(name)
                except Exception as error:  # zlib and struct raise errors of their own
                    raise UserError(
                        f"{where}: cannot be unpacked ({type(error).__name__}); get it again"
                    ) from None
                yield self._decoded(io.BytesIO(data), where)


class ArrayImages(Images):
    """Images in one array, as guided-diffusion writes its samples.

    Args:
        array: The array, uint8 (N, H, W, 3).
    """

    def __init__(self, array: StoredArray) -> None:
        self.array = array
        super().__init__(str(array), [f"image {n}" for n in range(array.shape[0])], Counter())

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.array.rows()

    def suffixes(self) -> Counter[str]:
        return Counter()


class MemoryImages(Images):
    """Images in memory.

    Args:
        images: Pillow's images, or arrays uint8 (H, W, 3).

    Raises:
        UserError: There are none, or one is something else.
    """

    def __init__(self, images: Sequence[Any]) -> None:
        if not images:
            raise UserError("images: there are none to score")
        self.images = images
        super().__init__("images in memory", [f"image {n}" for n in range(len(images))], Counter())

    def __iter__(self) -> Iterator[np.ndarray]:
        for number, image in enumerate(self.images):
            array = np.asarray(self._as_rgb(image) if isinstance(image, Image.Image) else image)
            if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
                raise UserError(
                    f"image {number}: {array.dtype} of shape {array.shape}; give images of Pillow, "
                    "or arrays uint8 (H, W, 3)"
                )
            yield array

    def suffixes(self) -> Counter[str]:
        return Counter()


def open_images(path: Path, recursive: bool) -> Images | None:
    """Open a set of images.

    Args:
        path: A folder, a .zip file, or a .npz or .npy file.
        recursive: Whether subfolders of a folder are read too.

    Returns:
        The images; None if the file holds arrays, but no images.

    Raises:
        UserError: It does not exist, is of another kind, or has no images.
    """
    if path.is_dir():
        return FolderImages(path, recursive)
    if not path.exists():
        raise UserError(f"{path}: there is no such folder or file")
    if path.suffix.lower() == ".zip":
        return ZipImages(path)
    if path.suffix.lower() in ARRAYS:
        array = _image_array(path)
        return ArrayImages(array) if array else None
    raise UserError(f"{path}: give a folder of images, a .zip, or a .npz; not a single file")


def _image_array(path: Path) -> StoredArray | None:
    """Return the array of images in a file: arr_0, or the only one with four axes."""
    arrays = stored_arrays(path)
    deep = {name: array for name, array in arrays.items() if len(array.shape) == 4}
    array = deep.get("arr_0") or next(iter(deep.values()), None)
    if array is None:
        return None
    if array.dtype != np.uint8 or array.shape[3] != 3 or array.fortran or 0 in array.shape:
        hint = "; move its axis of colours to the end" if array.shape[1] == 3 else ""
        raise UserError(
            f"{path}: it holds {kinds(arrays)}; images must be uint8, (N, height, width, 3){hint}"
        )
    return array
