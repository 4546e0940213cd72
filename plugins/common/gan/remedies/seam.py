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

from collections.abc import Iterable, Mapping, Sequence

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
from t2i.plugins.common.gan.remedies.critic import Critic
from t2i.plugins.common.gan.remedies.diffaugment import NUMBERS, diffaugment
from t2i.plugins.common.gan.remedies.norm import has_batchnorm, layernorm_for_batchnorm
from t2i.plugins.common.gan.remedies.packing import packed
from t2i.plugins.common.gan.remedies.seen import Inputs, Seen, each, like, listed
from t2i.plugins.common.gan.remedies.unrolling import unrolled


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
        self.critics = {critic.name: critic for critic in critics}
        for setting, reason in (refused or {}).items():
            default = type(config).model_fields[setting].default
            chosen = getattr(config, setting)
            if chosen != default:
                raise UserError(f"{setting}={chosen}: {reason}: use {setting}={default}")
        networks = [
            module for critic in self.critics.values() for module in critic.modules.values()
        ]
        if config.critic_norm == "layer":
            for network in networks:
                layernorm_for_batchnorm(network)
        if config.twice and has_batchnorm(networks):
            raise UserError(
                f"{config.twice}: the discriminator has batch norm, with which a score depends on "
                "the whole batch, not on its image alone: use critic_norm=layer"
            )
        self._ada = {
            f"ada_{critic.name}": AdaptiveAugmentation(config.ada_target, config.ada_images)
            for critic in self.critics.values()
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
            critic.name,
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
        critic, cut = self.critics[seen.name], seen.for_discriminator()
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
        critic = self.critics[seen.name]
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
        config, critic, e = self.config, self.critics[seen.name], seen.sentence
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
            scores = critic.scores(like(seen.real, points), e)
            penalty = torch.stack([lipschitz_penalty(s, inputs) for s in scores]).sum()
            return {"lipschitz": config.lipschitz_weight * penalty}
        if not config.r1_r2:
            return {}
        found = {}
        for name, images in (("r1", seen.real), ("r2", seen.fake)):
            points = [x.detach().requires_grad_() for x in listed(images)]
            scores = critic.scores(like(images, points), e)
            penalty = torch.stack([zero_centred_penalty(s, points) for s in scores]).sum()
            found[name] = config.r1_r2 / 2 * penalty
        return found

    @torch.no_grad()
    def _adapt(self, seen: Seen) -> Losses:
        """Adapt ADA's probability in every `INTERVAL`-th step, by the first output's scores."""
        critic, noise = self.critics[seen.name], seen.batch.noise
        ada = self._ada[f"ada_{critic.name}"]
        if (noise.at + 1) % INTERVAL == 0:
            scores = critic.scores(seen.real, seen.sentence)[0]
            if self.config.loss == "relativistic":  # only differences of scores mean anything
                scores = scores - critic.scores(seen.fake, seen.sentence)[0]
            signs = seen.engine.gathered(scores.sign())  # of a part of the batch (`accumulate`)
            ada.adapt(signs, INTERVAL * self.config.pack * len(signs))
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
            self.critics[seen.name].modules,
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
        critic = self.critics[seen.name]
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


def _means(critic: Critic, pairs: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> Losses:
    """Return the mean scores of the first output, for the log."""
    kinds = zip(("real", "fake", "mismatched"), pairs[0], strict=True)
    return {f"{critic.name}.{kind}": s.detach().mean() for kind, s in kinds if s is not None}
