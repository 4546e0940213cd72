"""Checks of a download's declaration. Nothing is downloaded; `t2i fetch` does that."""

from __future__ import annotations

from t2i.core.kit.conformance.outcome import need
from t2i.core.kit.conformance.subject import Part


def declared(subject: Part) -> None:
    """It names files or repositories, a licence with its address, and only parts that it has.

    No two of its files go to one place.

    Args:
        subject: The download.

    Raises:
        Failed: The promise is broken.
    """
    spec = subject.spec
    need(bool(spec.files or spec.hub), "it has neither files nor hub repositories")
    need(bool(spec.licence and spec.licence_url), "it names no licence, or not where that stands")
    places = {(file.place, file.url) for file in spec.files}  # parts may share a file
    need(len({place for place, _ in places}) == len(places), "two of its files go to one place")
    need(
        set(spec.default) <= set(spec.parts),
        f"default {spec.default} names parts that it does not have: {spec.parts}",
    )
