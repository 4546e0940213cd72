"""Run by test_processes.py, once in each of several processes, and by it in its own: trains what
jobs say.

Jobs are told and answered in JSON. A watcher notes the gradients with which the optimizers take
their first steps, and what all weights are in the end, in this very process.
"""

import hashlib
import importlib.util
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from t2i.core.engine import blocks, resume, sharding, stored, train
from t2i.core.engine.optimizing import Optimizing
from t2i.core.engine.reporting import Silent
from t2i.core.engine.scores import Score
from t2i.core.engine.updates import Updates
from t2i.core.errors import Interrupted, T2IError
from t2i.core.interfaces.noise import seeded
from t2i.core.interfaces.text import TextFeatures
from t2i.core.interfaces.trainer import optimizations
from t2i.core.io.tensors import save_tensors
from t2i.core.models.building import build
from t2i.core.models.samples import write_samples
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from t2i.core.settings.engine import EngineConfig

CAPTIONS = [
    f"{size} {colour} circle"
    for size in ("a large", "a small")
    for colour in ("red", "blue", "green")
]
SHARDINGS = []  # those of the present run
NOTED = 2  # steps of each optimizer
stored.PART = 8  # examples a file of stored features: there is something to share out


class NotedSharding(sharding.Sharding):
    """A sharding that this script can ask for whole gradients."""

    def __init__(self, *parts):
        super().__init__(*parts)
        SHARDINGS.append(self)


sharding.Sharding = NotedSharding


class Falling:
    """An examiner whose scores fall, and which draws from the global generator."""

    names, images = ("quality",), 2

    def __init__(self, config):
        self.value = 9.0

    def scores(self, model):
        torch.rand(1)  # as a careless metric does
        self.value -= 1
        return {"quality": Score(self.value, None, 2, False, "quality")}


class Watch:
    """Of one run: the gradients, by stage, optimizer, step and parameter, and the networks of all
    stages.

    stop_at: the step that a SIGTERM comes at. spoil: the step whose images are not numbers.
    """

    def __init__(self, stop_at=None, spoil=None):
        self.stop_at, self.spoil, self.gradients, self.modules = stop_at, spoil, {}, {}

    def wrap(self, stage):
        def begin(networks):
            trainer = stage.trainer(networks)
            for name, chosen in optimizations(trainer).items():
                self._listen(f"{stage.name}/{name}", chosen.optimizer)
            step = trainer.step
            trainer.step = lambda batch, engine: self._step(step, batch, engine)
            self.modules |= {"generator": networks.generator, "text_encoder": networks.text_encoder}
            self.modules |= {
                f"{stage.name}/{name}": module for name, module in trainer.modules.items()
            }
            return trainer

        return replace(stage, trainer=begin)

    def _listen(self, where, optimizer):
        steps = iter(range(10**9))

        def note(optimizer, *_):
            if (step := next(steps)) < NOTED:
                parameters = [p for group in optimizer.param_groups for p in group["params"]]
                told = {
                    f"{where}/{step}/{i}": self._whole(p)
                    for i, p in enumerate(parameters)
                    if p.grad is not None
                }
                self.gradients |= told

        optimizer.register_step_pre_hook(note)

    def _whole(self, parameter):
        """The gradient of a parameter, of which this process may have rows only."""
        gradient = parameter.grad
        return (SHARDINGS[-1].gathered(gradient, parameter) if SHARDINGS else gradient).clone()

    def _step(self, step, batch, engine):
        if batch.noise.at == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        if batch.noise.at == self.spoil:
            batch.images = batch.images * float("nan")
        return step(batch, engine)

    def digest(self):
        """Of every tensor of every network that the run trained or used."""
        told = hashlib.sha256()
        for name in sorted(self.modules):
            for key, tensor in sorted(self.modules[name].state_dict().items()):
                tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
                told.update(f"{name}/{key}".encode() + tensor.contiguous().numpy().tobytes())
        return told.hexdigest()


def do(job, rank=0):
    """One job of this process. out: the run. model, sets: to train it from the beginning; without,
    it is resumed. stop_at, spoil: steps, for a process by number. scores: whether it is scored.
    draws: images of the untrained model, into the folder `out`."""
    if "draws" in job:
        return {"drawn": len(sampled(job["model"], job["sets"], Path(job["out"]), **job["draws"]))}
    watch = Watch(*(job.get(what, {}).get(str(rank)) for what in ("stop_at", "spoil")))
    SHARDINGS.clear()
    blocks.LEAST = job.get("least", blocks.LEAST)
    out, said = Path(job["out"]), ""
    try:
        if "model" in job:
            train(
                resolve_config(job["model"], sets=job["sets"]),
                out,
                reporter=Silent(),
                wrap=watch.wrap,
                examining=Falling if job.get("scores") else None,
            )
        else:
            resume(out, reporter=Silent(), wrap=watch.wrap)
    except (Interrupted, T2IError) as error:
        said = f"{type(error).__name__}: {error}"
    if watch.gradients:
        save_tensors(out / f"gradients-{rank}.safetensors", watch.gradients)
    return {"said": said, "digest": watch.digest()}


def sampled(model, sets, out, **request):
    """Images of a model that everybody builds alike, drawn by all processes together."""
    seeded(0)
    return write_samples(build(resolve_config(model, sets=sets)), CAPTIONS, out, **request)


def toy():
    spec = importlib.util.spec_from_file_location("toys", Path(__file__).parents[2] / "conftest.py")
    toys = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(toys)
    sys.modules["t2i_toy"] = toys._toy_module()
    registry().register(toys.ToyPlugin(), "toy")


def travelled(accelerator):
    """Eight captions of different lengths, shared out; shifted, and gathered: of each row, its
    number and length."""
    rank, world = accelerator.process_index, accelerator.num_processes
    rows = slice(rank * 8 // world, (rank + 1) * 8 // world)
    lengths = [5, 2, 3, 1, 2, 1, 2, 2][rows]
    words = torch.arange(8.0)[rows, None, None].repeat(1, max(lengths), 2)
    mask = torch.tensor([[j < length for j in range(max(lengths))] for length in lengths])
    updates = Updates(accelerator, EngineConfig(), Optimizing({}, EngineConfig()), lambda: 0.0)
    text = TextFeatures(torch.arange(8.0)[rows, None], words, mask)
    return {
        what: [
            moved.sentence[:, 0].tolist(),
            moved.words[:, 0, 0].tolist(),
            moved.mask.sum(1).tolist(),
        ]
        for what, moved in (
            ("shifted", text.map(updates.shifted)),
            ("gathered", text.map(updates.gathered)),
        )
    }


def main(jobs):
    from accelerate import Accelerator

    toy()
    told = [do(job, int(os.environ["RANK"])) for job in jobs]
    print(json.dumps([told, travelled(Accelerator(cpu=True))]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(json.loads(sys.argv[1]))
