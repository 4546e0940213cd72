"""Names for the folders and files of other projects, which errors call by what they are.

Only names of files, JSON and the headers of safetensors are read: no tensors, and no code is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.core.errors import in_one_line
from t2i.core.fetch.web import is_web_page
from t2i.core.io.json_files import json_object
from t2i.core.io.terminal import printable

MOST_HEADER = 100_000_000  # bytes; safetensors' own bound
UNET_MARK = "input_blocks.0.0.weight"
"""The first convolution of a U-Net under its authors' names: (channels, input channels, 3, 3)."""
INPUTS = {9: "inpainting", 8: "editing by instructions", 7: "upscaling", 5: "depth maps"}
"""What a U-Net of Stable Diffusion with so many input channels is for; plain ones have 4."""
LORA = ("lora", "hada_w1", "lokr_w", "oft_diag", "oft_blocks", "dora_scale")
"""Parts of tensors' names in the LoRAs (and their relatives) of kohya, diffusers and peft."""
FAMILIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a ControlNet (it steers a model)", ("control_model.", "controlnet_", "input_hint_block.")),
    ("an IP-Adapter (it steers a model)", ("ip_adapter.", "image_proj.")),
    ("a T2I-Adapter (it steers a model)", ("adapter.body.",)),
    ("a motion module of AnimateDiff", (".motion_modules.",)),
    ("Stable Diffusion XL", ("conditioner.embedders.1.",)),
    ("the refiner of Stable Diffusion XL", ("conditioner.embedders.0.model.",)),
    ("a file of Stable Diffusion XL", ("conditioner.",)),
    ("Stable Diffusion 3", ("joint_blocks.",)),
    ("FLUX", ("double_blocks.0.img_", "single_transformer_blocks.", "double_stream_modulation")),
    ("AuraFlow", ("double_layers.",)),
    ("Stable Cascade", ("clip_txt_mapper.", "clip_txt_pooled_mapper.")),
    ("a DiT", ("y_embedder.embedding_table.",)),
    ("PixArt or its relative", ("y_embedder.y_", "caption_projection.", "cross_attn.q_linear.")),
)  # fmt: skip
"""Descriptions by parts of tensors' names; the first that fits is meant."""


@dataclass(frozen=True)
class Identity:
    """What a folder or a file is.

    Args:
        what: A noun phrase, such as "a LoRA".
        remedy: What to do with it, as an instruction. "": nothing is known.
    """

    what: str
    remedy: str = ""

    @property
    def sentence(self) -> str:
        """The end of a sentence that begins with the path: "a LoRA; load it with ..."."""
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


SAFE = "get the .safetensors file"
PICKLE = Identity(
    "a pickle (or an archive with one), which can run code: only safetensors are read",
    f"{SAFE}; weights that a paper's authors released are made a run with 't2i import'",
)
NUMPY = Identity("a file of NumPy's arrays", SAFE)
ENDINGS = {
    **dict.fromkeys((".ckpt", ".pt", ".pth", ".bin", ".pkl"), PICKLE),
    ".onnx": Identity("an ONNX model", SAFE),
    ".msgpack": Identity("weights of JAX (Flax)", SAFE),
    ".h5": Identity("weights of Keras (HDF5)", SAFE),
    ".npz": NUMPY,
}
"""What a file is by the ending of its name, where its first bytes do not tell."""


def shapes_of(path: Path) -> dict[str, tuple[int, ...]] | None:
    """Read the names and shapes of the tensors in a safetensors file.

    Args:
        path: The file.

    Returns:
        Shapes by name. None if the file is not whole, not sound, or not safetensors.
    """
    header = _header(path)
    if header is None or _cut(path, header) or _unsound(path):
        return None
    return {name: tuple(entry["shape"]) for name, entry in _tensors(header)}


def identify(path: Path) -> Identity:
    """Find out what a folder or a file is.

    Args:
        path: An existing folder or file.

    Returns:
        Its description; "nothing that is known here ..." for anything unknown.
    """
    return _folder(path) if path.is_dir() else _file(path)


def family(shapes: Mapping[str, tuple[int, ...]]) -> Identity:
    """Name the model that some tensors belong to.

    Args:
        shapes: Shapes of the tensors by name.

    Returns:
        Its description.
    """
    names = [*shapes]
    if any(part in name for name in names for part in LORA):
        return Identity(
            "a LoRA, which changes another model's weights and is no model of its own",
            "sample with it and its model: t2i sample --run MODEL --lora FILE",
        )
    inversion = {"emb_params", "clip_l", "clip_g", "string_to_param.*"}
    if not names:
        return Identity("a safetensors file without tensors")
    if set(names) <= inversion or all(name.startswith("<") for name in names):
        return Identity("a textual inversion, which adds words to another model")
    for what, parts in FAMILIES:
        if _any(names, parts):
            return Identity(what)
    return _unet(shapes) or _parts(names)


def _any(names: Iterable[str], parts: tuple[str, ...]) -> bool:
    return any(part in name for name in names for part in parts)


def _unet(shapes: Mapping[str, tuple[int, ...]]) -> Identity | None:
    """Name a file with a U-Net; None if it has none."""
    first = next((shape for name, shape in shapes.items() if name.endswith(UNET_MARK)), None)
    first = first or (
        shapes.get("conv_in.weight") if "time_embedding.linear_1.weight" in shapes else None
    )
    if first is None and not _any(shapes, ("diffusion_model.input_blocks.",)):
        return None
    what = "Stable Diffusion" if any(name.startswith("model.") for name in shapes) else "a U-Net"
    if any("label_emb." in name or name.startswith("add_embedding.") for name in shapes):
        what = "the U-Net of Stable Diffusion XL, or one that reads class numbers"
    channels = first[1] if first and len(first) > 1 else 4
    if channels != 4:
        purpose = INPUTS.get(channels, "another task")
        return Identity(f"{what} for {purpose}: its U-Net has {channels} input channels, not 4")
    if what == "a U-Net":
        return Identity("a U-Net alone, without text encoder and autoencoder")
    return Identity(what)


def _parts(names: list[str]) -> Identity:
    """Name a file without a network that samples."""
    if _any(names, ("transformer_blocks.0.attn",)):
        return Identity("a diffusion transformer of diffusers alone")

    def starts(*prefixes: str) -> bool:
        return any(name.startswith(prefixes) for name in names)

    if starts("model_ema."):
        return Identity(
            "a checkpoint with averaged weights only (model_ema), which diffusers "
            "does not read either",
            "get the file with model.diffusion_model",
        )
    if starts(
        "first_stage_model.", "encoder.down", "decoder.up", "encoder.conv_in", "decoder.conv_in"
    ):
        return Identity("an autoencoder alone (VAE)", "give it to a model with --set vae=FILE")
    if starts("text_model.", "cond_stage_model.", "transformer.text_model.", "embeddings.token_"):
        return Identity("the text half of a CLIP alone")
    if starts("vision_model.", "visual."):
        return Identity("a CLIP")
    if starts("shared.", "encoder.block."):
        return Identity("a T5 alone")
    first = f", such as {sorted(names)[0][:80]!r}" if names else ""
    return Identity(f"a safetensors file of {len(names)} tensors that no known model has{first}")


def _file(path: Path) -> Identity:
    """Describe a file by its first bytes."""
    if not path.exists():
        return Identity("a link to a file that does not exist")
    if not path.is_file():
        return Identity("no regular file (a pipe, a socket or a device)")
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        return Identity(f"a file that cannot be read ({error.strerror})")
    again = "download it again"
    if not size:
        return Identity("an empty file", again)
    if head.startswith(b"version https://git-lfs"):
        return Identity("a pointer of Git LFS, not the file itself", "'git lfs pull' gets the file")
    if is_web_page(head, path.name):
        return Identity("a web page (HTML) under the name of a file of weights", again)
    if head.startswith(b"GGUF"):
        return Identity("a GGUF file, of quantised weights", "get the .safetensors file")
    if head.startswith((b"PK\x03\x04", b"\x80")) and head[8:9] != b"{":
        return NUMPY if path.suffix.lower() == ".npz" else PICKLE
    header = _header(path)
    length = int.from_bytes(head[:8], "little")
    if header is None and head[8:9] == b"{" and size < 8 + length <= MOST_HEADER:
        return Identity(f"no sound safetensors file: cut at {size} bytes, inside its header", again)
    if header is None:
        return _by_ending(path.suffix.lower(), size)
    cut = _cut(path, header)
    if cut:
        return Identity(f"no sound safetensors file: {cut}", again)
    if reason := _unsound(path):
        return Identity(f"no sound safetensors file: {reason}", again)
    return family({name: tuple(entry["shape"]) for name, entry in _tensors(header)})


def _by_ending(ending: str, size: int) -> Identity:
    """Describe a file that is no safetensors file by the ending of its name."""
    if ending in (".safetensors", ".sft"):
        return Identity(f"no sound safetensors file ({size} bytes)", "download it again")
    return ENDINGS.get(ending, Identity(f"no file of weights ({size} bytes)"))


def _header(path: Path) -> dict[str, Any] | None:
    """Read the header of a safetensors file; None if there is none, or it is cut."""
    if not path.is_file():  # a pipe would wait for ever
        return None
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= MOST_HEADER:
                return None
            header: dict[str, Any] = json.loads(file.read(length))
        for _, entry in _tensors(header):
            begin, end = entry["data_offsets"]
            if not all(isinstance(n, int) and n >= 0 for n in (*entry["shape"], begin, end)):
                return None
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    header["__length__"] = length
    return header


def _tensors(header: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, entry) for name, entry in header.items() if not name.startswith("__")]


def _cut(path: Path, header: Mapping[str, Any]) -> str:
    """Say how much of a file is missing; "" if nothing is."""
    end = max((entry["data_offsets"][1] for _, entry in _tensors(header)), default=0)
    whole, size = 8 + header["__length__"] + end, path.stat().st_size
    return f"cut at {size} of {whole} bytes" if size < whole else ""


def _unsound(path: Path) -> str:
    """Say what safetensors itself finds wrong in the header of a whole file; "" if nothing."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return ""
    except (SafetensorError, OSError) as error:
        return printable(in_one_line(error))


def _folder(path: Path) -> Identity:
    """Describe a folder by its files."""
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        return Identity(f"a folder that cannot be read ({error.strerror})")
    if not names:
        return Identity("an empty folder")
    if "model_index.json" in names:
        return _pipeline(path)
    if "open_clip_config.json" in names:
        return Identity("a CLIP in the layout of open_clip")
    if {"adapter_config.json", "adapter_model.safetensors"} & set(names) or any(
        name.startswith("pytorch_lora_weights.") for name in names
    ):
        return family({"lora_A.weight": ()})
    if "snapshots" in names and "refs" in names:
        found = sorted(path.glob("snapshots/*/"))
        return Identity("a folder of the hub's cache", f"name {found[-1]}" if found else "")
    return _network(path, names) or _collection(path, names)


def _pipeline(path: Path) -> Identity:
    """Name a pipeline of diffusers."""
    kind = json_object(path / "model_index.json").get("_class_name")
    if isinstance(kind, list):
        own = f" ({printable(str(kind[-1]))[:80]})" if kind else ""
        return Identity(f"a pipeline with code of its own{own}, which is not run")
    if not isinstance(kind, str):
        return Identity("a folder whose model_index.json names no pipeline (_class_name)")
    return Identity(f"{_a(printable(kind)[:80])} of diffusers")


def _network(path: Path, names: list[str]) -> Identity | None:
    """Name the folder of one network, scheduler or tokenizer; None if it is none of these."""
    config = json_object(path / "config.json")
    kinds = [
        config.get("_class_name"),
        *_list(config.get("architectures")),
        config.get("model_type"),
    ]
    kind = next((kind for kind in kinds if isinstance(kind, str)), None)
    if kind is not None:
        library = "diffusers" if "_class_name" in config else "transformers"
        return Identity(
            f"{_a(printable(kind)[:80])} of {library} alone, which is one part of a pipeline",
            "name the folder of the whole pipeline, with model_index.json",
        )
    if "scheduler_config.json" in names:
        return Identity("a scheduler of diffusers alone", "name the folder of the whole pipeline")
    if {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"} & set(names):
        return Identity("a tokenizer alone", "name the folder of the whole pipeline")
    return None


def _collection(path: Path, names: list[str]) -> Identity:
    """Name a folder of folders or files."""
    marks = ("config.json", "scheduler_config.json", "tokenizer_config.json", "merges.txt")
    parts = [name for name in names if any((path / name / mark).is_file() for mark in marks)]
    listed = ", ".join(f"{name}/" for name in parts)
    files = [name for name in names if name.endswith((".safetensors", ".ckpt", ".pth", ".gguf"))]
    trained = {"optimizer.bin", "random_states_0.pkl", "scheduler.bin"} & set(names)
    if trained or (path.name.startswith("checkpoint-") and (parts or files)):
        return Identity(
            f"a training checkpoint of diffusers' or accelerate's scripts ({listed or 'no network in it'})",  # noqa: E501
            "name the pipeline that the training wrote at its end, or put these parts "
            "into a copy of the pipeline that it began with",
        )
    if parts:
        return Identity(
            f"a folder of a pipeline's parts ({listed}) without the model_index.json that "
            "says how they belong together",
            "copy that file from where the parts are from",
        )
    checkpoints = [
        name for name in names if name.startswith("checkpoint-") and (path / name).is_dir()
    ]
    if checkpoints:
        return Identity(f"a folder of training checkpoints ({', '.join(checkpoints[:3])})")
    inner = [name for name in names if (path / name / "model_index.json").is_file()]
    if inner:
        return Identity("a folder of pipelines", f"name one of them: {path / inner[0]}")
    if files:
        first = identify(path / files[0]).what
        return Identity(
            f"a folder of files of weights ({files[0]} is {first})", "name the file that is meant"
        )
    return Identity(f"a folder in which no model is recognised (it holds {', '.join(names[:3])})")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _a(noun: str) -> str:
    """Put the article before a class name, by its sound as far as letters tell."""
    spelt = noun[:2].isupper() and noun[0] in "AEFHILMNORSX"
    vowel = noun[:1] in "AEIO" or (noun.startswith("Un") and not noun.startswith("UNet"))
    return f"an {noun}" if spelt or vowel else f"a {noun}"
