"""`t2i sample --again`: sample an image again, as its own file says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from t2i.cli.output import answer, answer_json, note
from t2i.cli.sample_options import Further, refuse_beside_again
from t2i.core.io.terminal import printable

if TYPE_CHECKING:
    from t2i.core.models.model import Model


def again(
    further: Further,
    run: str | None,
    guide: str | None,
    out: Path | None,
    load: Callable[[Path], Model],
    as_json: bool,
    upsample: tuple[str, ...] = (),
    loras: tuple[str, ...] = (),
) -> None:
    """Sample the image again, and print where it is and whether it has the same bytes.

    Args:
        further: Names the image; its image and mask are where those of the sample lie now.
        run: Where the run lies now. None: where the image says.
        guide: Where the guide lies now. None: where the image says.
        out: Folder of the new file. None: a new one under samples/.
        load: Loads the model of a run.
        as_json: Whether to print JSON.
        upsample: Where the upsamplers lie now, in order. Empty: where the image says.
        loras: Where the LoRA files lie now, in order. Empty: where the image says.

    Raises:
        UserError: An option is of no use here, or the image cannot be sampled again.
    """
    refuse_beside_again()
    from t2i.core.io.processes import Group
    from t2i.core.models.again import Moved, sample_again
    from t2i.core.models.sample_folder import samples_folder

    assert further.again is not None
    moved = Moved(
        run=Path(run) if run else None,
        guide=Path(guide) if guide else None,
        image=further.image,
        mask=further.mask,
        upsample=tuple(map(Path, upsample)),
        loras=tuple(map(Path, loras)),
    )
    with samples_folder("again", out, Group()) as folder:
        done = sample_again(further.again, folder, load, moved)
    if as_json:
        document = {"image": str(done.path), "same": done.same, "difference": done.difference}
        answer_json(document)
        return
    if done.same:
        answer(printable(f"{done.path}: the same bytes as {further.again}"))
        return
    answer(printable(str(done.path)))
    note(f"warning: it differs from {further.again}: {done.difference}")
