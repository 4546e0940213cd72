"""BibTeX entries of the papers that plugins implement.

A plugin keeps a file `references.bib` beside the module of its settings class. An entry with a
field `keywords = {NAME, ...}` belongs to the specifications of these
names. An entry without that field belongs to all specifications whose settings class lies in the
folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

from t2i.core.registry.specs import Spec
from t2i.core.registry.tables import registry
from t2i.core.runs.settings_table import kinds_of

FILE = "references.bib"
"""Name of the file of BibTeX entries."""

PROJECT = """\
@software{t2i,
  title   = {t2i: a plugin-based zoo of text-to-image models},
  version = {%s},
  year    = {2026},
  note    = {See CITATION.cff}
}"""
"""How to cite this project; its version is filled in."""


def citations(name: str) -> list[str]:
    """Collect the BibTeX entries of everything with a name.

    Args:
        name: A registry name, such as that of a model or a sampler.

    Returns:
        The entries, without duplicates. Empty if the plugin has no references.

    Raises:
        UserError: Nothing has that name.
    """
    specs = [registry().table(kind)[name] for kind in kinds_of(name)]
    by_key = {entry.partition(",")[0]: entry for spec in specs for entry in _of(spec)}
    return list(by_key.values())


def _of(spec: Spec) -> Iterator[str]:
    """Yield the entries of one specification, without the field `keywords`."""
    package = spec.config.partition(":")[0].rpartition(".")[0]
    if not package:
        return  # a plugin of a single file has no folder for references
    file = files(package) / FILE
    if not file.is_file():
        return
    for entry in _entries(file.read_text("utf-8")):
        keywords = re.search(r"^\s*keywords\s*=\s*\{([^}]*)\}", entry, re.MULTILINE)
        if keywords is None or spec.name in [word.strip() for word in keywords[1].split(",")]:
            plain = re.sub(r"^\s*keywords\s*=.*\n", "", entry, flags=re.MULTILINE)
            yield re.sub(r",\s*\}$", "\n}", plain)


def _entries(text: str) -> list[str]:
    """Split a BibTeX file: an entry begins with "@" at the start of a line."""
    return [part.strip() for part in re.split(r"^(?=@)", text, flags=re.MULTILINE) if part.strip()]
