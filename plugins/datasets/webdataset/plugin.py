"""The plugin of the data set `webdataset`."""

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DatasetSpec


@hookimpl
def t2i_datasets() -> list[DatasetSpec]:
    """Declare the data set `webdataset`.

    Returns:
        Its specification.
    """
    return [
        DatasetSpec(
            name="webdataset",
            summary=(
                "tar shards of images and captions, as img2dataset writes them, in a folder or by "
                "URL"
            ),
            config="t2i.plugins.datasets.webdataset.config:WebDatasetConfig",
            judge="clip",
            build="t2i.plugins.datasets.webdataset.dataset:build",
            splits=("train", "val"),
            recognise="t2i.plugins.datasets.webdataset.recognise:recognise",
        )
    ]
