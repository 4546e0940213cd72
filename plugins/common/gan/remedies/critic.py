"""How a trainer describes a discriminator to the remedies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from t2i.core.interfaces.trainer import Losses
from t2i.plugins.common.gan.remedies.seen import Inputs, Seen


@dataclass(frozen=True)
class Critic:
    """A discriminator, as its trainer describes it to the remedies.

    Args:
        name: Name of its optimizer in `Trainer.optimizers`.
        modules: The modules whose weights that optimizer trains, by any names.
        features: Computes, of what it sees (`Seen.real`), what both kinds of scores start from.
        own: Computes the discriminator's loss of the model's paper, and what the log shows. Its
            second argument says whether penalties on gradients belong to it: not in the updates
            that unrolling looks ahead. It must use the modules, and `Seen.fake` as it is.
        own_generator: Computes the adversarial part of the generator's loss of the paper.
        matching: Scores features with conditions, (P,) or (P, ...). None: it takes no text.
        realism: Scores features alone. None: it has no such output.
        mismatched: Whether other losses than the model's own take mismatched pairs too.
        others: Terms of the discriminator's loss that stay with another adversarial loss, such as
            contrastive ones, by name and already weighted. None: there are none.
    """

    name: str
    modules: Mapping[str, nn.Module]
    features: Callable[[Any], Any]
    own: Callable[[Seen, bool], tuple[Tensor, Losses]]
    own_generator: Callable[[Seen], Tensor]
    matching: Callable[[Any, Tensor], Tensor] | None = None
    realism: Callable[[Any], Tensor] | None = None
    mismatched: bool = True
    others: Callable[[Seen], Losses] | None = None

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters of all modules.

        Returns:
            The parameters.
        """
        return [p for module in self.modules.values() for p in module.parameters()]

    def scores(self, seen: Inputs, sentence: Tensor | None) -> list[Tensor]:
        """Score images with each output.

        Args:
            seen: Images or features.
            sentence: Their conditions, float (P, D). None: the model takes no text.

        Returns:
            Scores (P,) of the outputs `matching` and `realism`, those that there are. Several
            scores of one image become their mean.
        """
        return self.outputs(self.features(seen), sentence)

    def outputs(self, features: Any, sentence: Tensor | None) -> list[Tensor]:
        """Score features with each output.

        Args:
            features: What `features` computed.
            sentence: The conditions, float (P, D). None: the model takes no text.

        Returns:
            Scores (P,), as `scores` returns them.
        """
        found = []
        if self.matching is not None:
            assert sentence is not None
            found.append(_one_each(self.matching(features, sentence)))
        if self.realism is not None:
            found.append(_one_each(self.realism(features)))
        return found

    def pairs(self, seen: Seen) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """Score real, generated and mismatched pairs with each output.

        Args:
            seen: What the discriminator sees.

        Returns:
            For each output, scores of real, generated and mismatched pairs, float (P,). None for
            the last where the output takes no text.
        """
        fake, features = self.scores(seen.fake, seen.sentence), self.features(seen.real)
        real = self.outputs(features, seen.sentence)
        wrong: list[Tensor | None] = [None] * len(real)
        if self.matching is not None and self.mismatched:
            wrong[0] = _one_each(self.matching(features, seen.mismatched))
        return list(zip(real, fake, wrong, strict=True))


def _one_each(scores: Tensor) -> Tensor:
    """Return one score for each row: the mean, where there are several."""
    return scores.flatten(1).mean(1) if scores.dim() > 1 else scores
