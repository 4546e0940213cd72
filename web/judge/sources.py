"""What can be judged: the runs and folders that the page serves, and no other place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.io.images import SUFFIXES
from t2i.core.runs.folder import is_run
from t2i.web.draw.sources import Source, sources
from t2i.web.site import Site


@dataclass(frozen=True)
class Sources:
    """The places that images can come from, by their name on the page.

    Args:
        models: Models to sample.
        folders: Folders of images.
    """

    models: Mapping[str, Source]
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
            {name: one for name, one in self.models.items() if name in names},
            {name: one for name, one in self.folders.items() if name in names},
        )

    def captions(self) -> list[str]:
        """Read captions that a chosen run was trained to draw.

        Returns:
            The captions of the grids of the first run that has some.
        """
        return next((found for one in self.models.values() if (found := one.captions())), [])


def sources_of(site: Site) -> Sources:
    """List what can be judged.

    Args:
        site: What the page serves.

    Returns:
        The models of the tab Draw, and the named folders that hold images and are no runs.
    """
    folders = {
        name: place
        for name, place in site.named.items()
        if isinstance(place, Path) and _has_images(place)
    }
    models = {name: one for name, one in sources(site).items() if name not in folders}
    return Sources(models, folders)


def _has_images(place: Path) -> bool:
    if not place.is_dir() or is_run(place):
        return False
    return any(path.suffix.lower() in SUFFIXES for path in place.iterdir())
