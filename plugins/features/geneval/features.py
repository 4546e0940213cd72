"""The features `geneval`: whether an image shows what one of GenEval's prompts names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from t2i.core.errors import UserError
from t2i.core.fetch.downloads import fetched
from t2i.core.interfaces.scoring import PairedExtractor
from t2i.core.models.weights import weights_hash
from t2i.plugins.common.text.readable import plain
from t2i.plugins.features.geneval.colours import ColourClip
from t2i.plugins.features.geneval.config import GenevalFeaturesConfig
from t2i.plugins.features.geneval.detector import Detector
from t2i.plugins.features.geneval.prompts import TAGS, Prompt, read_prompts
from t2i.plugins.features.geneval.rules import counted, shows

FILE = "evaluation_metadata.jsonl"
CHUNK = 4  # images that the detector reads at once


class ObjectChecks(PairedExtractor):
    """GenEval's checks of objects, float32 (B, 6).

    The column of the prompt's tag (in the order of `TAGS`) is 1 if the image shows what the prompt
    names, else -1. The other columns are 0.

    Args:
        config: Settings.
        prompts: What an image must show, by prompt.
        detector: Finds the objects.
        colours: Names their colours.
    """

    dim = len(TAGS)

    def __init__(
        self,
        config: GenevalFeaturesConfig,
        prompts: Mapping[str, Prompt],
        detector: nn.Module,
        colours: ColourClip,
    ) -> None:
        super().__init__()
        self.config, self.prompts = config, prompts
        self.detector, self.colours = detector, colours
        self.name = f"GenEval's checks by {config.weights}, colours by {config.clip}"
        if config.max_overlap < 1:
            self.name += f", overlap below {config.max_overlap:g}"
        self.weights_sha256 = weights_hash(self.state_dict())
        self.networks = ("geneval", config.weights)

    def of_pairs(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        prompts = [self.prompt(caption) for caption in captions]
        marks = torch.zeros(len(images), self.dim, device=images.device)
        for start in range(0, len(images), CHUNK):
            for row, found in enumerate(self.detector(images[start : start + CHUNK]), start):
                prompt = prompts[row]
                kept = counted(found, prompt.tag, self.config.max_overlap)
                right = shows(prompt, kept, partial(self.colours.names, images[row]))
                marks[row, TAGS.index(prompt.tag)] = 1 if right else -1
        return marks

    def prompt(self, caption: str) -> Prompt:
        """Look up what an image of a caption must show.

        Args:
            caption: The caption.

        Returns:
            The prompt.

        Raises:
            UserError: The caption is none of the prompts.
        """
        found = self.prompts.get(plain(caption))
        if found is None:
            raise UserError(
                f"features 'geneval': '{caption[:60]}' is none of GenEval's prompts: score images "
                f"of the prompts in its file, {FILE}"
            )
        return found


def build(config: GenevalFeaturesConfig) -> ObjectChecks:
    """Build the features `geneval`.

    Args:
        config: Settings.

    Returns:
        The extractor.

    Raises:
        UserError: Prompts or weights cannot be found; the message says what to do.
    """
    path = Path(config.prompts).expanduser() if config.prompts else fetched("geneval-prompts", FILE)
    return ObjectChecks(config, read_prompts(path), Detector(config), ColourClip(config))
