"""Write a SLURM script that trains a run, and goes on with it after a requeue."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.io.files import write_bytes

TIME = re.compile(r"(\d+-)?\d+(:\d{1,2}){0,2}")
"""A time limit as sbatch reads it: minutes, minutes:seconds, hours:minutes:seconds, days-hours."""

SCRIPT = r"""#!/bin/bash
{directives}
# Written by 't2i train --slurm'. Submit it with: sbatch {script}
#
# Each task trains with one GPU. SLURM sends SIGUSR1 to the tasks before the time limit, or SIGTERM
# when it preempts the job. The run then saves and stops. After SIGUSR1 this script requeues the
# job; after SIGTERM SLURM does, if it preempts by requeueing. A job that was cancelled is not
# requeued. The requeued job resumes the run.
set -u
trap 'echo "SIGTERM: waiting until the run is saved"' TERM
trap 'echo "SIGUSR1: waiting until the run is saved"' USR1
cd {folder} || exit 1

run={run}
if [ -e "$run/config.json" ]; then
    command=({program} train --resume "$run")
else
    command=({program} train {arguments})
fi

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-${{SLURM_CPUS_PER_TASK:-1}}}}"

# Without torchrun, whose agent kills processes that take more than 30 s to save.
# shellcheck disable=SC2016  # the variables are those of each task
srun --kill-on-bad-exit=0 bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
    export LOCAL_WORLD_SIZE={per_node}
    exec "$@"' task "${{command[@]}}"
code=$?

if [ "$code" -eq 138 ]; then  # 128 + SIGUSR1: stopped by it, and saved
    echo "requeueing job $SLURM_JOB_ID"
    scontrol requeue "$SLURM_JOB_ID"
    exit
fi
exit "$code"
"""


@dataclass(frozen=True)
class Job:
    """What a SLURM job takes of a cluster.

    Args:
        nodes: Number of nodes, at least 1.
        gpus: Number of GPUs of each node, at least 1; each gets a process.
        time: Time limit as sbatch reads it, such as "24:00:00".
        grace: Seconds before the time limit at which the run saves and stops.
        options: Further options of sbatch, such as "--partition=gpu".

    Raises:
        UserError: The time is none, or an option is none of sbatch's.
    """

    nodes: int = 1
    gpus: int = 1
    time: str = "24:00:00"
    grace: int = 300
    options: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not TIME.fullmatch(self.time):
            raise UserError(
                f"--time {self.time!r} is no time limit: write it as 24:00:00, or 2-12:00:00"
            )
        for option in self.options:
            if not re.fullmatch(r"--?[A-Za-z][^\s]*", option):
                raise UserError(
                    f"--sbatch {option!r} is no option of sbatch: write it as --partition=NAME"
                )

    @property
    def processes(self) -> int:
        """The number of processes that train together."""
        return self.nodes * self.gpus


def slurm_script(
    job: Job,
    run: Path,
    arguments: Sequence[str],
    *,
    folder: Path,
    script: Path,
    program: Sequence[str] = (sys.executable, "-m", "t2i.cli"),
) -> str:
    """Return a script for sbatch that trains a run, or resumes it if it has begun.

    Args:
        job: What it takes of the cluster.
        run: The run's folder.
        arguments: The arguments of `t2i train` that begin the run.
        folder: The folder in which the job works. Relative paths begin there.
        script: Where the script will be.
        program: The command `t2i`.

    Returns:
        The script.
    """
    directives = [
        f"--job-name=t2i-{re.sub(r'[^A-Za-z0-9._-]', '-', run.name)}",
        f"--nodes={job.nodes}",
        f"--ntasks-per-node={job.gpus}",
        f"--gpus-per-node={job.gpus}",
        f"--time={job.time}",
        f"--signal=USR1@{job.grace}",
        "--requeue",
        "--open-mode=append",
        f"--output={_pattern(script.with_suffix(''))}-%j.log",
        *job.options,
    ]
    return SCRIPT.format(
        directives="\n".join(f"#SBATCH {directive}" for directive in directives),
        script=shlex.quote(str(script)),
        folder=shlex.quote(str(folder)),
        run=shlex.quote(str(run)),
        program=shlex.join(program),
        arguments=shlex.join(arguments),
        per_node=job.gpus,
    )


def write_slurm_script(job: Job, run: Path, arguments: Sequence[str]) -> Path:
    """Write the script of a run beside its folder, as RUN.sbatch. Nothing is submitted.

    Args:
        job: What it takes of the cluster.
        run: The run's folder.
        arguments: The arguments of `t2i train` that begin the run.

    Returns:
        The script.

    Raises:
        UserError: The name of a folder cannot stand in such a script.
    """
    script, folder = run.parent / f"{run.name}.sbatch", Path.cwd()
    for path in (script, folder):
        if not str(path).isprintable():
            raise UserError(f"{str(path)!r} cannot stand in a script: choose another folder")
    text = slurm_script(job, run, arguments, folder=folder, script=script)
    script.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(script, text.encode())
    return script


def _pattern(path: Path) -> str:
    """Return a path as sbatch reads it in a directive: quoted, with its own signs doubled."""
    text = str(path).replace("%", "%%")
    return f'"{text}"' if re.search(r"\s", text) else text
