"""Text in PNG files: how an image was sampled, for other programs and for `t2i sample --again`.

`parameters`: prompt, negative prompt and a line of settings, as AUTOMATIC1111's WebUI writes them.
`t2i`: everything, as JSON. `grid.png` has the list of its images there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from t2i.core.errors import UserError
from t2i.core.models.model import Model
from t2i.core.models.weights import owned_tensors, tensor_bytes
from t2i.core.runs.versions import host_version

CHUNK = "t2i"
"""Keyword of the chunk with everything."""

COMMON = "parameters"
"""Keyword of the chunk that other programs read."""

SPREAD = 1000
"""Numbers of each tensor, about, that the hash of a model reads. Training changes them all."""


LARGEST_BATCH = 2**14
"""Images of the largest batch that is recorded; a damaged file cannot ask for more memory."""


class Batch(BaseModel):
    """The batch that an image was sampled in. Its size changes an image by rounding.

    Attributes:
        position: Index of the image in the batch.
        prompts: The distinct prompts of the batch.
        negative: Negative prompt of each; empty: none.
        images: Of each image, the index of its prompt and the number that keys its noise.
    """

    position: int = Field(ge=0)
    prompts: list[str] = Field(min_length=1)
    negative: list[str] = []
    images: list[tuple[int, int]] = Field(min_length=1, max_length=LARGEST_BATCH)

    def sound(self) -> bool:
        """Tell whether the indexes fit together.

        Returns:
            True if they do.
        """
        return (
            self.position < len(self.images)
            and len(self.negative) in (0, len(self.prompts))
            and all(0 <= p < len(self.prompts) and s >= 0 for p, s in self.images)
        )


class Source(BaseModel):
    """An image or a mask that a sample started from.

    Attributes:
        file: Its path as it was given. None: not recorded.
        sha256: Hash of its pixels, at the size of the sample.
        strength: Of an image: share of the chain that it went through.
        augmentation: Of an image that was enlarged: level of the noise that was added to it. None:
            the upsampler's own.
    """

    file: str | None = None
    sha256: str
    strength: float | None = None
    augmentation: float | None = None


class GuideRecord(BaseModel):
    """The guide that steered a sample.

    Attributes:
        run: Its path as it was given.
        hash: Hash of its weights.
        scale: Scale of its gradient.
    """

    run: str
    hash: str
    scale: float


class UpsampleRecord(BaseModel):
    """An upsampler that enlarged a sample.

    Attributes:
        run: Its path as it was given. None: not recorded.
        hash: Hash of its weights.
        sampler: Name and settings of its sampler.
        augmentation: Level of the noise that was added. None: the model's own.
    """

    run: str | None = None
    hash: str
    sampler: dict[str, Any]
    augmentation: float | None = None


class LoraRecord(BaseModel):
    """A LoRA in the weights.

    Attributes:
        file: Its path as it was given.
        hash: Hash of the file.
        weight: The factor of its change.
    """

    file: str
    hash: str
    weight: float


class SettingsRecord(BaseModel):
    """The settings of a sample.

    Attributes:
        run: Path of the run, as it was given. None: not recorded.
        model: Name of the model.
        hash: Hash of its weights, without LoRAs.
        sampler: Name and settings of the sampler.
        loras: The LoRAs, in order.
        noise: What keys the noise. "text": the prompt and a number.
        size: Height and width in pixels. None: the model's own.
        image: The image that it started from. None: noise.
        mask: Where that image could change. None: everywhere.
        guide: The guide. None: none.
        upsample: The upsamplers, in order.
        part: The last part of a cascade that was sampled. None: the cascade's last one.
    """

    run: str | None = None
    model: str
    hash: str
    sampler: dict[str, Any]
    loras: list[LoraRecord] = []
    noise: str = ""
    size: tuple[int, int] | None = None
    image: Source | None = None
    mask: Source | None = None
    guide: GuideRecord | None = None
    upsample: list[UpsampleRecord] = []
    part: str | None = None


class Record(BaseModel):
    """What the chunk `t2i` of an image says.

    Attributes:
        format: Version of this format.
        version: Version of t2i that sampled the image.
        file: Name of the image's file.
        prompt: Its prompt.
        seed: Seed of the noise.
        settings: Run, model, hash, sampler and options, as in samples.jsonl.
        batch: The batch that it was sampled in. None: the image is not sampled from a prompt alone.
    """

    format: Literal[1] = 1
    version: str
    file: str
    prompt: str
    seed: int = Field(ge=0, lt=2**63)
    settings: SettingsRecord
    batch: Batch | None = None


def image_chunks(
    line: Mapping[str, Any], size: tuple[int, int], batch: Batch | None
) -> dict[str, str]:
    """Make the text chunks of an image.

    Args:
        line: Its line of samples.jsonl, without seconds.
        size: Height and width in pixels.
        batch: The batch that it was sampled in. None: not recorded.

    Returns:
        Texts by keyword, for `png`.
    """
    known = {} if batch is None else {"batch": batch.model_dump(mode="json")}
    document = {"format": 1, "version": host_version(), **line, "size": list(size), **known}
    return {COMMON: _parameters(line, size), CHUNK: json.dumps(document)}


def grid_chunks(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Make the text chunk of a grid.

    Args:
        lines: Lines of samples.jsonl of its images, in order.

    Returns:
        Texts by keyword, for `png`.
    """
    left_out = ("settings", "seconds")
    images = [{k: v for k, v in line.items() if k not in left_out} for line in lines]
    settings = lines[0]["settings"] if lines else {}
    document = {"format": 1, "version": host_version(), "grid": images, "settings": settings}
    return {CHUNK: json.dumps(document)}


def _parameters(line: Mapping[str, Any], size: tuple[int, int]) -> str:
    """Write the chunk `parameters` in the style of AUTOMATIC1111's WebUI."""
    settings = line["settings"]
    sampler = settings["sampler"]
    fields = {
        "Steps": sampler.get("steps"),
        "Sampler": sampler["name"],
        "CFG scale": f"{sampler.get('guidance', 1):g}",
        "Seed": line["seed"],
        "Size": f"{size[1]}x{size[0]}",
        "Model hash": settings["hash"],
        "Model": run_name(settings.get("run")) or settings["model"],
        "Lora hashes": _lora_hashes(settings.get("loras", ())),
        "Denoising strength": settings.get("image", {}).get("strength"),
        "Sample": line["sample_index"],
        "Version": f"t2i {host_version()}",
    }
    told = ", ".join(f"{name}: {_quoted(x)}" for name, x in fields.items() if x is not None)
    negative = line.get("negative")
    return "\n".join(
        [line["prompt"], *([f"Negative prompt: {negative}"] if negative else []), told]
    )


def _lora_hashes(loras: Sequence[Mapping[str, Any]]) -> str | None:
    """List LoRAs as the WebUI does: "name: hash"."""
    return ", ".join(f"{Path(one['file']).stem}: {one['hash']}" for one in loras) or None


def _quoted(value: object) -> str:
    """Quote a value that holds a separator, as the WebUI does."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(',:\n"') else text


def run_name(run: str | None) -> str | None:
    """Return the name of a run.

    Args:
        run: Its path, or that of its folder `model`. None: unknown.

    Returns:
        The name of its folder or file. None if it is not known.
    """
    if run is None:
        return None
    path = Path(run)
    return (path.parent.name if path.name == "model" else path.name) or None


def model_hash(model: Model) -> str:
    """Hash the weights of a model: `SPREAD` numbers of each tensor, with its name and shape.

    It does not depend on where the run lies, nor on LoRAs that are merged into the weights.

    Args:
        model: The model.

    Returns:
        12 hexadecimal digits.
    """
    digest = hashlib.sha256(model.config.model.encode())
    for _, module in model.parts():
        tensors = owned_tensors(module) | model.loras.first(module)
        for name, tensor in tensors.items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            step = max(1, tensor.numel() // SPREAD)
            digest.update(tensor_bytes(tensor.flatten()[::step]))
    return digest.hexdigest()[:12]


def read_record(path: Path) -> tuple[Record, dict[str, str]]:
    """Read how an image was sampled.

    Args:
        path: A PNG file that t2i wrote.

    Returns:
        The record, and the file's text chunks as they are.

    Raises:
        UserError: It is no such file, or the record is damaged.
    """
    texts = _texts(path)
    if CHUNK not in texts:
        seen = ""
        if COMMON in texts:
            last = texts[COMMON].strip().rpartition("\n")[2]
            seen = f"; another program's settings are there: {last[:160]}"
        raise UserError(
            f"{path} has no text chunk '{CHUNK}', so it does not say with which run, sampler and "
            f"noise t2i sampled it: give these as options{seen}"
        )
    try:
        document = json.loads(texts[CHUNK])
        if isinstance(document, dict) and "grid" in document:
            raise UserError(
                f"{path} is a grid of {len(document['grid'])} images: name one of the images "
                "beside it"
            )
        record = Record.model_validate(document)
    except (ValidationError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: its text chunk '{CHUNK}' is damaged ({reason})") from None
    if record.batch and not record.batch.sound():
        raise UserError(f"{path}: its text chunk '{CHUNK}' is damaged (indexes of the batch)")
    return record, texts


def _texts(path: Path) -> dict[str, str]:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()  # chunks may follow the pixels
            texts: Mapping[str, str] = getattr(image, "text", {})
            return {str(name): str(text) for name, text in texts.items()}
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "not a PNG file that can be read"
        raise UserError(f"image {path}: {reason}; give a PNG file that t2i wrote") from None
