"""Arguments that would wait, or take all memory: one line at once."""

import os

import pytest

from t2i.core.errors import UserError
from t2i.core.models.wanted import MOST_IMAGES, noise_keys
from t2i.core.registry.tables import registry


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


COMMANDS = (
    "sample --run RUN -p x --image PIPE", "sample --run RUN -p x --image RUN --mask PIPE",
    "sample --run RUN --prompts PIPE", "sample --run RUN --features PIPE", "sample --again PIPE",
    "sample --run RUN --interpolate PIPE PIPE", "sample --run PIPE -p x",
    "sample --run RUN -p x --out PIPE", "sample --run RUN -p x --guide PIPE",
    "train --model dfgan --config PIPE --dry-run", "train --model dfgan --data-dir PIPE --dry-run",
    "train --model dfgan --out PIPE", "train --resume PIPE", "train --from PIPE --model dfgan",
    "train --model dfgan --encoder damsm --set encoder.weights=PIPE --steps 1 --out RUN",
    "import --model dfgan PIPE --out OUT", "import --model ldm PIPE --out OUT",
    "export --run PIPE --out OUT", "score PIPE --reference PIPE", "bench diff PIPE PIPE",
    "bench shapes --run m=PIPE --out OUT", "runs PIPE", "info PIPE", "fetch inception --out PIPE",
    "datasets check imagefolder --data-dir PIPE", "datasets check webdataset --data-dir PIPE",
    "datasets check webdataset --set data.shards=PIPE",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_is_no_file(command, pipe, tmp_path, monkeypatch, capfd):
    from t2i.cli.main import main

    monkeypatch.chdir(tmp_path)
    words = command.replace("PIPE", str(pipe)).replace("RUN", str(tmp_path / "run"))
    assert main(words.replace("OUT", str(tmp_path / "out")).split()) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1


def test_more_images_than_can_be_listed_are_refused_before_they_are():
    with pytest.raises(UserError, match=r"-n.*use a smaller -n"):
        noise_keys(["x"], 10**9)
    with pytest.raises(UserError, match=r"use a smaller -n"):
        noise_keys(["x"] * 11, MOST_IMAGES // 10)


def test_more_steps_than_can_be_listed_are_refused():
    for name in ("ddim", "ddpm", "euler", "scheduler"):
        with pytest.raises(UserError, match="cannot be listed"):
            registry().samplers.choose(name, {"steps": 10**9}, "sampler")
    registry().samplers.choose("ddim", {"steps": 10}, "sampler")
