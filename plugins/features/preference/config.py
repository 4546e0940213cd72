"""Settings of the judges that were trained on people's preferences."""

from __future__ import annotations

from typing import ClassVar

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
    file: ClassVar[str]
    weights: str | None = Field(None, min_length=1)
    """Path of the weights, in the file that their authors published.

    None: the file that `t2i fetch` has downloaded.
    """
    tokenizer: str | None = Field(None, min_length=1)
    """Folder with the tokenizer's files. None: they are beside the weights."""


class HpsV2Config(JudgeFileConfig):
    """Settings of the features `hpsv2`."""

    title: ClassVar[str] = "hpsv2"
    file: ClassVar[str] = "HPS_v2_compressed.pt"


class HpsV21Config(JudgeFileConfig):
    """Settings of the features `hpsv2.1`."""

    title: ClassVar[str] = "hpsv2.1"
    file: ClassVar[str] = "HPS_v2.1_compressed.pt"


class ImageRewardConfig(JudgeFileConfig):
    """Settings of the features `image-reward`."""

    title: ClassVar[str] = "image-reward"
    file: ClassVar[str] = "ImageReward.pt"
