"""Folders of Karlo: each part against diffusers' own call, and images against its pipeline."""

import warnings

import pytest
import torch
from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel

from t2i.core.errors import UserError
from t2i.core.families.cascade import PREVIOUS
from t2i.core.families.schedule import DiscreteSchedule
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.models.loading import load_model
from t2i.plugins.models.dalle2.decoder import UnCLIPTextProjModel
from t2i.plugins.models.dalle2.folders import open_pretrained
from tests.plugins.models.pipelines import CAPTIONS, KEYS, changed, clip, counted, random, saved

WIDTH = 16  # of an embedding


def pipeline(folder, channels=(8, 16)):
    """A small UnCLIPPipeline of random weights, saved to a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import UnCLIPPipeline, UnCLIPScheduler

        torch.manual_seed(3)
        text, words = clip(folder / "words", projection=WIDTH)
        prior = random(
            PriorTransformer(
                num_attention_heads=2, attention_head_dim=8, num_layers=2, embedding_dim=WIDTH
            ),
            0.3,
        )
        decoder = random(
            UNet2DConditionModel(
                sample_size=8, in_channels=3, out_channels=6, block_out_channels=channels,
                down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
                up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
                mid_block_type="UNetMidBlock2DSimpleCrossAttn", cross_attention_dim=12,
                attention_head_dim=4, layers_per_block=1, norm_num_groups=4,
                resnet_time_scale_shift="scale_shift", class_embed_type="identity",
            )
        )  # fmt: skip
        projections = random(
            UnCLIPTextProjModel(
                clip_embeddings_dim=WIDTH, time_embed_dim=4 * channels[0], cross_attention_dim=12
            )
        )
        larger = {
            "sample_size": 16, "in_channels": 6, "out_channels": 3, "block_out_channels": channels,
            "down_block_types": ("ResnetDownsampleBlock2D",) * 2,
            "up_block_types": ("ResnetUpsampleBlock2D",) * 2, "layers_per_block": 1,
            "norm_num_groups": 4,
        }  # fmt: skip
        pipe = UnCLIPPipeline(
            prior=prior, decoder=decoder, text_encoder=text, tokenizer=words,
            text_proj=projections, super_res_first=random(UNet2DModel(**larger)),
            super_res_last=random(UNet2DModel(**larger)),
            prior_scheduler=UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0),
            decoder_scheduler=UnCLIPScheduler(variance_type="learned_range"),
            super_res_scheduler=UnCLIPScheduler(),
        )  # fmt: skip
        return saved(pipe, folder / "pipe")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    pipe, folder = pipeline(tmp_path_factory.mktemp("karlo"))
    return pipe, folder, open_pretrained(folder, {})


STEPS = {"prior": 4, "decoder": 4, "upsampler": 3}


def ours(model, captions=CAPTIONS):
    samplers = {part: {"steps": steps} for part, steps in STEPS.items()}
    made = model.check(captions, model.sampler(settings=samplers))
    with torch.no_grad():
        request = model.request(captions, PromptNoise(3, KEYS), null=True)
        return (made.sample(model.generator, request) / 2 + 0.5).clamp(0, 1)


def theirs(pipe, captions=CAPTIONS):
    """The pipeline's images from the noise that our parts draw."""
    noise = PromptNoise(3, KEYS)
    starts = {}
    for part, name, shape in (
        ("prior", "prior", (1, WIDTH)),
        ("decoder", "decoder", (3, 8, 8)),
        ("upsampler", "super_res", (3, 16, 16)),
    ):
        scheduler, own = getattr(pipe, f"{name}_scheduler"), noise.scope(part)
        random_numbers, step = own.generators("chain", 0), type(scheduler).step

        def with_own(*args, scheduler=scheduler, numbers=random_numbers, step=step, **more):
            return step(scheduler, *args, **{**more, "generator": numbers})

        scheduler.step = with_own
        # In float32 its 1 - abar of the first step is wrong by a thousandth.
        abar = DiscreteSchedule.named("cosine", 1000).alphas_cumprod
        scheduler.alphas_cumprod = abar
        scheduler.alphas = abar / torch.cat([abar.new_ones(1), abar[:-1]])
        scheduler.betas = 1 - scheduler.alphas
        starts[f"{name}_latents"] = own.start("x_T", shape)
    starts["prior_latents"] = starts["prior_latents"][:, 0]
    images = pipe(
        list(captions), prior_num_inference_steps=STEPS["prior"],
        decoder_num_inference_steps=STEPS["decoder"],
        super_res_num_inference_steps=STEPS["upsampler"], output_type="np",
        decoder_guidance_scale=8.0, **starts,
    ).images  # fmt: skip
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def test_images_are_the_pipelines(opened):
    pipe, _, model = opened
    found, wanted = ours(model), theirs(pipe)
    assert float(wanted.std()) > 0.01
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_the_prior_is_diffusers_with_padded_and_with_cut_captions(opened):
    pipe, _, model = opened
    words = pipe.tokenizer(
        list(CAPTIONS), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    part = model.generator.part("prior")
    x, t = torch.randn(2, 3, WIDTH), torch.tensor([7, 800])
    with torch.no_grad():
        out = pipe.text_encoder(words.input_ids)
        prediction = part(x, t, part.condition(model.text_encoder.encode(list(CAPTIONS))))
        for draw in range(3):
            wanted = pipe.prior(
                x[:, draw], t, out.text_embeds, out.last_hidden_state,
                words.attention_mask.bool(),
            ).predicted_image_embedding  # fmt: skip
            torch.testing.assert_close(prediction[:, draw], wanted, rtol=0, atol=1e-4)
        torch.testing.assert_close(part.decode(x), pipe.prior.post_process_latents(x))
    part.observe(5 * torch.randn(4, WIDTH))  # training keeps its mean and deviation
    torch.testing.assert_close(part.decode(x), pipe.prior.post_process_latents(x))


def test_the_decoder_is_diffusers_with_and_without_an_embedding(opened):
    pipe, _, model = opened
    part, text = model.generator.part("decoder"), model.text_encoder.encode(list(CAPTIONS))
    x, t, z = torch.randn(2, 3, 8, 8), torch.tensor([3, 500]), torch.randn(2, WIDTH)
    words, mask = text.words, text.mask
    with torch.no_grad():
        for guided in (False, True):
            states, time = pipe.text_proj(
                image_embeddings=z,
                prompt_embeds=torch.cat([text.sentence] * 2) if guided else text.sentence,
                text_encoder_hidden_states=torch.cat([words] * 2) if guided else words,
                do_classifier_free_guidance=guided,
            )
            shown = torch.nn.functional.pad(mask, (4, 0), value=True)
            wanted = pipe.decoder(
                x, t, states[:2], class_labels=time[:2], attention_mask=shown
            ).sample  # fmt: skip
            given = text if guided else type(text)(
                text.sentence, words, mask, text.captions, {PREVIOUS: z}
            )  # fmt: skip
            found = torch.cat(part.ranged(x, t, part.condition(given)), 1)
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_text_and_prior_run_once_and_both_branches_in_one_batch(opened):
    model = open_pretrained(opened[1], {})
    prior, decoder, upsampler = (part for part in model.generator.parts.values())
    rows = counted(
        model.text_encoder.clip, prior.unet.encoder_hidden_states_proj,
        prior.unet.proj_to_clip_embeddings, decoder.project, decoder.unet.unet,
        *upsampler.given.networks.values(),
    )  # fmt: skip
    ours(model)
    assert sum(rows[0]) == 3  # two captions, and no caption once
    assert rows[1:] == [[2, 2], [4] * 4, [2, 2], [4] * 4, [2] * 2, [2]]


def test_the_upsamplers_second_network_makes_the_last_step_and_is_told_no_level(opened):
    part = opened[2].generator.part("upsampler")
    first, second = part.given.networks.values()
    x, t = torch.randn(3, 6, 16, 16), torch.tensor([0, 5, 0])
    with torch.no_grad():
        found, wanted = part.given(x, t, None), second(x, t).sample
        wanted[1] = first(x, t).sample[1]
    torch.testing.assert_close(found, wanted)
    with pytest.raises(UserError, match="not told the level: set it to 0"):
        part.enlarging(torch.zeros(2, 3, 8, 8), PromptNoise(3, KEYS), torch.full((2,), 0.1))


def test_a_saved_model_draws_the_same(opened, tmp_path):
    _, _, model = opened
    model.save(tmp_path / "saved")
    torch.testing.assert_close(ours(load_model(tmp_path / "saved")), ours(model), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "setting", "message"),
    [
        ("model_index.json", {"prior": ["diffusers", "OtherPrior"]}, "OtherPrior"),
        ("prior/config.json", {"added_emb_type": None}, "added_emb_type"),
        ("decoder_scheduler/scheduler_config.json", {"variance_type": "odd"}, "variance_type"),
    ],
)
def test_folders_that_are_not_karlos_are_refused(opened, tmp_path, file, setting, message):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(opened[1], folder)
    changed(folder / file, **setting)
    with pytest.raises(UserError, match=message):
        open_pretrained(folder, {})


def test_other_folders_are_not_opened(tmp_path):
    assert open_pretrained(tmp_path, {}) is None
