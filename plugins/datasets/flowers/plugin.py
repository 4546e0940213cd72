"""The plugin of the data set `flowers`."""

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DatasetSpec


@hookimpl
def t2i_datasets() -> list[DatasetSpec]:
    """Declare the data set `flowers`.

    Returns:
        Its specification.
    """
    return [
        DatasetSpec(
            name="flowers",
            summary="Oxford Flowers 102 with ten captions each; the layout of the StackGAN line",
            config="t2i.plugins.datasets.flowers.config:FlowersConfig",
            judge="clip",
            build="t2i.plugins.datasets.flowers.dataset:build",
            splits=("train", "val"),
            recognise="t2i.plugins.datasets.flowers.recognise:recognise",
        )
    ]
