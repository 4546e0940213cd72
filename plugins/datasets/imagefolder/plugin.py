"""The plugin of the data set `imagefolder`."""

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import BenchmarkSpec, DatasetSpec


@hookimpl
def t2i_datasets() -> list[DatasetSpec]:
    """Declare the data set `imagefolder`.

    Returns:
        Its specification.
    """
    return [
        DatasetSpec(
            name="imagefolder",
            summary=(
                "a folder of images with a table of captions (csv, json, ...) or a .txt beside each"
            ),
            config="t2i.plugins.datasets.imagefolder.config:ImageFolderConfig",
            judge="clip",
            build="t2i.plugins.datasets.imagefolder.dataset:build",
            splits=("train", "val"),
            recognise="t2i.plugins.datasets.imagefolder.recognising:recognise",
            general=True,
        )
    ]


@hookimpl
def t2i_benchmarks() -> list[BenchmarkSpec]:
    """Declare the benchmark `pictures`.

    Returns:
        Its specification.
    """
    return [
        BenchmarkSpec(
            name="pictures",
            summary="your own captioned images: distances, CLIP score, memorised images, diversity",
            config="t2i.plugins.datasets.imagefolder.benchmark:PicturesConfig",
            build="t2i.plugins.datasets.imagefolder.benchmark:build",
            protocols=("own",),
            any_data=True,
        )
    ]
