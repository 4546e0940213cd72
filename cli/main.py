"""The command `t2i`. A command is imported when it is called, and imports what it needs then."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress

import click
from click.shell_completion import shell_complete

from t2i.cli.command import LazyGroup
from t2i.cli.errors import report
from t2i.cli.output import stdout
from t2i.core.errors import UserError
from t2i.core.io.launched import forget_strays
from t2i.core.io.streams import lasting, open_closed
from t2i.core.io.terminal import quiet

COMMANDS = {
    "train": ("t2i.cli.train:train", "Train a model, or go on with a run."),
    "sample": ("t2i.cli.sample:sample", "Draw images from a trained model."),
    "runs": ("t2i.cli.runs:runs", "List the runs: model, data, progress, result."),
    "import": (
        "t2i.cli.importing:import_",
        "Make a run of weights that a paper's authors released.",
    ),
    "export": ("t2i.cli.export:export", "Write a run in diffusers' layout."),
    "push": ("t2i.cli.sharing:push", "Publish a run on the Hugging Face hub, with a model card."),
    "pull": ("t2i.cli.sharing:pull", "Fetch a run from the Hugging Face hub into runs/."),
    "fetch": ("t2i.cli.fetch:fetch", "Get what a protocol or a model needs from outside."),
    "bench": ("t2i.cli.bench:bench", "Train, sample and score models side by side."),
    "score": ("t2i.cli.score:score", "Score the images of any program against real ones."),
    "web": ("t2i.cli.web:web", "Serve a page: draw side by side, watch runs, vote blind."),
    "votes": ("t2i.cli.votes:votes", "Rank models by the votes of people on their images."),
    "models": ("t2i.cli.tables:models", "List the models."),
    "families": ("t2i.cli.tables:families", "List the families of models."),
    "samplers": ("t2i.cli.tables:samplers", "List the samplers."),
    "encoders": ("t2i.cli.tables:encoders", "List the text encoders."),
    "datasets": ("t2i.cli.datasets:datasets", "List the data sets; read one through."),
    "metrics": ("t2i.cli.tables:metrics", "List the metrics."),
    "features": ("t2i.cli.tables:features", "List the feature extractors that metrics use."),
    "settings": ("t2i.cli.settings:settings", "Say what the settings of a model do."),
    "cite": ("t2i.cli.settings:cite", "Print BibTeX of the papers behind a model."),
    "benchmarks": ("t2i.cli.tables:benchmarks", "List the benchmarks."),
    "plugins": ("t2i.cli.plugins:plugins", "List the plugins; check one; begin a new one."),
    "install": (
        "t2i.cli.packages:install",
        "Install a plugin, if it leaves everything else as it is.",
    ),
    "uninstall": ("t2i.cli.packages:uninstall", "Remove a plugin."),
    "completion": (
        "t2i.cli.completion:completion",
        "Print the line that completes t2i in a shell.",
    ),
    "info": (
        "t2i.cli.info:info",
        "Say what a run is; without one: versions, devices, and where things are kept.",
    ),
}

COMPLETE = "_T2I_COMPLETE"
"""Environment variable with which a shell asks for completions, as click names it."""

root = click.version_option(package_name="t2i-zoo", message="t2i %(version)s")(
    LazyGroup(
        "t2i",
        COMMANDS,
        help="Train, sample and compare text-to-image models: GANs and diffusion alike.",
    )
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command line after "t2i". None: that of the process.

    Returns:
        The exit code: 0 for success, 2 for an error that the user can mend, 1 for any other error,
        128 plus the signal's number after a signal.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    open_closed()
    quiet()
    forget_strays()
    if sys.__stdout__ is not None and hasattr(sys.__stdout__, "reconfigure"):
        sys.__stdout__.reconfigure(
            errors="backslashreplace"
        )  # a terminal that lacks a letter is no failure
    with redirect_stderr(lasting(sys.stderr)), redirect_stdout(lasting(sys.stdout, needed=True)):
        try:
            code = _run(given)
            stdout().flush()
        except BaseException as error:
            code = report(error)
            with suppress(UserError):  # the error that came first is reported
                stdout().flush()
        sys.stderr.flush()
    return code


def _run(given: list[str]) -> int:
    if instruction := os.environ.get(COMPLETE):
        return shell_complete(root, {}, "t2i", COMPLETE, instruction)
    try:
        with root.make_context("t2i", given) as context:
            root.invoke(context)
    except click.exceptions.Exit as done:  # how click ends --help and --version
        return done.exit_code
    return 0
