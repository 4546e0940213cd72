"""Whether the data that is there fits a protocol, and which other protocols it fits."""

from __future__ import annotations

from t2i.benchmarks.run.caption_sets import CaptionSet, caption_set
from t2i.benchmarks.run.chosen_benchmark import find_benchmark
from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import Benchmark, PromptSet
from t2i.core.registry.tables import registry


def caption_sets(benchmark: Benchmark, folder: str | None) -> list[CaptionSet]:
    """Read the captions of all sets of a benchmark.

    Args:
        benchmark: The benchmark.
        folder: Folder of the data set. None: it needs none.

    Returns:
        The sets, in the benchmark's order.

    Raises:
        UserError: The data set lacks something. The message names the other protocols of the
            benchmark that fit what is there.
    """
    try:
        return [_whole_set(benchmark, prompts, folder) for prompts in benchmark.prompts]
    except UserError as error:
        others = [
            name
            for name in registry().benchmarks[benchmark.name].protocols
            if name != benchmark.protocol and _fits(find_benchmark(benchmark.name, name), folder)
        ]
        if not others:
            raise
        raise UserError(f"{error}; what is there fits --protocol {' or '.join(others)}") from None


def left_out(sets: list[CaptionSet]) -> list[str]:
    """Say what the data set of some captions left out.

    Args:
        sets: The sets of captions.

    Returns:
        A line for each split and reason.
    """
    return list(
        dict.fromkeys(
            f"split '{one.prompts.split}' is used without: {count} x {reason}"
            for one in sets
            for reason, count in one.whole.contents().passed_over.items()
        )
    )


def _whole_set(benchmark: Benchmark, prompts: PromptSet, folder: str | None) -> CaptionSet:
    """Read a set of captions; raise an error if the split is not as large as the protocol says."""
    captions = caption_set(benchmark, prompts, folder)
    found, needed = len(captions.whole), benchmark.whole
    if prompts.headline and needed and found != needed:
        raise UserError(
            f"benchmark '{benchmark.name}': protocol '{benchmark.protocol}' is defined on all "
            f"{needed:,} images of '{benchmark.dataset}', split '{prompts.split}', and {found:,} "
            "are there; get the others, or try it out with --samples N"
        )
    return captions


def _fits(benchmark: Benchmark, folder: str | None) -> bool:
    try:
        return bool([_whole_set(benchmark, prompts, folder) for prompts in benchmark.prompts])
    except UserError:
        return False
