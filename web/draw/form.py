"""The form of the tab Draw: its fields, and the wish that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from t2i.core.registry.tables import registry
from t2i.web.draw.restoring import Restored
from t2i.web.draw.sources import Source
from t2i.web.draw.wish import AXES, MODELS, Axis, Settings, Wish, listed, number, whole

OWN = ""
"""The choice of each model's own sampler."""


@dataclass(frozen=True)
class Form:
    """The fields of the form.

    Args:
        models: The models.
        prompts: The prompts, one a line.
        negative: The negative prompt.
        sampler: The sampler.
        steps: Number of sampling steps; empty: each model's own.
        guidance: Scale of guidance; empty: each model's own.
        seed: Seed of the noise.
        images: Images of each prompt.
        more: Further settings of the sampler, NAME=VALUE, one a line.
        x: What varies from column to column.
        x_values: Its values.
        y: What varies from row to row.
        y_values: Its values.
    """

    models: gr.Dropdown
    prompts: gr.Textbox
    negative: gr.Textbox
    sampler: gr.Dropdown
    steps: gr.Textbox
    guidance: gr.Textbox
    seed: gr.Number
    images: gr.Number
    more: gr.Textbox
    x: gr.Dropdown
    x_values: gr.Textbox
    y: gr.Dropdown
    y_values: gr.Textbox

    @property
    def fields(self) -> list[gr.components.Component]:
        """All fields, in order."""
        return [getattr(self, name) for name in self.__dataclass_fields__]

    def wish(self, *values: Any) -> Wish:
        """Read what the visitor wishes.

        Args:
            values: Value of each of `fields`.

        Returns:
            The wish.

        Raises:
            UserError: A field holds what it cannot.
        """
        given = dict(zip(self.__dataclass_fields__, values, strict=True))
        models = tuple(str(name) for name in given["models"] or ())
        lines = (line.strip() for line in str(given["prompts"] or "").splitlines())
        steps, guidance = (str(given[name] or "").strip() for name in ("steps", "guidance"))
        settings = Settings(
            model="",
            sampler=str(given["sampler"]) if given["sampler"] else None,
            steps=whole(steps, "steps") if steps else None,
            guidance=number(guidance, "guidance") if guidance else None,
            seed=whole(0 if given["seed"] is None else given["seed"], "seed"),
            negative=str(given["negative"] or "").strip(),
            more=tuple(
                line.strip() for line in str(given["more"] or "").splitlines() if line.strip()
            ),
        )
        axes = (
            Axis(str(given[side] or default), listed(str(given[f"{side}_values"] or "")))
            for side, default in (("x", "model"), ("y", "prompt"))
        )
        prompts = tuple(dict.fromkeys(line for line in lines if line))
        images = whole(1 if given["images"] is None else given["images"], "images")
        return Wish(models, prompts, settings, images, *axes)

    def filled(self, wish: Wish) -> list[Any]:
        """Fill the form with a wish.

        Args:
            wish: The wish.

        Returns:
            An update of each of `fields`.
        """
        settings = wish.settings
        steps, guidance = (
            "" if value is None else str(value) for value in (settings.steps, settings.guidance)
        )
        return [
            list(wish.models), "\n".join(wish.prompts), settings.negative, settings.sampler or OWN,
            steps, guidance, settings.seed, wish.images,
            "\n".join(settings.more), wish.x.name, "; ".join(wish.x.values), wish.y.name,
            "; ".join(wish.y.values),
        ]  # fmt: skip


def wish_of(image: Restored) -> Wish:
    """Make the wish that draws an image again.

    Args:
        image: What its file says.

    Returns:
        The wish.
    """
    models = (image.settings.model,) if image.settings.model else ()
    return Wish(models, (image.prompt,), image.settings, image.images)


def samplers(found: Mapping[str, Source], names: list[str]) -> list[tuple[str, str]]:
    """List the samplers that fit at least one of some models.

    Args:
        found: The models that the page serves.
        names: The chosen ones.

    Returns:
        What is shown, and the value, of each.
    """
    families = {found[name].family for name in names if name in found}
    known = families and "" not in families
    fitting = [
        spec.name
        for spec in registry().samplers
        if not known or "*" in spec.families or families & set(spec.families)
    ]
    return [("each model's own", OWN), *((name, name) for name in fitting)]


def form(found: Mapping[str, Source], buttons: Sequence[gr.Button]) -> Form:
    """Lay the fields out.

    Args:
        found: The models that the page serves.
        buttons: Buttons that stand under what is always seen.

    Returns:
        The form.
    """
    names = list(found)
    models = gr.Dropdown(
        names, value=names[:1], multiselect=True, max_choices=MODELS, label="Models",
        info=f"One to {MODELS}; all have the same noise.", elem_id="draw-models",
    )  # fmt: skip
    prompts = gr.Textbox(
        label="Prompts", info="Each line is one.", lines=3, max_lines=12, elem_id="draw-prompts"
    )
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=90, elem_id="draw-seed")
        images = gr.Number(
            2, label="Images a prompt", precision=0, minimum=1, min_width=90, elem_id="draw-images"
        )
    with gr.Row():
        for button in buttons:
            button.render()  # type: ignore[no-untyped-call]
    with gr.Accordion("Sampler", open=False, elem_id="draw-more"):
        sampler = gr.Dropdown(
            samplers(found, names[:1]), value=OWN, label="Sampler", elem_id="draw-sampler"
        )
        with gr.Row():
            steps, guidance = _optional("Steps"), _optional("Guidance")
        negative = gr.Textbox(
            label="Negative prompt", info="Guidance leads away from it.", elem_id="draw-negative"
        )
        more = gr.Textbox(
            label="Further settings", info="NAME=VALUE, each on a line, such as eta=0.5.", lines=1,
            max_lines=6, elem_id="draw-settings",
        )  # fmt: skip
    with gr.Accordion("Grid", open=False, elem_id="draw-grid"):
        sides = [_side("Columns", "x", "model"), _side("Rows", "y", "prompt")]
    return Form(
        models,
        prompts,
        negative,
        sampler,
        steps,
        guidance,
        seed,
        images,
        more,
        *sides[0],
        *sides[1],
    )


def _optional(label: str) -> gr.Textbox:
    """Lay out the field of a number that may be empty. An empty Gradio number turns into 0."""
    return gr.Textbox(
        label=label, placeholder="each model's own", max_lines=1, min_width=90,
        elem_id=f"draw-{label.lower()}",
    )  # fmt: skip


def _side(label: str, side: str, default: str) -> tuple[gr.Dropdown, gr.Textbox]:
    """Lay out one side of the grid."""
    with gr.Row():
        name = gr.Dropdown(
            list(AXES), value=default, label=label, allow_custom_value=True, min_width=110,
            elem_id=f"draw-{side}",
        )  # fmt: skip
        values = gr.Textbox(
            label="Values", placeholder="1, 2, 4", min_width=110, elem_id=f"draw-{side}-values"
        )
    return name, values
