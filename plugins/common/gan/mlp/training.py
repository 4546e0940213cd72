"""Training of fully connected GANs: optimizers, and the order of the two updates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from t2i.core.interfaces.trainer import Batch, Engine, Losses, Optimization, Trainer
from t2i.plugins.common.gan.losses.outline import with_outline
from t2i.plugins.common.gan.mlp.config import MLPGANConfig
from t2i.plugins.common.gan.mlp.networks import MLPGenerator
from t2i.plugins.common.gan.optimizers import adam_pair


class MLPTrainer(Trainer):
    """Base of the trainers: G runs once a step, and both networks are updated.

    Source: Goodfellow et al. 2014, algorithm 1, with the loss of section 3 for G.

    Args:
        config: The model's settings.
        generator: The generator.
        judges: The parts of the discriminator by name.
    """

    def __init__(
        self, config: MLPGANConfig, generator: MLPGenerator, judges: dict[str, nn.Module]
    ) -> None:
        self.config, self.generator = config, generator
        self.modules = {"generator": generator, **judges}
        parameters = [p for judge in judges.values() for p in judge.parameters()]
        if config.optimizer == "adam":
            self.optimizers = adam_pair(config, generator.parameters(), parameters)
        else:
            self.optimizers = sgd_pair(config, generator.parameters(), parameters)

    @abstractmethod
    def discriminator_loss(self, fake: Tensor, batch: Batch, engine: Engine) -> Tensor:
        """Compute D's loss.

        Args:
            fake: Generated images without gradients, float (B, 3, H, H).
            batch: The batch.
            engine: The engine, for wrong pairs.

        Returns:
            The loss, a scalar.
        """

    @abstractmethod
    def generator_loss(self, fake: Tensor, batch: Batch) -> Tensor:
        """Compute the adversarial part of G's loss.

        Args:
            fake: Generated images, float (B, 3, H, H).
            batch: The batch.

        Returns:
            The loss, a scalar.
        """

    def step(self, batch: Batch, engine: Engine) -> Losses:
        if self.config.optimizer == "sgd":
            self._set_momentum(engine.progress)
        fake = self.generator(
            batch.noise.normal("z", 0, self.generator.noise_shape), batch.text.detach()
        )
        judged = self.discriminator_loss(fake.detach(), batch, engine)
        if not self.config.simultaneous:
            engine.update("discriminator", judged)
        losses: Losses = {"discriminator": judged}
        losses["generator"] = adversarial = self.generator_loss(fake, batch)
        loss = with_outline(adversarial, losses, self.config.outline, [fake], batch.images)
        engine.update("generator", loss)
        if self.config.simultaneous:
            # D's loss does not depend on G's weights, which have moved: its gradient is that at the
            # weights before.
            engine.update("discriminator", judged)
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
        return max(config.lr_divisor ** -(progress * config.steps), min(1.0, config.lr_least / lr))

    return factor
