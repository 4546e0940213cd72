"""Where remedies enter a GAN's training step.

A trainer describes each discriminator as a `Critic` and gives them to `Remedies`. Its step then
reads, for each critic:

    seen = self.remedies.seen(critic, batch, engine, real, fake, sentence)
    losses = self.remedies.update(seen)  # the discriminator's step
    losses["generator"] = loss = self.remedies.adversarial(seen)  # the generator's term
    ...
    self.remedies.update_generator("generator", loss, batch, engine)

With the default settings this computes the model's own losses on the same tensors as without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from t2i.core.errors import UserError
from t2i.core.interfaces.trainer import Batch, Engine, Losses
from t2i.plugins.common.gan.losses.relativistic import (
    relativistic_discriminator,
    relativistic_generator,
)
from t2i.plugins.common.gan.losses.wasserstein import wasserstein_critic, wasserstein_generator
from t2i.plugins.common.gan.penalties.gradients import (
    between,
    lipschitz_penalty,
    zero_centred_penalty,
)
from t2i.plugins.common.gan.remedies.ada import (
    CHOICES,
    INTERVAL,
    NORMALS,
    UNIFORMS,
    AdaptiveAugmentation,
)
from t2i.plugins.common.gan.remedies.config import RemediesConfig
from t2i.plugins.common.gan.remedies.diffaugment import NUMBERS, diffaugment
from t2i.plugins.common.gan.remedies.norm import has_batchnorm, layernorm_for_batchnorm
from t2i.plugins.common.gan.remedies.packing import packed
from t2i.plugins.common.gan.remedies.unrolling import unrolled

Inputs = Tensor | Sequence[Tensor]
"""What a discriminator sees of images: the images, or several maps of features; each (B, ...)."""


@dataclass(frozen=True)
class Seen:
    """What one discriminator sees in a step: P packs of images, or single ones.

    Args:
        critic: The discriminator.
        batch: The batch that it comes from.
        engine: The engine.
        real: Real images or their features, without gradients.
        fake: Generated ones of the same shapes, with the generator's graph.
        sentence: The condition of each pack, float (P, D). None: the model takes no text.
    """

    critic: Critic
    batch: Batch
    engine: Engine
    real: Inputs
    fake: Inputs
    sentence: Tensor | None

    @cached_property
    def mismatched(self) -> Tensor:
        """The conditions rolled by one pack over the global batch, without gradients."""
        assert self.sentence is not None
        return self.engine.shifted(self.sentence.detach())

    @property
    def images(self) -> Tensor:
        """The real images, where the discriminator sees images."""
        assert isinstance(self.real, Tensor)
        return self.real

    @property
    def generated(self) -> Tensor:
        """The generated images, where the discriminator sees images."""
        assert isinstance(self.fake, Tensor)
        return self.fake

    @property
    def condition(self) -> Tensor:
        """The condition, where the model takes text."""
        assert self.sentence is not None
        return self.sentence

    def for_discriminator(self, *, detached: bool = True) -> Seen:
        """Return the same without the gradients that the discriminator's loss does not want.

        Args:
            detached: Whether generated images lose the generator's graph too.

        Returns:
            The same tensors, cut from their graphs.
        """
        fake = each(self.fake, Tensor.detach) if detached else self.fake
        sentence = None if self.sentence is None else self.sentence.detach()
        return replace(self, fake=fake, sentence=sentence)


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


class Remedies:
    """The remedies that a model's settings choose, applied to its discriminators.

    Make it before the optimizers: it may replace layers of the discriminators. The attribute
    `modules` belongs into `Trainer.modules`: it holds the state of ADA. It is often empty.

    Args:
        config: The model's settings.
        critics: The discriminators.
        refused: Reasons why the model does not take a remedy, by setting (`pack`, `unroll`,
            `augment_images`, `loss`).

    Raises:
        UserError: The settings choose a remedy that these discriminators do not take.
    """

    def __init__(
        self,
        config: RemediesConfig,
        critics: Iterable[Critic],
        refused: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        critics = list(critics)
        for setting, reason in (refused or {}).items():
            default = type(config).model_fields[setting].default
            chosen = getattr(config, setting)
            if chosen != default:
                raise UserError(f"{setting}={chosen}: {reason}: use {setting}={default}")
        networks = [module for critic in critics for module in critic.modules.values()]
        if config.critic_norm == "layer":
            for network in networks:
                layernorm_for_batchnorm(network)
        if config.twice and has_batchnorm(networks):
            raise UserError(
                f"{config.twice}: the discriminator has batch norm, with which a score depends on "
                "the whole batch, and so has no gradient of its own: use critic_norm=layer"
            )
        self._ada = {
            f"ada_{critic.name}": AdaptiveAugmentation(config.ada_target, config.ada_images)
            for critic in critics
            if config.augment_images == "ada"
        }
        self.modules: dict[str, nn.Module] = dict(self._ada)

    # --- what the discriminators see --------------------------------------------------------------

    def seen(
        self,
        critic: Critic,
        batch: Batch,
        engine: Engine,
        real: Tensor,
        fake: Tensor,
        sentence: Tensor | None,
    ) -> Seen:
        """Augment and pack images.

        Args:
            critic: The discriminator that will see them.
            batch: The batch, for its noise.
            engine: The engine.
            real: Real images, float (B, 3, H, H).
            fake: Generated images, with the generator's graph.
            sentence: Condition of each image, float (B, D). None: the model takes no text.

        Returns:
            What the discriminator sees.
        """
        real, fake = self.augmented(critic, batch, real, fake)
        return self.packed(critic, batch, engine, real, fake, sentence)

    def augmented(
        self, critic: Critic, batch: Batch, real: Tensor, fake: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Augment real and generated images, each image in another way.

        A discriminator of features calls this before the extractor, and `packed` after it.

        Args:
            critic: The discriminator that will see them.
            batch: The batch, for its noise.
            real: Real images, float (B, 3, H, H).
            fake: Generated images.

        Returns:
            Both, the same tensors if there is no augmentation.
        """
        if self.config.augment_images == "none":
            return real, fake
        noise = batch.noise.scope(f"augment {critic.name}")
        if self.config.augment_images == "diffaugment":
            policy = self.config.diffaugment
            real, fake = (
                diffaugment(images, noise.uniform("changes", i, (NUMBERS,)), policy)
                for i, images in enumerate((real, fake))
            )
            return real, fake
        ada = self._ada[f"ada_{critic.name}"]
        real, fake = (
            ada(
                images,
                noise.uniform("choices", i, (CHOICES,)),
                noise.uniform("changes", i, (UNIFORMS,)),
                noise.normal("changes", i, (NORMALS,)),
            )
            for i, images in enumerate((real, fake))
        )
        return real, fake

    def packed(
        self,
        critic: Critic,
        batch: Batch,
        engine: Engine,
        real: Inputs,
        fake: Inputs,
        sentence: Tensor | None,
    ) -> Seen:
        """Pack images or features, and their conditions.

        Args:
            critic: The discriminator that will see them.
            batch: The batch, for its noise.
            engine: The engine.
            real: Real images or features, each (B, C, ...).
            fake: Generated ones.
            sentence: Condition of each image, float (B, D). None: the model takes no text.

        Returns:
            What the discriminator sees.
        """
        m = self.config.pack
        return Seen(
            critic,
            batch,
            engine,
            each(real, lambda x: packed(x, m)),
            each(fake, lambda x: packed(x, m)),
            None if sentence is None else packed(sentence, m),
        )

    # --- the discriminator's step -----------------------------------------------------------------

    def update(self, seen: Seen) -> Losses:
        """Update one discriminator.

        Args:
            seen: What it sees.

        Returns:
            What the log shows.
        """
        critic, cut = seen.critic, seen.for_discriminator()
        loss, losses = self.discriminator_loss(cut, penalised=True)
        seen.engine.update(critic.name, loss)
        if self.config.loss == "wasserstein" and self.config.lipschitz == "clip":
            with torch.no_grad():
                for p in critic.parameters():
                    p.clamp_(-self.config.clip_weights, self.config.clip_weights)
        if self.config.augment_images == "ada":
            losses = {**losses, **self._adapt(cut)}
        return losses

    def discriminator_loss(self, seen: Seen, *, penalised: bool) -> tuple[Tensor, Losses]:
        """Compute the loss of one discriminator.

        Args:
            seen: What it sees.
            penalised: Whether penalties on gradients belong to it.

        Returns:
            The loss, a scalar, and what the log shows.
        """
        critic = seen.critic
        if self.config.loss == "own":
            return critic.own(seen, penalised)
        adversarial = (
            wasserstein_critic if self.config.loss == "wasserstein" else relativistic_discriminator
        )
        pairs = critic.pairs(seen)
        loss = torch.stack([adversarial(*scores) for scores in pairs]).sum()
        losses: Losses = {critic.name: loss, **_means(critic, pairs)}
        if penalised:
            terms = self._penalties(seen)
            losses |= {f"{critic.name}.{name}": term.detach() for name, term in terms.items()}
            loss = loss + sum(terms.values())
        if critic.others is not None:
            terms = critic.others(seen)
            losses |= terms
            loss = loss + sum(terms.values())
        return loss, losses

    def _penalties(self, seen: Seen) -> Losses:
        """Return the weighted penalties of a loss that is not the model's own, summed over outputs.

        One penalty a pack, over all its images. WGAN-GP's is taken at (x^, e), over the gradients
        to both; R1 and R2 over the gradients to images alone.
        """
        config, critic, e = self.config, seen.critic, seen.sentence
        if config.loss == "wasserstein":
            if config.lipschitz == "clip" or not config.lipschitz_weight:
                return {}
            a = seen.batch.noise.uniform(f"between {critic.name}", 0, ())[:: config.pack]
            ends = zip(listed(seen.real), listed(seen.fake), strict=True)
            points = [between(real, fake, a).detach().requires_grad_() for real, fake in ends]
            inputs = points
            if e is not None and critic.matching is not None:
                e = e.detach().clone().requires_grad_()
                inputs = [*points, e]
            scores = critic.scores(_like(seen.real, points), e)
            penalty = torch.stack([lipschitz_penalty(s, inputs) for s in scores]).sum()
            return {"lipschitz": config.lipschitz_weight * penalty}
        if not config.r1_r2:
            return {}
        found = {}
        for name, images in (("r1", seen.real), ("r2", seen.fake)):
            points = [x.detach().requires_grad_() for x in listed(images)]
            scores = critic.scores(_like(images, points), e)
            penalty = torch.stack([zero_centred_penalty(s, points) for s in scores]).sum()
            found[name] = config.r1_r2 / 2 * penalty
        return found

    @torch.no_grad()
    def _adapt(self, seen: Seen) -> Losses:
        """Adapt ADA's probability in every `INTERVAL`-th step, by the first output's scores."""
        critic, noise = seen.critic, seen.batch.noise
        ada = self._ada[f"ada_{critic.name}"]
        if (noise.at + 1) % INTERVAL == 0:
            scores = critic.scores(seen.real, seen.sentence)[0]
            if self.config.loss == "relativistic":  # only differences of scores mean anything
                scores = scores - critic.scores(seen.fake, seen.sentence)[0]
            ada.adapt(seen.engine.gathered(scores.sign()), INTERVAL * noise.total)
        return {f"{critic.name}.p": ada.p.clone()}

    # --- the generator's step ---------------------------------------------------------------------

    def moves(self, batch: Batch) -> bool:
        """Return whether the generator is updated in this step (`critic_steps`).

        Args:
            batch: The batch.

        Returns:
            Whether it is.
        """
        return (batch.noise.at + 1) % self.config.critic_steps == 0

    def adversarial(self, seen: Seen) -> Tensor:
        """Compute the adversarial part of the generator's loss at one discriminator.

        Args:
            seen: What the discriminator sees, after its update, with the generator's graph.

        Returns:
            The loss, a scalar. In a step that does not update the generator it has no graph and
            looks no updates ahead: it is for the log.
        """
        if not self.moves(seen.batch):
            with torch.no_grad():
                return self.generator_loss(seen)
        if not self.config.unroll:
            return self.generator_loss(seen)
        ahead = seen.for_discriminator(detached=False)
        return unrolled(
            seen.critic.modules,
            lambda: self.discriminator_loss(ahead, penalised=False)[0],
            lambda: self.generator_loss(seen),
            self.config.unroll,
            self.config.unroll_lr,
        )

    def generator_loss(self, seen: Seen) -> Tensor:
        """Compute the adversarial part of the generator's loss, without looking ahead.

        Args:
            seen: What the discriminator sees.

        Returns:
            The loss, a scalar.
        """
        critic = seen.critic
        if self.config.loss == "own":
            return critic.own_generator(seen)
        fake = critic.scores(seen.fake, seen.sentence)
        if self.config.loss == "wasserstein":
            return torch.stack([wasserstein_generator(scores) for scores in fake]).sum()
        real = critic.scores(seen.real, seen.sentence)
        pairs = zip(real, fake, strict=True)
        return torch.stack([relativistic_generator(*scores) for scores in pairs]).sum()

    def update_generator(self, name: str, loss: Tensor, batch: Batch, engine: Engine) -> None:
        """Update the generator, in the steps that do.

        Args:
            name: Name of its optimizer.
            loss: Its whole loss, a scalar.
            batch: The batch.
            engine: The engine.
        """
        if self.moves(batch):
            engine.update(name, loss)


def each(inputs: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    """Apply a function to a tensor, or to each of several.

    Args:
        inputs: A tensor or several.
        function: The function.

    Returns:
        A tensor, or a list of several.
    """
    return function(inputs) if isinstance(inputs, Tensor) else [function(x) for x in inputs]


def listed(inputs: Inputs) -> list[Tensor]:
    """Return a tensor, or several, as a list.

    Args:
        inputs: A tensor or several.

    Returns:
        The list.
    """
    return [inputs] if isinstance(inputs, Tensor) else list(inputs)


def _like(inputs: Inputs, tensors: list[Tensor]) -> Inputs:
    """Return tensors as `inputs` holds them: one tensor alone, or a list."""
    return tensors[0] if isinstance(inputs, Tensor) else tensors


def _one_each(scores: Tensor) -> Tensor:
    """Return one score for each row: the mean, where there are several."""
    return scores.flatten(1).mean(1) if scores.dim() > 1 else scores


def _means(critic: Critic, pairs: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> Losses:
    """Return the mean scores of the first output, for the log."""
    kinds = zip(("real", "fake", "mismatched"), pairs[0], strict=True)
    return {f"{critic.name}.{kind}": s.detach().mean() for kind, s in kinds if s is not None}
