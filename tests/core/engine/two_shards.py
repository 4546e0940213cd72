"""Run by test_sharding.py, once in each of two processes: trains a small network whose weights are
shared out, and the same network alone, and prints how far they are apart."""

import json

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from t2i.core.engine import blocks
from t2i.core.engine.ema import Ema
from t2i.core.engine.optimizing import Optimizing
from t2i.core.engine.sharding import Sharding
from t2i.core.engine.updates import Updates
from t2i.core.errors import T2IError
from t2i.core.interfaces.trainer import Optimization
from t2i.core.settings.engine import EngineConfig

blocks.LEAST = 100


class Block(nn.Module):
    """A block that is large enough for a share of its own; its output is a view."""

    def __init__(self):
        super().__init__()
        self.inner = spectral_norm(nn.Linear(7, 21))
        self.outer = nn.Linear(21, 7)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return (x + self.outer(self.inner(x).tanh())).view(x.shape)


class Net(nn.Module):
    """Two blocks, a scalar, a frozen layer, and a method that is no forward."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(5, 7)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.frozen = nn.Linear(7, 7).requires_grad_(False)
        self.register_buffer("steps", torch.zeros(()))

    def condition(self, x):
        return self.stem(x) * self.scale

    def forward(self, x, uses_all=True):
        for block in self.blocks if uses_all else self.blocks[:1]:
            x = block(x).mul_(1.1)
        return self.frozen(x).square().mean(1)


class Setting:
    """A network and a critic of it with their optimizers, as a stage has them."""

    def __init__(self):
        torch.manual_seed(3)
        self.net, self.critic = Net(), Net()
        self.optimizers = {
            "net": torch.optim.AdamW([p for p in self.net.parameters() if p.requires_grad], 0.01),
            "critic": torch.optim.SGD(
                [{"params": [*self.critic.blocks.parameters()]}, {"params": [self.critic.scale]}],
                0.1,
                momentum=0.9,
            ),
        }
        self.clips = {"net": 0.05, "critic": [0.02, None]}
        self.settings = EngineConfig(accumulate=2, batch_size=8, ema_decay=0.5)

    def losses(self, x, part):
        """The critic is part of the loss of the net, whose optimizer must leave it alone."""
        y = self.net(self.net.condition(x))
        yield "critic", self.critic(self.critic.condition(x), part == 0).mean()
        yield "net", (y - self.critic(self.critic.condition(x))).square().mean()


def whole(setting):
    """The sharded network and critic as plain tensors."""
    return {
        f"{name}.{key}": value.detach().clone()
        for name, module in (("net", setting.net), ("critic", setting.critic))
        for key, value in module.state_dict().items()
    }


def trained_alone(batches):
    """What one process trains on the whole batch, by torch alone."""
    setting = Setting()
    averages = [p.detach().clone() for p in setting.optimizers["net"].param_groups[0]["params"]]
    for n, batch in enumerate(batches, 1):
        for part in range(2):
            for name, loss in setting.losses(batch[part], part):
                parameters = [p for g in setting.optimizers[name].param_groups for p in g["params"]]
                (loss / 2).backward(inputs=parameters)
                if part == 1:
                    clip = setting.clips[name]
                    for group, most in zip(
                        setting.optimizers[name].param_groups,
                        clip if isinstance(clip, list) else [clip],
                        strict=True,
                    ):
                        if most:
                            nn.utils.clip_grad_norm_(group["params"], most)
                    setting.optimizers[name].step()
                    setting.optimizers[name].zero_grad()
        for average, p in zip(
            averages, setting.optimizers["net"].param_groups[0]["params"], strict=True
        ):
            average.lerp_(p.detach(), 1 - min(0.5, (1 + n) / (10 + n)))
    return whole(setting), averages


def shared(setting, accelerator):
    """The engine's parts of a setting whose weights are shared out."""
    modules = {"net": setting.net, "critic": setting.critic, "inside": setting.net.blocks}
    sharding = Sharding(accelerator, modules, [*setting.optimizers.values()])
    chosen = {name: Optimization(o, setting.clips[name]) for name, o in setting.optimizers.items()}
    optimizing = Optimizing(chosen, setting.settings, sharding.norm)
    updates = Updates(accelerator, setting.settings, optimizing, lambda: 0.0, sharding)
    parameters = {
        name: sharding.of(p) for name, p in setting.net.named_parameters() if p.requires_grad
    }
    return sharding, updates, Ema.of(parameters, setting.settings, sharding)


def trained_together(accelerator, batches, saved=None):
    """What two processes train on their rows; from a saved state if there is one."""
    setting, rank = Setting(), accelerator.process_index
    sharding, updates, ema = shared(setting, accelerator)
    if saved:
        modules, optimizers, averages, count = saved
        with sharding.whole(keep=True):
            for name in ("net", "critic"):
                getattr(setting, name).load_state_dict(
                    {k.split(".", 1)[1]: v for k, v in modules.items() if k.startswith(name)}
                )
        for name, optimizer in setting.optimizers.items():
            optimizer.load_state_dict(sharding.shared_out(optimizers[name], optimizer))
        ema.load(averages, count)
    for batch in batches:
        for part in range(2):
            updates.part = part
            for name, loss in setting.losses(batch[part].chunk(2)[rank], part):
                updates.update(name, loss)
        ema.update()
        with ema.swapped(), sharding.whole():
            pass  # as for a grid of samples: the next step has the weights, not the averages
    optimizers = {name: sharding.optimizer_state(o) for name, o in setting.optimizers.items()}
    averages = ema.state()
    with sharding.whole():
        modules = whole(setting)
        if rank:
            setting.net(setting.net.condition(batches[0][0]))  # this process alone
    rows = sum(p.numel() for p in setting.optimizers["net"].param_groups[0]["params"])
    return (modules, optimizers, averages, ema.count), rows, setting, updates


def apart(ours, theirs):
    """The largest difference of any two tensors, relative to the largest number."""
    return max(
        float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max().clamp_min(1e-9))
        for name in theirs
    )


def broadcast(accelerator, saved):
    """What the first process has gathered, as every process reads it from a checkpoint."""
    from accelerate.utils import broadcast_object_list

    box = [saved]
    broadcast_object_list(box)
    return box[0]


def main():
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(1)
    batches = torch.randn(4, 2, 4, 5)
    alone, averages = trained_alone(batches)
    through, rows, setting, updates = trained_together(accelerator, batches)
    half, *_ = trained_together(accelerator, batches[:2])
    resumed, *_ = trained_together(accelerator, batches[2:], broadcast(accelerator, half))
    said = {"apart": apart(through[0], alone), "resumed": apart(resumed[0], through[0])}
    if accelerator.is_main_process:
        said["averages"] = apart(dict(enumerate(through[2].values())), dict(enumerate(averages)))
        said["moments"] = [
            list(state["exp_avg"].shape) for state in through[1]["net"]["state"].values()
        ]
    whole_rows = sum(p.numel() for p in Setting().net.parameters() if p.requires_grad)
    said["share"] = rows / whole_rows
    with torch.no_grad():
        setting.net.stem.weight.clamp_(-0.01, 0.01)  # as a trainer that clips weights
    try:
        updates.update("net", setting.net(setting.net.condition(batches[0][0])).mean())
        updates.part = 1
        updates.update("net", setting.net(setting.net.condition(batches[0][0])).mean())
    except T2IError as error:
        said["refused"] = str(error)
    print(json.dumps(said))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
