"""What can be judged: the runs and folders that the page serves, and no other place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.io.images import SUFFIXES
from t2i.core.runs.folder import Run, is_run, runs_in
from t2i.web.site import Site


@dataclass(frozen=True)
class Sources:
    """The places that images can come from, by their name on the page.

    Args:
        models: Runs and other models.
        folders: Folders of images.
    """

    models: Mapping[str, str | Path]
    folders: Mapping[str, Path]

    @property
    def names(self) -> list[str]:
        """All names, models first."""
        return [*self.models, *self.folders]

    def chosen(self, names: Sequence[str]) -> Sources:
        """Select some of the places. Paths and other names are refused.

        Args:
            names: Names that a browser has sent.

        Returns:
            The places of these names.

        Raises:
            UserError: There is no such name.
        """
        if unknown := [name for name in names if name not in self.names]:
            raise UserError(f"'{unknown[0]}' is no run or folder of this page; choose another")
        return Sources(
            {name: place for name, place in self.models.items() if name in names},
            {name: place for name, place in self.folders.items() if name in names},
        )

    def captions(self) -> list[str]:
        """Read captions that a chosen run was trained to draw.

        Returns:
            The captions of the grids of the first run that has some.
        """
        places = (place for place in self.models.values() if isinstance(place, Path))
        return next((found for place in places if (found := Run(place).captions())), [])


def sources_of(site: Site) -> Sources:
    """List what can be judged.

    Args:
        site: What the page serves.

    Returns:
        The runs under its folder that have a model, and its named places. A named folder that
        holds images, and is no run, is a folder of images.
    """
    models: dict[str, str | Path] = {}
    folders: dict[str, Path] = {}
    for name, place in site.named.items():
        if isinstance(place, Path) and _has_images(place):
            folders[name] = place
        else:
            models[name] = place
    runs = [run for run in runs_in(site.runs) if run.model.is_dir()]
    for run in sorted(runs, key=lambda run: run.changed, reverse=True):
        name = run.path.relative_to(site.runs).as_posix()
        if name not in folders:
            models.setdefault(name, run.path)
    return Sources(models, folders)


def _has_images(place: Path) -> bool:
    if not place.is_dir() or is_run(place):
        return False
    return any(path.suffix.lower() in SUFFIXES for path in place.iterdir())
