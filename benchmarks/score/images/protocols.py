"""Named ways to score folders of images, each equal to a program that papers use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from t2i.core.errors import UserError, nearest
from t2i.core.interfaces.scoring import Measure
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry

_INCEPTION = {"features": "inception/pool"}
MEASURES = (
    Measure("fid", _INCEPTION),
    Measure("kid", _INCEPTION),
    Measure("isc"),
    Measure("prc", {"features": "vgg16"}),
)
"""The measures that torch-fidelity's command prints."""

COMPARING = "features"
"""The setting of a metric that names its features."""


@dataclass(frozen=True)
class ScoreProtocol:
    """How the images of two folders are compared.

    Args:
        name: Name of the protocol: the program whose numbers it reproduces.
        measures: The measures that the program computes.
        resize: How the program resizes images, in words.
        features: Settings of feature extractors, by registry name.
        recursive: Whether the program reads subfolders.
        suffixes: Extensions of the files that the program itself reads, in lower case.
    """

    name: str
    measures: tuple[Measure, ...]
    resize: str
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    recursive: bool = False
    suffixes: frozenset[str] = frozenset({".png", ".jpg", ".jpeg"})


_MORE = frozenset({".bmp", ".jpg", ".jpeg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

PROTOCOLS: Mapping[str, ScoreProtocol] = MappingProxyType({
    protocol.name: protocol
    for protocol in (
        ScoreProtocol(
            "torch-fidelity", MEASURES, "bilinear as in TensorFlow 1, no antialiasing"
        ),
        ScoreProtocol(
            "clean-fid", MEASURES[:2], "bicubic with antialiasing, not rounded (mode clean)",
            {"inception": {"resize": "clean-fid"}}, recursive=True, suffixes=_MORE,
        ),
        ScoreProtocol(
            "pytorch-fid", MEASURES[:1], "bilinear, no antialiasing",
            {"inception": {"resize": "pytorch-fid"}}, suffixes=_MORE,
        ),
    )
})  # fmt: skip
"""The protocols by name, the default one first."""


def find_protocol(name: str | None) -> ScoreProtocol:
    """Find a protocol.

    Args:
        name: Its name. None: the first one.

    Returns:
        The protocol.

    Raises:
        UserError: There is none of that name.
    """
    if name is None:
        return next(iter(PROTOCOLS.values()))
    if name not in PROTOCOLS:
        raise UserError(f"no protocol is named '{name}'{nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def named_measure(text: str, protocol: ScoreProtocol, features: str | None) -> Measure:
    """Make the measure that a user names.

    Args:
        text: "METRIC", or "METRIC:FEATURES".
        protocol: The protocol, whose features are used if none are named.
        features: Features of the metrics of the protocol that compare two sets of images. None: the
            protocol's.

    Returns:
        The measure. Its name is `text`.
    """
    metric, _, own = text.partition(":")
    if own:
        return Measure(metric, {COMPARING: own}, label=text)
    usual = next((m for m in (*protocol.measures, *MEASURES) if m.metric == metric), None)
    settings = usual.settings if usual else _INCEPTION if _asks_for_features(metric) else {}
    return Measure(metric, {**settings, **({COMPARING: features} if features and settings else {})})


def _asks_for_features(metric: str) -> bool:
    """Tell whether a metric's features must be named, as it has no network of its own."""
    fields = import_object(registry().metrics[metric].config).model_fields
    return COMPARING in fields and fields[COMPARING].is_required()


def title(measure: str, score: str, features: str | None) -> str:
    """Name a score for people. "FID" and "KID" are those of papers, on Inception's features.

    Args:
        measure: Registry name of the metric.
        score: Name of the score.
        features: Registry name of the features. None: there are none.

    Returns:
        The title.
    """
    field_names = {"fid": ("FID", "FD"), "kid": ("KID", "KD")}
    distance = score.removesuffix("_std")
    if distance in field_names:
        usual, general = field_names[distance]
        name = usual if features == _INCEPTION["features"] else f"{general}, {features}"
        return name if distance == score else f"{name}, spread"
    words = {
        "isc": "IS", "precision": "precision %", "recall": "recall %", "clip_score": "CLIP score",
        "clip_s": "CLIP-S", "r_precision": "R-precision %", "diversity": "diversity %",
        "isc_std": "IS, spread", "pickscore": "PickScore", "hpsv2": "HPSv2",
        "image_reward": "ImageReward", "vqascore": "VQAScore %", "tifa": "TIFA %", "dsg": "DSG %",
        "geneval": "GenEval %",
    }  # fmt: skip
    return words.get(score, score if score == measure else f"{measure}, {score}")
