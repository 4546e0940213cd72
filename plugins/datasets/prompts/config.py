"""Settings of the data set `prompt-table` and of the benchmarks on it."""

from __future__ import annotations

from pydantic import Field

from t2i.core.settings import Config, DataConfig


class PromptsConfig(DataConfig):
    """Settings of the data set `prompt-table`."""

    file: str = Field("PartiPrompts.tsv", min_length=1)
    """Name of the table of prompts in the folder: .csv, .tsv, .jsonl or .json."""

    column: str = Field("prompt", min_length=1)
    """Column of the prompts; capital letters do not matter."""


class PromptBenchmarkConfig(Config):
    """Settings of a benchmark of prompts. There are none."""
