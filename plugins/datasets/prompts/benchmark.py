"""Benchmarks of prompts alone: DrawBench, PartiPrompts and GenEval's prompts, scored by judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from t2i.core.interfaces.scoring import Benchmark, Measure, PromptSet
from t2i.plugins.datasets.prompts.config import PromptBenchmarkConfig

IMAGE_SIZE = 512
"""Height and width to which all images are brought, pixels.

CLIPs and BLIP see no more than 224, Qwen2-VL sees all of them.
"""

JUDGES = (
    Measure("pickscore", shown={"pickscore": "PickScore"}, optional=True),
    Measure("hpsv2", shown={"hpsv2": "HPSv2.1"}, optional=True),
    Measure("image-reward", shown={"image_reward": "ImageReward"}, optional=True),
    Measure("vqascore", shown={"vqascore": "VQAScore %"}, optional=True),
    Measure(
        "clip-score", {"features": "clip-vit-l-14"}, label="clip-l-14",
        shown={"clip_score": "CLIP L/14"}, optional=True,
    ),
    Measure(
        "clip-score", {"features": "clip"}, label="clip-b-32",
        shown={"clip_score": "CLIP B/32"}, optional=True,
    ),
)  # fmt: skip
"""The judges. One whose weights are not here is left out."""

OBJECTS = Measure(
    "geneval", shown={"geneval": "GenEval %"}, optional=True,
    bars=("single_object", "two_object", "counting", "colors", "position", "color_attr"),
)  # fmt: skip
"""GenEval's own judge, of its own prompts alone."""


@dataclass(frozen=True)
class PromptTable:
    """A published table of prompts.

    Args:
        name: Name of the benchmark, and of the download.
        protocol: Name of its protocol.
        file: Name of the table.
        column: Column of the prompts.
        count: Number of its prompts.
        judges: Who scores the images. The first one sorts the table.
    """

    name: str
    protocol: str
    file: str
    column: str
    count: int
    judges: tuple[Measure, ...] = JUDGES


TABLES: Mapping[str, PromptTable] = MappingProxyType({
    table.protocol: table
    for table in (
        PromptTable("drawbench", "drawbench-200", "DrawBench.csv", "prompts", 200),
        PromptTable("parti-prompts", "parti-prompts-1632", "PartiPrompts.tsv", "prompt", 1632),
        PromptTable(
            "geneval-prompts", "geneval-prompts-553", "evaluation_metadata.jsonl", "prompt", 553,
            (OBJECTS, *JUDGES),
        ),
    )
})  # fmt: skip
"""The tables by the name of their protocol."""


def build(config: PromptBenchmarkConfig, protocol: str) -> Benchmark:
    """Build a benchmark of prompts.

    Args:
        config: Ignored; there are no settings.
        protocol: One of `TABLES`.

    Returns:
        The benchmark.
    """
    table = TABLES[protocol]
    first = table.judges[0]
    headline = (first.name, next(iter(first.shown)))
    return Benchmark(
        name=table.name,
        protocol=protocol,
        dataset="prompt-table",
        image_size=IMAGE_SIZE,
        prompts=(
            PromptSet(
                "prompts", "val", table.count, headline=True,
                about=f"All {table.count:,} prompts of {table.file}, one image of each.",
            ),
        ),
        measures=table.judges,
        headline=headline,
        spare_headline=("pickscore", "pickscore"),
        default_models=(),
        minutes=1,
        reference=0,
        fetch=table.name,
        data={"file": table.file, "column": table.column},
        whole=table.count,
        grid=(8, 1),
    )  # fmt: skip
