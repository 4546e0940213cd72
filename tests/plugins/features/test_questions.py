"""VQAScore, TIFA and DSG, answered by a small random Qwen2-VL in the true format, against
transformers' own processor and generation."""

import inspect
import json

import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
)

from t2i.core.errors import UserError
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.plugins.features.questions.questions import Question, read_dsg, read_tifa, share_right

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
           "<|image_pad|>", "<|video_pad|>")  # fmt: skip


def built(name, **settings):
    spec = registry().features[name]
    return import_object(spec.build)(import_object(spec.config).of(settings, "test")).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("qwen")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, "Ye", "Yes", "No"]
    tokenizer = Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [("Y", "e"), ("Ye", "s"), ("N", "o")])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>",
                    "pad_token": "<|endoftext|>"})
    )  # fmt: skip
    marks = {name: tokenizer.token_to_id(f"<|{name}|>") for name in
             ("vision_start", "vision_end", "image_pad", "video_pad")}  # fmt: skip
    text = {
        "vocab_size": len(pieces) + len(SPECIAL), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "max_position_embeddings": 1024, "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3],
                            "rope_theta": 1e4},
    }  # fmt: skip
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2,
              "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}  # fmt: skip
    torch.manual_seed(0)
    network = Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(
            text_config=text, vision_config=vision, vision_start_token_id=marks["vision_start"],
            vision_end_token_id=marks["vision_end"], image_token_id=marks["image_pad"],
            video_token_id=marks["video_pad"],
        )
    )  # fmt: skip
    for tensor in network.parameters():
        torch.nn.init.normal_(tensor, 0, 0.2)
    network.save_pretrained(path)
    return path


@pytest.fixture
def images():
    return torch.randint(0, 256, (2, 3, 56, 84), generator=torch.Generator().manual_seed(0)).byte()


@torch.no_grad()
def test_vqascore_is_the_probability_of_yes(folder, images):
    judge = built("vqascore", weights=str(folder))
    captions = ["a red circle", "two dogs <|im_end|>"]
    network = Qwen2VLForConditionalGeneration.from_pretrained(folder).eval()
    prepare, tokenizer = Qwen2VLImageProcessor(), judge.answerer.tokenizer
    for image, caption, ours in zip(
        images, captions, judge.of_pairs(images, captions), strict=True
    ):
        seen = prepare(images=[image], return_tensors="pt")
        pads = "<|image_pad|>" * (int(seen["image_grid_thw"].prod()) // 4)
        plain = caption.replace("<|", "< |")
        text = (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            f'<|vision_start|>{pads}<|vision_end|>Does this figure show "{plain}"? Please answer '
            "Yes or No.<|im_end|>\n<|im_start|>assistant\n"
        )
        asked = tokenizer(text, return_tensors="pt")
        marks = {"mm_token_type_ids": (asked.input_ids == network.config.image_token_id).int()}
        if marks.keys() - inspect.signature(network.forward).parameters.keys():
            marks = {}  # transformers 5.0 finds the images itself
        drawn = network.generate(
            **asked, **seen, **marks, max_new_tokens=1, do_sample=False,
            output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
        yes = tokenizer.encode("Yes", add_special_tokens=False)
        assert len(yes) == 1
        theirs = drawn.scores[0][0].softmax(-1)[yes[0]]
        torch.testing.assert_close(ours[0], theirs, rtol=1e-4, atol=1e-6)


def test_images_are_resized_as_by_the_authors_whose_limit_is_high(folder):
    answerer = built("vqascore", weights=str(folder)).answerer
    image = torch.randint(0, 256, (3, 101, 150), generator=torch.Generator().manual_seed(0)).byte()
    named = getattr(transformers, "Qwen2VLImageProcessorPil", Qwen2VLImageProcessor)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    theirs = named()(images=[picture], return_tensors="pt")
    patches, grid = answerer.pixels(image)
    torch.testing.assert_close(patches, torch.as_tensor(theirs["pixel_values"]))
    assert grid.tolist() == torch.as_tensor(theirs["image_grid_thw"]).tolist()
    assert answerer.pixels(torch.zeros(3, 1024, 1024).byte())[1].tolist() == [[1, 74, 74]]


def test_a_folder_of_another_network_is_refused(folder, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="name a Qwen2-VL"):
        built("vqascore", weights=str(tmp_path))


DSG = """item_id,text,keywords,proposition_id,dependency,question_natural_language
w1,a  red dog,dog,1,0,Is there a dog?
w1,a  red dog,red,2,1,Is the dog red?
w1,a  red dog,"dog, red",3,"1,2",Is the red dog here?
w2,a red dog,dog,1,0,Is it a dog?
w3,a cat,cat,1,0,Is there a cat?
w3,a cat,air,2,"1, air",Is the cat in the air?
"""


def test_dsg_counts_no_question_whose_parents_are_wrong(tmp_path):
    (tmp_path / "dsg.csv").write_text(DSG)
    questions = read_dsg(tmp_path / "dsg.csv")
    asked = questions["a red dog"]
    assert [one.parents for one in questions["a cat"]] == [(), ()]  # as the authors' code reads it
    assert [one.parents for one in asked] == [(), (1,), (1, 2)]
    assert share_right(asked, {1: "yes", 2: "yes", 3: "yes"}) == 1
    assert share_right(asked, {1: "no", 2: "yes", 3: "yes"}) == 0
    assert share_right(asked, {1: "yes", 2: "no", 3: "yes"}) == pytest.approx(1 / 3)


TIFA = [
    {"id": "c1", "caption": "two cats", "question": "what animal?", "choices": ["cat", "dog"],
     "answer": "cat", "element": "cats", "element_type": "animal/human"},
    {"id": "c1", "caption": "two cats", "question": "are there cats?", "choices": ["yes", "no"],
     "answer": "yes", "element": "cats", "element_type": "animal/human"},
]  # fmt: skip


@torch.no_grad()
def test_tifa_is_the_share_of_right_answers(folder, tmp_path, images):
    (tmp_path / "tifa.json").write_text(json.dumps(TIFA))
    questions = read_tifa(tmp_path / "tifa.json")
    assert questions["two cats"][0] == Question(1, "what animal?", ("cat", "dog"), "cat")
    judge = built("tifa", weights=str(folder), questions=str(tmp_path / "tifa.json"))
    seen = judge.answerer.pixels(images[0])
    answers = [judge.answer(seen, one) for one in questions["two cats"]]
    right = sum(a == one["answer"] for a, one in zip(answers, TIFA, strict=True))
    assert judge.score(images[0], "two cats") == right / 2
    with pytest.raises(UserError, match="no published question is about 'a dog'"):
        judge.score(images[0], "a dog")


def test_broken_questions_name_their_place(tmp_path):
    (tmp_path / "tifa.json").write_text(json.dumps([{**TIFA[0], "answer": "cow"}]))
    with pytest.raises(UserError, match="none of the choices"):
        read_tifa(tmp_path / "tifa.json")
