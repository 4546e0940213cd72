"""What a page serves: which folders, to whom, and within which limits. It imports no Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.fetch.hub import HubName, is_cached
from t2i.core.models.locating import located
from t2i.core.runs.folder import RUNS

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much the page accepts and keeps.

    Args:
        models: Models that stay loaded; the least used one is dropped.
        model_bytes: Size of all loaded models in bytes. One model may be larger.
        upload_bytes: Largest file that a visitor sends, in bytes.
        upload_pixels: Largest image that a visitor sends, in pixels.
        images: Most images of one drawing.
        waiting: Most drawings that wait, with the studies that are being made.
        studies: Most studies in the folder of studies.
        study_images: Most images of one study.
        connections: Most requests that are answered at once; others are refused.
    """

    models: int = 6
    model_bytes: int = 8 * 2**30
    upload_bytes: int = 16 * 2**20
    upload_pixels: int = 4096 * 4096
    images: int = 400
    waiting: int = 20
    studies: int = 100
    study_images: int = 2000
    connections: int = 128


@dataclass(frozen=True, kw_only=True)
class Site:
    """What the page serves.

    Args:
        runs: Folder of runs, which the page lists.
        named: Further runs, folders and names of the hub, by the name that the page shows.
        control: Whether visitors may stop and resume training.
        votes: File that votes are appended to.
        host: Address that the server listens on.
        port: Port; 0 is any free one.
        password: What visitors type before they see anything. None: nothing, which is allowed on
            loopback only.
        device: Device of the networks, such as "cuda". None: the best there is.
        limits: How much the page accepts and keeps.

    Raises:
        UserError: The address can be reached from other machines, and there is no password.
    """

    runs: Path = RUNS
    named: Mapping[str, Path | str] = field(default_factory=dict)
    control: bool = False
    votes: Path = RUNS / "votes.jsonl"
    host: str = LOOPBACK[0]
    port: int = 7860
    password: str | None = field(default=None, repr=False)
    device: str | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not self.password:
            raise UserError(
                f"--host {self.host} lets other machines in: set a password with --password-file "
                "FILE, or leave out --host"
            )

    @property
    def folders(self) -> list[Path]:
        """The folders and files that the page may read."""
        named = (place for place in self.named.values() if isinstance(place, Path))
        return [self.runs, *named]

    def allowed(self, path: Path) -> bool:
        """Tell whether the page may read a path. Links are followed first.

        Args:
            path: A file or folder.

        Returns:
            Whether it lies in the folder of runs or in a named folder.
        """
        real = path.resolve()
        return any(real.is_relative_to(folder.resolve()) for folder in self.folders)


def named_places(texts: Sequence[str]) -> dict[str, Path | str]:
    """Read what `--run` names.

    Args:
        texts: Each NAME=RUN, or a run alone, which is shown under its own name.

    Returns:
        The path of each, or the name of the hub, by the name that is shown.

    Raises:
        UserError: A name or a run is empty, a name occurs twice, there is no such run, or it is a
            model of the hub that has not been fetched.
    """
    places: dict[str, Path | str] = {}
    for text in texts:
        name, equals, place = text.partition("=")
        place = place if equals else name
        name = name if equals else Path(name).name
        if not name.strip() or not place.strip():
            raise UserError(f"--run {text}: write NAME=RUN, such as mine=runs/RUN")
        if name in places:
            raise UserError(f"--run {text}: '{name}' is taken; choose another name")
        places[name] = _place(text, place)
    return places


def _place(text: str, place: str) -> Path | str:
    """Find what `--run` names, without a request to the hub."""
    path, hub = Path(place).expanduser(), HubName.parse(place)
    if path.exists():
        return path
    if hub is None or (RUNS / path).exists():
        found = located(place)
        return found.run.path if found.run and found.kind == "run" else found.path
    if not is_cached(hub):
        raise UserError(
            f"--run {text}: there is no {place}, and the page fetches nothing: if it is a model of "
            f"the hub, 't2i sample \"a circle\" --run {hub}' fetches it"
        )
    return place
