"""`t2i completion`: commands, options and names of models completed by the shell."""

from __future__ import annotations

import click

from t2i.cli.command import Command
from t2i.cli.output import answer

LINES = {
    "bash": 'eval "$(_T2I_COMPLETE=bash_source t2i)"',
    "zsh": 'eval "$(_T2I_COMPLETE=zsh_source t2i)"',
    "fish": "_T2I_COMPLETE=fish_source t2i | source",
}
"""The line for each shell's start-up file."""

FILES = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/completions/t2i.fish"}


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(list(LINES)))
def completion(shell: str) -> None:
    """Print the line that makes SHELL complete t2i's commands, options and models.

    \b
    t2i completion bash >> ~/.bashrc
    """
    answer(f"# t2i: completion, for {FILES[shell]}\n{LINES[shell]}")
