"""Settings of the data set `subject`."""

from __future__ import annotations

from pydantic import Field

from t2i.plugins.common.images.config import ImagesConfig


class SubjectConfig(ImagesConfig):
    """Settings of the data set `subject`."""

    prompt: str | None = Field(None, min_length=1)
    """Caption of the subject's images: a rare word and the class, such as "a photo of sks dog"."""

    class_prompt: str | None = Field(None, min_length=1)
    """Caption of the class, such as "a photo of a dog". None: no prior preservation."""

    class_images: int = Field(100, ge=1)
    """Number of images of the class. The model samples those that are missing before it is trained.
    """

    class_dir: str | None = Field(None, min_length=1)
    """Folder of the images of the class. None: the subject's folder with "-class" after its name.
    """

    prior_weight: float = Field(1.0, gt=0)
    """Weight of the loss on the class, where that on the subject has weight 1.

    It is the ratio of how often images of the class and of the subject are visited.
    """
