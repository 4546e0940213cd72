"""Run by test_processes.py, once in each of several processes: trains the toy model, and shifts a batch of words."""

import importlib.util
import json
import sys
from pathlib import Path

import torch

from t2i.core.config import EngineConfig
from t2i.core.engine import train
from t2i.core.engine.reporting import Silent
from t2i.core.engine.updates import Updates
from t2i.core.errors import T2IError
from t2i.core.registry import registry
from t2i.core.runs import resolve
from t2i.core.text import TextFeatures


def toy():
    spec = importlib.util.spec_from_file_location("toys", Path(__file__).parents[2] / "conftest.py")
    toys = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(toys)
    sys.modules["t2i_toy"] = toys._toy_module()
    registry().register(toys.ToyPlugin(), "toy")
    return toys


def shifted(accelerator):
    """Eight captions of different lengths, shared out and shifted: of each row, its number and its length."""
    rank, world = accelerator.process_index, accelerator.num_processes
    rows = slice(rank * 8 // world, (rank + 1) * 8 // world)
    lengths = [5, 2, 3, 1, 2, 1, 2, 2][rows]
    words = torch.arange(8.0)[rows, None, None].repeat(1, max(lengths), 2)
    mask = torch.tensor([[j < length for j in range(max(lengths))] for length in lengths])
    updates = Updates(accelerator, EngineConfig(), {}, lambda: 0.0)
    text = TextFeatures(torch.arange(8.0)[rows, None], words, mask).map(updates.shifted)
    return [text.sentence[:, 0].tolist(), text.words[:, 0, 0].tolist(), text.mask.sum(1).tolist()]


def main(out, *sets):
    toys = toy()
    settings = resolve("toy", sets=sets)
    step, one_explodes = toys.ToyTrainer.step, settings.settings.explode_at == 0

    def spoilt(self, batch, engine):
        from accelerate.state import PartialState

        if batch.noise.at == 4 and PartialState().process_index == 1:
            batch.images = batch.images * float("nan")
        return step(self, batch, engine)

    if one_explodes:  # a NaN in the second process only, at step 4
        settings = resolve("toy", sets=[*sets, "explode_at=null"])
        toys.ToyTrainer.step = spoilt
    said = ""
    try:
        train(settings, Path(out), reporter=Silent())
    except T2IError as error:
        said = f"{type(error).__name__}: {error}"
    from accelerate import Accelerator

    print(json.dumps([said, shifted(Accelerator(cpu=True))]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
