"""Tables in Markdown, and the parts of documents that programs write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from t2i.core.errors import UserError


def markdown_table(lines: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown.

    Args:
        lines: Cells of each line; the first are the headings.

    Returns:
        Markdown.
    """
    head, *rest = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rest))


def filled(document: str, name: str, text: str, where: str) -> str:
    """Replace the part of a document between `<!-- NAME -->` and `<!-- end of NAME -->`.

    Args:
        document: The document, Markdown.
        name: Name of the part.
        text: What stands there from now on.
        where: The document's file, for the message.

    Returns:
        The document.

    Raises:
        UserError: The document lacks the comments.
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = document.partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UserError(f"{where}: put the lines '{start}' and '{end}' where '{name}' is to stand")
    return f"{before}{start}\n\n{text}\n\n{end}{after}"
