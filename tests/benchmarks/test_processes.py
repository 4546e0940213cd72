"""A benchmark in two processes (gloo, as torchrun and accelerate start them) scores what it scores
in one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from t2i.benchmarks import runner
from t2i.benchmarks.run import partial
from t2i.benchmarks.run.reporter import SilentBenchmark
from t2i.core.engine.reporting import Silent as EngineSilent
from t2i.core.runs.configure import resolve_config

SCRIPT = Path(__file__).with_name("two_processes.py")


def bench_in_two(out, run):
    """What each of two processes prints, and what it says."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    shared |= {"OMP_NUM_THREADS": "1", "T2I_PLUGINS": "direct,benchmarks"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(out), str(run)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return [json.loads(out.splitlines()[-1]) for out, _ in said], [err for _, err in said]


@pytest.mark.usefixtures("squares", "unwritten")
def test_two_processes_score_what_one_scores(tmp_path, trained_run, monkeypatch):
    monkeypatch.setattr(partial, "CHUNK", 4)
    run = tmp_path / "run"
    trained_run(run, resolve_config("toy", data_needed=False))
    results = runner.run_benchmark(
        "squares", models=["toy"], runs={"old": run}, steps=2, out=tmp_path / "one",
        reporter=SilentBenchmark(),
        engine_reporter=EngineSilent(),
    )  # fmt: skip
    one = {row.name: [row.scores, row.intervals] for row in results.rows}
    ((two, first), (same, second)), (loud, silent) = bench_in_two(tmp_path / "two", run)
    assert two == same
    assert two["old"] == json.loads(json.dumps(one["old"]))
    assert two["real images"] == json.loads(json.dumps(one["real images"]))
    # The model that is trained is the same to rounding.
    assert two["toy"][0]["val"]["fid"]["fid"] == pytest.approx(
        one["toy"][0]["val"]["fid"]["fid"], rel=1e-3
    )
    # Of the parts (4 images each) of three rows each process drew its share; the reference is in
    # the cache.
    assert (first, second) == (3 * 8, 3 * 4)
    assert "report:" in loud
    assert "report:" not in silent
    assert not (tmp_path / "two" / "partial").exists()
