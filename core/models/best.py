"""Best of N: several candidates of each image, of which the one that fits its caption best is kept.

A caption and an image are compared by a feature extractor with a text side, such as CLIP. DALL-E
(Ramesh et al. 2021, section 2.6) re-ranks 512 candidates so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import FeatureExtractor
from t2i.core.models.wanted import Chosen, Key, Sample
from t2i.core.registry.tables import registry

Draw = Callable[[Sequence[Key]], Iterable[list[Sample]]]
"""Samples some images, in batches."""


class Judge:
    """A feature extractor that tells how well images fit their captions.

    Args:
        network: A feature extractor with a text side.
        name: Its registry name. "": the network's own name.
        device: Where it runs.

    Raises:
        UserError: The extractor reads no text.
    """

    def __init__(
        self, network: FeatureExtractor, name: str = "", device: torch.device | str = "cpu"
    ) -> None:
        self.name = name or network.name
        if type(network).encode_text is FeatureExtractor.encode_text:
            raise UserError(
                f"features '{self.name}' read no text, so they cannot rank images by their "
                f"caption: name others with --judge NAME (judge= in Python){_readers()}"
            )
        self.network = network.to(device).eval().requires_grad_(False)
        self.device = torch.device(device)

    @classmethod
    def named(cls, name: str | None, data: str, device: torch.device | str = "cpu") -> Judge:
        """Build the extractor of a name, or the one that the data set of a run names.

        Args:
            name: Registry name of the features. None: `DatasetSpec.judge` of the data set.
            data: Registry name of the data set that the model was trained on.
            device: Where it runs.

        Returns:
            The judge.

        Raises:
            UserError: No features have that name, the data set names none, they read no text, or
                their weights are missing.
        """
        if name is None:
            datasets = registry().datasets
            name = datasets[data].judge if data in datasets else ""
        if not name:
            raise UserError(
                f"data set '{data}' names no features that rank images by their caption: name "
                f"some with --judge NAME (judge= in Python){_readers()}"
            )
        choice = registry().features.choose(name, {}, "features")
        return cls(registry().features.build(choice), name, device)

    @torch.inference_mode()
    def scores(self, images: Sequence[np.ndarray], captions: Sequence[str]) -> list[float]:
        """Compute how well images fit their captions.

        Args:
            images: B images, uint8 (H, W, 3).
            captions: The caption of each.

        Returns:
            The cosine of each image's and its caption's features, from -1 to 1.
        """
        pixels = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2)
        with torch.autocast(self.device.type, enabled=False):
            seen = self.network(pixels.contiguous())
            distinct = list(dict.fromkeys(captions))
            said = self.network.encode_text(distinct)
        said = said[[distinct.index(caption) for caption in captions]]
        found: list[float] = F.cosine_similarity(seen.double(), said.double()).tolist()
        return found

    def document(self) -> dict[str, Any]:
        """Describe what the scores depend on.

        Returns:
            Name, network and hash of its weights, as JSON.
        """
        return {
            "judge": self.name,
            "network": self.network.name,
            "weights_sha256": self.network.weights_sha256,
        }


def _readers() -> str:
    """List the registered features that declare a text side, for errors."""
    names = sorted(spec.name for spec in registry().features if spec.text)
    return f"; those with text: {', '.join(names)}" if names else ""


@dataclass(frozen=True)
class BestOf:
    """A request to keep the best of several candidates.

    Candidate number c of image number s of a prompt is image number s N + c of the same request
    without re-ranking: its noise has the same key. So each image costs N of them.

    Args:
        candidates: Number of candidates of each image, N.
        judge: What compares them.
    """

    candidates: int
    judge: Judge

    def key(self, image: Key, candidate: int) -> Key:
        """Return the key of a candidate among all images without re-ranking.

        Args:
            image: The image: index of its prompt, and number among the prompt's images.
            candidate: Number of the candidate, from 0.

        Returns:
            The index of the prompt, and the number of the candidate among all of the prompt.
        """
        return image[0], image[1] * self.candidates + candidate

    def batches(
        self, images: Sequence[Key], size: int, captions: Sequence[str], draw: Draw
    ) -> Iterator[list[Sample]]:
        """Sample the candidates of images, and keep the best of each.

        Args:
            images: The images.
            size: Images sampled at once. A batch of results has as many images as have all their
                candidates in `size`, but at least one.
            captions: The captions of all prompts.
            draw: Samples candidates, by their keys.

        Yields:
            The images of a batch, with what was chosen.
        """
        for part in self.parts(images, size):
            yield self._best(part, captions, draw)

    def parts(self, images: Sequence[Key], size: int) -> list[Sequence[Key]]:
        """Share images out over batches of results.

        Args:
            images: The images.
            size: Images sampled at once.

        Returns:
            The images of each batch.
        """
        each = max(1, size // self.candidates)
        return [images[at : at + each] for at in range(0, len(images), each)]

    def _best(self, images: Sequence[Key], captions: Sequence[str], draw: Draw) -> list[Sample]:
        """Return the best candidate of each image. Only the best ones so far are held."""
        n = self.candidates
        kept: dict[Key, tuple[Sample, int, tuple[Key, ...]]] = {}
        scores: dict[Key, list[float]] = {image: [] for image in images}
        for batch in draw([self.key(image, c) for image in images for c in range(n)]):
            together = tuple((drawn.prompt, drawn.sample) for drawn in batch)
            found = self.judge.scores(
                [drawn.image for drawn in batch], [captions[drawn.prompt] for drawn in batch]
            )
            for drawn, score in zip(batch, found, strict=True):
                image, candidate = (drawn.prompt, drawn.sample // n), drawn.sample % n
                # Of equal scores the first candidate stays.
                if image not in kept or score > scores[image][kept[image][1]]:
                    kept[image] = drawn, candidate, together
                scores[image].append(score)
        return [
            Sample(*image, drawn.image, Chosen(candidate, tuple(scores[image]), together))
            for image, (drawn, candidate, together) in kept.items()
        ]

    def document(self) -> dict[str, Any]:
        """Describe the request for samples.jsonl.

        Returns:
            Number of candidates and judge, as JSON.
        """
        return {"candidates": self.candidates, **self.judge.document()}
