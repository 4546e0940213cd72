"""Settings of the judges that were trained on people's preferences."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from t2i.core.settings import Config
from t2i.plugins.common.clip.config import ClipFeaturesConfig


class PickScoreConfig(ClipFeaturesConfig):
    """Settings of the features `pickscore`."""

    title: ClassVar[str] = "pickscore"
    weights: str = Field("yuvalkirstain/PickScore_v1", min_length=1)
    """PickScore's weights: a name on the Hugging Face hub, or a folder.

    The folder holds config.json, model.safetensors and the tokenizer's files.
    """


class JudgeFileConfig(Config):
    """Settings of a judge whose weights are one file."""

    title: ClassVar[str]
    weights: str | None = Field(None, min_length=1)
    """Path of the weights, in the file that their authors published.

    None: the file that `t2i fetch` has downloaded.
    """
    tokenizer: str | None = Field(None, min_length=1)
    """Folder with the tokenizer's files. None: they are beside the weights."""

    @property
    def file(self) -> str:
        """Name of the published file of weights."""
        raise NotImplementedError


class HpsV2Config(JudgeFileConfig):
    """Settings of the features `hpsv2`."""

    title: ClassVar[str] = "hpsv2"
    version: Literal["v2.1", "v2.0"] = "v2.1"
    """Version of the judge: "v2.1", trained on better data, or "v2.0", the paper's.

    Scores of the two cannot be compared.
    """

    @property
    def file(self) -> str:
        return {"v2.1": "HPS_v2.1_compressed.pt", "v2.0": "HPS_v2_compressed.pt"}[self.version]


class ImageRewardConfig(JudgeFileConfig):
    """Settings of the features `image-reward`."""

    title: ClassVar[str] = "image-reward"

    @property
    def file(self) -> str:
        return "ImageReward.pt"
