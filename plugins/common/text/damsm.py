"""DAMSM, the deep attentional multimodal similarity model of AttnGAN (Xu et al. 2018, section 3.2).

This module scores how well images and captions match, words with regions and sentences with whole
images. It has the losses of these scores, the training, and the import of the authors' files.

Letters are the paper's: e words, v regions, s their similarities, alpha attention, c contexts, R
scores, Q an image, D a caption. Where the paper's text and the authors' code differ, the code is
followed: see the README of attngan.
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

TINY = 1e-8  # lower bound of the product of norms that a cosine is divided by


class ImageFeatures(NamedTuple):
    """What an image encoder returns for B images.

    Attributes:
        regions: Vectors of N regions of each image, (B, Dw, N), as wide as word vectors.
        code: Vector of each whole image, (B, D), as wide as sentence vectors.
    """

    regions: Tensor
    code: Tensor


# --- losses ---------------------------------------------------------------------------------------


def word_scores(
    regions: Tensor, words: Tensor, mask: Tensor, gamma1: float, gamma2: float
) -> Tensor:
    """Compute R(Q_i, D_j), how well the words of captions match the regions of images.

    Source: Xu et al. 2018, equations 7 to 10. As in the authors' code, equation 10 is without its
        root.

    Args:
        regions: Region vectors of B images, (B, Dw, N).
        words: Word vectors of C captions, (C, L, Dw).
        mask: Which words count, bool (C, L). False marks padding.
        gamma1: Sharpness of each word's attention over regions.
        gamma2: Weight of the best matching words in the score.

    Returns:
        Scores (B, C).
    """
    e, v, padding = words, regions, ~mask
    s = torch.einsum("cld,bdn->bcln", e, v)  # equation 7
    # equation 8: over the words, for each region
    normed = s.masked_fill(padding[:, :, None], -torch.inf).softmax(2)
    alpha = (gamma1 * normed).softmax(3)  # equation 9: over the regions, for each word
    # The contexts c = sum_n alpha_n v_n are only needed for <e, c> and |c|. Both follow from
    # smaller products, so c itself is never computed.
    dot = (alpha * s).sum(3)
    squared = (torch.einsum("bcln,bnm->bclm", alpha, v.transpose(1, 2) @ v) * alpha).sum(3)
    cosine = dot / (e.norm(dim=2) * squared.clamp_min(0).sqrt()).clamp_min(TINY)
    # equation 10, without its root
    scores: Tensor = (gamma2 * cosine).masked_fill(padding, -torch.inf).logsumexp(2)
    return scores


def sentence_scores(code: Tensor, sentence: Tensor) -> Tensor:
    """Compute R(Q_i, D_j) of whole images and sentences.

    Args:
        code: Vectors of B images, (B, D).
        sentence: Sentence vectors of C captions, (C, D).

    Returns:
        Their cosines, (B, C).
    """
    return F.cosine_similarity(code[:, None], sentence, dim=2)


def matching_loss(scores: Tensor, classes: Tensor | None = None) -> Tensor:
    """Compute the cross entropies of both directions, captions by images and images by captions.

    Source: Xu et al. 2018, equations 11 to 13.

    Args:
        scores: Scores (B, B) of images (rows) and captions (columns), already times gamma3.
            Matching pairs are on the diagonal.
        classes: Class of each pair, (B,). Other pairs of the same class are left out, as they may
            match. None: all other pairs are mismatches.

    Returns:
        The sum of the two cross entropies. A scalar.
    """
    target = torch.arange(len(scores), device=scores.device)
    if classes is not None:
        alike = (classes[:, None] == classes) & (target[:, None] != target)
        scores = scores.masked_fill(alike, -torch.inf)
    return F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)


def damsm_losses(
    seen: ImageFeatures, text: TextFeatures, smoothing: Smoothing, classes: Any = None
) -> tuple[Tensor, Tensor]:
    """Compute DAMSM's two losses of a batch of matching images and captions.

    Args:
        seen: Features of B images.
        text: Features of their B captions.
        smoothing: The factors gamma1, gamma2 and gamma3.
        classes: The extra "class_id" of the examples. It is used if it is a tensor (B,), and
            ignored otherwise.

    Returns:
        The losses L_words and L_sentence, each the sum of both directions.
    """
    ids = classes if isinstance(classes, Tensor) and classes.dim() == 1 else None
    gamma1, gamma2, gamma3 = smoothing.gamma1, smoothing.gamma2, smoothing.gamma3
    words = gamma3 * word_scores(seen.regions, text.words, text.mask, gamma1, gamma2)
    sentence = gamma3 * sentence_scores(seen.code, text.sentence)
    return matching_loss(words, ids), matching_loss(sentence, ids)


# --- training -------------------------------------------------------------------------------------


class DamsmTrainer(Trainer):
    """Trainer of an image encoder, and of the text encoder if that has parameters to train.

    They learn which image of a batch goes with which caption. The negatives are those of the
    process's own batch. Only the text encoder's gradients are clipped.

    Args:
        config: Settings of the training.
        text_encoder: The text encoder. It is trained if any of its parameters requires gradients.
        image_encoder: A network that maps images (B, 3, H, H) to `ImageFeatures`.
    """

    previews = "Of each caption: its real image, then the real one that the text finds (no sample)."

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
        """Return the factor of the learning rates, which fall from epoch to epoch."""
        epoch = int(progress * self.config.epochs)
        return max(self.config.lr_floor, self.config.decay**epoch)

    def step(self, batch: Batch, engine: Engine) -> Losses:
        seen: ImageFeatures = self.image_encoder(batch.images)
        words, sentence = damsm_losses(
            seen, batch.text, self.config.smoothing, batch.extras.get("class_id")
        )
        engine.update("damsm", words + sentence)
        found = self._found(seen, batch.text) == torch.arange(
            len(seen.code), device=seen.code.device
        )
        return {"words": words, "sentence": sentence, "found": found.float().mean()}

    def _found(self, seen: ImageFeatures, text: TextFeatures) -> Tensor:
        """Return, for each caption, the number of the image that its sentence scores highest."""
        return sentence_scores(seen.code.detach(), text.sentence.detach()).argmax(0)

    def preview(self, batch: Batch) -> Tensor:
        """Pair each image with the image of the batch that its caption scores highest.

        Args:
            batch: A batch of B images and captions.

        Returns:
            Images (2 B, 3, H, H): image 0, the one found for it, image 1, and so on.
        """
        found = self._found(self.image_encoder(batch.images), batch.text)
        return torch.stack([batch.images, batch.images[found]], dim=1).flatten(0, 1)


# --- the authors' files ---------------------------------------------------------------------------


def lstm_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the authors' RNN_ENCODER to those of the `damsm` text encoder.

    Args:
        state: The authors' state dict. A prefix "module." is removed.

    Returns:
        The state dict of `damsm`.
    """
    return renamed(
        without_prefix(state, "module."), [(r"^encoder\.", "embedding."), (r"^rnn\.", "lstm.")]
    )


def pickled_vocabulary(path: Path) -> tuple[str, ...]:
    """Read the vocabulary from the authors' captions.pickle.

    Args:
        path: The file. It holds [train captions, test captions, {number: word}, {word: number}].

    Returns:
        The words in the order of their numbers, from 1 on. Number 0 ends a caption and is left out.

    Raises:
        UserError: The file cannot be read or holds something else.
    """
    document = read_plain_pickle(path)
    words = document[2] if isinstance(document, (list, tuple)) and len(document) >= 4 else None
    if not isinstance(words, dict) or set(words) != set(range(len(words))):
        raise UserError(
            f"vocabulary {path}: it does not hold the authors' four parts, the third of them the "
            f"words by number; "
            "give their captions.pickle"
        )
    return tuple(str(words[number]) for number in range(1, len(words)))


def check_vocabulary(state: Mapping[str, Tensor], words: int, where: str) -> None:
    """Check that weights and a vocabulary belong together, as far as their sizes tell.

    Args:
        state: The authors' RNN_ENCODER state dict, or that of the `damsm` text encoder.
        words: Number of words in the vocabulary, without the end of captions.
        where: Names of both files in errors.

    Raises:
        UserError: The weights have vectors of another number of words.
    """
    table = next(
        (t for name, t in state.items() if name.endswith(("encoder.weight", "embedding.weight"))),
        None,
    )
    if table is not None and len(table) != words + 1:
        raise UserError(
            f"{where}: the weights have vectors of {len(table)} words, the vocabulary has "
            f"{words + 1}, the end of captions included: give the files of one data set"
        )


def authors_encoder(
    choice: Choice[Config], state: Mapping[str, Tensor], vocabulary: Sequence[str], where: str
) -> tuple[Choice[Config], TextEncoder]:
    """Build the authors' text encoder, frozen, from their weights and vocabulary.

    Args:
        choice: The text encoder that the user chose. Its other settings are kept if it is `damsm`.
        state: The authors' RNN_ENCODER state dict.
        vocabulary: The words in the order of their numbers, from 1 on.
        where: The file, as errors name it.

    Returns:
        The choice of encoder that describes it, and the encoder.

    Raises:
        UserError: The weights do not fit the vocabulary, or the settings.
    """
    check_vocabulary(state, len(vocabulary), where)
    given = choice.config.model_dump() if choice.name == "damsm" else {}
    given |= {"vocabulary": tuple(vocabulary), "frozen": True, "weights": None, "captions": None}
    made = registry().encoders.choose("damsm", given, "text encoder")
    encoder: TextEncoder = import_object(registry().encoders["damsm"].build)(made.config, None)
    load_state(encoder, lstm_state(state), where)
    return made, encoder
