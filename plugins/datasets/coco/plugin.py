"""The plugin `coco`: the data set `coco`, its downloads and its benchmark."""

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import BenchmarkSpec, DatasetSpec, DownloadSpec
from t2i.plugins.datasets.coco.downloads import COCO


@hookimpl
def t2i_datasets() -> list[DatasetSpec]:
    """Declare the data set `coco`.

    Returns:
        Its specification.
    """
    return [
        DatasetSpec(
            name="coco",
            summary=(
                "MS-COCO 2014 or 2017: photographs with five captions each, as the official files "
                "have them"
            ),
            config="t2i.plugins.datasets.coco.config:CocoConfig",
            judge="clip",
            build="t2i.plugins.datasets.coco.dataset:build",
            splits=("train", "val"),
            recognise="t2i.plugins.datasets.coco.recognise:recognise",
        )
    ]


@hookimpl
def t2i_downloads() -> list[DownloadSpec]:
    """Declare the download `coco`.

    Returns:
        Its specification.
    """
    return [COCO]


@hookimpl
def t2i_benchmarks() -> list[BenchmarkSpec]:
    """Declare the benchmark `coco`.

    Returns:
        Its specification.
    """
    return [
        BenchmarkSpec(
            name="coco",
            summary=(
                "photographs of everyday scenes: FID-30k as the field has it, or the thesis' 5,000 "
                "captions"
            ),
            config="t2i.plugins.datasets.coco.benchmark:CocoBenchmarkConfig",
            build="t2i.plugins.datasets.coco.benchmark:build",
            protocols=("coco-30k-256", "thesis-5k-128", "coco-tiny"),
        )
    ]
