"""The features `vqascore`, `tifa` and `dsg`: what a network answers to questions about an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.fetch.downloads import fetched
from t2i.core.interfaces.scoring import PairedExtractor
from t2i.core.models.weights import weights_hash
from t2i.plugins.common.text.readable import plain
from t2i.plugins.features.questions.answerer import Answerer
from t2i.plugins.features.questions.config import (
    AnswererConfig,
    DsgConfig,
    TifaConfig,
    VqaScoreConfig,
)
from t2i.plugins.features.questions.questions import (
    YES_NO,
    Question,
    Questions,
    read_dsg,
    read_tifa,
    share_right,
)

ASKED = 'Does this figure show "{}"? Please answer Yes or No.'
"""VQAScore's question. Source: Lin et al. 2024."""


class Answers(PairedExtractor):
    """The base of judges that ask about an image, float32 (B, 1).

    Args:
        config: Settings.

    Raises:
        UserError: The weights cannot be found, or are of another network.
    """

    dim = 1

    def __init__(self, config: AnswererConfig) -> None:
        super().__init__()
        self.answerer = Answerer(config)
        self.name = f"{config.title} answered by {config.weights}"
        self.weights_sha256 = weights_hash(self.answerer.state_dict())
        self.networks = (config.title, config.weights)

    def of_pairs(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        scores = [self.score(*pair) for pair in zip(images, captions, strict=True)]
        return torch.tensor(scores, device=images.device)[:, None]

    def score(self, image: Tensor, caption: str) -> float:
        """Score one image.

        Args:
            image: Image, uint8 (3, H, W).
            caption: Its caption.

        Returns:
            The score, from 0 to 1.
        """
        raise NotImplementedError


class VqaScore(Answers):
    """VQAScore: the probability that "Yes" answers whether an image shows its caption."""

    def score(self, image: Tensor, caption: str) -> float:
        asked = ASKED.format(caption)
        logs = self.answerer.first(self.answerer.pixels(image), asked)
        return float(logs[self.answerer.tokens("Yes")[0]].exp())


class PublishedQuestions(Answers):
    """The share of right answers to the published questions about a caption.

    Args:
        config: Settings.
        questions: The questions by caption.

    Raises:
        UserError: The weights cannot be found, or are of another network.
    """

    def __init__(self, config: TifaConfig | DsgConfig, questions: Questions) -> None:
        super().__init__(config)
        self.title, self.questions = config.title, questions

    def score(self, image: Tensor, caption: str) -> float:
        asked = self.questions.get(plain(caption))
        if not asked:
            raise UserError(
                f"features '{self.title}': no published question is about '{caption[:60]}': score "
                f"images of the captions in its file of questions"
            )
        seen = self.answerer.pixels(image)
        answers = {one.number: self.answer(seen, one) for one in asked}
        return share_right(asked, answers)

    def answer(self, seen: tuple[Tensor, Tensor], question: Question) -> str:
        """Choose the most likely answer to a question.

        Args:
            seen: The image, from `Answerer.pixels`.
            question: The question.

        Returns:
            One of its choices.
        """
        if question.choices == YES_NO:
            logs = self.answerer.first(seen, f"{question.text} Please answer Yes or No.")
            yes, no = (float(logs[self.answerer.tokens(one)[0]]) for one in ("Yes", "No"))
            return "yes" if yes > no else "no"
        text = f"Question: {question.text} Choices: {', '.join(question.choices)}. Answer:"
        likely = self.answerer.of_answers(seen, text, question.choices)
        return question.choices[likely.index(max(likely))]


def _file(config: TifaConfig | DsgConfig) -> Path:
    """Return the file of questions that the settings name, or the download of `t2i fetch`."""
    if config.questions:
        return Path(config.questions).expanduser()
    return fetched(config.title, config.file)


def vqascore(config: VqaScoreConfig) -> VqaScore:
    """Build the features `vqascore`.

    Args:
        config: Settings.

    Returns:
        The extractor.

    Raises:
        UserError: The weights cannot be found; the message says what to do.
    """
    return VqaScore(config)


def tifa(config: TifaConfig) -> PublishedQuestions:
    """Build the features `tifa`.

    Args:
        config: Settings.

    Returns:
        The extractor.

    Raises:
        UserError: Questions or weights cannot be found; the message says what to do.
    """
    return PublishedQuestions(config, read_tifa(_file(config)))


def dsg(config: DsgConfig) -> PublishedQuestions:
    """Build the features `dsg`.

    Args:
        config: Settings.

    Returns:
        The extractor.

    Raises:
        UserError: Questions or weights cannot be found; the message says what to do.
    """
    return PublishedQuestions(config, read_dsg(_file(config)))
