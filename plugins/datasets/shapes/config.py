"""Settings of the data set `shapes`, its features and its metric."""

from typing import Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import Config, DataConfig


class ShapesConfig(DataConfig):
    """Settings of the data set `shapes`.

    `one_object`, `two_objects`, `three_objects` and `counts` are weights; they need not sum to 1.
    """

    image_size: int = Field(default=32, ge=24, le=512)
    """Side of the images in pixels."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the scenes. Another seed gives other scenes in every split."""
    grammar: Literal["full", "simple"] = Field(default="full")
    """Which shapes, positions, backgrounds and kinds of scenes there are.

    "simple" has 3 shapes, 5 positions, a black background, and one or two objects.
    """
    captions_per_image: int = Field(default=4, ge=1, le=16)
    """Number of captions of each image."""
    one_object: float = Field(default=0.55, ge=0)
    """Relative share of scenes with one object."""
    two_objects: float = Field(default=0.25, ge=0)
    """Relative share of scenes with two different objects."""
    three_objects: float = Field(default=0.08, ge=0)
    """Relative share of scenes with three different objects. Ignored by the simple grammar."""
    counts: float = Field(default=0.12, ge=0)
    """Relative share of scenes with two or three equal objects. Ignored by the simple grammar."""
    partial_captions: float = Field(default=0.1, ge=0, le=1)
    """Fraction of the train captions that leave out sizes or positions."""
    train_length: int = Field(default=20_000, ge=1)
    """Length of the train split. If `endless`, it is nominal: every index gives another example."""
    endless: bool = Field(default=True)
    """Whether train never repeats an example. If false, it repeats `train_length` examples."""
    val_length: int = Field(default=2_000, ge=1)
    """Length of the splits val and compositions."""

    @model_validator(mode="after")
    def _some_scenes(self) -> Self:
        if not sum(self.shares.values()):
            raise ValueError(
                f"no kind of scene of the {self.grammar} grammar has a share: set one_object "
                "above 0"
            )
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Weight of each kind of scene that the grammar has."""
        shares = {"one": self.one_object, "two": self.two_objects}
        if self.grammar == "full":
            shares |= {"three": self.three_objects, "count": self.counts}
        return shares


class FeaturesConfig(Config):
    """Settings of the features `shapes`. There are none."""


class ClipFeaturesConfig(Config):
    """Settings of the features `shapes-clip`. There are none."""


class CaptionAccuracyConfig(Config):
    """Settings of the metric `caption-accuracy`. There are none."""
