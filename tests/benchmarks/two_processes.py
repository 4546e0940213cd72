"""Run by test_processes.py, once in each of several processes: trains one model and scores it
beside a given run."""

import importlib.util
import json
import sys
from pathlib import Path

import torch

from t2i.benchmarks import runner
from t2i.benchmarks.run import partial
from t2i.benchmarks.run.reporter import BenchmarkLines
from t2i.core.engine.reporting import Silent
from t2i.core.registry.tables import registry

HERE = Path(__file__).parent


def _loaded(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(out, run):
    toys, squares = (
        _loaded("toys", HERE.parent / "conftest.py"),
        _loaded("squares", HERE / "conftest.py"),
    )
    sys.modules["t2i_toy"], sys.modules["t2i_squares"] = (
        toys._toy_module(),
        squares.squares_module(),
    )
    registry().register(toys.ToyPlugin(), "toy")
    registry().register(squares.SquaresPlugin(), "squares")
    partial.CHUNK = 4
    runner.write_report = lambda results: None  # drawing its plots takes longer than all the rest
    results = runner.run_benchmark(
        "squares", models=["toy"], runs={"old": Path(run)}, steps=2, out=Path(out),
        reporter=BenchmarkLines(sys.stderr),
        engine_reporter=Silent(),
    )  # fmt: skip
    rows = {row.name: [row.scores, row.intervals] for row in results.rows}
    print(json.dumps([rows, squares.RandomCnn.calls]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
