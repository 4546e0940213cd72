"""The SLURM script runs as it stands, with programs of SLURM's names that do what SLURM does."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from t2i.core.errors import UserError
from t2i.core.runs.folder import Run
from t2i.core.runs.slurm import Job, slurm_script, write_slurm_script

SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do echo "$1" >> srun.log; shift; done
export SLURM_PROCID=1 SLURM_LOCALID=1 SLURM_NTASKS=4
"$@" &
task=$!
if [ -p ready ] && [ ! -e signalled ]; then
    read -r < ready
    touch signalled
    kill -USR1 $task
fi
wait $task
"""
"""One task, to which SIGUSR1 is sent once it says that it is ready, the first time."""
ALONE = """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=1
"$@" &
task=$!
until [ -e signalled ] || [ -e run/checkpoints/step-0 ]; do kill -0 $task || exit 1; done
[ -e signalled ] || kill -USR1 $task
touch signalled
wait $task
"""
SCONTROL = """#!/bin/bash
echo "$@" >> scontrol.log
[ "$1" = show ] && printf 'node-a\\nnode-b\\n'
exit 0
"""
T2I = """
import json, os, pathlib, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
with open("said.jsonl", "a") as file:
    print(json.dumps([sys.argv[1:], {name: os.environ[name] for name in names}]), file=file)
if "--resume" in sys.argv:
    sys.exit(int(os.environ.get("ENDS_WITH", 0)))
run = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
run.mkdir()
(run / "config.json").write_text("{}")
pathlib.Path("ready").write_text("now\\n")
sys.exit(128 + signal.sigwait({signal.SIGUSR1}))
"""


@pytest.fixture
def cluster(tmp_path):
    """Runs a script as SLURM would, with programs of its own: the exit code, and what it said."""

    def submit(text, srun=SRUN, **more):
        for name, program in (("srun", srun), ("scontrol", SCONTROL)):
            path = tmp_path / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(program)
            path.chmod(0o755)
        job = {"SLURM_JOB_ID": "70007", "SLURM_JOB_NODELIST": "node-[a-b]"}
        environment = {
            **os.environ, **job, **more, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        }  # fmt: skip
        return subprocess.run(
            ["bash", "-c", text], cwd="/", env=environment, capture_output=True, text=True,
            timeout=600,
        )  # fmt: skip

    return submit


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def test_a_job_is_stopped_requeued_and_resumed(cluster, tmp_path):
    (tmp_path / "t2i.py").write_text(T2I)
    os.mkfifo(tmp_path / "ready")
    run = tmp_path / "a run"
    arguments = ["--model", "toy", "--set", "note=it's $HOME", "--out", "a run"]
    text = slurm_script(
        Job(nodes=2, gpus=2), run.relative_to(tmp_path), arguments, folder=tmp_path,
        script=tmp_path / "a.sbatch", program=[sys.executable, "t2i.py"],
    )  # fmt: skip
    first = cluster(text)
    assert first.returncode == 0, first.stderr
    requeued = ["show hostnames node-[a-b]", "requeue 70007"]
    assert lines(tmp_path / "scontrol.log") == requeued
    second = cluster(text)
    assert second.returncode == 0, second.stderr
    assert lines(tmp_path / "scontrol.log") == [*requeued, requeued[0]]
    begun, resumed = map(json.loads, lines(tmp_path / "said.jsonl"))
    assert begun[0] == ["train", *arguments]
    assert resumed[0] == ["train", "--resume", "a run"]
    assert begun[1] == {
        "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "node-a", "MASTER_PORT": "30007",
    }  # fmt: skip
    failed = cluster(text, ENDS_WITH="143")  # cancelled, or preempted: SLURM decides
    assert failed.returncode == 143
    assert lines(tmp_path / "scontrol.log").count("requeue 70007") == 1


def test_the_script_is_sound_and_asks_for_what_was_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job(nodes=2, gpus=8, time="2-12:00:00", options=["--partition=gpu", "--account=x"])
    script = write_slurm_script(job, tmp_path / "runs" / "a b", ["--out", "runs/a b"])
    assert script == tmp_path / "runs" / "a b.sbatch"
    text = script.read_text()
    for directive in (
        "--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--time=2-12:00:00",
        "--signal=USR1@300", "--requeue", "--partition=gpu", "--account=x", "--job-name=t2i-a-b",
    ):  # fmt: skip
        assert f"\n#SBATCH {directive}\n" in text
    assert subprocess.run(["bash", "-n", script], timeout=60).returncode == 0
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", script], timeout=60).returncode == 0


@pytest.mark.parametrize("wrong", [{"time": "soon"}, {"options": ["partition gpu"]}])
def test_what_sbatch_would_not_read_is_refused(wrong):
    with pytest.raises(UserError, match="write it as"):
        Job(**wrong)


@pytest.mark.slow
def test_a_real_run_is_stopped_by_the_signal_and_goes_on(cluster, tmp_path):
    arguments = ["--model", "gan", "--steps", "300", "--out", "run"]
    text = slurm_script(
        Job(), tmp_path / "run", arguments, folder=tmp_path, script=tmp_path / "run.sbatch"
    )
    first = cluster(text, ALONE)
    assert first.returncode == 0, first.stderr
    assert "stopped by SIGUSR1" in first.stderr
    assert "requeue 70007" in lines(tmp_path / "scontrol.log")
    assert not Run(tmp_path / "run").complete
    assert cluster(text, ALONE).returncode == 0
    assert Run(tmp_path / "run").summary()["steps"] == 300
