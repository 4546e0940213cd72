"""Names of a benchmark's rows: each row has files of its own by its name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from t2i.core.errors import UserError

RESERVED = ("real", "wrong", "nearest", "comparison")
"""Names of the benchmark's own rows and files."""

REMEDY = "give the model as a run under another name, such as --run mine=RUN"


def is_name(name: str) -> bool:
    """Tell whether a name can be the name of a row and of its files.

    Args:
        name: The name.

    Returns:
        True if so.
    """
    return re.fullmatch(r"[A-Za-z0-9][\w.-]{0,79}", name) is not None


def check_names(labels: Sequence[str]) -> None:
    """Check that each row can have files of its own, also where file names ignore case.

    Args:
        labels: Names of the rows of models.

    Raises:
        UserError: A name is reserved, or another row has it.
    """
    seen: dict[str, str] = {}
    for label in labels:
        key = unicodedata.normalize("NFC", label).casefold()
        if key in RESERVED:
            raise UserError(f"row '{label}': the report needs this name itself; {REMEDY}")
        if key in seen:
            same = "two rows have this name" if seen[key] == label else f"'{seen[key]}' is a row"
            raise UserError(f"row '{label}': {same}; {REMEDY}")
        seen[key] = label
