"""LSTMs as the authors', and the two that read a caption."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from t2i.core.interfaces.text import TextFeatures

Memory = tuple[Tensor, Tensor]
"""Output h and cell of an LSTM, float (B, hidden) each."""


class LSTM(nn.Module):
    """An LSTM with one bias and no peepholes; its gates are i, f, candidate and o.

    Args:
        inputs: Widths of the inputs, each of which has a matrix of its own.
        hidden: Features of the output.
    """

    def __init__(self, inputs: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(nn.Linear(width, 4 * hidden, bias=False) for width in inputs)
        self.hidden = nn.Linear(hidden, 4 * hidden)

    def entered(self, *values: Tensor) -> Tensor:
        """Compute what inputs add to the gates.

        Args:
            *values: One tensor (B, ..., width) for each of the inputs.

        Returns:
            float (B, ..., 4 hidden).
        """
        parts = [layer(value) for layer, value in zip(self.inputs, values, strict=True)]
        total: Tensor = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        return total

    def step(self, entered: Tensor, memory: Memory) -> Memory:
        """Take a step.

        Args:
            entered: What the inputs add to the gates, as `entered` returns it.
            memory: Output and cell of the step before.

        Returns:
            The new output and cell.
        """
        h, cell = memory
        i, f, candidate, o = (entered + self.hidden(h)).chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * candidate.tanh()
        return o.sigmoid() * cell.tanh(), cell


class Reader(nn.Module):
    """Two LSTMs read a caption; each word's vector is the outputs of both at it.

    Args:
        words: Width of word vectors.
        hidden: Features of each LSTM.
    """

    def __init__(self, words: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = LSTM((words,), hidden), LSTM((words,), hidden)
        self.start = nn.Parameter(torch.zeros(1, hidden))

    def forward(self, text: TextFeatures, other: TextFeatures | None) -> Tensor:
        """Read captions.

        Args:
            text: Features of B captions.
            other: Captions that the second LSTM reads from their first word on. None: it reads
                `text` from the last word of each caption to its first.

        Returns:
            Vectors of the words, float (B, L, 2 hidden).
        """
        forwards = self._run(self.first, text.words)
        if other is not None:
            backwards = self._run(self.second, other.padded(text.words.shape[1]).words)
            backwards = backwards[:, : text.words.shape[1]]
        else:
            turn = reversal(text.mask)[..., None]
            words = text.words.gather(1, turn.expand_as(text.words))
            backwards = self._run(self.second, words)
            backwards = backwards.gather(1, turn.expand_as(backwards))
        return torch.cat([forwards, backwards], dim=2)

    def _run(self, lstm: LSTM, words: Tensor) -> Tensor:
        h = self.start.expand(len(words), -1)
        memory, outputs = (h, torch.zeros_like(h)), []
        for entered in lstm.entered(words).unbind(1):
            memory = lstm.step(entered, memory)
            outputs.append(memory[0])
        return torch.stack(outputs, dim=1)


def reversal(mask: Tensor) -> Tensor:
    """Return the places that reverse the words of each caption, and leave its padding.

    Args:
        mask: Which words count, bool (B, L): the first ones of each caption.

    Returns:
        Places, int64 (B, L). Applied twice they are the identity.
    """
    place = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    return torch.where(mask, mask.sum(1, keepdim=True) - 1 - place, place)
