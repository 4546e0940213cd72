"""A network that answers questions about an image: Qwen2-VL, by transformers.

Source: Wang et al. 2024.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
)
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from t2i.core.errors import UserError
from t2i.core.io.json_files import read_object
from t2i.plugins.common.images.resize import by_pillow
from t2i.plugins.common.text.readable import readable
from t2i.plugins.common.weights.hub import Wanted, obtained
from t2i.plugins.common.weights.transformers_folders import load_network
from t2i.plugins.features.questions.config import AnswererConfig

KIND = "qwen2_vl"
PLACE = "a folder with config.json, the safetensors and tokenizer.json of a Qwen2-VL"
LONGEST = 400  # tokens of a question
LEAST, MOST = 56 * 56, 16384 * 28 * 28
"""Pixels of an image that Qwen2-VL reads. Source: its authors' qwen-vl-utils."""
IMAGE = "<|image_pad|>"
TURN = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "<|vision_start|>{image}<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
)
"""How Qwen2-VL was trained to be asked."""


class Answerer(nn.Module):
    """A Qwen2-VL that says how likely an answer to a question about an image is.

    Args:
        config: Which network answers.

    Raises:
        UserError: The weights cannot be found, or are of another network.
    """

    def __init__(self, config: AnswererConfig) -> None:
        super().__init__()
        remedy = f"run 't2i fetch vqascore', or set weights to {PLACE}"
        what = f"features '{config.title}'"
        wanted = Wanted(what, "weights", config.weights, config.revision, PLACE, remedy)
        loaded: Any = load_network(Qwen2VLForConditionalGeneration, wanted, "Qwen2-VL", _check)
        self.network = loaded.float()
        self.tokenizer: Any = obtained(wanted, _tokenizer)
        self.processor: Any = _processor(self.network.config.vision_config)

    def pixels(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Prepare an image: resized by Pillow to whole patches, as the authors' code does.

        Args:
            image: Image, uint8 (3, H, W).

        Returns:
            The patches, float (P, D), and their grid, int64 (1, 3).
        """
        unit = self.processor.patch_size * self.processor.merge_size
        _, height, width = image.shape
        size = smart_resize(height, width, unit, LEAST, MOST)
        fitted = by_pillow(image[None], size)[0].cpu()
        found = self.processor(images=[fitted], do_resize=False, return_tensors="pt")
        return found["pixel_values"].to(image.device), found["image_grid_thw"].to(image.device)

    def first(self, seen: tuple[Tensor, Tensor], question: str) -> Tensor:
        """Compute the log probabilities of the first token of the answer.

        Args:
            seen: The image, from `pixels`.
            question: The question.

        Returns:
            Log probabilities, float32 (tokens of the vocabulary).
        """
        return self._logs(seen, self._asked(seen, question))[-1]

    def of_answers(
        self, seen: tuple[Tensor, Tensor], question: str, answers: Sequence[str]
    ) -> list[float]:
        """Compute how likely some answers are.

        Args:
            seen: The image, from `pixels`.
            question: The question.
            answers: The answers.

        Returns:
            The mean log probability of the tokens of each answer.
        """
        asked, found = self._asked(seen, question), []
        for answer in answers:
            tokens = self.tokens(answer)
            logs = self._logs(seen, [*asked, *tokens])[len(asked) - 1 : -1]
            rows = torch.arange(len(tokens), device=logs.device)
            found.append(float(logs[rows, torch.tensor(tokens, device=logs.device)].mean()))
        return found

    def tokens(self, text: str) -> list[int]:
        """Convert a text to tokens.

        Args:
            text: The text.

        Returns:
            The tokens, without any special ones.
        """
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return found

    def _asked(self, seen: tuple[Tensor, Tensor], question: str) -> list[int]:
        """Return the tokens of a question. Marks of turns within it are made harmless."""
        count = int(seen[1].prod()) // self.processor.merge_size**2
        plain = readable(question, LONGEST).replace("<|", "< |")
        return self.tokens(TURN.format(image=IMAGE * count, question=plain))

    def _logs(self, seen: tuple[Tensor, Tensor], tokens: list[int]) -> Tensor:
        """Return the log probabilities of the token after each token."""
        ids = torch.tensor([tokens], device=seen[0].device)
        images = (ids == self.network.config.image_token_id).int()
        logits: Tensor = self.network(
            input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=images,
            pixel_values=seen[0], image_grid_thw=seen[1], use_cache=False,
        ).logits  # fmt: skip
        return logits[0].float().log_softmax(-1)


def _check(folder: Path, shapes: Collection[tuple[int, ...]]) -> None:
    """Check that a folder's config.json is that of a Qwen2-VL."""
    file = folder / "config.json"
    found = read_object(file, f"folder {folder}").get("model_type")
    if found != KIND:
        raise UserError(f"{file}: model_type is {found!r}, not {KIND!r}; name a Qwen2-VL")


def _tokenizer(source: str, offline: bool) -> PreTrainedTokenizerFast:
    untyped: Any = AutoTokenizer
    tokenizer: PreTrainedTokenizerFast = untyped.from_pretrained(
        source, local_files_only=offline, trust_remote_code=False
    )
    if IMAGE not in tokenizer.get_vocab():
        raise FileNotFoundError("no tokenizer of a Qwen2-VL there")
    return tokenizer


def _processor(vision: Any) -> Qwen2VLImageProcessor:
    """Make the preparation of images that have whole patches."""
    return Qwen2VLImageProcessor(
        patch_size=vision.patch_size, temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
    )  # fmt: skip
