"""The plugin of the data set `subject`."""

from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import DatasetSpec


@hookimpl
def t2i_datasets() -> list[DatasetSpec]:
    """Declare the data set `subject`.

    Returns:
        Its specification.
    """
    return [
        DatasetSpec(
            name="subject",
            summary="a few images of one subject, and images of its class that the model samples",
            config="t2i.plugins.datasets.subject.config:SubjectConfig",
            judge="clip",
            build="t2i.plugins.datasets.subject.dataset:build",
            splits=("train",),
        )
    ]
