"""DAMSM, the deep attentional multimodal similarity model of AttnGAN (Xu et al. 2018, section 3.2): how well images
and captions match, word by region and sentence by image, the losses that follow, and its training.

Letters are the paper's: e words, v regions, s their similarities, alpha attention, c contexts, R scores, Q an image,
D a caption. Where the paper's text and the authors' code differ, it is the code's form: see the README of attngan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Optimization, Trainer
from t2i.core.models.weights import load_state
from t2i.core.registry.choice import Choice
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.settings import Config
from t2i.plugins.common.text.config import DamsmTraining, Smoothing
from t2i.plugins.common.weights.legacy import read_plain_pickle, renamed, without_prefix

TINY = 1e-8  # the smallest product of norms that is divided by


class ImageFeatures(NamedTuple):
    """What an image encoder makes of B images. regions: (B, Dw, N), as wide as words. code: (B, D), as sentences."""

    regions: Tensor
    code: Tensor


# --- losses -----------------------------------------------------------------------------------------------------------


def word_scores(
    regions: Tensor, words: Tensor, mask: Tensor, gamma1: float, gamma2: float
) -> Tensor:
    """R(Q_i, D_j) (B, C) of images by their regions (B, Dw, N) and captions by their words (C, L, Dw), with mask."""
    e, v, padding = words, regions, ~mask
    s = torch.einsum("cld,bdn->bcln", e, v)  # equation 7
    normed = s.masked_fill(padding[:, :, None], -torch.inf).softmax(
        2
    )  # 8: over the words, for each region
    alpha = (gamma1 * normed).softmax(3)  # 9: over the regions, for each word
    # Contexts c = sum_n alpha_n v_n are needed for <e, c> and |c| only, and both follow from products that are smaller.
    dot = (alpha * s).sum(3)
    squared = (torch.einsum("bcln,bnm->bclm", alpha, v.transpose(1, 2) @ v) * alpha).sum(3)
    cosine = dot / (e.norm(dim=2) * squared.clamp_min(0).sqrt()).clamp_min(TINY)
    scores: Tensor = (
        (gamma2 * cosine).masked_fill(padding, -torch.inf).logsumexp(2)
    )  # 10, without its root
    return scores


def sentence_scores(code: Tensor, sentence: Tensor) -> Tensor:
    """R(Q_i, D_j) (B, C): cosines of images' codes (B, D) and sentences (C, D)."""
    return F.cosine_similarity(code[:, None], sentence, dim=2)


def matching_loss(scores: Tensor, classes: Tensor | None = None) -> Tensor:
    """Cross entropy both ways (equations 11 to 13) of scores (B, B) whose diagonal holds the matching pairs.

    classes (B,): other images and captions of a pair's own class are no mismatches, and are left out.
    """
    target = torch.arange(len(scores), device=scores.device)
    if classes is not None:
        alike = (classes[:, None] == classes) & (target[:, None] != target)
        scores = scores.masked_fill(alike, -torch.inf)
    return F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)


def damsm_losses(
    seen: ImageFeatures, text: TextFeatures, smoothing: Smoothing, classes: Any = None
) -> tuple[Tensor, Tensor]:
    """L_words and L_sentence, both ways each. classes: the data set's extra, used if it is one number an image."""
    ids = classes if isinstance(classes, Tensor) and classes.dim() == 1 else None
    gamma1, gamma2, gamma3 = smoothing.gamma1, smoothing.gamma2, smoothing.gamma3
    words = gamma3 * word_scores(seen.regions, text.words, text.mask, gamma1, gamma2)
    sentence = gamma3 * sentence_scores(seen.code, text.sentence)
    return matching_loss(words, ids), matching_loss(sentence, ids)


# --- training ---------------------------------------------------------------------------------------------------------


class DamsmTrainer(Trainer):
    """Trains an image encoder (images -> ImageFeatures), and with it the text encoder where it can be trained, to tell
    which image of a batch goes with which caption. Negatives are those of the process's own batch.

    Only the text encoder's gradients are clipped."""

    def __init__(
        self, config: DamsmTraining, text_encoder: TextEncoder, image_encoder: nn.Module
    ) -> None:
        self.config, self.image_encoder = config, image_encoder
        self.modules = {"image_encoder": image_encoder}
        groups: list[dict[str, Any]] = [
            {"params": [p for p in image_encoder.parameters() if p.requires_grad]}
        ]
        clip: list[float | None] = [None]
        if texts := [p for p in text_encoder.parameters() if p.requires_grad]:
            self.modules["text_encoder"] = text_encoder
            groups.append({"params": texts, "lr": config.lr_text or config.lr})
            clip.append(config.clip)
        optimizer = Adam(groups, config.lr, betas=(0.5, 0.999), fused=True)
        self.optimizers = {"damsm": Optimization(optimizer, clip, self._decay)}

    def _decay(self, progress: float) -> float:
        """The factor of the learning rates, which fall from epoch to epoch."""
        epoch = int(progress * self.config.epochs)
        return max(self.config.lr_floor, self.config.decay**epoch)

    def step(self, batch: Batch, engine: Engine) -> Losses:
        seen: ImageFeatures = self.image_encoder(batch.images)
        words, sentence = damsm_losses(
            seen, batch.text, self.config.smoothing, batch.extras.get("class")
        )
        engine.update("damsm", words + sentence)
        found = self._found(seen, batch.text) == torch.arange(
            len(seen.code), device=seen.code.device
        )
        return {"words": words, "sentence": sentence, "found": found.float().mean()}

    def _found(self, seen: ImageFeatures, text: TextFeatures) -> Tensor:
        """For each caption, the image that its sentence finds."""
        return sentence_scores(seen.code.detach(), text.sentence.detach()).argmax(0)

    def preview(self, batch: Batch) -> Tensor:
        """Each image beside the one of the batch that its caption finds."""
        found = self._found(self.image_encoder(batch.images), batch.text)
        return torch.stack([batch.images, batch.images[found]], dim=1).flatten(0, 1)


# --- the authors' files -----------------------------------------------------------------------------------------------


def lstm_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' RNN_ENCODER state dict under the names of the `damsm` text encoder."""
    return renamed(
        without_prefix(state, "module."), [(r"^encoder\.", "embedding."), (r"^rnn\.", "lstm.")]
    )


def pickled_vocabulary(path: Path) -> tuple[str, ...]:
    """The words of the authors' captions.pickle, [train captions, test captions, {number: word}, {word: number}], in
    the order of their numbers from 1 on (0 ends a caption). UserError if it holds no such thing."""
    document = read_plain_pickle(path)
    words = document[2] if isinstance(document, (list, tuple)) and len(document) >= 4 else None
    if not isinstance(words, dict) or set(words) != set(range(len(words))):
        raise UserError(
            f"vocabulary {path}: it does not hold the authors' four parts, the third of them the words by number; "
            "give their captions.pickle"
        )
    return tuple(str(words[number]) for number in range(1, len(words)))


def authors_encoder(
    choice: Choice[Config], state: Mapping[str, Tensor], vocabulary: Sequence[str], where: str
) -> tuple[Choice[Config], TextEncoder]:
    """The authors' text encoder, frozen, from their RNN_ENCODER state dict and words; and the choice that says so.
    choice: what else is set, if it is of a `damsm` encoder. UserError, naming `where`, if the weights do not fit."""
    given = choice.config.model_dump() if choice.name == "damsm" else {}
    given |= {"vocabulary": tuple(vocabulary), "frozen": True, "weights": None, "captions": None}
    made = registry().encoders.choose("damsm", given, "text encoder")
    encoder: TextEncoder = import_object(registry().encoders["damsm"].build)(made.config, None)
    load_state(encoder, lstm_state(state), where)
    return made, encoder
