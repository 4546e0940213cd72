"""Training of fully connected GANs: optimizers, and the order of the two updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from t2i.core.interfaces.trainer import Batch, Engine, Losses, Optimization, Trainer
from t2i.plugins.common.gan.losses.outline import with_outline
from t2i.plugins.common.gan.mlp.config import MLPGANConfig
from t2i.plugins.common.gan.mlp.networks import MLPGenerator
from t2i.plugins.common.gan.optimizers import adam_pair
from t2i.plugins.common.gan.remedies.critic import Critic
from t2i.plugins.common.gan.remedies.seam import Remedies


class MLPTrainer(Trainer):
    """Base of the trainers: G runs once a step, and both networks are updated.

    Source: Goodfellow et al. 2014, algorithm 1, with the loss of section 3 for G.

    Args:
        config: The model's settings.
        generator: The generator.
        critic: The discriminator. Its optimizer is "discriminator".
    """

    def __init__(self, config: MLPGANConfig, generator: MLPGenerator, critic: Critic) -> None:
        self.config, self.generator, self.critic = config, generator, critic
        self.remedies = Remedies(config, [critic])
        self.modules = {"generator": generator, **critic.modules, **self.remedies.modules}
        if config.optimizer == "adam":
            self.optimizers = adam_pair(config, generator.parameters(), critic.parameters())
        else:
            self.optimizers = sgd_pair(config, generator.parameters(), critic.parameters())

    def sentence(self, batch: Batch) -> Tensor | None:
        """Return the sentences that the discriminator takes.

        Args:
            batch: The batch.

        Returns:
            The vectors without gradients, float (B, D). None (the default): it takes no text.
        """
        return None

    def step(self, batch: Batch, engine: Engine) -> Losses:
        if self.config.optimizer == "sgd":
            self._set_momentum(engine.progress)
        z = batch.noise.normal("z", 0, self.generator.noise_shape)
        fake = self.generator(z, batch.text.detach())
        seen = self.remedies.seen(
            self.critic, batch, engine, batch.images, fake, self.sentence(batch)
        )
        # Where both networks move at once, G moves first: D's loss depends on its images alone,
        # which are made already, so that D's gradient is that at the weights before.
        losses: Losses = {} if self.config.simultaneous else self.remedies.update(seen)
        losses["generator"] = loss = self.remedies.adversarial(seen)
        loss = with_outline(loss, losses, self.config.outline, [fake], batch.images)
        self.remedies.update_generator("generator", loss, batch, engine)
        if self.config.simultaneous:
            losses |= self.remedies.update(seen)
        return losses

    def _set_momentum(self, progress: float) -> None:
        first, last = self.config.momentum
        share = min(1.0, progress * self.config.steps / self.config.momentum_steps)
        for optimization in self.optimizers.values():
            assert isinstance(optimization, Optimization)
            for group in optimization.optimizer.param_groups:
                group["momentum"] = first + share * (last - first)


def sgd_pair(
    config: MLPGANConfig, generator: Iterable[nn.Parameter], discriminator: Iterable[nn.Parameter]
) -> dict[str, Optimizer | Optimization]:
    """Make stochastic gradient descent with momentum for both networks.

    Args:
        config: Learning rates, their decay, and the first momentum.
        generator: Parameters of the generator.
        discriminator: Parameters of the discriminator.

    Returns:
        The optimizers "discriminator" and "generator" with their schedules.
    """

    def made(parameters: Iterable[nn.Parameter], lr: float) -> Optimization:
        optimizer = SGD(parameters, lr, momentum=config.momentum[0])
        return Optimization(optimizer, schedule=falling(config, lr))

    return {
        "discriminator": made(discriminator, config.lr_d),
        "generator": made(generator, config.lr_g),
    }


def falling(config: MLPGANConfig, lr: float) -> Callable[[float], float]:
    """Return the schedule of a learning rate that is divided by `lr_divisor` at each step.

    Args:
        config: The divisor, the least learning rate, and the number of steps.
        lr: Learning rate at the first step.

    Returns:
        A function from the progress (0 to 1) to a factor of the learning rate.
    """

    def factor(progress: float) -> float:
        least: float = min(1.0, config.lr_least / lr)
        return float(max(config.lr_divisor ** -(progress * config.steps), least))

    return factor
