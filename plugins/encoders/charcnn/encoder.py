"""The text encoder `char-cnn-rnn`.

Source: Reed et al. 2016, Learning Deep Representations of Fine-grained Visual Descriptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.text import Reading, TextEncoder, TextFeatures, TextShape
from t2i.core.models.weights import load_state
from t2i.plugins.common.weights.legacy import read_legacy, renamed, state_dict, without_prefix
from t2i.plugins.encoders.charcnn.config import ALPHABET, LENGTH, CharCnnRnnConfig

WIDTH = 1024  # width of the sentence vector
WHAT = "text encoder 'char-cnn-rnn'"
THRESHOLD = 1e-6  # Torch 7's nn.Threshold: values that are not above it become 0
CODE = {character: i for i, character in enumerate(ALPHABET)}


class Recurrence(nn.Module):
    """A recurrent network whose states are averaged: h_t = relu(i2h(x_t) + h2h(h_(t-1))).

    There is no initial state: h_1 depends on x_1 alone, without even the bias of the recurrent map
    h2h. PyTorch's own RNN and GRU cannot express this.

    Args:
        width: Width of inputs and states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.i2h, self.h2h = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Run over a sequence.

        Args:
            x: Inputs, float (B, T, width).

        Returns:
            The mean of the T states, float (B, width).
        """
        states = [self.first(x[:, 0])]
        for x_t in x[:, 1:].unbind(1):
            states.append(self.next(x_t, states[-1]))
        return torch.stack(states).mean(0)

    def first(self, x: Tensor) -> Tensor:
        """Compute the first state h_1.

        Args:
            x: First input x_1, float (B, width).

        Returns:
            h_1, float (B, width).
        """
        return F.relu(self.i2h(x))

    def next(self, x: Tensor, h: Tensor) -> Tensor:
        """Compute a later state h_t.

        Args:
            x: Input x_t, float (B, width).
            h: Previous state h_(t-1), float (B, width).

        Returns:
            h_t, float (B, width).
        """
        return F.relu(self.i2h(x) + self.h2h(h))


class GatedRecurrence(Recurrence):
    """The same network with the gates of a GRU.

    h_1 = tanh(i2h(x_1)) and h_t = u_t c_t + (1 - u_t) h_(t-1), where
    c_t = tanh(i2h(x_t) + h2h(r_t h_(t-1))) is the candidate, u_t the update gate and r_t the reset
    gate.

    Args:
        width: Width of inputs and states.
    """

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
    """The network: three convolutions, a recurrent network, a linear map.

    Args:
        config: Settings.
    """

    def __init__(self, config: CharCnnRnnConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(len(ALPHABET), 384, 4)
        self.conv2 = nn.Conv1d(384, 512, 4)
        self.conv3 = nn.Conv1d(512, config.width, 4)
        self.pooled = config.recurrence == "rnn"
        self.recurrence = Recurrence(config.width) if self.pooled else GatedRecurrence(config.width)
        self.project = nn.Linear(config.width, WIDTH)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.08, 0.08)  # the authors' initialisation

    def forward(self, x: Tensor) -> Tensor:
        """Encode captions.

        Args:
            x: One-hot characters, float (B, 70, 201).

        Returns:
            Sentence vectors, float (B, 1024).
        """
        h = F.max_pool1d(F.threshold(self.conv1(x), THRESHOLD, 0), 3)
        h = F.max_pool1d(F.threshold(self.conv2(h), THRESHOLD, 0), 3)
        h = F.threshold(self.conv3(h), THRESHOLD, 0)
        h = F.max_pool1d(h, 3, stride=2) if self.pooled else h
        vectors: Tensor = self.project(self.recurrence(h.transpose(1, 2)))
        return vectors


class CharCnnRnnEncoder(TextEncoder):
    """The text encoder around the network.

    `sentence` is (B, 1024); `words` is the same vector as a single word. Captions are read in lower
    case, up to 201 characters. A character outside the alphabet is a zero vector, as in the
    authors' code.

    Args:
        config: Settings.
        network: The network. None: there are no weights, and `encode` raises an error.
    """

    def __init__(self, config: CharCnnRnnConfig, network: CharCnnRnn | None) -> None:
        super().__init__()
        self.shape = TextShape(WIDTH, WIDTH)
        self.network = network
        self.requires_grad_(config.train)

    def reading(self, caption: str) -> Reading:
        read = caption[:LENGTH].lower()[:LENGTH]
        unknown = tuple(character for character in read if character not in CODE)
        return Reading("characters", len(caption.lower()), unknown, LENGTH)

    def encode(self, captions: Sequence[str]) -> TextFeatures:
        """Encode captions.

        Args:
            captions: B captions.

        Returns:
            Their features.

        Raises:
            UserError: There are no weights.
        """
        if self.network is None:
            raise UserError(
                f"{WHAT} has no weights: import or train with --set encoder.weights=FILE (or "
                "encoder.train=true, to train it too), or sample from precomputed vectors with "
                "--features FILE"
            )
        return TextFeatures.of(sentence=self.network(self.one_hot(captions)), captions=captions)

    def one_hot(self, captions: Sequence[str]) -> Tensor:
        """Convert captions to one-hot characters.

        Args:
            captions: B captions.

        Returns:
            The characters, (B, 70, 201), on the device and in the precision of the weights. Past
            the end of a caption, and at characters outside the alphabet, they are zero.
        """
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
    """Build the encoder, with weights if the settings name them.

    Args:
        config: Settings. With neither `weights` nor `train` the encoder has no network.
        assets: Folder of a saved model, whose weights the caller loads afterwards. None for a new
            encoder.

    Returns:
        The encoder; frozen unless `train` is set.

    Raises:
        UserError: The file of weights cannot be read or does not fit.
    """
    network = CharCnnRnn(config) if config.weights or config.train else None
    if network is not None and config.weights and assets is None:
        load_weights(network, config)
    return CharCnnRnnEncoder(config, network)


def load_weights(network: CharCnnRnn, config: CharCnnRnnConfig) -> None:
    """Load a state dict as ports of the authors' Torch 7 files to PyTorch write it.

    Its keys are conv1 to conv3, rnn.* and emb_proj.

    Args:
        network: The network to fill.
        config: Settings, whose `weights` is the path of the file.

    Raises:
        UserError: The file cannot be read, or it is of another `recurrence` or `width`; the message
            then names the settings that fit.
    """
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
