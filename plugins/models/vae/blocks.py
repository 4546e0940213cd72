"""The strings in which VDVAE describes its blocks. This module does not import torch.

Source: Child 2021, openai/vdvae.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MOST_BLOCKS = 1000
"""Largest number of blocks that a string may describe."""

_PART = re.compile(r"(\d{1,4})(?:([xmd])(\d{1,4}))?")


class Place(NamedTuple):
    """Where a block stands.

    Attributes:
        size: Height and width of its map.
        source: Size of the map that is enlarged and added first ("8m4"). None: nothing is.
        down: Factor by which the map is made smaller afterwards ("8d2"). None: it is not.
    """

    size: int
    source: int | None = None
    down: int | None = None


def places(text: str) -> tuple[Place, ...]:
    """Read a string of blocks, such as "1x2,4m1,4x3".

    "8x5" are five blocks on maps of 8x8; "8m4" is one whose input is the 4x4 map, enlarged; "8d2"
    one whose output is made two times smaller; "8" is one block.

    Args:
        text: The string.

    Returns:
        The blocks in order.

    Raises:
        ValueError: It is no such string, or it describes too many blocks.
    """
    found: list[Place] = []
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        numbers = [int(n) for n in match.group(1, 3) if n is not None] if match else [0]
        if match is None or 0 in numbers:
            raise ValueError(f"'{part[:40]}' describes no blocks: write 8x5, 8m4, 8d2 or 8")
        size, kind = numbers[0], match.group(2)
        if kind == "m":
            found.append(Place(size, source=numbers[1]))
        elif kind == "d":
            found.append(Place(size, down=numbers[1]))
        else:
            count = numbers[1] if kind == "x" else 1
            if len(found) + count > MOST_BLOCKS:
                raise ValueError(f"more than {MOST_BLOCKS} blocks")
            found.extend([Place(size)] * count)
    return tuple(found)


def check_encoder(blocks: tuple[Place, ...], side: int) -> set[int]:
    """Check that each block of the encoder gets a map of its size.

    Args:
        blocks: The encoder's blocks.
        side: Height and width of the input.

    Returns:
        The sizes of the maps that the encoder makes.

    Raises:
        ValueError: A block has another size than the map that it gets.
    """
    made = {side}
    for place in blocks:
        if place.source is not None:
            raise ValueError("encoder_blocks: the encoder only makes maps smaller (8d2), not 8m4")
        if place.size != side:
            raise ValueError(
                f"encoder_blocks: a block of {place.size} gets a map of {side}x{side}; the first "
                "ones have the input's size, and 8d2 is followed by blocks of 4"
            )
        if place.down is not None:
            if side % place.down:
                raise ValueError(f"encoder_blocks: {side} cannot be divided by {place.down}")
            side //= place.down
        made.add(side)
    return made


def check_decoder(blocks: tuple[Place, ...], side: int, maps: set[int]) -> None:
    """Check that the decoder goes up to the image, and meets a map of the encoder everywhere.

    Args:
        blocks: The decoder's blocks.
        side: Height and width of the output.
        maps: Sizes of the encoder's maps.

    Raises:
        ValueError: It does not.
    """
    made: set[int] = set()
    for place in blocks:
        if place.down is not None:
            raise ValueError("decoder_blocks: the decoder only makes maps larger (8m4), not 8d2")
        if place.size not in maps:
            raise ValueError(
                f"decoder_blocks: the encoder makes no map of {place.size}x{place.size}"
            )
        if place.source is not None and (place.source not in made or place.size % place.source):
            raise ValueError(
                f"decoder_blocks: {place.size}m{place.source} needs a map of {place.source} before "
                "it, of which it is a multiple"
            )
        made.add(place.size)
    if blocks[-1].size != side:
        raise ValueError(f"decoder_blocks: the last ones must be of {side}, the output's size")
