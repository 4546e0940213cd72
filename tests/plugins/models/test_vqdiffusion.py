"""VQ-Diffusion: the network written out, the loss by enumeration, timesteps, text, objective."""

import math

import pytest
import torch
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise, StepNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.interfaces.trainer import Networks
from t2i.core.runs.configure import resolve_config
from t2i.plugins.models.vqdiffusion.config import VQDiffusionConfig
from t2i.plugins.models.vqdiffusion.networks import VQDiffusionGenerator, build
from t2i.plugins.models.vqdiffusion.training import Timesteps, VQDiffusionTrainer
from t2i.plugins.samplers.discrete.config import DiscreteConfig
from t2i.plugins.samplers.discrete.sampler import DiscreteSampler

K, T, SIDE, TEXT = 3, 6, 2, TextShape(6, 5)
SMALL = {
    "image_size": 8, "width": 8, "layers": 2, "heads": 2, "timesteps": T,
    "tokenizer": {
        "vocabulary": K, "code_width": 4,
        "vqgan": {
            "patch": 4, "channels": 8, "multiples": (1,), "blocks": 1, "attention": (),
            "middle_attention": False, "latent_channels": 8, "groups": 2,
        },
    },
}  # fmt: skip


def made(**more):
    """A generator in float64, all weights drawn."""
    torch.manual_seed(0)
    generator = build(VQDiffusionConfig.of({**SMALL, **more}, "test"), TEXT).double().eval()
    with torch.no_grad():
        for parameter in generator.transformer.parameters():
            parameter.normal_(std=0.5)
    return generator


def captions(n, texts=None, seed=3):
    draws = torch.Generator().manual_seed(seed)
    mask = torch.arange(4)[None] < torch.tensor([4, 2, 3, 4, 1])[:n, None]
    return TextFeatures(
        torch.randn(n, TEXT.sentence, generator=draws).double(),
        torch.randn(n, 4, TEXT.words, generator=draws).double(),
        mask,
        tuple(texts or ("a",) * n),
    )


def attention(w, name, x, source, mask=None):
    def linear(part, value):
        return value @ w[f"{name}.{part}.weight"].T + w[f"{name}.{part}.bias"]

    q, k, v = linear("query", x), linear("key", source), linear("value", source)
    heads = []
    for n in range(2):
        part = slice(4 * n, 4 * n + 4)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / 2
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        heads.append(scores.softmax(-1) @ v[..., part])
    return linear("out", torch.cat(heads, -1))


def adapted(w, name, x, t):
    """LN(x) (1 + scale) + shift, for each image on its own."""
    rows = []
    for image, step in zip(x, t.tolist(), strict=True):
        e = w[f"{name}.times.weight"][step - 1]
        e = e / (1 + (-e).exp())
        scale, shift = (w[f"{name}.linear.weight"] @ e + w[f"{name}.linear.bias"]).split(8)
        mean, var = image.mean(-1, keepdim=True), image.var(-1, keepdim=True, unbiased=False)
        rows.append((image - mean) / (var + 1e-5).sqrt() * (1 + scale) + shift)
    return torch.stack(rows)


def predicted(w, x_t, t, words, mask):
    """The transformer of the paper, written out."""
    h = torch.stack(
        [
            torch.stack(
                [
                    w["tokens.weight"][token] + w["rows.weight"][i // SIDE]
                    + w["columns.weight"][i % SIDE]
                    for i, token in enumerate(row)
                ]
            )
            for row in x_t.tolist()
        ]
    )  # fmt: skip
    for n in range(2):
        at = f"blocks.{n}"
        normed = adapted(w, f"{at}.norm_1", h, t)
        h = h + attention(w, f"{at}.attention", normed, normed)
        h = h + attention(w, f"{at}.cross", adapted(w, f"{at}.norm_2", h, t), words, mask)
        u = F.layer_norm(h, (8,), w[f"{at}.norm_3.weight"], w[f"{at}.norm_3.bias"])
        u = u @ w[f"{at}.mlp.0.weight"].T + w[f"{at}.mlp.0.bias"]
        u = u / (1 + (-1.702 * u).exp())
        h = h + u @ w[f"{at}.mlp.2.weight"].T + w[f"{at}.mlp.2.bias"]
    h = F.layer_norm(h, (8,), w["norm.weight"], w["norm.bias"])
    return h @ w["logits.weight"].T + w["logits.bias"]


def test_the_network_is_the_papers_written_out_with_a_timestep_for_each_row():
    generator, text = made(), captions(4)
    x_t = torch.tensor([[0, 3, 1, 2], [3, 3, 3, 3], [2, 2, 0, 1], [1, 3, 0, 3]])
    t = torch.tensor([1, 6, 3, 4])
    found = generator(x_t, t, generator.condition(text))
    words = text.words / text.words.norm(dim=-1, keepdim=True)
    expected = predicted(generator.transformer.state_dict(), x_t, t, words, text.mask)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    other = generator(x_t, torch.tensor([1, 6, 4, 4]), generator.condition(text))
    assert [bool((found[i] == other[i]).all()) for i in range(4)] == [True, True, False, True]


def matrices(schedule):
    """Q_t of each step and their products, (K + 1, K + 1), written out as equation 7."""
    steps = []
    for t in range(1, T + 1):
        alpha, beta, gamma = schedule.transition(torch.tensor([t - 1]), torch.tensor([t]))
        q = torch.zeros(K + 1, K + 1).double()
        q[:K, :K] = beta
        q[range(K), range(K)] += alpha
        q[K, :K], q[K, K] = gamma, 1
        steps.append(q)
    products = [torch.eye(K + 1).double()]
    for q in steps:
        products.append(q @ products[-1])
    return steps, products


class Alone:
    """An engine of one process that updates nothing."""

    def gathered(self, x):
        return x

    def update(self, name, loss):
        self.loss = loss


class Frozen(torch.nn.Module):
    trainable = False


def trainer_of(generator):
    return VQDiffusionTrainer(generator.config, Networks(generator, Frozen()))


@pytest.mark.parametrize("chain", ["code", "paper", "mask", "cosine"])
def test_the_loss_is_the_bound_by_enumeration(chain):
    """All x_{t-1} by Bayes' rule with brute-force matrices; weights, p_t, the auxiliary loss."""
    config = {"chain": chain, "auxiliary": 0.07, "token_weights": (1.0, 0.5)}
    generator = made(**config)
    trainer = trainer_of(generator)
    steps, products = matrices(generator.schedule)
    draws = torch.Generator().manual_seed(1)
    x_0 = torch.randint(0, K, (T, 4), generator=draws)
    t = torch.arange(1, T + 1)
    x_t = torch.where(torch.rand(T, 4, generator=draws) < 0.5, K, x_0)
    if chain == "paper":
        x_t[:, 0] = (x_0[:, 0] + 1) % K  # replaced
    if chain in ("mask", "cosine"):
        x_t[-1] = K  # at t = T nothing can be seen
    logits = torch.randn(T, 4, K, generator=draws, dtype=torch.float64, requires_grad=True)
    p_t = torch.rand(T, generator=draws).double()

    expected = torch.zeros(()).double()
    p = logits.softmax(-1)
    for row in range(T):
        now, before = steps[row], products[row]
        for place in range(4):
            seen, clean = int(x_t[row, place]), int(x_0[row, place])

            def posterior(a, now=now, before=before, seen=seen):
                joint = now[seen] * before[:, a]
                return joint / joint.sum() if joint.sum() > 0 else joint

            true = posterior(clean)
            allowed = [a for a in range(K) if (now[seen] * before[:, a]).sum() > 0]
            whole = sum(p[row, place, a] for a in allowed)
            model = sum(posterior(a) * p[row, place, a] / whole for a in allowed)
            support = true > 0
            kl = (true[support] * (true[support].log() - model[support].log())).sum()
            weight = 1.0 if seen == K or row == 0 else 0.5
            nll = -p[row, place, clean].log()
            if row == 0:
                kl = nll
            scale = 0.07 * ((1 - row / T) + 1)
            expected = expected + weight * (kl + scale * nll) / p_t[row] / (T * 4)

    loss, parts, _terms = trainer.bound(logits, x_0, x_t, t, p_t)
    torch.testing.assert_close(parts["bound"] + parts["auxiliary"], loss)
    grads = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (loss, expected)]
    if chain in ("code", "paper"):
        torch.testing.assert_close(loss, expected, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-7, atol=1e-9)
    else:
        visible = x_t[0] != K  # -log p(x_0 | x_1) of what can be seen is 0, not what p says
        extra = -p[0].log().gather(-1, x_0[0][:, None])[:, 0][visible].sum() / p_t[0] / (T * 4)
        torch.testing.assert_close(loss, expected - extra, rtol=1e-8, atol=1e-9)


def test_timesteps_are_drawn_by_the_root_of_their_mean_squared_loss():
    times = Timesteps(T, importance=True).double()
    torch.testing.assert_close(times.probabilities(), torch.ones(T).double() / T)
    times.observe(torch.tensor([2, 2, 5]), torch.tensor([1.0, 3.0, 2.0]), Alone())
    assert times.visits.tolist() == [0, 2, 0, 0, 1, 0]
    torch.testing.assert_close(
        times.history, torch.tensor([0, 0.5, 0, 0, 0.4, 0]).double()
    )  # 0.1 of the mean square
    assert times.probabilities()[0] == 1 / T  # not all were seen more than ten times
    times.visits.fill_(11)
    weights = torch.tensor([0.5**0.5, 0.5**0.5, 0, 0, 0.4**0.5, 0]).double()
    weights = (weights**2 + 1e-10).sqrt() + 1e-4
    torch.testing.assert_close(times.probabilities(), weights / weights.sum())
    n = 4000
    t, p = times.draw(StepNoise(0, 0, 0, n, n))
    found = torch.bincount(t, minlength=T + 1)[1:].double() / n
    expected = times.probabilities()
    assert ((found - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt() + 1e-9).all()
    assert torch.equal(p, expected[t - 1])
    assert Timesteps(T, importance=False).probabilities()[0] == 1 / T


def test_two_processes_draw_and_remember_what_one_does():
    one, first, second = (Timesteps(T, importance=True) for _ in range(3))
    for step in range(4):
        whole = one.draw(StepNoise(0, step, 0, 4, 4))[0]
        parts = [times.draw(StepNoise(0, step, 2 * i, 2, 4))[0] for i, times in
                 enumerate((first, second))]  # fmt: skip
        assert torch.equal(whole, torch.cat(parts))
        loss = torch.rand(4)
        every = torch.stack([whole.double(), loss.double()], 1)

        class Gathers:
            def gathered(self, x, every=every):
                return every

        one.observe(whole, loss, Alone())
        first.observe(parts[0], loss[:2], Gathers())
        second.observe(parts[1], loss[2:], Gathers())
        for times in (first, second):
            assert torch.equal(times.history, one.history)
            assert torch.equal(times.visits, one.visits)
        for times in (one, first, second):
            times.visits += 11
    restored = Timesteps(T, importance=True)
    restored.load_state_dict(one.state_dict())
    assert torch.equal(restored.probabilities(), one.probabilities())


def test_the_masked_objective_is_the_cross_entropy_of_masked_tokens():
    generator = made(chain="cosine", objective="masked", label_smoothing=0.1)
    x_0 = torch.tensor([[0, 1, 2, 0], [1, 1, 0, 2]])
    x_t = torch.tensor([[K, 1, K, 0], [1, 1, K, 2]])
    logits = torch.randn(2, 4, K).double()
    log_p = logits.log_softmax(-1)
    expected = [
        -0.9 * log_p[i, j, x_0[i, j]] - 0.1 * log_p[i, j].mean()
        for i in range(2) for j in range(4) if x_t[i, j] == K
    ]  # fmt: skip
    loss, _ = trainer_of(generator).masked(logits, x_0, x_t)
    torch.testing.assert_close(loss.double(), sum(expected) / 3, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="only masks"):
        VQDiffusionConfig.of({**SMALL, "chain": "paper", "objective": "masked"}, "test")


def test_empty_captions_are_the_learned_words():
    generator = made(learned_null=7)
    text = generator.condition(captions(3, ("a", " ", "b")))
    assert text.words.shape == (3, 7, TEXT.words)
    assert torch.equal(text.words[1], generator.transformer.empty)
    assert text.mask[1].all()
    assert text.mask[0].tolist() == [True] * 4 + [False] * 3
    text.words[1].sum().backward()
    assert (generator.transformer.empty.grad == 1).all()


def asked(n=3):
    return Request(
        text=captions(n), null=captions(n, ("",) * n, seed=9),
        noise=PromptNoise(1, tuple((i, 0) for i in range(n))),
    )  # fmt: skip


def test_guidance_of_one_is_no_guidance_and_truncation_acts():
    generator = made(learned_null=2)
    request = asked()
    conditioned = Request(
        text=generator.condition(request.text), null=generator.condition(request.null),
        noise=request.noise,
    )  # fmt: skip
    bare = Request(text=conditioned.text, null=None, noise=request.noise)

    def sample(request, **settings):
        with torch.no_grad():
            return DiscreteSampler(DiscreteConfig(**settings)).sample(generator, request)

    assert torch.equal(sample(conditioned, guidance=1.0), sample(bare))
    assert not torch.equal(sample(conditioned, guidance=4.0), sample(bare))
    assert not torch.equal(sample(bare, top_p=0.4), sample(bare))
    assert sample(bare, steps=2).shape == (3, 3, 8, 8)


def test_the_text_map_reaches_the_logits_and_predicts_tokens():
    generator = made(text={"text_map": 4, "map_hops": 1, "map_heads": 1, "outline": 0.5})
    a, b = (generator.condition(captions(2, seed=seed)) for seed in (1, 2))
    x_t, t = torch.full((2, 4), K), torch.tensor([T, T])
    assert not torch.allclose(generator(x_t, t, a), generator(x_t, t, b))
    loss = trainer_of(generator).outline(torch.zeros(2, 4, dtype=torch.long), a)
    assert loss.isfinite()
    assert generator.transformer.outline(a).shape == (2, K, SIDE, SIDE)


def test_a_table_says_which_tokens_are_used():
    generator = made(codes=2)
    generator.used.copy_(torch.tensor([0, 2]))
    generator.index.copy_(torch.tensor([0, 0, 1]))
    assert generator.vocabulary == 2
    tokens = torch.tensor([[0, 1, 1, 0]])
    expected = generator.tokenizer.decode(torch.tensor([[0, 2, 2, 0]])).clamp(-1, 1)
    assert torch.equal(generator.decode(tokens), expected)
    images = torch.rand(2, 3, 8, 8).double() * 2 - 1
    raw = generator.tokenizer.encode(images)
    assert torch.equal(generator.encode(images), (raw == 2).long())


@pytest.mark.parametrize(
    ("preset", "millions"), [("coco", 399.7), ("ithq", 1359.3), ("maskgit", 279.3)]
)
def test_the_papers_sizes(preset, millions):
    settings = resolve_config("vqdiffusion", preset=preset, data_needed=False).settings
    with torch.device("meta"):
        generator = VQDiffusionGenerator(settings, TextShape(512, 512))
    count = sum(p.numel() for p in generator.transformer.parameters()) / 1e6
    assert math.isclose(count, millions, abs_tol=0.06)
