"""Checks of a family: its class, and that a sampler supports it."""

from __future__ import annotations

from t2i.core.interfaces.generator import TOLERANCES, Generator
from t2i.core.kit.conformance.outcome import Skipped, need
from t2i.core.kit.conformance.subject import Part
from t2i.core.registry.specs import import_object
from t2i.core.runs.configure import fitting_samplers


def sound(subject: Part) -> None:
    """Its class extends t2i.core.Generator, and declares its registered name and a tolerance.

    The tolerance says how closely images must agree across batch sizes.

    Args:
        subject: The family.

    Raises:
        Failed: The promise is broken.
    """
    kind = import_object(subject.spec.generator)
    where = f"{subject.spec.generator}"
    need(
        isinstance(kind, type) and issubclass(kind, Generator),
        f"{where} does not extend t2i.core.Generator",
    )
    said = getattr(kind, "family", None)
    need(
        said == subject.name,
        f"{where} says that its family is {said!r}, it is registered as '{subject.name}'",
    )
    tolerance = kind.tolerance
    need(
        isinstance(tolerance, property) or tolerance in TOLERANCES,
        f"{where} has the tolerance {tolerance!r}; known: {', '.join(TOLERANCES)}",
    )


def drawn(subject: Part) -> None:
    """A registered sampler supports it, unless its specification has draws=False.

    Args:
        subject: The family.

    Raises:
        Failed: The promise is broken.
        Skipped: Its models sample no images.
    """
    if not subject.spec.draws:
        raise Skipped("its specification says that its models draw no images")
    need(
        bool(fitting_samplers(subject.name)),
        "no sampler draws from it: register one, or say draws=False",
    )
