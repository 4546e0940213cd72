"""Settings of `shapes`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import Config, DataConfig


class ShapesConfig(DataConfig):
    """What is drawn. The four shares of train and val are weights; they need not sum to 1."""

    image_size: int = Field(default=32, ge=24, le=512, description="side of the images in pixels")
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="another seed gives other scenes in every split"
    )
    grammar: Literal["full", "simple"] = Field(
        default="full",
        description="simple: 3 shapes, 5 positions, black background, one or two objects",
    )
    captions_per_image: int = Field(default=4, ge=1, le=16)
    one_object: float = Field(default=0.55, ge=0, description="share of scenes with one object")
    two_objects: float = Field(default=0.25, ge=0, description="share of scenes with two")
    three_objects: float = Field(
        default=0.08, ge=0, description="share with three; 0 in the simple grammar"
    )
    counts: float = Field(
        default=0.12, ge=0, description="share with two or three alike; 0 in the simple grammar"
    )
    partial_captions: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of train captions that leave out sizes or positions",
    )
    train_length: int = Field(
        default=20_000, ge=1, description="nominal length; any index gives another example"
    )
    endless: bool = Field(
        default=True, description="false: train is its `train_length` examples, over and over"
    )
    val_length: int = Field(default=2_000, ge=1, description="length of val and of compositions")

    @model_validator(mode="after")
    def _some_scenes(self) -> Self:
        if not sum(self.shares.values()):
            raise ValueError(
                f"no kind of scene of the {self.grammar} grammar has a share: set one_object above 0"
            )
        return self

    @property
    def shares(self) -> dict[str, float]:
        """The weight of each kind of scene that the grammar has."""
        shares = {"one": self.one_object, "two": self.two_objects}
        if self.grammar == "full":
            shares |= {"three": self.three_objects, "count": self.counts}
        return shares


class FeaturesConfig(Config):
    """Settings of the feature extractor: none."""


class CaptionAccuracyConfig(Config):
    """Settings of the caption score: none."""
