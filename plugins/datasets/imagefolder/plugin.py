"""The plugin of the data set `imagefolder`."""

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DatasetSpec


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
            build="t2i.plugins.datasets.imagefolder.dataset:build",
            splits=("train", "val"),
            recognise="t2i.plugins.datasets.imagefolder.recognising:recognise",
            general=True,
        )
    ]
