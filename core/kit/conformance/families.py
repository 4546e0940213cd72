"""Checks of a family: its class, and that something draws from it."""

from __future__ import annotations

from t2i.core.interfaces.generator import TOLERANCES, Generator
from t2i.core.kit.conformance.outcome import Skipped, need
from t2i.core.kit.conformance.subject import Part
from t2i.core.registry.specs import import_object
from t2i.core.runs.configure import fitting_samplers


def sound(subject: Part) -> None:
    """Its class extends t2i.core.Generator, its `family` is the name under which it is registered, and it says how
    closely images must agree across batch sizes."""
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
    """A registered sampler draws from it, unless its specification says that its models draw no images."""
    if not subject.spec.draws:
        raise Skipped("its specification says that its models draw no images")
    need(
        bool(fitting_samplers(subject.name)),
        "no sampler draws from it: register one, or say draws=False",
    )
