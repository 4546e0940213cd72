"""A prior of latents that depends on the text.

Source: Sohn et al. 2015.
"""

from __future__ import annotations

from torch import Tensor, nn

from t2i.plugins.common.variational.gaussian import Gaussian, split

LEAST, MOST = -4.0, 2.0
"""Bounds of a learnt prior's log scale. Without the lower one it may collapse towards the
posterior."""


class ConditionalPrior(nn.Module):
    """p(z | t) = N(mu(t), diag exp 2 s(t)) by a perceptron, which starts as N(0, I).

    Args:
        text: Width of sentence vectors.
        z: Number of latents.
        width: Hidden features. 0: p(z | t) is N(0, I), and nothing is learnt.
    """

    def __init__(self, text: int, z: int, width: int) -> None:
        super().__init__()
        self.z = z
        self.network: nn.Sequential | None = None
        if width:
            last = nn.Linear(width, 2 * z)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.network = nn.Sequential(nn.Linear(text, width), nn.SiLU(), last)

    def forward(self, sentence: Tensor) -> Gaussian:
        """Compute the prior.

        Args:
            sentence: Sentence vectors, float (B, text).

        Returns:
            A Gaussian of shape (B, z).
        """
        if self.network is None:
            zeros = sentence.new_zeros(len(sentence), self.z)
            return Gaussian(zeros, zeros)
        return split(self.network(sentence)).bounded(LEAST, MOST)
