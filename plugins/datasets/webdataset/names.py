"""Which shards a data set has: the names in its settings, or the tars of its folder."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from t2i.core.errors import UserError
from t2i.plugins.datasets.webdataset.config import WebDatasetConfig
from t2i.plugins.datasets.webdataset.grouping import Choice
from t2i.plugins.datasets.webdataset.recognise import TAR, is_tar, split_of
from t2i.plugins.datasets.webdataset.remote import refuse_other_schemes, scheme_of
from t2i.plugins.datasets.webdataset.shards import LocalShard, RemoteShard, Shard

MOST = 1_000_000  # largest number of shards that a pattern may stand for

MOST_BYTES = 2.0**62  # largest size of the cache; more than any disk

EMPTY = "shard without a byte"


@dataclass(frozen=True)
class Found:
    """The shards of a data set.

    Args:
        shards: Those of both splits, or of "train" if `val` is not empty.
        val: Those whose names say that they are for val.
        left: Number of files that are not read, by reason.
    """

    shards: list[Shard]
    val: list[Shard]
    left: Counter[str]


def expanded(pattern: str) -> list[str]:
    """List the names that a pattern stands for.

    Args:
        pattern: A name; {00000..00099} counts, with the width of its first number, and {a,b} lists.

    Returns:
        The names.

    Raises:
        UserError: A range is descending, or there are more than MOST names.
    """
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    counted = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if counted:
        first, last = int(counted[1]), int(counted[2])
        if not 0 <= last - first < MOST:
            raise UserError(
                f"data set 'webdataset': shards = {pattern}: {found[0]} stands for no range of "
                "names"
            )
        choices = [f"{number:0{len(counted[1])}d}" for number in range(first, last + 1)]
    else:
        choices = found[1].split(",")
    tails = expanded(pattern[found.end() :])
    if len(choices) * len(tails) > MOST:
        raise UserError(
            f"data set 'webdataset': shards = {pattern} stands for more than {MOST} names"
        )
    return [f"{pattern[: found.start()]}{choice}{tail}" for choice in choices for tail in tails]


def find(config: WebDatasetConfig) -> Found:
    """Find the shards that the settings name.

    Args:
        config: Settings.

    Returns:
        The shards, in the order of their names in a folder, or of `shards`.

    Raises:
        UserError: There are none, a local one does not exist, or a URL is not read.
    """
    patterns = (config.shards,) if isinstance(config.shards, str) else config.shards
    room, choice = min(config.cache_gb * 1e9, MOST_BYTES), _choice(config)
    left: Counter[str] = Counter()
    if patterns:
        folder = _folder(config.dir) if config.dir is not None else None
        named = itertools.chain.from_iterable(map(expanded, patterns))
        names = list(itertools.chain.from_iterable(_globbed(name, folder) for name in named))
        shards = [_shard(name, folder, room, choice) for name in names]
        _refuse_absent(shards)
        labels = [split_of(name) for name in names]
    elif config.dir is None:
        raise UserError(
            "data set 'webdataset': say where its shards are, with --data-dir FOLDER or --set "
            "data.shards=URL"
        )
    else:
        folder = _folder(config.dir)
        files = [folder] if folder.is_file() else list(_in_folder(folder, left))
        place = folder.parent if folder.is_file() else folder
        inside = [file.relative_to(place).as_posix() for file in files]
        shards = [
            LocalShard(file, room, choice, TAR.sub("", name) if "/" in name else "")
            for file, name in zip(files, inside, strict=True)
        ]
        labels = [split_of(name) for name in inside]
    return _split(shards, labels if config.val_shards is None else [], left)


def _choice(config: WebDatasetConfig) -> Choice:
    """Return the endings that the settings name, in lower case and without the first dot."""

    def plain(value: str | Sequence[str]) -> tuple[str, ...]:
        endings = (value,) if isinstance(value, str) else value
        return tuple(ending.strip().lower().lstrip("*.") for ending in endings if ending.strip())

    return Choice(plain(config.image), plain(config.caption))


def _folder(name: str) -> Path:
    """Return the folder, or the single shard, that `dir` names."""
    path = Path(name).expanduser()
    if re.match(r"\w{2,}:/", name):
        raise UserError(
            f"data set 'webdataset': {name} is a URL, not a folder; give it with --set "
            "data.shards=URL"
        )
    if path.is_dir() or (path.is_file() and is_tar(path.name)):
        return path
    if path.is_file():
        raise UserError(f"data set 'webdataset': {path} is no folder and no .tar")
    if re.search(r"[*?{]", name):
        raise UserError(
            f"data set 'webdataset': {path} is no folder; give a pattern with --set "
            f"data.shards='{name}'"
        )
    raise UserError(f"data set 'webdataset': {path} is no folder; say which with --data-dir")


def _in_folder(folder: Path, left: Counter[str]) -> Iterator[Path]:
    """Yield the tars of a folder; if it has none, those of its subfolders."""
    found: dict[Path, list[Path]] = {}

    def closed(error: OSError) -> None:
        left[f"folder that cannot be read ({error.strerror})"] += 1

    for place, folders, files in os.walk(folder, onerror=closed):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        here = [Path(place) / name for name in sorted(files) if is_tar(name)]
        left.update("hidden file" for name in files if name.startswith(".") and TAR.search(name))
        if here:
            found[Path(place)] = here
    if folder in found:
        left.update(
            "shard in a subfolder, beside shards in the folder"
            for place, here in found.items() if place != folder for _ in here
        )  # fmt: skip
        yield from found[folder]
    elif found:
        yield from sorted(itertools.chain.from_iterable(found.values()))
    else:
        raise UserError(
            f"data set 'webdataset': there is no *.tar in {folder}; name the shards with "
            "data.shards"
        )


def _globbed(name: str, folder: Path | None) -> list[str]:
    """Return the files that a name with * or ? stands for; other names as they are."""
    if not re.search(r"[*?]", name) or scheme_of(name) == "pipe":
        return [name]
    if scheme_of(name):
        raise UserError(
            f"data set 'webdataset': {name[:200]}: '*' stands for files of a folder; number shards "
            "behind URLs, as in {00000..00099}.tar"
        )
    root = None if folder is None else str(folder)
    pattern = str(Path(name).expanduser())
    found = sorted(glob.glob(pattern, root_dir=root, recursive=True))
    if not found:
        place = f" in {folder}" if folder else ""
        raise UserError(f"data set 'webdataset': no file is named {name}{place}")
    return found


def _shard(name: str, folder: Path | None, room: float, choice: Choice) -> Shard:
    """Make the shard of one name."""
    refuse_other_schemes(name)
    scheme = scheme_of(name)
    if scheme == "file":
        return LocalShard(Path("/" + name.partition(":")[2].lstrip("/")), room, choice)
    if scheme:
        return RemoteShard(name, room, choice)
    return LocalShard((folder or Path()) / Path(name).expanduser(), room, choice)


def _refuse_absent(shards: Sequence[Shard]) -> None:
    """Raise an error if a shard on this machine is not there."""
    for shard in shards:
        if isinstance(shard, LocalShard) and not shard.file.is_file():
            raise UserError(
                f"data set 'webdataset': shard {shard.name} is not there; correct data.shards or "
                "--data-dir"
            )


def _split(shards: Sequence[Shard], labels: Sequence[str], left: Counter[str]) -> Found:
    """Leave out empty shards, and set those apart whose names say that they are for val."""
    kept = []
    for shard, label in itertools.zip_longest(shards, labels, fillvalue=""):
        assert isinstance(shard, Shard)
        if isinstance(shard, LocalShard) and not shard.file.stat().st_size:
            left[EMPTY] += 1
        else:
            kept.append((shard, label))
    if shards and not kept:
        raise UserError(f"data set 'webdataset': {shards[0].name}: no shard has any content")
    named = {label for _, label in kept}
    if "train" not in named or not named & {"val", "test"}:
        return Found([shard for shard, _ in kept], [], left)
    val = "val" if "val" in named else "test"
    left.update(f"shard of split '{label}'" for _, label in kept if label not in ("train", val, ""))
    return Found(
        [shard for shard, label in kept if label in ("train", "")],
        [shard for shard, label in kept if label == val],
        left,
    )
