"""Stand-ins that tests of several models train with: a text encoder and engines."""

import torch

from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape


class Colours(TextEncoder):
    """A learnt vector for each of two words; no caption is neither."""

    def __init__(self):
        super().__init__()
        self.shape = TextShape(6, 6)
        self.table = torch.nn.Embedding(3, 6)

    def encode(self, captions):
        rows = torch.tensor([["red", "blue"].index(c) if c else 2 for c in captions])
        return TextFeatures.of(sentence=self.table(rows), captions=tuple(captions))


class Engine:
    """Takes plain steps and notes the losses."""

    progress = 0.0

    def __init__(self, trainer):
        self.trainer, self.losses = trainer, []

    def update(self, name, loss):
        self.losses.append(float(loss.detach()))
        loss.backward()
        self.trainer.optimizers[name].step()
        self.trainer.optimizers[name].zero_grad()


class Recorder:
    """An engine that notes each loss with its gradients; it steps if asked."""

    progress = 0.0

    def __init__(self, trainer, move=False):
        self.trainer, self.move, self.losses, self.gradients = trainer, move, {}, {}

    def shifted(self, x):
        return torch.roll(x, 1, 0)

    def gathered(self, x):
        return x

    def update(self, name, loss):
        optimizer = self.trainer.optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.losses[name] = loss.detach()
        loss.backward(inputs=parameters)
        self.gradients[name] = [None if p.grad is None else p.grad.clone() for p in parameters]
        if self.move:
            optimizer.step()
        optimizer.zero_grad()
