"""The `char-cnn-rnn` encoder (Reed et al. 2016, Learning Deep Representations of Fine-grained Visual Descriptions)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.models.weights import load_state
from t2i.plugins.common.weights.legacy import read_legacy, renamed, state_dict, without_prefix
from t2i.plugins.encoders.charcnn.config import ALPHABET, LENGTH, CharCnnRnnConfig

WIDTH = 1024  # of the sentence vector
WHAT = "text encoder 'char-cnn-rnn'"
THRESHOLD = 1e-6  # of Torch 7's nn.Threshold: what is not above it becomes 0
CODE = {character: i for i, character in enumerate(ALPHABET)}


class Recurrence(nn.Module):
    """x (B, T, w) -> the mean (B, w) of the states h_t of a recurrent network without an initial state: h_1 hears x_1
    alone, not even the bias of the recurrent map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.i2h, self.h2h = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        states = [self.first(x[:, 0])]
        for x_t in x[:, 1:].unbind(1):
            states.append(self.next(x_t, states[-1]))
        return torch.stack(states).mean(0)

    def first(self, x: Tensor) -> Tensor:
        return F.relu(self.i2h(x))

    def next(self, x: Tensor, h: Tensor) -> Tensor:
        return F.relu(self.i2h(x) + self.h2h(h))


class GatedRecurrence(Recurrence):
    """The same with the gates of a GRU: h_t = u_t h~_t + (1 - u_t) h_(t-1), where h~_t hears r_t h_(t-1)."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.i2h_update, self.h2h_update = nn.Linear(width, width), nn.Linear(width, width)
        self.i2h_reset, self.h2h_reset = nn.Linear(width, width), nn.Linear(width, width)

    def first(self, x: Tensor) -> Tensor:
        return torch.tanh(self.i2h(x))

    def next(self, x: Tensor, h: Tensor) -> Tensor:
        update = torch.sigmoid(self.i2h_update(x) + self.h2h_update(h))
        reset = torch.sigmoid(self.i2h_reset(x) + self.h2h_reset(h))
        candidate = torch.tanh(self.i2h(x) + self.h2h(reset * h))
        return update * candidate + (1 - update) * h


class CharCnnRnn(nn.Module):
    """One-hot characters (B, 70, 201) -> sentence vectors (B, 1024): three convolutions, a recurrence, a linear map."""

    def __init__(self, config: CharCnnRnnConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(len(ALPHABET), 384, 4)
        self.conv2 = nn.Conv1d(384, 512, 4)
        self.conv3 = nn.Conv1d(512, config.width, 4)
        self.pooled = config.recurrence == "rnn"
        self.recurrence = Recurrence(config.width) if self.pooled else GatedRecurrence(config.width)
        self.project = nn.Linear(config.width, WIDTH)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.08, 0.08)  # the authors' start

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool1d(F.threshold(self.conv1(x), THRESHOLD, 0), 3)
        h = F.max_pool1d(F.threshold(self.conv2(h), THRESHOLD, 0), 3)
        h = F.threshold(self.conv3(h), THRESHOLD, 0)
        h = F.max_pool1d(h, 3, stride=2) if self.pooled else h
        vectors: Tensor = self.project(self.recurrence(h.transpose(1, 2)))
        return vectors


class CharCnnRnnEncoder(TextEncoder):
    """sentence: (B, 1024); words: the sentence, as one word. Captions are read in lower case, to 201 characters;
    characters that are not in the alphabet leave their place empty, as in the authors' code."""

    def __init__(self, config: CharCnnRnnConfig, network: CharCnnRnn | None) -> None:
        super().__init__()
        self.shape = TextShape(WIDTH, WIDTH)
        self.network = network
        self.requires_grad_(config.train)

    def encode(self, captions: Sequence[str]) -> TextFeatures:
        if self.network is None:
            raise UserError(
                f"{WHAT} has no weights: import or train with --set encoder.weights=FILE (or encoder.train=true, to "
                "train it too), or draw from precomputed vectors with --features FILE"
            )
        return TextFeatures.of(sentence=self.network(self.one_hot(captions)), captions=captions)

    def one_hot(self, captions: Sequence[str]) -> Tensor:
        """(B, 70, 201)."""
        codes = torch.full((len(captions), LENGTH), len(ALPHABET))
        for row, caption in zip(codes, captions, strict=True):
            read = [
                CODE.get(character, len(ALPHABET))
                for character in caption[:LENGTH].lower()[:LENGTH]
            ]
            row[: len(read)] = torch.tensor(read, dtype=torch.long)
        weight = next(self.parameters())
        return F.one_hot(codes, len(ALPHABET) + 1)[..., :-1].transpose(1, 2).to(weight)


def build(config: CharCnnRnnConfig, assets: Path | None) -> CharCnnRnnEncoder:
    """The encoder with its weights, if any; or, of a saved model, the network that its weights are then loaded into.

    UserError if the file of weights cannot be read or does not fit.
    """
    network = CharCnnRnn(config) if config.weights or config.train else None
    if network is not None and config.weights and assets is None:
        load_weights(network, config)
    return CharCnnRnnEncoder(config, network)


def load_weights(network: CharCnnRnn, config: CharCnnRnnConfig) -> None:
    """The state dict that ports of the authors' Torch 7 file to PyTorch give: conv1 ... conv3, rnn.*, emb_proj."""
    path = Path(str(config.weights)).expanduser()
    state = without_prefix(state_dict(read_legacy(path), str(path)), "module.")
    gated = any(".i2h_update." in name for name in state)
    if "conv3.weight" in state and (
        gated != (config.recurrence == "gru") or len(state["conv3.weight"]) != config.width
    ):
        recurrence, width = "gru" if gated else "rnn", len(state["conv3.weight"])
        raise UserError(
            f"{WHAT}: {path} is of another geometry: "
            f"use --set encoder.recurrence={recurrence} --set encoder.width={width}"
        )
    load_state(network, renamed(state, RENAMED), f"{WHAT}: {path}")


RENAMED = ((r"^rnn\.", "recurrence."), (r"^emb_proj\.", "project."))
