"""Score the images of any program against real ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t2i.benchmarks.score.available_measures import hindrance
from t2i.benchmarks.score.extraction import Extractors
from t2i.benchmarks.score.images.captions import read_captions
from t2i.benchmarks.score.images.protocols import find_protocol, named_measure, title
from t2i.benchmarks.score.images.remarks import notes, warnings
from t2i.benchmarks.score.images.result import ImageScores, Score
from t2i.benchmarks.score.images.sides import Given, features_of, open_side
from t2i.benchmarks.score.images.statistics import Statistics, save_statistics
from t2i.benchmarks.score.metrics.common import TooFew
from t2i.benchmarks.score.metrics.fid import Fid, Gaussian, Moments
from t2i.benchmarks.score.scorer import build_metric
from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import ImageBatch, Measure, Metric
from t2i.core.registry.tables import registry

Progress = Callable[[str, int, int], None]
"""Receives which set is read, how many of its images are read, and how many there are."""

NO_IMAGES = np.zeros((0, 0, 0, 3), np.uint8)
WITHOUT = (
    "without a download, --features pixels compares images shrunk to 16x16 (layout and colour; not "
    "the FID of papers)"
)


@dataclass(frozen=True)
class ScoreRequest:
    """What to score, and how.

    Args:
        images: The images: a folder, a .zip, a .npz or .npy file, or images in memory. Statistics
            in a .npz file can be compared by FID alone.
        reference: The real images, likewise. None: nothing is compared.
        protocol: Name of the protocol. None: the default one.
        measures: Measures, each "METRIC" or "METRIC:FEATURES". None: those of the protocol that
            can be computed here, and the CLIP score if every image has a caption.
        features: Registry name of the features of the measures that compare two sets. None: the
            protocol's.
        settings: Settings of feature extractors, by registry name.
        captions: A file with a caption for each image (`read_captions`), or the captions. None:
            those that lie beside the images.
        recursive: Whether subfolders are read. None: as the protocol's program does.
        on_white: Whether transparent images are laid on white. The field's programs drop the
            transparency instead, so that what lies under it counts.
        save: File to write the statistics of `images` to. None: they are not written.
        device: Where the networks run.
        progress: Receives the progress. None: nobody does.
    """

    images: Given
    reference: Given | None = None
    protocol: str | None = None
    measures: Sequence[str | Measure] | None = None
    features: str | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    captions: str | Path | Sequence[str] | None = None
    recursive: bool | None = None
    on_white: bool = False
    save: Path | None = None
    device: torch.device | str = "cpu"
    progress: Progress | None = None


def score_images(request: ScoreRequest) -> ImageScores:
    """Score a set of images.

    Args:
        request: The images and how they are scored.

    Returns:
        The scores.

    Raises:
        UserError: Something is missing, unknown or unreadable.
    """
    return _Session(request).run()


class _Session:
    """One request while it is served."""

    def __init__(self, request: ScoreRequest) -> None:
        if request.save is not None and request.save.suffix != ".npz":
            raise UserError(f"--save-statistics {request.save}: give a name that ends in .npz")
        self.request, self.protocol = request, find_protocol(request.protocol)
        recursive = self.protocol.recursive if request.recursive is None else request.recursive
        white = request.on_white
        self.ours = open_side(request.images, recursive, white)
        real = request.reference
        self.real = None if real is None else open_side(real, recursive, white)
        self.recursive = recursive
        if request.save and self.ours.images is None:
            raise UserError(f"{self.ours.where}: it holds statistics already; nothing to save")
        own = self.protocol.features
        self.settings = {
            name: {**own.get(name, {}), **request.settings.get(name, {})}
            for name in {*own, *request.settings}
        }
        self.captions = self._captions()
        self.groups = _groups(self.captions)
        self.left_out: dict[str, str] = {}
        self.measures = {measure.name: measure for measure in self._measures()}
        self.metrics = {name: build_metric(measure) for name, measure in self.measures.items()}
        self.saved_features = self._saved_features() if request.save else ""
        used = [str(metric.features) for metric in self.metrics.values() if metric.features]
        self.extractors = _extractors(
            [*used, *filter(None, [self.saved_features])], request.device, self.settings
        )
        self.assumed: list[str] = []

    def run(self) -> ImageScores:
        self._take_statistics()
        self._read_reference()
        alone = self.ours.images is None
        scores = self._statistics_alone() if alone else self._images_scored()
        sides = [(s.images, s.seen) for s in (self.ours, self.real) if s is not None]
        return ImageScores(
            scores,
            self._document(),
            self.ours.document(),
            self.real.document() if self.real else None,
            self.left_out,
            [*dict.fromkeys(self.assumed), *notes(self.protocol, sides)],
            warnings(sides, scores),
            self.request.save,
        )

    # --- what is measured

    def _captions(self) -> list[str]:
        """Return a caption for each image; empty where there is none."""
        images, given = self.ours.images, self.request.captions
        if images is None:
            return []
        if given is None or given == ():
            return [images.told.get(name, "") for name in images.names]
        if isinstance(given, str | Path):
            return read_captions(Path(given).expanduser(), images.names)
        if len(given) != len(images):
            raise UserError(
                f"captions: there are {len(given)} for {len(images)} images in {images.where}; "
                "give one for each"
            )
        return list(given)

    def _measures(self) -> list[Measure]:
        """Choose the measures: those that are named, else those of the protocol that can be made.

        Raises:
            UserError: A named one cannot be made, or none of the protocol's can.
        """
        protocol, features = self.protocol, self.request.features
        if self.request.measures is not None:
            measures = [
                named_measure(measure, protocol, features) if isinstance(measure, str) else measure
                for measure in self.request.measures
            ]
            for measure in measures:
                if why := self._unfit(measure):
                    raise UserError(f"measure '{measure.name}': {why}")
            return measures
        usual = [named_measure(m.metric, protocol, features) for m in protocol.measures]
        usual += [Measure("clip-score")] if self.captions and all(self.captions) else []
        for measure in usual:
            if why := self._unfit(measure) or hindrance(measure, self.settings):
                self.left_out[measure.name] = why
        made = [measure for measure in usual if measure.name not in self.left_out]
        if not made and not self.request.save:
            reasons = "; ".join(dict.fromkeys(self.left_out.values()))
            raise UserError(f"no measure can be computed here: {reasons}; {WITHOUT}")
        if self.request.save and self.real is None:
            self.left_out.clear()  # statistics are wanted, not scores
        return made

    def _unfit(self, measure: Measure) -> str | None:
        """Say why a measure cannot be made of what is given; None if it can."""
        metric = build_metric(measure)
        if self.ours.images is None and not isinstance(metric, Fid):
            return "it needs images, and IMAGES holds statistics alone"
        if metric.text and not all(self.captions):
            lacking = self.captions.count("")
            return f"{lacking} images have no caption; name a file of captions with --captions"
        if metric.training:
            return "it compares with the images that a model was trained on: only 't2i bench' can"
        if not metric.reference:
            return None
        if self.real is None:
            return "it compares with real images: name them with --reference"
        if self.real.images is None and not isinstance(metric, Fid):
            return "it needs real images, and the reference holds statistics alone"
        return None

    # --- the reference

    def _take_statistics(self) -> None:
        """Give FID the statistics of the reference, if it has some."""
        if self.real is None or self.real.statistics is None:
            return
        for metric in self._of_fid():
            self._check(self.real.statistics, str(metric.features))
            metric.use_statistics(self.real.statistics.gaussian)

    def _of_fid(self) -> list[Fid]:
        return [metric for metric in self.metrics.values() if isinstance(metric, Fid)]

    def _check(self, statistics: Statistics, features: str) -> None:
        """Check that statistics are of some features, and note what is assumed."""
        described = self.extractors.describe(features)
        found, width = len(statistics.gaussian.mean), self.extractors.width(features)
        if found != width:
            raise UserError(
                f"{statistics.where}: it is of {found} features, but '{features}' has {width}; "
                "name theirs with --features"
            )
        if assumed := statistics.check(described):
            self.assumed.append(assumed)

    def _read_reference(self) -> None:
        side = self.real
        if side is None or side.images is None:
            return
        compared = [
            metric for metric in self.metrics.values()
            if metric.reference and not (isinstance(metric, Fid) and side.statistics)
        ]  # fmt: skip
        names = {str(metric.features) for metric in compared}
        for _, batch in side.batches(self._telling("reference")) if compared else ():
            found = features_of(batch, names, self.extractors)
            for metric in compared:
                metric.update_reference(found[str(metric.features)])

    def _telling(self, what: str) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            if self.request.progress:
                self.request.progress(what, done, total)

        return tell

    # --- the images

    def _images_scored(self) -> list[Score]:
        read = {str(metric.features) for metric in self.metrics.values() if metric.features}
        names, kept = read | set(filter(None, [self.saved_features])), Moments()
        for rows, batch in self.ours.batches(self._telling("images")):
            said = [self.captions[row] for row in rows]
            found = features_of(batch, names, self.extractors, said)
            self._update(rows, batch, found)
            if self.saved_features:
                kept.add(found[self.saved_features])
        scores = [score for name in self.metrics for score in self._scores(name)]
        if self.request.save:
            self._save(self.request.save, kept)
        return scores

    def _update(
        self, rows: Sequence[int], batch: Sequence[np.ndarray], found: Mapping[str, Tensor]
    ) -> None:
        """Give a batch to all metrics."""
        said = tuple(self.captions[row] for row in rows)
        texts = self.extractors.of_text(
            said, {str(metric.features) for metric in self.metrics.values() if metric.text}
        )
        for metric in self.metrics.values():
            # The others choose by the order of the files alone, as the field's programs do.
            by_caption = metric.text or metric.scope == "variety"
            groups = tuple(self.groups[row] if by_caption else row for row in rows)
            if metric.features:
                metric.update(ImageBatch(NO_IMAGES, said, groups, found, texts))
                continue
            for image, caption, group in zip(batch, said, groups, strict=True):
                metric.update(ImageBatch(image[None], (caption,), (group,)))

    def _scores(self, name: str) -> list[Score]:
        metric = self.metrics[name]
        try:
            values = metric.compute()
        except TooFew as error:
            raise UserError(f"{error.shortage}; give more, or name other --measures") from None
        intervals = metric.intervals()
        return [
            self._score(name, metric, score, value, intervals.get(score))
            for score, value in values.items()
        ]

    def _score(
        self, measure: str, metric: Metric, name: str, value: float,
        interval: tuple[float, float] | None,
    ) -> Score:  # fmt: skip
        features, reference = metric.features, None
        described: dict[str, Any] = {}
        if features:
            width = self.extractors.width(features)
            described = {
                "features": features, **self.extractors.describe(features), "width": width
            }  # fmt: skip
        if self.real and metric.reference:
            statistics = self.real.statistics if isinstance(metric, Fid) else None
            reference = statistics.count if statistics else self.real.count
        return Score(
            measure, name, title(self.measures[measure].metric, name, features), value, interval,
            metric.better.get(name, "none"), described, self.ours.count, reference,
        )  # fmt: skip

    # --- statistics

    def _statistics_alone(self) -> list[Score]:
        """Compare statistics with the reference by FID: there are no images, so no interval."""
        ours, scores = self.ours.statistics, []
        assert ours is not None
        for name, metric in self.metrics.items():
            assert isinstance(metric, Fid)
            self._check(ours, str(metric.features))
            scores.append(self._score(name, metric, "fid", metric.distance(ours.gaussian), None))
        return scores

    def _saved_features(self) -> str:
        """Return the features that statistics are saved of: those of FID."""
        fid = next(iter(self._of_fid()), None)
        if fid is not None:
            return str(fid.features)
        return str(named_measure("fid", self.protocol, self.request.features).settings["features"])

    def _save(self, path: Path, kept: Moments) -> None:
        if kept.count < 2:
            raise UserError(f"--save-statistics {path}: a covariance needs at least 2 images")
        about = {
            "extractor": self.extractors.describe(self.saved_features),
            "protocol": self.protocol.name,
            "images": kept.count,
        }
        save_statistics(path, Statistics(str(path), Gaussian(kept.mean, kept.covariance), about))

    def _document(self) -> dict[str, Any]:
        """Describe everything that the scores depend on besides the images."""
        metrics = registry().metrics
        own = {str(m.settings.get("features")).partition("/")[0] for m in self.protocol.measures}
        used = {name.partition("/")[0] for name in self.extractors.names}
        return {
            "name": self.protocol.name,
            "resize": self.protocol.resize if own & used else "each network's own resizing",
            "recursive": self.recursive,
            "transparency": "on white" if self.request.on_white else "dropped",
            "extractors": self.settings,
            "measures": {
                name: {
                    "metric": m.metric,
                    "settings": metrics.choose(m.metric, m.settings, "metric").config.model_dump(
                        mode="json"
                    ),
                    **self.metrics[name].protocol(),
                }
                for name, m in self.measures.items()
            },
            "torch_fidelity": version("torch-fidelity"),
        }


def _groups(captions: Sequence[str]) -> list[int]:
    """Number the captions, equal ones alike; images without a caption have numbers of their own."""
    numbers: dict[str | int, int] = {}
    return [
        numbers.setdefault(caption or row, len(numbers)) for row, caption in enumerate(captions)
    ]


def _extractors(
    names: Collection[str],
    device: torch.device | str,
    settings: Mapping[str, Mapping[str, Any]],
) -> Extractors:
    """Build the feature extractors.

    Raises:
        UserError: One is unknown or missing. Where weights are missing, the error names a way
            without a download.
    """
    try:
        return Extractors(names, device, settings)
    except UserError as error:
        missing = any(name.partition("/")[0] in registry().downloads for name in names)
        raise UserError(f"{error}; {WITHOUT}" if missing else str(error)) from None
