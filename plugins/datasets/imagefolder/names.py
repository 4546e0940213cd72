"""Which images the names in a table mean."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from t2i.core.io.images import SUFFIXES, UNREAD_SUFFIXES
from t2i.plugins.common.images.splits import split_word

Parts = tuple[str, ...]


@dataclass
class Matches:
    """The images that the names of one table mean.

    Args:
        images: Path of the image by the name in the table.
        absent: Names for which there is no image.
        unclear: Names that fit several images, with two of these.
    """

    images: dict[str, str] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    unclear: dict[str, Sequence[str]] = field(default_factory=dict)


def parts_of(name: str) -> tuple[Parts, bool]:
    """Split a name into folders and file.

    Args:
        name: The name as a table has it: a path with "/" or "\\", perhaps of another computer, or a
            URL.

    Returns:
        The parts, without "." and "..", and whether the name is of another place: absolute, a URL,
        or leading out of its folder.
    """
    text = name.strip().replace("\\", "/")
    foreign = False
    if re.match(r"[a-zA-Z][\w+.-]+://", text):
        text, foreign = unquote(urlsplit(text).path), True
    if re.match(r"[a-zA-Z]:", text):
        text, foreign = text[2:], True
    parts = [part for part in text.split("/") if part not in ("", ".")]
    foreign = foreign or text.startswith(("/", "~")) or ".." in parts
    return tuple(part for part in parts if part != ".."), foreign


def match_names(
    names: Iterable[str], base: str, images: Sequence[str], exists: Callable[[str], bool]
) -> Matches:
    """Find the images that names mean.

    A name is a path from the table's folder, or from the data set's. Otherwise the image is taken
    whose path ends with the name, or with which the name ends; of a name of another place the last
    part is enough. The ending of the file may be missing, and capitals may differ. All of this only
    where exactly one image fits, and no other name means it.

    Args:
        names: The names, each once.
        base: Folder of the table in the data set's folder, "" or ending with "/".
        images: Paths of all images.
        exists: Tells whether there is another file of this path, such as one without an ending.

    Returns:
        The images.
    """
    # A table in a folder of images is about these.
    index = _Index([path for path in images if path.startswith(base)] or images)
    found, rest = Matches(), dict[str, tuple[Parts, bool]]()
    for name in names:
        parts, foreign = parts_of(name)
        path = next(
            (path for path in _plain_paths(name, parts, base) if path in index or exists(path)), ""
        )
        if path and not (foreign and ".." in name):
            found.images[name] = path
        else:
            rest[name] = (parts, foreign)
    taken = set(found.images.values())
    loose = not found.images
    _match_rest(found, rest, index, taken, base, loose=False)
    if loose and not found.images:  # all names have folders that are not here
        found.absent.clear()
        _match_rest(found, rest, index, taken, base, loose=True)
    return found


def _plain_paths(name: str, parts: Parts, base: str) -> list[str]:
    """Return the paths that a name says as it is."""
    if not parts or "\0" in name:
        return []
    path = "/".join(parts)
    bare = "/".join((*parts[:-1], re.sub(r"#\d+$", "", parts[-1])))
    return list(dict.fromkeys([base + path, base + bare, path, bare]))


class _Index:
    """Images by the last part of their paths, with and without ending."""

    def __init__(self, images: Sequence[str]) -> None:
        self._images = frozenset(images)
        self._by_last: defaultdict[str, list[str]] = defaultdict(list)
        for path in images:
            last = _same(path.rpartition("/")[2])
            self._by_last[last].append(path)
            self._by_last[f"{last.rpartition('.')[0]}."].append(path)

    def __contains__(self, path: str) -> bool:
        return path in self._images

    def of(self, last: str) -> list[str]:
        """Return the images with this last part, or else with this name before the ending."""
        last = _same(re.sub(r"#\d+$", "", last))
        suffix = PurePosixPath(last).suffix
        known = suffix in SUFFIXES or suffix in UNREAD_SUFFIXES
        return self._by_last.get(last) or ([] if known else self._by_last.get(f"{last}.", []))


def _same(text: str) -> str:
    """Return a text as it is compared: capitals and composed letters make no difference."""
    return unicodedata.normalize("NFC", text).casefold()


def _match_rest(
    found: Matches,
    rest: Mapping[str, tuple[Parts, bool]],
    index: _Index,
    taken: set[str],
    base: str,
    *,
    loose: bool,
) -> None:
    """Match names that are no plain paths. An image that several names mean is unclear."""
    meant: defaultdict[str, list[str]] = defaultdict(list)
    for name, (parts, foreign) in rest.items():
        fitting = [] if not parts or "\0" in name else index.of(parts[-1])
        fitting = [
            path for path in fitting
            if path not in taken and _fits(parts, path, base, foreign or loose)
        ]  # fmt: skip
        best = _nearest(parts, fitting, base)
        if len(best) > 1:
            found.unclear[name] = best[:2]
        elif best:
            meant[best[0]].append(name)
        else:
            found.absent.append(name)
    for path, names in meant.items():
        if len({_same("/".join(rest[name][0])) for name in names}) == 1 or _numbered(names):
            found.images.update(dict.fromkeys(names, path))
        else:
            found.absent += names


def _numbered(names: Sequence[str]) -> bool:
    """Tell whether names differ only by the number of a caption, as in a.jpg#0."""
    return len({re.sub(r"#\d+$", "", name) for name in names}) == 1


def _fits(parts: Parts, path: str, base: str, last_is_enough: bool) -> bool:
    """Tell whether a name can mean an image whose file has the same name."""
    own = path.split("/")
    named, there = ([_same(part) for part in folders] for folders in (parts[:-1], own[:-1]))
    shared = 0
    for a, b in zip(reversed(named), reversed(there), strict=False):
        if a != b:
            break
        shared += 1
    beneath = path.removeprefix(base).count("/") if path.startswith(base) else len(there)
    if shared in (len(named), len(there)) or shared >= beneath:
        return not _other_split(named, there)
    return last_is_enough and not _other_split(named, there)


def _other_split(named: Sequence[str], there: Sequence[str]) -> bool:
    """Tell whether a name's folders say another split than those of an image."""
    said = {word for part in named if (word := split_word(part))}
    real = {word for part in there if (word := split_word(part))}
    return bool(said and real and not said & real)


def _nearest(parts: Parts, paths: Sequence[str], base: str) -> list[str]:
    """Return the images that share most folders with a name; of these, those beside the table."""
    if len(paths) < 2:
        return list(paths)

    def shared(path: str) -> int:
        count = 0
        for a, b in zip(reversed(parts), reversed(path.split("/")), strict=False):
            if _same(a) != _same(b):
                break
            count += 1
        return count

    most = max(map(shared, paths))
    best = [path for path in paths if shared(path) == most]
    return [path for path in best if path.startswith(base)] or best
