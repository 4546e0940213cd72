"""The plugin of the data set `prompt-table`, its downloads and its benchmarks."""

from __future__ import annotations

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import BenchmarkSpec, DatasetSpec, DownloadFile, DownloadSpec

GITHUB = "https://raw.githubusercontent.com"
SHEET = "https://docs.google.com/spreadsheets/d/1y7nAbmR4FREi6npB1u-Bo3GFdwdOPYJc617rBOxIRHY"


@hookimpl
def t2i_datasets() -> list[DatasetSpec]:
    """Declare the data set `prompt-table`.

    Returns:
        Its specification.
    """
    return [
        DatasetSpec(
            name="prompt-table",
            summary="a table of prompts without images, to sample and score models on",
            config="t2i.plugins.datasets.prompts.config:PromptsConfig",
            build="t2i.plugins.datasets.prompts.dataset:build",
            splits=("val",),
            images=False,
        )
    ]


@hookimpl
def t2i_benchmarks() -> list[BenchmarkSpec]:
    """Declare the benchmarks `drawbench`, `parti-prompts` and `geneval-prompts`.

    Returns:
        Their specifications.
    """
    return [
        _benchmark("drawbench", "200 hard prompts of Imagen's authors", "drawbench-200"),
        _benchmark("parti-prompts", "1,632 prompts of Parti's authors", "parti-prompts-1632"),
        _benchmark("geneval-prompts", "GenEval's 553 prompts about objects", "geneval-prompts-553"),
    ]


def _benchmark(name: str, what: str, protocol: str) -> BenchmarkSpec:
    return BenchmarkSpec(
        name=name,
        summary=f"{what}, without real images; scored by the judges that are here",
        config="t2i.plugins.datasets.prompts.config:PromptBenchmarkConfig",
        build="t2i.plugins.datasets.prompts.benchmark:build",
        protocols=(protocol,),
    )


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    """Declare the downloads of the prompts, under the names of their benchmarks.

    Returns:
        Their specifications.
    """
    return [
        DownloadSpec(
            name="drawbench",
            summary="DrawBench's 200 prompts, from its authors' sheet",
            licence="unknown (its page names none)",
            licence_url="https://imagen.research.google",
            files=(
                DownloadFile(url=f"{SHEET}/gviz/tq?tqx=out:csv&sheet=Sheet1", path="DrawBench.csv"),
            ),
        ),
        DownloadSpec(
            name="parti-prompts",
            summary="PartiPrompts: 1,632 prompts with category and challenge",
            licence="Apache-2.0",
            licence_url="https://github.com/google-research/parti/blob/main/LICENSE",
            files=(
                DownloadFile(
                    url=f"{GITHUB}/google-research/parti/5a657978134374ce28973948331b319adef164bd/"
                    "PartiPrompts.tsv",
                    size=123_107,
                    checksum=(
                        "sha256:fab29e41bb512a169b56acab4cf2a41dcb675e285df2efcde6640c7dd3c440eb"
                    ),
                ),
            ),
        ),
        DownloadSpec(
            name="geneval-prompts",
            summary="GenEval's 553 prompts with what an image of each must show",
            licence="MIT",
            licence_url="https://github.com/djghosh13/geneval/blob/main/LICENSE",
            files=(
                DownloadFile(
                    url=f"{GITHUB}/djghosh13/geneval/af4902f24d3ca90ebbb446dd9891a59e0f82725f/"
                    "prompts/evaluation_metadata.jsonl",
                    size=85_209,
                    checksum=(
                        "sha256:5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
                    ),
                ),
            ),
        ),
    ]
