"""A model that can be sampled: a generator and a text encoder, built, saved, loaded and drawn from.

from t2i.core import load; images = load("RUN").sample(["a red circle"], sampler="ddim", steps=50, seed=0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from t2i.core.errors import UserError
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.noise import PromptNoise, slerp
from t2i.core.interfaces.sampler import Sampler, SamplerConfig, check_fit
from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.io.files import arriving, load_tensors, read_json, save_tensors, sealed, settle, verify, write_json
from t2i.core.io.images import to_bytes, to_tensor
from t2i.core.registry.specs import resolve
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import Choice, Run, RunConfig, chosen

Prompts = Sequence[str] | TextFeatures
"""What is drawn: captions, or their features."""


@dataclass(frozen=True)
class Drawn:
    """One sampled picture: uint8 (H, W, 3), with the indexes that key its noise."""

    prompt: int
    sample: int
    image: np.ndarray


class Model:
    """A generator with its text encoder and the sampler it is drawn with by default."""

    def __init__(self, config: RunConfig, generator: Generator, text_encoder: TextEncoder) -> None:
        self.config = config
        self.generator = generator
        self.text_encoder = text_encoder

    def to(self, device: torch.device | str) -> Model:
        self.generator.to(device)
        self.text_encoder.to(device)
        return self

    def sampler(
        self, name: str | None = None, *, steps: int | None = None, guidance: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Choice[SamplerConfig]:  # fmt: skip
        """The sampler to use: the model's own, or another that fits its family, with settings laid over the default's
        (those of the model's preset where it is the same sampler)."""
        default = self.config.sampler
        name = name or default.name
        given = dict(settings or {})
        given |= {} if steps is None else {"steps": steps}
        given |= {} if guidance is None else {"guidance": guidance}
        spec = registry().samplers[name]
        fitting = [s.name for s in registry().samplers if self.generator.family in s.families]
        check_fit(name, spec.families, self.config.model, self.generator.family, fitting)
        kept = default.config.model_dump() if name == default.name else {}
        if name != default.name:  # how strongly to guide is the model's affair, whatever the sampler
            kept = {"guidance": default.config.guidance}
        return chosen(registry().samplers, name, {**kept, **given}, "sampler")

    def draw(
        self,
        prompts: Prompts,
        *,
        n: int = 1,
        seed: int = 0,
        sampler: Choice[SamplerConfig] | None = None,
        batch_size: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        keys: Sequence[tuple[int, int]] | None = None,
    ) -> Iterator[list[Drawn]]:
        """Pictures in batches, prompt by prompt, `n` of each. Noise depends on (seed, prompt index, sample index)
        alone. progress(done, total) counts pictures. keys: the pictures to draw, as (prompt index, sample index),
        instead of `n` of each.

        prompts: captions, or features of them that another program computed (UserError if they are not as wide as this
        model's text encoder makes them).
        """
        if isinstance(prompts, TextFeatures) and prompts.shape != self.text_encoder.shape:
            raise UserError(
                f"text features of width {prompts.shape.sentence}, but model '{self.config.model}' takes "
                f"{self.text_encoder.shape.sentence} for sentences and {self.text_encoder.shape.words} for words: "
                "compute them with the encoder that it was trained with"
            )
        choice = sampler or self.sampler()
        drawing: Sampler = resolve(registry().samplers[choice.name].build)(choice.config)
        wanted = tuple((p, s) for p in range(len(prompts)) for s in range(n)) if keys is None else tuple(keys)
        return self._pictures(drawing, prompts, PromptNoise(seed, wanted, self.device), batch_size, progress)

    def _pictures(
        self, drawing: Sampler, prompts: Prompts, noise: PromptNoise, batch_size: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[list[Drawn]]:  # fmt: skip
        """One for each key of the noise, in batches."""
        size = batch_size or default_batch(self.generator.image_size)
        self.generator.eval()
        self.text_encoder.eval()
        for start in range(0, len(noise), size):
            part = noise[start : start + size]
            images = self._batch(drawing, _rows(prompts, [p for p, _ in part.keys]), part)
            if progress:
                progress(start + len(part), len(noise))
            yield [Drawn(p, s, image) for (p, s), image in zip(part.keys, images, strict=True)]

    def _batch(self, sampler: Sampler, prompts: Prompts, noise: PromptNoise) -> np.ndarray:
        with torch.no_grad():
            text, null = self._features(prompts, sampler)
            return to_bytes(sampler.sample(self.generator, text, noise, null))

    def _features(self, prompts: Prompts, sampler: Sampler) -> tuple[TextFeatures, TextFeatures | None]:
        null = self.text_encoder.null(len(prompts)) if sampler.config.guidance != 1 else None
        if isinstance(prompts, TextFeatures):
            return prompts.to(self.device), null
        return self.text_encoder.encode(prompts), null

    def sample(
        self,
        prompts: Sequence[str],
        *,
        n: int = 1,
        seed: int = 0,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        settings: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
    ) -> list[Image.Image]:
        """`n` pictures of each prompt, prompt by prompt."""
        choice = self.sampler(sampler, steps=steps, guidance=guidance, settings=settings)
        batches = self.draw(prompts, n=n, seed=seed, sampler=choice, batch_size=batch_size)
        return [Image.fromarray(drawn.image) for batch in batches for drawn in batch]

    def interpolate(
        self, first: np.ndarray, last: np.ndarray, prompt: str = "", *, n: int = 8,
        sampler: Choice[SamplerConfig] | None = None, batch_size: int | None = None,
        keys: Sequence[tuple[int, int]] | None = None,
    ) -> Iterator[list[Drawn]]:  # fmt: skip
        """`n` pictures from one to the other, uint8 (H, W, 3) of the model's size: the sampler turns both into noise,
        and draws from the noise between (Song et al. 2021, section 5.3). keys: those of them to draw, as (0, number).
        UserError if it cannot, or sizes differ."""
        size = (self.generator.image_size, self.generator.image_size, 3)
        if {first.shape, last.shape} != {size}:
            raise UserError(f"pictures of {first.shape} and {last.shape}: this model interpolates between {size}")
        choice = sampler or self.sampler()
        spec = registry().samplers[choice.name]
        if not spec.inverts:
            able = [s.name for s in registry().samplers if s.inverts and self.generator.family in s.families]
            remedy = f"use --sampler {' or '.join(able)}" if able else "no sampler of this family can"
            raise UserError(f"sampler '{choice.name}' cannot turn pictures into noise, to draw between them: {remedy}")
        shares = torch.linspace(0, 1, n)
        wanted = tuple((0, s) for s in range(n)) if keys is None else tuple(keys)
        drawing, pictures = resolve(spec.build)(choice.config), np.stack([first, last])
        return self._between(drawing, pictures, prompt, wanted, shares[[s for _, s in wanted]], batch_size)

    def _between(
        self, drawing: Sampler, pictures: np.ndarray, prompt: str, keys: tuple[tuple[int, int], ...], shares: Tensor,
        batch_size: int | None,
    ) -> Iterator[list[Drawn]]:  # fmt: skip
        self.generator.eval()
        self.text_encoder.eval()
        with torch.no_grad():
            ends = to_tensor(pictures, self.device)
            text, null = self._features([prompt] * 2, drawing)
            begin, end = drawing.invert(self.generator, ends, text, null)
            between = slerp(begin, end, shares.to(self.device))
        yield from self._pictures(drawing, [prompt], PromptNoise(0, keys, self.device, between), batch_size)

    @property
    def device(self) -> torch.device:
        return self.generator.device

    def save(self, folder: Path) -> None:
        """Writes a sealed folder that `load_model` reads: settings, weights and assets."""
        with sealed(folder) as place:
            write_json(place / "config.json", {"format": 1, "run": self.config.dump()})
            for name, module in self._parts():
                save_tensors(place / f"{name}.safetensors", owned_tensors(module))
                (place / name).mkdir()
                module.save_assets(place / name)

    def _parts(self) -> list[tuple[str, Generator | TextEncoder]]:
        return [("generator", self.generator), ("text_encoder", self.text_encoder)]


def _rows(prompts: Prompts, rows: Sequence[int]) -> Prompts:
    return prompts[rows] if isinstance(prompts, TextFeatures) else [prompts[row] for row in rows]


def default_batch(image_size: int) -> int:
    """Pictures sampled at once: throughput levels off near 64 pictures of 64 px."""
    return max(1, min(64, 64 * 64**2 // image_size**2))


def build(config: RunConfig, assets: Path | None = None) -> Model:
    """A model with fresh weights (drawn from torch's global generator), or, given the folder of a saved model, one
    whose assets come from there (its weights are then still to be loaded)."""
    spec, encoder = registry().models[config.model], registry().encoders[config.encoder.name]
    text_encoder = resolve(encoder.build)(config.encoder.config, assets / "text_encoder" if assets else None)
    generator = resolve(spec.generator)(config.settings, text_encoder.shape, assets / "generator" if assets else None)
    if config.settings.channels_last:
        generator.to(memory_format=torch.channels_last)
    return Model(config, generator, text_encoder)


def load_model(folder: Path) -> Model:
    """The model in a folder that `Model.save` wrote. UserError if anything in it is missing, damaged or foreign."""
    what = f"model {folder}"
    settle(folder)
    if not folder.is_dir():
        raise UserError(f"{what}: no such folder; train one with 't2i train' or name another with --run")
    verify(folder, what)
    document = read_json(folder / "config.json", what)
    run = document.get("run") if isinstance(document, dict) else None
    config = RunConfig.parse(run if isinstance(run, dict) else {}, str(folder / "config.json"))
    try:
        model = build(config, folder)
    except (RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, MemoryError, OSError) as error:
        # Settings that are legal one by one may still describe no network, or one that no memory holds.
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{what}: no network can be built as it says ({type(error).__name__}: {reason})") from error
    for name, module in model._parts():
        load_state(module, load_tensors(folder / f"{name}.safetensors", what), f"{what}: {name}.safetensors")
    return model


def load(run: str | Path, device: str | None = None, settings: Mapping[str, Any] | None = None) -> Model:
    """A model, ready to sample on the best device there is: that of a run directory, of its folder `model`, or of a
    folder or file in another project's layout that a model's plugin opens (`ModelSpec.foreign`), with `settings`."""
    path, settings = Path(run), settings or {}
    if not path.exists():
        raise UserError(f"run {path}: no such directory; 't2i train' makes one")
    model = None if _is_run(path) else _opened(path, settings)
    if model is None:
        if settings:
            raise UserError(f"--set {next(iter(settings))}=...: it is for other projects' files, and {path} is none")
        model = load_model(path if (path / "generator.safetensors").exists() else Run(path).model)
    return model.to(device or best_device())


def _is_run(path: Path) -> bool:
    """Whether a folder is one of ours: told at a glance, so that no plugin is asked."""
    ours = (path / "generator.safetensors", Run(path).model, Run(path).checkpoints, Run(path).metrics_file)
    return any(place.exists() for place in ours)


def _opened(path: Path, settings: Mapping[str, Any]) -> Model | None:
    """What the first model that knows this layout makes of it; None where none does, and it may be a run."""
    able = [spec for spec in registry().models if spec.foreign]
    for spec in able:
        model: Model | None = resolve(str(spec.foreign))(path, settings)
        if model is not None:
            return model
    if path.is_file():
        names = ", ".join(spec.name for spec in able)
        raise UserError(
            f"{path} is no run, and no file that these models open: {names}; weights that a paper's authors released "
            "are made a run with 't2i import'"
        )
    return None


def opening_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a call in two parts: those with which other projects' files are opened, and the sampler's."""
    names = {name for spec in registry().models for name in spec.opening}
    opening = {name: value for name, value in settings.items() if name in names}
    return opening, {name: value for name, value in settings.items() if name not in names}


def export(model: Model, folder: Path) -> None:
    """Writes a model as a new folder in another project's layout. UserError, naming the models that can, if this one
    cannot; what the layout cannot express is refused by the model."""
    spec = registry().models[model.config.model]
    if spec.export is None:
        able = [other.name for other in registry().models if other.export]
        raise UserError(f"model '{spec.name}' has no other project's layout to be written in; those that have: {able}")
    with arriving(folder) as place:
        resolve(spec.export)(model, place)


def best_device() -> torch.device:
    """An accelerator if there is one, else the processor."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def load_state(module: nn.Module, state: Mapping[str, torch.Tensor], what: str) -> None:
    """Loads weights; UserError naming the first three tensors that are missing, surplus or misshapen."""
    own = owned_tensors(module)
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is surplus" for name in state if name not in own]
    problems += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"{what} does not fit the network: {'; '.join(problems[:3])}{more}")
    module.load_state_dict(dict(state), strict=False)


def owned_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict with shared tensors once, under their first name (safetensors refuses shared memory)."""
    seen: set[int] = set()
    owned = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            owned[name] = tensor.detach()
    return owned
