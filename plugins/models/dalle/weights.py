"""Import of minDALL-E (github.com/kakaobrain/minDALL-E). OpenAI released no transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.io.files import read_file
from t2i.core.io.json_files import read_object
from t2i.core.models.model import Model
from t2i.core.models.weights import load_state
from t2i.core.registry.choice import Choice
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.core.settings import Config
from t2i.plugins.common.causal.generator import TokenGenerator
from t2i.plugins.common.tokens.dvae_weights import MARK, refuse_pickles
from t2i.plugins.common.tokens.taming import translated
from t2i.plugins.common.tokens.tokenizer import ImageTokenizer, fill
from t2i.plugins.common.weights.legacy import read_lightning, side
from t2i.plugins.models.dalle.config import DalleConfig
from t2i.plugins.models.dalle.networks import DalleTransformer

NEEDED = (
    "dalle: minDALL-E is four files: stage1_last.ckpt, stage2_last.ckpt, bpe-16k-vocab.json and "
    "bpe-16k-merges.txt"
)


def load(config: RunConfig, files: Sequence[Path]) -> Model:
    """Build a model from the four files of minDALL-E (`t2i import`).

    Args:
        config: The run's configuration. Its sizes become those of the files; its number of heads
            and its sampler are kept.
        files: The two checkpoints, the vocabulary and the merges, in any order. Checkpoints are
            recognised by their content.

    Returns:
        The model.

    Raises:
        UserError: A file is missing or is none of the four, or they do not fit together.
    """
    for path in files:
        refuse_pickles(path)
    states: dict[str, tuple[Path, dict[str, Tensor]]] = {}
    texts: dict[str, Path] = {}
    for path in files:
        if path.suffix in (".json", ".txt"):
            texts[path.suffix] = path
            continue
        state = read_lightning(path)
        if MARK in state:
            raise UserError(f"dalle: {path} is openai's dVAE: set tokenizer.weights to it")
        states["stage2" if "tok_emb_img.weight" in state else "stage1"] = path, state
    if len(files) != 4 or len(states) != 2 or len(texts) != 2:
        raise UserError(NEEDED)
    (path, network), (first, stage1) = states["stage2"], states["stage1"]
    where = f"weights {path}"
    tokenizer_config, own = translated(stage1, f"weights {first}")
    settings = config.settings
    assert isinstance(settings, DalleConfig)
    settings = DalleConfig.of(
        {**sizes_of(network, where, settings.transformer.heads),
         "tokenizer": tokenizer_config.model_dump()},
        "dalle", settings.model_dump(),
    )  # fmt: skip
    choice = text_choice(config.encoder, texts[".json"], texts[".txt"], settings.text_length)
    encoder = import_object(registry().encoders["bpe"].build)(choice.config, None)
    tokenizer = ImageTokenizer(settings.tokenizer, settings.image_size)
    fill(tokenizer, own, str(first))
    transformer = DalleTransformer(settings, tokenizer.vocabulary, tokenizer.side, encoder.shape)
    load_state(transformer, network, where)
    generator = TokenGenerator(tokenizer, transformer)
    return Model(replace(config, settings=settings, encoder=choice), generator, encoder)


def sizes_of(state: Mapping[str, Tensor], where: str, heads: int) -> dict[str, object]:
    """Return the settings that minDALL-E's transformer has.

    Args:
        state: Its tensors.
        where: The file, for errors.
        heads: Number of heads, which tensors do not tell.

    Returns:
        The settings.

    Raises:
        UserError: A tensor that tells a size is missing.
    """
    layers = [int(key.split(".")[1]) for key in state if key.startswith("blocks.")]
    return {
        "reads": "tokens", "padding": "token", "positions": "learned", "text": {},
        "text_length": side(state, "pos_emb_txt.weight", where),
        "text_vocabulary": side(state, "tok_emb_txt.weight", where),
        "transformer": {
            "width": side(state, "tok_emb_txt.weight", where, 1),
            "layers": 1 + max(layers, default=0), "heads": heads,
            "attention": ("full",), "last_attention": None,
        },
    }  # fmt: skip


def text_choice(
    given: Choice[Config], vocabulary: Path, merges: Path, length: int
) -> Choice[Config]:
    """Describe minDALL-E's tokenizer as a text encoder `bpe`.

    Args:
        given: The text encoder that the user chose. It is replaced.
        vocabulary: Numbers of the tokens, JSON.
        merges: Pairs of tokens, one a line.
        length: Number of tokens of a caption.

    Returns:
        The text encoder.

    Raises:
        UserError: A file cannot be read, or numbers are left out.
    """
    numbers = read_object(vocabulary, f"vocabulary {vocabulary}")
    ordered = sorted(numbers, key=lambda token: int(numbers[token]))
    if [numbers[token] for token in ordered] != list(range(len(ordered))):
        raise UserError(f"vocabulary {vocabulary}: its numbers are not 0, 1, 2, ...")
    lines = read_file(merges, f"merges {merges}").decode("utf-8", "replace").splitlines()
    pairs = [line for line in lines if line and not line.startswith("#version")]
    settings = {"vocabulary": ordered, "merges": pairs, "length": length, "lower": True}
    return registry().encoders.choose("bpe", settings, "text encoder")
