"""Settings of the judges that answer questions about images."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from t2i.core.settings import Config


class AnswererConfig(Config):
    """Base of the settings of judges that answer questions: which network answers."""

    title: ClassVar[str]
    weights: str = Field("Qwen/Qwen2-VL-2B-Instruct", min_length=1)
    """The network that answers, a Qwen2-VL: a name on the Hugging Face hub, or a folder.

    The folder holds config.json, the safetensors and the tokenizer's files.
    """
    revision: str = "main"
    """Branch, tag or commit on the hub."""


class VqaScoreConfig(AnswererConfig):
    """Settings of the features `vqascore`."""

    title: ClassVar[str] = "vqascore"


class TifaConfig(AnswererConfig):
    """Settings of the features `tifa`."""

    title: ClassVar[str] = "tifa"
    file: ClassVar[str] = "tifa_v1.0_question_answers.json"
    questions: str | None = Field(None, min_length=1)
    """Path of the file of questions. None: the file that `t2i fetch` has downloaded."""


class DsgConfig(AnswererConfig):
    """Settings of the features `dsg`."""

    title: ClassVar[str] = "dsg"
    file: ClassVar[str] = "dsg-1k-anns.csv"
    questions: str | None = Field(None, min_length=1)
    """Path of the file of questions. None: the file that `t2i fetch` has downloaded."""
