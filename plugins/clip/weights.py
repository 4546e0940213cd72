"""Getting CLIP's weights and tokenizer, from a folder or the hub; what cannot be had is said in one line.

Only safetensors and JSON are read, and never any code.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from t2i.core.errors import UserError
from t2i.plugins.clip.config import ClipConfig

T = TypeVar("T")
WHAT = "text encoder 'clip'"
FOLDER = "a folder with config.json, model.safetensors and the tokenizer's files (tokenizer.json)"
PROBE_SECONDS = 10.0


def load_text_model(config: ClipConfig) -> CLIPTextModelWithProjection:
    """CLIP's text half with its weights. Raises UserError if they cannot be had or are incomplete."""

    def load(source: str, offline: bool) -> CLIPTextModelWithProjection:
        loaded: Any = CLIPTextModelWithProjection.from_pretrained(
            source, revision=config.revision, local_files_only=offline, use_safetensors=True, output_loading_info=True
        )
        clip: CLIPTextModelWithProjection = loaded[0]
        report = loaded[1]
        missing = set(report["missing_keys"])
        if config.sentence == "pooled":  # the text half of Stable Diffusion comes without a projection
            missing.discard("text_projection.weight")
        if missing == {"text_projection.weight"}:
            raise UserError(f"{WHAT}: {source} has no projection; use --set encoder.sentence=pooled")
        if missing:
            raise UserError(f"{WHAT}: {source} holds no whole CLIP text encoder: {sorted(missing)[0]} is missing")
        return clip

    return _obtained(config.weights, "weights", config.revision, load)


def load_tokenizer(config: ClipConfig) -> CLIPTokenizer:
    """CLIP's tokenizer. Raises UserError if its files cannot be had."""

    def load(source: str, offline: bool) -> CLIPTokenizer:
        revision = config.revision if config.tokenizer is None else "main"
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(source, revision=revision, local_files_only=offline)
        if set(tokenizer.get_vocab()) == set(tokenizer.all_special_tokens):  # made up: transformers found no file
            raise FileNotFoundError("no tokenizer.json there, nor vocab.json and merges.txt")
        return tokenizer

    key = "weights" if config.tokenizer is None else "tokenizer"
    return _obtained(config.tokenizer or config.weights, key, config.revision, load)


def checked(config: ClipConfig, clip: CLIPTextConfig, tokenizer: CLIPTokenizer) -> None:
    """Raises UserError unless settings, network and tokenizer fit one another."""
    if -config.layer > clip.num_hidden_layers:
        raise UserError(f"{WHAT}: encoder.layer = {config.layer}, but {config.weights} has {clip.num_hidden_layers}")
    if max(tokenizer.get_vocab().values()) >= clip.vocab_size:
        raise UserError(
            f"{WHAT}: the tokenizer knows {len(tokenizer)} tokens, the weights {clip.vocab_size}: they do not belong "
            "together; name the right one with --set encoder.tokenizer=..."
        )


def _obtained(name: str, key: str, revision: str, load: Callable[[str, bool], T]) -> T:
    """What `load(source, offline)` returns for a folder, for the hub's local cache, or else for the hub itself."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _sound(str(folder), key, load, offline=True)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserError(f"{WHAT}: encoder.{key} = {name}: no such folder; give a hub name or {FOLDER}")
    try:
        return load(name, True)
    except UserError:
        raise
    except Exception:  # not in the cache, or not all of it: the libraries raise whatever their HTTP client raises
        _probe(name, key, revision)
    return _sound(name, key, load, offline=False)


def _probe(name: str, key: str, revision: str) -> None:
    """Asks the hub for `name` once: the loaders themselves would retry for minutes without a network."""
    try:
        HfApi().model_info(name, revision=revision, timeout=PROBE_SECONDS)
    except Exception as error:
        raise UserError(
            f"{WHAT}: '{name}' is neither a folder, nor in the hub's cache, nor to be had from the hub "
            f"({_one_line(error)}); check the network (HF_HUB_OFFLINE, HF_ENDPOINT) and the name, "
            f"or give --set encoder.{key}=FOLDER, {FOLDER}"
        ) from None


def _sound(source: str, key: str, load: Callable[[str, bool], T], *, offline: bool) -> T:
    try:
        return load(source, offline)
    except UserError:
        raise
    except Exception as error:  # damaged files: transformers and tokenizers raise anything, down to bare Exception
        raise UserError(
            f"{WHAT}: encoder.{key} = {source} cannot be loaded ({_one_line(error)}); it must be {FOLDER}"
        ) from None


def _one_line(error: Exception) -> str:
    first = str(error).partition("\n")[0].partition(". ")[0]
    return f"{type(error).__name__}: {first[:160]}"
