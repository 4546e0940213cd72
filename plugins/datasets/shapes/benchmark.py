"""The benchmark `shapes`: images that take milliseconds, captions whose every claim is checked."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from t2i.core.interfaces.scoring import Benchmark, Measure, PromptSet
from t2i.core.settings import Config

_ONE_OBJECT: Mapping[str, Any] = MappingProxyType(
    {"two_objects": 0, "three_objects": 0, "counts": 0}
)

_ATTRIBUTES = ("shape", "colour", "size", "position", "background", "count", "all")


class ShapesBenchmarkConfig(Config):
    """Settings of the benchmark. There are none."""


def build(config: ShapesBenchmarkConfig, protocol: str) -> Benchmark:
    """Build the benchmark `shapes`.

    Its one protocol is "tiny": 32 px, and ten minutes for two models on two CPU cores. No two
    prompt sets show the same scenes, because they differ in split or seed.

    Args:
        config: Ignored; there are no settings.
        protocol: "tiny".

    Returns:
        The benchmark.
    """
    return Benchmark(
        name="shapes",
        protocol=protocol,
        dataset="shapes",
        image_size=32,
        prompts=(
            PromptSet(
                "one object", "val", 400, _ONE_OBJECT, headline=True,
                about="One object; all attributes said.",
            ),
            # With this seed, the first captions, which the report shows, are of two objects, of a
            # count and of three objects.
            PromptSet(
                "all kinds", "val", 200, {"seed": 58},
                about="One to three objects, relations and counts.",
            ),
            PromptSet(
                "compositions", "compositions", 200, _ONE_OBJECT,
                about="One object in a combination of attributes that training never shows.",
            ),
            PromptSet(
                "simple", "val", 200, {**_ONE_OBJECT, "grammar": "simple", "seed": 2},
                about="One object of the simpler grammar: 3 shapes, 5 positions, black background.",
            ),
        ),
        measures=(
            Measure("caption-accuracy", shown={"all": "all right %"}, bars=_ATTRIBUTES),
            Measure(
                "fid", {"features": "shapes", "bootstrap": 100},
                shown={"fid": "FD, shapes network"},
            ),
            Measure(
                "kid", {"features": "shapes", "subset_size": 200},
                shown={"kid": "KD, shapes network"},
            ),
            Measure(
                "prc", {"features": "shapes"},
                shown={"precision": "precision %", "recall": "recall %"},
            ),
            Measure("diversity", {"features": "shapes"}, shown={"diversity": "diversity %"}),
        ),
        headline=("caption-accuracy", "all"),
        default_models=(("ldm", "galip"), ("ldm", "dfgan")),
        minutes=4,
        reference=2000,
        grid=(3, 4),
        marks={"": (90,), "one-shot": (50, 85)},
        presets=("shapes", "tiny"),
    )  # fmt: skip
