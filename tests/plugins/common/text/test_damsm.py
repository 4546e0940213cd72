"""DAMSM: scores and losses against values worked out one by one, its training, and its image
encoders."""

import hashlib
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import Inception3

from t2i.core.engine.local import LocalEngine
from t2i.core.errors import UserError
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i.core.interfaces.trainer import Batch
from t2i.core.settings.engine import EngineConfig
from t2i.plugins.common.text.config import DamsmTraining, ImageEncoderConfig, Smoothing
from t2i.plugins.common.text.damsm import (
    DamsmTrainer,
    ImageFeatures,
    damsm_losses,
    matching_loss,
    sentence_scores,
    word_scores,
)
from t2i.plugins.common.text.image_encoder import (
    InceptionEncoder,
    SmallImageEncoder,
    authors_state,
    check_source,
    load_image_encoder,
)
from t2i.plugins.common.weights.legacy import counted

LENGTHS = [3, 1, 5]


def example(seed=0):
    """Regions (3, D 4, N 6), words (3, L 5, D 4) with whatever in the padding, mask, codes and
    sentences, in double."""
    random = torch.Generator().manual_seed(seed)
    sizes = (3, 4, 6), (3, 5, 4), (3, 7), (3, 7)
    regions, words, code, sentence = (
        torch.randn(s, generator=random, dtype=torch.float64) for s in sizes
    )
    return regions, words, torch.arange(5) < torch.tensor(LENGTHS)[:, None], code, sentence


def score_by_hand(regions, words, gamma1, gamma2):
    """Equations 7 to 10 for one image (D, N) and one caption (T, D), a word and a region at a
    time."""
    s = words @ regions
    weights = torch.stack(
        [torch.exp(s[:, n]) / torch.exp(s[:, n]).sum() for n in range(s.shape[1])], 1
    )
    total = 0
    for t, e in enumerate(words):
        alpha = torch.exp(gamma1 * weights[t]) / torch.exp(gamma1 * weights[t]).sum()
        c = sum(alpha[n] * regions[:, n] for n in range(s.shape[1]))
        total = total + torch.exp(gamma2 * (e @ c) / (e.norm() * c.norm()))
    return torch.log(total)


# --- losses ---------------------------------------------------------------------------------------


def test_word_scores_and_their_gradients_one_by_one():
    regions, words, mask, _, _ = example()
    regions.requires_grad_(), words.requires_grad_()
    scores = word_scores(regions, words, mask, 4.0, 5.0)
    rows = [
        [score_by_hand(v, e[:n], 4.0, 5.0) for e, n in zip(words, LENGTHS, strict=True)]
        for v in regions
    ]
    expected = torch.stack([torch.stack(row) for row in rows])
    torch.testing.assert_close(scores, expected)
    weight = torch.randn(3, 3, dtype=torch.float64)
    ours = torch.autograd.grad((weight * scores).sum(), [regions, words])
    theirs = torch.autograd.grad((weight * expected).sum(), [regions, words])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_word_score_in_closed_form():
    """One region: attention has no choice, the context is the region, and the score log sum
    exp(gamma2 cos)."""
    regions, words = torch.tensor([[[2.0], [0.0]]]), torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])
    score = word_scores(regions, words, torch.ones(1, 2, dtype=torch.bool), 4.0, 5.0)
    assert score.item() == pytest.approx(math.log(math.exp(5) + 1))


def test_a_padded_word_changes_nothing():
    regions, words, mask, _, _ = example()
    words.requires_grad_()
    scores = word_scores(regions, words, mask, 4.0, 5.0)
    loud = torch.where(mask[..., None], words, torch.full_like(words, 1e3))
    torch.testing.assert_close(word_scores(regions, loud, mask, 4.0, 5.0), scores)
    silent = word_scores(regions, words * mask[..., None], mask, 4.0, 5.0)  # what the encoders give
    torch.testing.assert_close(silent, scores)
    (gradient,) = torch.autograd.grad(silent.sum(), words)
    assert gradient.isfinite().all()
    assert not gradient[~mask].any()
    alone = word_scores(regions, words[1:2, :1], mask[1:2, :1], 4.0, 5.0)
    torch.testing.assert_close(alone[:, 0], scores[:, 1])


def test_permuting_the_batch_permutes_the_scores_and_keeps_the_losses():
    regions, words, mask, code, sentence = example()
    order = [2, 0, 1]
    text, moved = (
        TextFeatures(sentence, words, mask),
        TextFeatures(sentence[order], words[order], mask[order]),
    )
    for scores, permuted in (
        (
            word_scores(regions, words, mask, 4, 5),
            word_scores(regions[order], words[order], mask[order], 4, 5),
        ),
        (sentence_scores(code, sentence), sentence_scores(code[order], sentence[order])),
    ):
        torch.testing.assert_close(permuted, scores[order][:, order])
    before = damsm_losses(ImageFeatures(regions, code), text, Smoothing())
    after = damsm_losses(ImageFeatures(regions[order], code[order]), moved, Smoothing())
    torch.testing.assert_close(before, after)


def test_sentence_scores_are_cosines():
    *_, code, sentence = example()
    for i in range(3):
        for j in range(3):
            cosine = code[i] @ sentence[j] / code[i].norm() / sentence[j].norm()
            assert sentence_scores(code, sentence)[i, j].item() == pytest.approx(cosine.item())


def test_matching_loss_and_its_gradient_by_hand():
    scores = torch.tensor([[2.0, 0.0], [1.0, 3.0]], requires_grad=True)
    loss = matching_loss(scores)
    rows, columns = [2, 2], [1, 3]  # how far the right one is ahead, in each row and column
    assert loss.item() == pytest.approx(sum(math.log(1 + math.exp(-d)) for d in rows + columns) / 2)
    loss.backward()
    p = [1 / (1 + math.exp(d)) for d in (2, 2, 1, 3)]
    expected = torch.tensor([[-p[0] - p[2], p[0] + p[3]], [p[1] + p[2], -p[1] - p[3]]]) / 2
    torch.testing.assert_close(scores.grad, expected)


def test_others_of_the_same_class_are_no_mismatches():
    scores = torch.randn(4, 4, requires_grad=True)
    classes = torch.tensor([7, 3, 7, 1])
    loss = matching_loss(scores, classes)
    keep = [[0, 1, 3], [0, 1, 2, 3], [1, 2, 3], [0, 1, 2, 3]]
    rows = [torch.logsumexp(scores[i, keep[i]], 0) - scores[i, i] for i in range(4)]
    columns = [torch.logsumexp(scores[keep[i], i], 0) - scores[i, i] for i in range(4)]
    assert loss.item() == pytest.approx((sum(rows) + sum(columns)).item() / 4, rel=1e-5)
    loss.backward()
    assert scores.grad[0, 2] == scores.grad[2, 0] == 0
    assert scores.grad.isfinite().all()


def test_losses_are_the_sharpened_scores_with_the_data_sets_classes():
    regions, words, mask, code, sentence = example()
    text, smoothing = TextFeatures(sentence, words, mask), Smoothing(gamma1=2, gamma2=3, gamma3=7)
    for given, used in ((None, None), (("a", "b", "a"), None), (torch.tensor([1, 0, 1]),) * 2):
        ours = damsm_losses(ImageFeatures(regions, code), text, smoothing, given)
        assert ours[0].item() == pytest.approx(
            matching_loss(7 * word_scores(regions, words, mask, 2, 3), used).item()
        )
        assert ours[1].item() == pytest.approx(
            matching_loss(7 * sentence_scores(code, sentence), used).item()
        )


def test_factors_are_those_of_the_authors_code():
    assert tuple(Smoothing().model_dump().values()) == (4, 5, 10)


# --- training -------------------------------------------------------------------------------------


class Letters(TextEncoder):
    """One learnt vector a letter."""

    def __init__(self, frozen=False):
        super().__init__()
        self.shape = TextShape(6, 6)
        self.table = nn.Embedding(128, 6).requires_grad_(not frozen)

    def encode(self, captions):
        rows = [[ord(letter) for letter in caption] for caption in captions]
        length = max(map(len, rows))
        mask = torch.tensor([[i < len(row) for i in range(length)] for row in rows])
        words = self.table(torch.tensor([row + [0] * (length - len(row)) for row in rows]))
        return TextFeatures.of(words=words, mask=mask, captions=captions)


class Recorder(LocalEngine):
    """The engine of one process, at a moment of the stage; notes the loss, the gradients and the
    learning rates."""

    def __init__(self, trainer, progress=0.0):
        super().__init__(trainer, EngineConfig(), progress=progress)
        self.begin_step(10)
        self.optimizer = trainer.optimizers["damsm"].optimizer
        self.handle = self.optimizer.register_step_pre_hook(self._note)

    def update(self, name, loss):
        self.loss = loss.item()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.before = self._by_group(
            dict(
                zip(
                    parameters,
                    torch.autograd.grad(loss, parameters, retain_graph=True),
                    strict=True,
                )
            )
        )
        super().update(name, loss)
        self.handle.remove()

    def _by_group(self, gradients):
        return [
            [gradients[p].clone() for p in group["params"]] for group in self.optimizer.param_groups
        ]

    def _note(self, optimizer, *_):
        groups = optimizer.param_groups
        self.after = self._by_group({p: p.grad for group in groups for p in group["params"]})
        self.rates = [group["lr"] for group in groups]


def batch(encoder, captions=("red", "green", "blue"), **extras):
    n = len(captions)
    images = torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return Batch(images, captions, captions, StepNoise(0, 0, 0, n, n), encoder.encode, extras)


def trainer(frozen=False, **settings):
    torch.manual_seed(0)
    encoder = Letters(frozen)
    return DamsmTrainer(
        DamsmTraining(**settings), encoder, SmallImageEncoder(16, 4, encoder.shape)
    ), encoder


def test_a_step_lowers_the_two_losses_and_clips_the_text_encoders_gradients_alone():
    made, encoder = trainer(clip=1e-3)
    engine, examples = Recorder(made), batch(encoder, class_id=torch.tensor([0, 1, 0]))
    expected = damsm_losses(
        made.image_encoder(examples.images), examples.text, Smoothing(), torch.tensor([0, 1, 0])
    )
    losses = made.step(examples, engine)
    assert engine.loss == pytest.approx(sum(expected).item(), rel=1e-5)
    assert losses["words"].item() + losses["sentence"].item() == pytest.approx(
        engine.loss, rel=1e-5
    )
    images, texts = zip(engine.before, engine.after, strict=True)
    assert all(torch.equal(a, b) for a, b in zip(*images, strict=True))
    norms = [torch.cat([g.flatten() for g in part]).norm().item() for part in texts]
    assert norms[0] > 1e-3
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)


def test_learning_rates_fall_by_epochs_to_a_tenth():
    made, encoder = trainer(lr=2e-3, lr_text=1e-3, epochs=200)
    for progress, factor in (
        (0.0, 1.0),
        (0.0049, 1.0),
        (0.0051, 0.98),
        (0.5, 0.98**100),
        (1.0, 0.1),
    ):
        engine = Recorder(made, progress)
        made.step(batch(encoder), engine)
        assert engine.rates == pytest.approx([2e-3 * factor, 1e-3 * factor])


def test_it_learns_which_caption_is_which():
    made, encoder = trainer(lr=1e-2)
    found = [made.step(batch(encoder), Recorder(made))["found"].item() for _ in range(60)]
    assert found[-1] == 1


def test_a_frozen_text_encoder_is_left_alone():
    made, encoder = trainer(frozen=True)
    before = encoder.table.weight.clone()
    made.step(batch(encoder), Recorder(made))
    assert torch.equal(encoder.table.weight, before)
    assert set(made.modules) == {"image_encoder"}
    defaults = made.optimizers["damsm"].optimizer.defaults
    assert (defaults["lr"], defaults["betas"]) == (2e-3, (0.5, 0.999))


def test_preview_shows_what_each_caption_finds():
    made, encoder = trainer()
    examples = batch(encoder)
    shown = made.preview(examples)
    assert torch.equal(shown[::2], examples.images)
    scores = sentence_scores(made.image_encoder(examples.images).code, examples.text.sentence)
    assert torch.equal(shown[1::2], examples.images[scores.argmax(0)])


# --- image encoders -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_the_small_encoder_gives_regions_and_a_code(size):
    seen = SmallImageEncoder(size, 4, TextShape(5, 7))(torch.randn(2, 3, size, size))
    assert seen.regions.shape == (2, 7, 16)
    assert seen.code.shape == (2, 5)


@pytest.fixture(scope="module")
def inception():
    """torchvision's own network, with statistics that matter."""
    torch.manual_seed(0)
    network = Inception3(transform_input=False, init_weights=False).eval()
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if "running_mean" in name:
                buffer.normal_(0, 0.1)
            if "running_var" in name:
                buffer.uniform_(0.5, 1.5)
    return network


def saved(network, folder, old=False):
    """Its weights as torchvision publishes them: the file's name ends in the beginning of its
    SHA-256."""
    state = {
        n: t
        for n, t in network.state_dict().items()
        if not (old and n.endswith("num_batches_tracked"))
    }
    torch.save(state, folder / "weights")
    digest = hashlib.sha256((folder / "weights").read_bytes()).hexdigest()
    return (folder / "weights").rename(folder / f"inception_v3_google-{digest[:8]}.pth")


def test_inception_loads_torchvisions_file_and_sees_what_torchvisions_network_sees(
    inception, tmp_path
):
    path = saved(inception, tmp_path, old=True)
    encoder = InceptionEncoder(TextShape(5, 7))
    heads = encoder.to_regions.weight.clone(), encoder.to_code.weight.clone()
    load_image_encoder(encoder, ImageEncoderConfig(inception=str(path)))
    assert torch.equal(encoder.to_regions.weight, heads[0])
    assert torch.equal(encoder.to_code.weight, heads[1])
    assert heads[0].abs().max() <= 0.1
    assert encoder.to_regions.bias is None
    seen = {}
    inception.Mixed_6e.register_forward_hook(lambda *given: seen.update(map=given[2]))
    inception.avgpool.register_forward_hook(lambda *given: seen.update(pooled=given[2]))
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        inception(F.interpolate(images, size=(299, 299), mode="bilinear"))
        ours = encoder.train()(images)
    assert seen["map"].shape[1:] == (768, 17, 17)
    regions = torch.einsum(
        "oc,bchw->bohw", encoder.to_regions.weight[:, :, 0, 0], seen["map"]
    ).flatten(2)
    torch.testing.assert_close(ours.regions, regions, rtol=1e-4, atol=1e-4)
    code = seen["pooled"].flatten(1) @ encoder.to_code.weight.T + encoder.to_code.bias
    torch.testing.assert_close(ours.code, code, rtol=1e-4, atol=1e-4)


def test_inceptions_trunk_is_frozen_whatever_mode_it_is_put_in():
    encoder = InceptionEncoder(TextShape(5, 7)).train()
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained == {"to_regions.weight", "to_code.weight", "to_code.bias"}
    assert not any(m.training for m in encoder.modules() if isinstance(m, nn.BatchNorm2d))
    assert encoder.to_code.training


def test_the_authors_image_encoder_loads_under_our_names(inception):
    kept = {
        n: t for n, t in inception.state_dict().items() if not n.startswith(("AuxLogits", "fc."))
    }
    kept |= {"emb_features.weight": torch.randn(7, 768, 1, 1), "emb_cnn_code.bias": torch.randn(5)}
    kept["emb_cnn_code.weight"] = torch.randn(5, 2048)
    encoder = InceptionEncoder(TextShape(5, 7))
    ours = counted(
        encoder, authors_state({f"module.{name}": tensor for name, tensor in kept.items()})
    )
    assert set(ours) == set(encoder.state_dict())
    assert torch.equal(ours["to_code.bias"], kept["emb_cnn_code.bias"])
    assert torch.equal(
        ours["code_trunk.Mixed_7c.branch1x1.bn.running_var"],
        kept["Mixed_7c.branch1x1.bn.running_var"],
    )


def test_files_that_are_damaged_or_something_else_are_refused(tmp_path):
    encoder, path = InceptionEncoder(TextShape(5, 7)), tmp_path / "inception_v3_google-0cc3c7bd.pth"
    with pytest.raises(UserError, match=r"0cc3c7bd\.pth: No such file.*https://download"):
        load_image_encoder(encoder, ImageEncoderConfig(inception=str(path)))
    path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"damaged: its SHA-256 begins with .*download it again"):
        load_image_encoder(encoder, ImageEncoderConfig(inception=str(path)))
    other = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(1)}, other)
    for config in (
        ImageEncoderConfig(inception=str(other)),
        ImageEncoderConfig(weights=str(other)),
    ):
        with pytest.raises(
            UserError, match=r"other\.pth does not fit the network: region_trunk.* is missing"
        ):
            load_image_encoder(encoder, config)


def test_an_encoder_without_weights_says_how_to_get_them():
    with pytest.raises(
        UserError, match=r"model: .*image_encoder\.inception=FILE.*https://.*image_encoder\.weights"
    ):
        check_source(ImageEncoderConfig(), "model")
    with pytest.raises(
        UserError, match=r"kind = none leaves nothing to train the text encoder with"
    ):
        check_source(ImageEncoderConfig(kind="none"), "model")
    check_source(ImageEncoderConfig(kind="small"), "model")
    with pytest.raises(UserError, match="not for 'small'"):
        ImageEncoderConfig.of({"kind": "small", "inception": "x"}, "here")
