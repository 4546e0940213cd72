"""The files of a data set: in a folder, or images in an archive and what lies beside it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import BrokenExample
from t2i.core.io.files import read_file
from t2i.core.io.images import SUFFIXES
from t2i.plugins.common.images.image_files import Archive, Folder, Source, open_archive
from t2i.plugins.common.images.splits import chosen
from t2i.plugins.common.images.walk import Listing, listed, walk

DAMAGED = "zip file that is damaged; get it again"
"""Why such an archive is left alone."""


def suffix_of(path: str) -> str:
    """Return the ending of a file's name.

    Args:
        path: Path of the file.

    Returns:
        The ending in lower case, with the dot; "" if there is none.
    """
    return PurePosixPath(path).suffix.lower()


def is_image(path: str) -> bool:
    """Tell whether a file has the ending of an image that is read.

    Args:
        path: Path of the file.

    Returns:
        True if so.
    """
    return suffix_of(path) in SUFFIXES


@dataclass(frozen=True)
class Files:
    """The files of a data set.

    Args:
        root: The data set's folder.
        listing: Its files, and those of the archive.
        archive: The zip file with the images. None: they are files in the folder.
        packed: Paths of the files that are in the archive.
        archives: Names of the archives, if there is one for each split.
    """

    root: Path
    listing: Listing
    archive: Path | None = None
    packed: frozenset[str] = frozenset()
    archives: tuple[str, ...] = ()

    @classmethod
    def of(cls, root: Path, split: str) -> Files:
        """List the files of a data set.

        Args:
            root: The data set's folder.
            split: The split that is read, which may have an archive of its own.

        Returns:
            The files. Without an image among them, those in a zip file in the folder are added.

        Raises:
            UserError: The folder cannot be read, or several archives hold images.
        """
        listing = walk(root)
        if "" in listing.left:
            raise UserError(f"{root}: {listing.left['']}")
        if any(map(is_image, listing.sizes)):
            return cls(root, listing)
        archives = {}
        for path in [path for path in listing.sizes if suffix_of(path) == ".zip"]:
            members = _members(root / path)
            if members is None:
                del listing.sizes[path]
                listing.left[path] = DAMAGED
                continue
            inside = listed(members)
            if any(map(is_image, inside.sizes)):
                archives[path] = inside
        if not archives:
            return cls(root, listing)
        stems = {PurePosixPath(path).stem: path for path in archives}
        named = chosen(list(stems))
        if len(archives) > 1 and not named:
            raise UserError(
                f"{root}: several archives hold images ({', '.join(sorted(archives)[:3])}): unpack "
                "them, leave one, or call them train.zip and val.zip"
            )
        path = stems[named[split]] if named else next(iter(archives))
        inside = archives[path]
        # A caption file outside wins over a file of the same path in the archive.
        both = Listing(inside.sizes | listing.sizes, inside.left | listing.left)
        packed = frozenset(inside.sizes.keys() - listing.sizes.keys())
        return cls(root, both, root / path, packed, tuple(stems[name] for name in named.values()))

    @cached_property
    def images(self) -> list[str]:
        """Paths of the images that are read, sorted."""
        return sorted(path for path in self.listing.sizes if is_image(path))

    def source(self, prefix: str) -> Source:
        """Return where the images under a folder are.

        Args:
            prefix: The folder in the data set's folder, "" or ending with "/".

        Returns:
            The source; paths in it begin after `prefix`.
        """
        if self.archive is not None:
            return Archive(self.archive, prefix)
        return Folder(self.root / prefix if prefix else self.root)

    def exists(self, path: str) -> bool:
        """Tell whether there is a file of this path, such as an image in a hidden folder.

        Args:
            path: The path in the data set's folder.

        Returns:
            True if it is a file outside archives.
        """
        return self.archive is None and (self.root / path).is_file()

    def where(self, path: str) -> str:
        """Return the name of a file in errors.

        Args:
            path: Its path in the data set's folder.

        Returns:
            The name.
        """
        return f"{self.archive}:{path}" if path in self.packed else str(self.root / path)

    def read(self, path: str) -> bytes:
        """Read a file that is no image.

        Args:
            path: Its path in the data set's folder.

        Returns:
            Its content.

        Raises:
            UserError: It cannot be read.
        """
        try:
            if path in self.packed and self.archive is not None:
                return Archive(self.archive).open(path)
            return read_file(self.root / path, "")
        except OSError as error:
            raise UserError(f"{self.where(path)}: {error.strerror or error}") from None
        except BrokenExample as error:
            raise UserError(str(error)) from None


def _members(archive: Path) -> Mapping[str, int] | None:
    """Return the sizes of the files in an archive; None if it is damaged."""
    try:
        with open_archive(archive) as opened:
            return {
                entry.filename: entry.file_size for entry in opened.infolist() if not entry.is_dir()
            }
    except (UserError, zipfile.BadZipFile):
        return None
