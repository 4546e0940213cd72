"""The rows of a benchmark: real images, wrong captions and models, sampled and scored in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from t2i.benchmarks.results import VARIETY, Row
from t2i.benchmarks.run import grids
from t2i.benchmarks.run.caption_sets import CaptionSet, ImageStream, real_source, wrong_source
from t2i.benchmarks.run.kept_rows import KeptRow, read_kept
from t2i.benchmarks.run.partial import Parts, remove_parts
from t2i.benchmarks.run.plan import BenchmarkPlan, PlannedRun
from t2i.benchmarks.run.reporter import BenchmarkReporter
from t2i.benchmarks.run.timed_sampling import images_of, resized
from t2i.benchmarks.run.timeline import Timeline
from t2i.benchmarks.run.training_images import TrainingImages
from t2i.benchmarks.run.training_log import read_curve
from t2i.benchmarks.run.training_record import model_digest, training_record
from t2i.benchmarks.score.extraction import fingerprint
from t2i.benchmarks.score.scorer import Scorer
from t2i.core.interfaces.scoring import ImageBatch, PromptSet
from t2i.core.io.files import place_bytes
from t2i.core.io.images import png
from t2i.core.io.processes import Group
from t2i.core.models.loading import load
from t2i.core.models.model import Model
from t2i.core.models.wanted import Sample
from t2i.core.runs.folder import Run

RealSource = Callable[[CaptionSet, int, int], ImageStream]
"""Makes the stream of real images from (captions, number of captions, images of each)."""

FLOOR = "wrong"


def real_row() -> Row:
    """Make the row of real images, without scores.

    Returns:
        The row.
    """
    return Row("real images", "real")


def floor_row() -> Row:
    """Make the row of real images with wrong captions, without scores.

    Returns:
        The row.
    """
    return Row("real images, wrong captions", "floor")


def model_row(entry: PlannedRun) -> Row:
    """Make the row of a model, without scores.

    Args:
        entry: The planned run.

    Returns:
        The row.
    """
    return Row(entry.label, "model", entry.name, entry.seed)


def short_name(row: Row) -> str:
    """Return the name of a row's files.

    Args:
        row: The row.

    Returns:
        The name; no model's row has that of a row of real images.
    """
    return {"real": grids.REAL, "floor": FLOOR}.get(row.kind, row.name)


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of a benchmark, or reads rows that were finished before.

    Every process of the group calls the same methods and gets the same rows.

    Args:
        plan: The plan of the benchmark.
        scorer: Scores the images. In the first process it holds the features of the reference.
        sets: The caption sets.
        group: The processes that share the work.
        reporter: Receives the progress.
        protocol_hash: Hash of the protocol. Finished rows with another are not used.
        device: Where models are sampled.
        timeline: Receives the time that is spent, and how far a row is.
        training: The training images. None: no measure compares with them.
    """

    plan: BenchmarkPlan
    scorer: Scorer
    sets: Sequence[CaptionSet]
    group: Group
    reporter: BenchmarkReporter
    protocol_hash: str
    device: torch.device
    timeline: Timeline
    training: TrainingImages | None = None

    @property
    def headline(self) -> CaptionSet:
        """The headline caption set."""
        return next(captions for captions in self.sets if captions.prompts.headline)

    def variety(self) -> tuple[int, int]:
        """Return the size of the set `VARIETY`.

        Returns:
            Number of captions, the first of the headline set, and number of images of each.
        """
        captions, samples = self.plan.benchmark.variety
        return min(captions, self.headline.prompts.count), samples

    def grid_entries(self) -> list[dict[str, str]]:
        """List the captions of the grid.

        Returns:
            {"set": NAME, "caption": TEXT} for each caption.
        """
        benchmark = self.plan.benchmark
        return grids.grid_entries(self.sets, benchmark.grid[0], benchmark.grid_captions)

    # --- real images: the ceiling and the floor

    def real(self) -> Row:
        """Make the row of real images other than the reference's, the ceiling.

        Returns:
            The row. It lacks the scores of `VARIETY` if each caption has one image.
        """

        def source(captions: CaptionSet, count: int, samples: int) -> ImageStream:
            return real_source(captions, count, samples if captions.has_variants else 1)

        row = real_row()
        return self._kept(
            row, {}, lambda p: self._score_real(row, p, source, self.headline.has_variants)
        )

    def floor(self) -> Row:
        """Make the row of real images with wrong captions, the floor.

        Returns:
            The row, with the scores that depend on captions.
        """
        row = floor_row()
        return self._kept(row, {}, lambda parts: self._score_real(row, parts, wrong_source, True))

    def _score_real(self, row: Row, parts: Parts, source: RealSource, many: bool) -> Row:
        """Score real images; `many` says whether captions have several, as diversity needs."""
        floor, samples = row.kind == "floor", self.plan.benchmark.samples
        for number, captions in enumerate(self.sets):
            own = source(captions, captions.prompts.count, samples)
            self._score(row, parts, captions.prompts, str(number), own, floor)
        if many:
            self._score(row, parts, None, VARIETY, source(self.headline, *self.variety()), floor)
        return row

    # --- models

    def model(self, entry: PlannedRun, run: Run) -> Row:
        """Make the row of a trained model.

        Args:
            entry: The planned run.
            run: The finished run.

        Returns:
            The row.
        """
        depends = {"model": model_digest(entry), "seed": entry.seed}
        row = model_row(entry)
        return self._kept(row, depends, lambda parts: self._score_model(row, parts, entry, run))

    def _score_model(self, row: Row, parts: Parts, entry: PlannedRun, run: Run) -> Row:
        model, benchmark = load(entry.place or run.path, str(self.device)), self.plan.benchmark
        for number, captions in enumerate(self.sets):
            source = self._source(row, model, captions.captions, benchmark.samples, str(number))
            self._score(row, parts, captions.prompts, str(number), source)
        count, samples = self.variety()
        source = self._source(row, model, self.headline.captions[:count], samples, VARIETY)
        self._score(row, parts, None, VARIETY, source)
        with self.timeline.spending(row.name, "sampling"):
            self.group.first(lambda: self._draw_grid(model, row))
        row.training = training_record(entry, run, model)
        row.sampling = {**model.sampler().dump(), **self._size_of(model), **row.sampling}
        row.curve = read_curve(run.metrics_file)
        return row

    def _size_of(self, model: Model) -> dict[str, str]:
        """Describe how a model's images were resized; nothing if they have the protocol's size."""
        ours, theirs = self.plan.benchmark.image_size, model.generator.image_size
        return (
            {}
            if ours == theirs
            else {"resized": f"from {theirs} to {ours} px (Lanczos, antialiased)"}
        )

    def _source(
        self, row: Row, model: Model, captions: Sequence[str], samples: int, where: str
    ) -> ImageStream:
        """Make the stream of a model's images.

        The noise of an image depends on the seed and the numbers of its caption and sample alone.
        """
        benchmark = self.plan.benchmark
        folder = self.plan.out / "pictures" / row.name / where

        def draw(part: range) -> Iterator[ImageBatch]:
            keys = [divmod(number, samples) for number in part]
            for batch in model.stream(captions, seed=benchmark.seed, keys=keys):
                images = images_of(batch, captions, benchmark.image_size)
                if self.plan.keep_images:
                    _keep(folder, batch, images)
                yield images

        def ready(part: range) -> bool:
            if not self.plan.keep_images:
                return True
            return all(_file(folder, *divmod(number, samples)).is_file() for number in part)

        return ImageStream(len(captions) * samples, draw, ready)

    def _draw_grid(self, model: Model, row: Row) -> None:
        """Sample the captions of the grid, and write the images and a sheet of them."""
        benchmark, images = self.plan.benchmark, []
        captions = [entry["caption"] for entry in self.grid_entries()]
        keys = [(p, s) for p in range(len(captions)) for s in range(benchmark.grid[1])]
        for batch in model.stream(captions, seed=benchmark.seed, keys=keys):
            for drawn in batch:
                image = resized(drawn.image, benchmark.image_size)
                grids.save_image(self.plan.out, row.name, drawn.prompt, drawn.sample, image)
                images.append(image)
        if self.training is not None:
            self._draw_nearest(row, images, self.training)
        path = grids.save_sheet(self.plan.out, row.name, images, captions, benchmark.grid[1])
        self.reporter.say(f"images of {row.name}: {path}")

    def _draw_nearest(self, row: Row, images: list[np.ndarray], training: TrainingImages) -> None:
        """Write the training image that is nearest to each image of the grid."""
        found = training.nearest_to(np.stack(images), self.scorer.extractors)
        for number, image in enumerate(found):
            caption, sample = divmod(number, self.plan.benchmark.grid[1])
            grids.save_image(self.plan.out, grids.nearest_to(row.name), caption, sample, image)

    # --- scores

    def _score(
        self,
        row: Row,
        parts: Parts,
        prompts: PromptSet | None,
        where: str,
        source: ImageStream,
        floor: bool = False,
    ) -> None:
        """Make the missing images of a set (None: `VARIETY`), then score the whole set.

        Each process makes its share; the first one scores.
        """
        names = self.scorer.names(prompts, captioned_only=floor)
        if not names:
            return
        title = prompts.name if prompts else VARIETY
        self.reporter.say(f"{row.name}, {title}: {source.count} images")
        with_images = any(self.scorer.prototypes[name].features is None for name in names)
        before = parts.filled

        def count(done: int, total: int) -> None:
            self.timeline.images(before + source.count * done // total)
            self.reporter.count(f"{row.name}, {title}", done, total)

        with self.timeline.spending(row.name, "scoring"):
            sampling = parts.fill(
                where, source, lambda images: self.scorer.look(images, names), with_images, count
            )
        self.timeline.add(row.name, "sampling", sampling)
        self.timeline.add(row.name, "scoring", -sampling)

        def judge() -> tuple[Any, Any, dict[str, float]]:
            scores, intervals = self.scorer.score_with_intervals(
                self.scorer.metrics(prompts, floor), parts.read(where, source)
            )
            pace = parts.clock.seconds / max(1, parts.clock.images)
            return scores, intervals, {"seconds_per_image": pace}

        with self.timeline.spending(row.name, "scoring"):
            row.scores[title], row.intervals[title], pace = self.group.first(judge)
        if row.kind == "model":
            row.sampling.update(pace)

    # --- what is kept

    def _kept(self, blank: Row, depends: dict[str, Any], make: Callable[[Parts], Row]) -> Row:
        """Read a row from OUT/scores if it has the same protocol, grid and model; else make it."""
        out, name, key = self.plan.out, short_name(blank), self._key(depends)
        place = out / "partial" / name
        found = self.group.first(lambda: self._found(blank, key))
        if found:
            self.group.first(lambda: remove_parts(place))  # of a command that was killed at its end
            self.reporter.say(f"{name}: scored before")
            return found
        parts = Parts(place, key, self.group)
        if parts.fresh and depends:
            # These images are another model's.
            self.group.first(lambda: grids.remove_images(out, name))
        row = make(parts)
        row.spent = dict(self.timeline.spent.get(row.name, {}))
        kept = KeptRow(key, self.plan.keep_images, row)
        self.group.first(lambda: kept.write(self._place(row)))
        self.group.first(lambda: remove_parts(place))
        return row

    def check_kept(self) -> None:
        """Check the files of finished rows that may be used, before anything is sampled.

        Raises:
            UserError: One of them is damaged.
        """
        for row in (real_row(), floor_row(), *map(model_row, self.plan.runs)):
            read_kept(self._place(row), row, self._key({}), self.scorer)

    def _key(self, depends: Mapping[str, Any]) -> dict[str, Any]:
        """Return everything that a row depends on; `depends` is what only its own model gives."""
        return {"protocol": self.protocol_hash, "grid": fingerprint(self.grid_entries()), **depends}

    def _place(self, row: Row) -> Path:
        """Return the file of a finished row."""
        return self.plan.out / "scores" / f"{short_name(row)}.json"

    def _found(self, blank: Row, key: Mapping[str, Any]) -> Row | None:
        """Read a row; None if its key differs, or if images of it are needed but not there."""
        kept = read_kept(self._place(blank), blank, key, self.scorer)
        if kept is None or kept.key != key:
            return None
        if kept.row.kind != "model":
            return kept.row
        if self.plan.keep_images and not kept.pictures:
            return None
        if kept.row.has_images and not self._has_grid(kept.row):
            self.reporter.say(
                f"{blank.name}: images of its grid are missing or damaged: sampling again"
            )
            return None
        return kept.row

    def _has_grid(self, row: Row) -> bool:
        """Tell whether exactly the images of the grid are there, sound and of the right size."""
        names = [row.name] if self.training is None else [row.name, grids.nearest_to(row.name)]
        samples, size = self.plan.benchmark.grid[1], self.plan.benchmark.image_size
        return all(
            grids.is_sound(self.plan.out, name, number, samples, size)
            for name in names
            for number in range(len(self.grid_entries()))
        )


def _file(folder: Path, prompt: int, sample: int) -> Path:
    return folder / f"{prompt:06d}-{sample}.png"


def _keep(folder: Path, batch: Sequence[Sample], images: ImageBatch) -> None:
    """Write images as they are scored, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for drawn, image in zip(batch, images.images, strict=True):
        place_bytes(_file(folder, drawn.prompt, drawn.sample), png(image))
