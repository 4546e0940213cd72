"""Errors while a plugin reads files of another project, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from t2i.core.errors import T2IError, UserError, in_one_line, out_of_memory
from t2i.core.io.terminal import printable


@contextmanager
def reading(path: Path, model: str) -> Iterator[None]:
    """Turn every error of the block that is none of ours into a line that names the files.

    Damaged and hostile files end in errors of any class in the libraries that read them.

    Args:
        path: The folder or file that is read.
        model: Registry name of the model that is made of it.

    Yields:
        Nothing.

    Raises:
        UserError: The block raised an error that is none of ours.
    """
    try:
        yield
    except T2IError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise UserError(
                f"{path}: there is not enough memory for the model '{model}' that it describes; "
                "use a machine with more, or get the folder again if it should be smaller"
            ) from error
        raise UserError(
            f"{path}: model '{model}' cannot be made of it ({printable(in_one_line(error))}): a "
            "file in it may be damaged; get it again from where it is from"
        ) from error
