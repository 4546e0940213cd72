"""The models that a visitor may choose. Torch is not imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError, nearest
from t2i.core.fetch.hub import cached_models
from t2i.core.registry.tables import registry
from t2i.core.runs.folder import Run, is_run, runs_in
from t2i.core.runs.listing import run_document
from t2i.web.site import Site


@dataclass(frozen=True)
class Source:
    """A model that images can be drawn with.

    Args:
        name: How the page names it.
        place: What `t2i.load` opens: a path, or a name of the hub.
        model: Registry name of its model. "": unknown.
        sampler: Name and settings of its own sampler, as its configuration says. Empty: unknown.
    """

    name: str
    place: str | Path
    model: str = ""
    sampler: Mapping[str, Any] | None = None

    @property
    def family(self) -> str:
        """Registry name of the family. "": unknown."""
        models = registry().models
        return models[self.model].family if self.model in models else ""

    @property
    def changed(self) -> int:
        """When its weights were last changed, in nanoseconds since 1970. 0: unknown."""
        run = Run(Path(self.place))
        return max(run.changed, run.model.stat().st_mtime_ns if run.model.is_dir() else 0)

    def captions(self, count: int = 6) -> list[str]:
        """Read captions of the data that it was trained on.

        Args:
            count: The most captions.

        Returns:
            The captions; none where they are not known.
        """
        return [text for text in Run(Path(self.place)).captions() if text.strip()][:count]


def sources(site: Site) -> dict[str, Source]:
    """List the models of a site: named ones, runs (the newest first), and those of the hub's cache.

    Args:
        site: What the page serves.

    Returns:
        The models by the name that the page shows.
    """
    found: dict[str, Source] = {}
    for name, place in site.named.items():
        for source in _named(name, place):
            found[source.name] = source
    runs = sorted(runs_in(site.runs), key=lambda run: run.changed, reverse=True)
    for run in runs:
        name = run.path.relative_to(site.runs).as_posix()
        if site.allowed(run.path) and (listed := _of_run(name, run)) is not None:
            found.setdefault(name, listed)
    for hub in cached_models():
        found.setdefault(str(hub), Source(str(hub), str(hub)))
    return found


def chosen(site: Site, names: list[str], most: int) -> list[Source]:
    """Find the models that a visitor chose.

    Args:
        site: What the page serves.
        names: Names that the page shows.
        most: The most models at once.

    Returns:
        The models, each once, in the order of the names.

    Raises:
        UserError: There are none or too many, or one is not among those that the page serves.
    """
    known = sources(site)
    if not names:
        raise UserError("choose a model" if known else f"there is no run under {site.runs}/")
    if len(set(names)) > most:
        raise UserError(f"{len(names)} models: choose at most {most}")
    for name in names:
        if name not in known:
            raise UserError(f"no model is named '{name}'{nearest(name, known)}")
    return [known[name] for name in dict.fromkeys(names)]


def _named(name: str, place: str | Path) -> Iterator[Source]:
    """Yield the model of a named place, or those of a folder of runs."""
    if not isinstance(place, Path):
        yield Source(name, place)
    elif is_run(place):
        source = _of_run(name, Run(place))
        if source is not None:
            yield source
    elif held := list(runs_in(place)) if place.is_dir() else []:
        for run in held:
            source = _of_run(f"{name}/{run.path.relative_to(place).as_posix()}", run)
            if source is not None:
                yield source
    else:
        yield Source(name, place)


def _of_run(name: str, run: Run) -> Source | None:
    """Describe a run; None if it is damaged, has nothing to sample from, or samples no images."""
    try:
        config, _ = run_document(run)
    except UserError:
        return None
    sampler = config.get("sampler")
    source = Source(name, run.path, str(config["model"]), sampler if isinstance(sampler, dict)
                    else None)  # fmt: skip
    has_weights = run.model.is_dir() or bool(run.steps_saved())
    return source if has_weights and registry().draws(source.family) else None
