"""A folder of samples: a PNG for each image, a grid of them, and what each one is.

OUT/0000-000.png    number of the prompt and of the sample (never the prompt's own text); its text
                    chunks say how it was sampled (`metadata.py`)
OUT/grid.png        a row for each prompt
OUT/samples.jsonl   an object for each image: file, prompt, seed, numbers, settings, seconds
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import NoiseKey
from t2i.core.io.clutter import entries
from t2i.core.io.files import place_bytes, read_lines, write_bytes
from t2i.core.io.folders import refuse_links
from t2i.core.io.images import png
from t2i.core.io.locks import LOCK, folder_lock, take_folder
from t2i.core.io.processes import Group
from t2i.core.io.sheets import Block, Layout, sheet
from t2i.core.models.best import BestOf
from t2i.core.models.metadata import LARGEST_BATCH, Batch, grid_chunks, image_chunks
from t2i.core.models.wanted import Key, Sample
from t2i.core.runs.folder import new_folder

RECORDS = "samples.jsonl"
PART = ".samples-{}.jsonl"  # lines of the other processes, until all are done
GRID_IMAGES = 256
GRID_COLUMNS = 16


@dataclass(frozen=True)
class SampleFolder:
    """A folder of samples that is made, or completed.

    Args:
        keys: All images, in order.
        prompts: The captions, for the record.
        seed: The seed, for the record.
        settings: Everything else that the images depend on, for the record.
        size: Batch size.
        draw: Samples some of the images, in batches of `size`.
        extent: Height and width of the images in pixels.
        negative: Negative prompts: none, one for all prompts, or one for each.
        noise: The noise key of each image (of each candidate, with `best`), if it depends on the
            prompt's text. None: `--again` cannot sample the image.
        best: The request to keep the best of several candidates. None: there is one each.
    """

    keys: Sequence[Key]
    prompts: Sequence[str]
    seed: int
    settings: Mapping[str, Any]
    size: int
    draw: Callable[[Sequence[Key]], Iterator[list[Sample]]]
    extent: tuple[int, int]
    negative: Sequence[str] = ()
    noise: Mapping[Key, NoiseKey] | None = None
    best: BestOf | None = None

    def fill(self, folder: Path, n: int, group: Group) -> list[dict[str, Any]]:
        """Sample the images that the folder lacks, and write the grid.

        Args:
            folder: The folder. It need not exist.
            n: Images of each prompt.
            group: The processes that share the work. All must call this.

        Returns:
            The lines of samples.jsonl, in the first process; an empty list in the others.

        Raises:
            UserError: The folder holds something else, or another command samples into it.
        """
        with _held(folder, group):
            there = frozenset(
                group.first(
                    lambda: [str(line["file"]) for line in self._collected(folder, self._sound)]
                )
            )
            self._draw_missing(folder, there, group)
            group.wait()
            if not group.is_first:
                return []
            records = self._collected(folder)
            shown = records[:GRID_IMAGES]
            place_bytes(folder / "grid.png", png(_grid(folder, records, n), grid_chunks(shown)))
            return records

    def _draw_missing(self, folder: Path, there: frozenset[str], group: Group) -> None:
        """Sample this process's share of the batches that are not complete."""
        batches = self._batches()
        missing = [batch for batch in batches if any(_name(key) not in there for key in batch)]
        mine = [key for batch in missing[group.rank :: group.size] for key in batch]
        own = RECORDS if group.is_first else PART.format(group.rank)
        with open(folder / own, "a", encoding="utf-8") as file:
            start = time.perf_counter()
            for batch in self.draw(mine) if mine else ():
                together = tuple((drawn.prompt, drawn.sample) for drawn in batch)
                seconds = (time.perf_counter() - start) / len(batch)
                for drawn in batch:
                    name = _name((drawn.prompt, drawn.sample))
                    if name not in there:
                        place_bytes(folder / name, self._png(drawn, together))
                        file.write(json.dumps({**self._record(drawn), "seconds": seconds}) + "\n")
                file.flush()
                start = time.perf_counter()

    def _batches(self) -> list[Sequence[Key]]:
        """Share the images out over batches."""
        if self.best:
            return self.best.parts(self.keys, self.size)
        return [self.keys[at : at + self.size] for at in range(0, len(self.keys), self.size)]

    def _record(self, drawn: Sample) -> dict[str, Any]:
        """Make the line of a sampled image, but for its seconds."""
        line = self._line((drawn.prompt, drawn.sample))
        return line if drawn.chosen is None else line | {"best": self._choice(drawn)}

    def _choice(self, drawn: Sample) -> dict[str, Any]:
        """Describe which candidate an image is."""
        assert self.best is not None
        assert drawn.chosen is not None
        key = self.best.key((drawn.prompt, drawn.sample), drawn.chosen.candidate)
        number = {} if self.noise is None else {"noise_number": self.noise[key][1]}
        return {
            "candidate": drawn.chosen.candidate,
            "score": drawn.chosen.score,
            "scores": list(drawn.chosen.scores),
            **number,
        }

    def _png(self, drawn: Sample, together: Sequence[Key]) -> bytes:
        """Encode an image that was sampled in a batch, with all that `--again` needs."""
        batch, key = None, (drawn.prompt, drawn.sample)
        if self.best and drawn.chosen:
            key, together = self.best.key(key, drawn.chosen.candidate), drawn.chosen.batch
        if self.noise is not None and len(together) <= LARGEST_BATCH:
            rows = sorted({p for p, _ in together})
            batch = Batch(
                position=together.index(key),
                prompts=[self.prompts[row] for row in rows],
                negative=[self._negative(row) for row in rows] if self.negative else [],
                images=[(rows.index(k[0]), self.noise[k][1]) for k in together],
            )
        return png(drawn.image, image_chunks(self._record(drawn), self.extent, batch))

    def _negative(self, row: int) -> str:
        return self.negative[row if len(self.negative) > 1 else 0]

    def _line(self, key: Key) -> dict[str, Any]:
        """Make the line of an image for samples.jsonl, but for its seconds."""
        negative = {"negative": self._negative(key[0])} if self.negative else {}
        number = {}
        if self.noise is not None and self.best is None:
            number = {"noise_number": self.noise[key][1]}
        return {
            "file": _name(key), "prompt": self.prompts[key[0]], **negative, "seed": self.seed,
            "prompt_index": key[0], "sample_index": key[1], **number, "settings": self.settings,
        }  # fmt: skip

    def _collected(
        self, folder: Path, sound: Callable[[Path], bool] = Path.is_file
    ) -> list[dict[str, Any]]:
        """Collect the lines of all sound images, in order, into samples.jsonl alone.

        Raises:
            UserError: The folder holds anything that does not belong to this request.
        """
        others = any(not path.name.startswith(".") for path in entries(folder))
        if others and not (folder / RECORDS).is_file():
            raise UserError(
                f"{folder} is there already, and not empty: choose another --out, or remove it"
            )
        refuse_links(folder)
        wanted = {_name(key): json.loads(json.dumps(self._line(key))) for key in self.keys}
        found: dict[str, dict[str, Any]] = {}
        parts = [folder / RECORDS, *folder.glob(PART.format("*"))]
        for line in (line for part in parts for line in _lines(part)):
            if difference := _difference(line, wanted.get(str(line.get("file")), {})):
                raise UserError(
                    f"{folder} holds images of another request ({difference}): choose another "
                    f"--out, or remove it"
                )
            if sound(folder / line["file"]):
                found[line["file"]] = line
        lines = [found[name] for name in wanted if name in found]
        write_bytes(folder / RECORDS, "".join(json.dumps(line) + "\n" for line in lines).encode())
        for litter in (*parts[1:], *folder.glob(".*.tmp")):
            litter.unlink()
        return lines

    def _sound(self, path: Path) -> bool:
        """Tell whether an image is complete."""
        try:
            with _opened(path) as image:
                image.verify()  # the checksums of all its parts
            return _pixels(path).shape == (*self.extent, 3)
        except Exception:  # Pillow raises anything at all on damaged files
            return False


def _opened(path: Path) -> Image.Image:
    """Open an image; raise OSError for what is no file, and for other formats.

    Pillow hands some formats to other programs.
    """
    if not path.is_file():
        raise OSError(f"{path} is no file")
    return Image.open(path, formats=("PNG",))


def _pixels(path: Path) -> np.ndarray:
    with _opened(path) as image:
        return np.asarray(image)


def _name(key: Key) -> str:
    return f"{key[0]:04}-{key[1]:03}.png"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the lines of a samples.jsonl. Skip a line that a killed command left half-written."""
    if not path.is_file():
        return
    for text in read_lines(path, ""):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            yield line


def _difference(line: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Say why a line is not of this request; '' if it is. The path of the run may differ."""
    if not wanted:
        return f"{str(line.get('file'))[:40]} is not asked for"
    settings = line.get("settings")
    ours = {**wanted, **wanted["settings"], "run": None}
    theirs = {**line, **(settings if isinstance(settings, dict) else {}), "run": None}
    if "noise" in ours and "noise" not in theirs:
        return f"an older t2i began it, which keyed the noise of {line['file']} by its place"
    different = [
        name
        for name in {**ours, **theirs}
        if name not in ("settings", "seconds", "best") and theirs.get(name) != ours.get(name)
    ]
    return f"{line['file']} has another {different[0]}" if different else ""


@contextmanager
def _held(folder: Path, group: Group) -> Iterator[None]:
    """Hold the folder for this command alone. Remove it if the command fails before any image."""
    lock = folder_lock(folder)
    refusal = f"another command samples into {folder}: wait for it, or choose another --out"
    group.first(lambda: take_folder(lock, refusal))
    try:
        yield
    finally:
        if lock.is_locked:
            records = folder / RECORDS
            if (
                not any(folder.glob("[!.]*.png"))
                and records.is_file()
                and not records.stat().st_size
            ):
                records.unlink()
            (folder / LOCK).unlink(missing_ok=True)
            lock.release()
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _grid(folder: Path, records: Sequence[Mapping[str, Any]], n: int) -> np.ndarray:
    """Lay out the first images with their prompts: a block for each prompt."""
    prompts: dict[int, list[Mapping[str, Any]]] = {}
    for record in records[:GRID_IMAGES]:
        prompts.setdefault(int(record["file"].partition("-")[0]), []).append(record)
    blocks = [
        Block([_pixels(folder / record["file"]) for record in own], own[0]["prompt"])
        for own in prompts.values()
    ]
    across = n if n <= GRID_COLUMNS else min(GRID_COLUMNS, math.ceil(math.sqrt(n)))
    columns = 1 if n > 1 else min(GRID_COLUMNS, math.ceil(math.sqrt(len(blocks))))
    cut = f"The first {GRID_IMAGES} of {len(records)} images." if records[GRID_IMAGES:] else ""
    return sheet(blocks, Layout(columns, across, about=cut))


@contextmanager
def samples_folder(name: str, out: Path | None, group: Group) -> Iterator[Path]:
    """Give the folder of samples: the one that the user names, or a new samples/NAME-TIME.

    Args:
        name: Name of the model.
        out: The folder that the user names. None: a new one.
        group: The processes that sample into it.

    Yields:
        The folder, the same in all processes. A new one is removed at the end if it is empty.
    """
    if out is not None:
        yield out
        return
    base = Path("samples") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    with ExitStack() as stack:
        yield group.first(lambda: stack.enter_context(new_folder(base)))
