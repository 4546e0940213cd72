"""The environment's own pip, run so that nothing but the command decides what it does.

Files of the current folder are not imported. Of the variables PIP_* and of pip's configuration
files only those count that say how packages are reached (KEPT): an index, a proxy, a certificate.
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.io.terminal import debugging, note, printable
from t2i.core.kit.changes import distribution_of
from t2i.core.kit.workplace import held_for_pip

PYTHON = (sys.executable, "-P")
"""Python without the current folder in its path, whatever module it is to run."""

SOURCES = ("index-url", "extra-index-url", "no-index", "find-links")
"""Settings of pip that say where packages are looked for."""

KEPT = (
    *SOURCES, "trusted-host", "cert", "client-cert", "proxy", "timeout", "default-timeout",
    "retries", "keyring-provider", "cache-dir", "no-cache-dir", "no-build-isolation",
    "break-system-packages",
)  # fmt: skip
"""Settings of pip that may come from elsewhere. They do not say what is installed, or where."""

OPTIONS = (
    "--disable-pip-version-check",
    "--no-input",
    "--no-color",
    "--quiet",
)
"""Options of every call."""

LONGEST = 400
"""Characters of pip's reason that are shown."""


def run_pip(arguments: Sequence[str], target: str, *, sources: bool = True) -> str:
    """Run pip.

    Args:
        arguments: Its command and the options of that.
        target: What it works on, for the message.
        sources: Whether it looks for packages where the user's settings say.

    Returns:
        What it wrote on stdout.

    Raises:
        UserError: The environment has no pip, or pip failed. The message gives pip's reason.
    """
    if distribution_of("pip") is None:
        raise UserError(
            f"{sys.prefix} has no pip: '{sys.executable} -m ensurepip' brings it, or 'uv pip "
            f"install pip' where uv made the environment"
        )
    command = [*PYTHON, "-m", "pip", arguments[0], *OPTIONS, *arguments[1:]]
    with held_for_pip() as descriptors:
        done = subprocess.run(
            command, env=environment(sources), stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace", pass_fds=descriptors,
        )  # fmt: skip
    if debugging():
        for line in done.stderr.splitlines():
            note(f"pip: {line}")
    if done.returncode:
        raise UserError(f"pip cannot {arguments[0]} '{target}': {reason(done.stderr)}")
    return done.stdout


def environment(sources: bool = True) -> dict[str, str]:
    """Make the environment variables of pip.

    Args:
        sources: Whether to keep the settings that say where packages are looked for.

    Returns:
        The variables of this process, without those that could change what pip does.
    """
    kept = {key: value for key, value in os.environ.items() if not key.upper().startswith("PIP_")}
    kept["PYTHONPATH"] = os.pathsep.join(absolute_python_path())
    kept["PYTHONIOENCODING"] = "utf-8"
    kept["PIP_CONFIG_FILE"] = os.devnull
    for name, value in settings().items():
        if sources or name not in SOURCES:
            kept[f"PIP_{name.upper().replace('-', '_')}"] = value
    return kept


def absolute_python_path() -> list[str]:
    """Return the folders of PYTHONPATH that do not depend on the current folder.

    Returns:
        The absolute ones.
    """
    return [
        folder
        for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if os.path.isabs(folder)
    ]


def settings() -> dict[str, str]:
    """Read those of the user's settings of pip that count: see KEPT.

    Returns:
        The values by the names of pip's long options. Variables win over files.
    """
    found: dict[str, str] = {}
    for file in configuration_files():
        found |= _settings_of(file)
    found |= {
        _option(key.removeprefix("PIP_")): value
        for key, value in os.environ.items()
        if key.startswith("PIP_") and value
    }
    return {name: value for name, value in found.items() if name in KEPT}


def configuration_files() -> list[Path]:
    """List pip's configuration files, whether they exist or not.

    Returns:
        The files as pip's documentation places them. Later ones win.
    """
    named = os.environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        roaming = Path(os.environ.get("APPDATA", home / "AppData/Roaming"))
        shared = Path(os.environ.get("PROGRAMDATA", "C:/ProgramData"))
        files = [shared / "pip/pip.ini", home / "pip/pip.ini", roaming / "pip/pip.ini"]
        files.append(Path(sys.prefix) / "pip.ini")
    else:
        shared_folders = os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(os.pathsep)
        own = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        files = [Path(folder) / "pip/pip.conf" for folder in shared_folders if folder]
        files += [Path("/etc/pip.conf"), home / ".pip/pip.conf", own / "pip/pip.conf"]
        if sys.platform == "darwin":
            files.insert(0, Path("/Library/Application Support/pip/pip.conf"))
            files.insert(-1, home / "Library/Application Support/pip/pip.conf")
        files.append(Path(sys.prefix) / "pip.conf")
    return [*files, Path(named)] if named else files


def _settings_of(file: Path) -> dict[str, str]:
    """Read the settings for every command, and those for installing, of one file."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UserError(f"{file}: pip cannot read it: {printable(str(error))[:200]}") from None
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found |= {_option(key): value for key, value in parser.items(section) if value}
    return found


def _option(key: str) -> str:
    """Return the name of pip's long option for a key of a file or the rest of a variable's name."""
    return key.lower().replace("_", "-").removeprefix("--")


# --- why it failed --------------------------------------------------------------------------------

_NOISE = re.compile(
    r"\[end of output\]|(note|hint|warning):|\W*(see above|ResolutionImpossible|exception:?$)|"
    r"\[notice\]|.*from versions: none\)|.*subprocess-exited-with-error",
    re.IGNORECASE,
)
"""Lines of pip that are no reason."""


def reason(stderr: str) -> str:
    """Find out why pip failed.

    Args:
        stderr: What it wrote on stderr.

    Returns:
        One line: the last line of the build that failed, with the name of the step; else all errors
        that pip names; else its last line.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    end = next((i for i, line in enumerate(lines) if "[end of output]" in line), None)
    if end is not None:
        said = _build_reason(lines[:end])
    else:
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        told = [line for line in errors if not _NOISE.match(line)]
        rest = [line for line in lines if not _NOISE.match(line)]
        said = "; ".join(told) or (rest or ["no reason given"])[-1]
        said += "".join(f"; {line}" for line in _causes(lines))
    return printable(said)[:LONGEST]


def _build_reason(lines: Sequence[str]) -> str:
    """Return what the step of a build said last, and which step it was."""
    steps = [i for i, line in enumerate(lines) if re.match(r"\S .+ did not run successfully", line)]
    start = steps[-1] if steps else -1
    body = [line for line in lines[start + 1 :] if not _NOISE.match(line)]
    said = (body or ["no reason given"])[-1].removeprefix("ERROR: ")
    step = lines[start][2:].split(" did not ")[0] if steps else "building it"
    return f"{said} ({step})"


def _causes(lines: Sequence[str]) -> list[str]:
    """Return what else explains an error: requirements in conflict, or a broken connection."""
    found = []
    if "The conflict is caused by:" in lines:
        start = lines.index("The conflict is caused by:") + 1
        rest = lines[start:]
        end = next((i for i, line in enumerate(rest) if line.startswith(("To fix", "ERROR"))), None)
        found.append(", ".join(rest[:end]))
    broken = [line for line in lines if "connection broken by" in line]
    if broken:
        found.append("the index cannot be reached: " + broken[-1].split("connection broken by ")[1])
    return found


def variables_of_python(*folders: Path) -> Mapping[str, str]:
    """Make the environment variables of a Python process that finds more packages.

    Args:
        folders: Folders of packages, found before all others.

    Returns:
        The variables of this process, with the folders in front of PYTHONPATH.
    """
    path = [*map(str, folders), *absolute_python_path()]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
