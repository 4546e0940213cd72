"""The plugin of the data set `cub`."""

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DatasetSpec


@hookimpl
def t2i_datasets() -> list[DatasetSpec]:
    """Declare the data set `cub`.

    Returns:
        Its specification.
    """
    return [
        DatasetSpec(
            name="cub",
            summary=(
                "Caltech-UCSD Birds with ten captions each, cut to the bird; the layout of the "
                "StackGAN line"
            ),
            config="t2i.plugins.datasets.cub.config:CUBConfig",
            judge="clip",
            build="t2i.plugins.datasets.cub.dataset:build",
            splits=("train", "val"),
            recognise="t2i.plugins.datasets.cub.recognise:recognise",
        )
    ]
