"""The diffusion transformer: its blocks and the whole network against diffusers' own, with random
weights copied over, and that masks, other sizes and the start are as its docstrings say."""

import pytest
import torch
from diffusers import DiTTransformer2DModel, SD3Transformer2DModel
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.transformer.attention import KeysAndValues
from t2i.plugins.common.transformer.blocks import DiTBlock
from t2i.plugins.common.transformer.config import TransformerConfig
from t2i.plugins.common.transformer.network import TextTransformer

TEXT = TextShape(10, 12)
WIDTH, HEADS, PATCH, CHANNELS, SIZE = 32, 4, 2, 3, 8
KINDS = pytest.mark.parametrize("blocks", ["cross", "joint"])


def config(**settings):
    return TransformerConfig(width=WIDTH, depth=2, heads=HEADS, patch=PATCH, **settings)


def drawn(module, seed=0):
    """All parameters at random: layers that begin at zero would make any two networks agree."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=random) * 0.2)
    return module.double().eval()


def network(text=TEXT, **settings):
    return drawn(TextTransformer(config(**settings), CHANNELS, SIZE, text))


def captions(n=2, words=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    return TextFeatures(
        torch.randn(n, TEXT.sentence, generator=random).double(),
        torch.randn(n, words, TEXT.words, generator=random).double(),
        torch.ones(n, words, dtype=torch.bool),
    )


def count(module):
    return sum(p.numel() for p in module.parameters())


def images(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def give(ours, *theirs):
    """Copy one or several layers of diffusers into one of ours."""
    for name, p in ours.named_parameters():
        p.data = torch.cat([dict(layer.named_parameters())[name].data for layer in theirs])


def give_attention(ours, theirs, added=False):
    """Copy the projections of one stream of an attention of diffusers."""
    to_q, to_k, to_v, norm_q, norm_k = (
        ("add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k")
        if added
        else ("to_q", "to_k", "to_v", "norm_q", "norm_k")
    )
    if isinstance(ours, KeysAndValues):
        give(ours.kv, getattr(theirs, to_k), getattr(theirs, to_v))
    else:
        give(ours.qkv, *(getattr(theirs, name) for name in (to_q, to_k, to_v)))
        give(ours.out, theirs.to_add_out if added else theirs.to_out[0])
        give_norm(ours.norm_q, getattr(theirs, norm_q))
    give_norm(ours.norm_k, getattr(theirs, norm_k))


def give_norm(ours, theirs):
    if isinstance(ours, nn.RMSNorm):
        give(ours, theirs)


def give_perceptron(ours, theirs):
    give(ours[0], theirs.net[0].proj)
    give(ours[2], theirs.net[2])


def give_ends(ours, embed, out):
    """Copy the embedding of patches, a convolution, and the last layer, whose outputs are in the
    order row, column, channel there and channel, row, column here."""
    ours.embed.weight.data = embed.weight.data.flatten(1)
    ours.embed.bias.data = embed.bias.data
    for name in ("weight", "bias"):
        rows = getattr(out, name).data.unflatten(0, (PATCH, PATCH, CHANNELS))
        getattr(ours.out, name).data = rows.movedim(2, 0).flatten(0, 2)


def give_mlp(ours, theirs):
    give(ours[0], theirs.linear_1)
    give(ours[2], theirs.linear_2)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_joint_blocks_make_stable_diffusion_3s_transformer(qk_norm):
    theirs = drawn(
        SD3Transformer2DModel(
            sample_size=SIZE, patch_size=PATCH, in_channels=CHANNELS, out_channels=CHANNELS,
            num_layers=2, num_attention_heads=HEADS, attention_head_dim=WIDTH // HEADS,
            joint_attention_dim=TEXT.words, caption_projection_dim=WIDTH,
            pooled_projection_dim=TEXT.sentence, pos_embed_max_size=SIZE // PATCH,
            qk_norm="rms_norm" if qk_norm else None,
        )
    )  # fmt: skip
    ours = network(blocks="joint", qk_norm=qk_norm)
    unused = [theirs.transformer_blocks[-1].attn.add_q_proj]  # there are no such queries here
    unused += [theirs.transformer_blocks[-1].attn.norm_added_q] if qk_norm else []
    assert count(ours) == count(theirs) - sum(map(count, unused))
    give_ends(ours, theirs.pos_embed.proj, theirs.proj_out)
    give_mlp(ours.time, theirs.time_text_embed.timestep_embedder)
    give_mlp(ours.sentence, theirs.time_text_embed.text_embedder)
    give(ours.words, theirs.context_embedder)
    scale, shift = theirs.norm_out.linear.weight.data.chunk(2), theirs.norm_out.linear.bias.data
    ours.modulation.linear.weight.data = torch.cat(scale[::-1])
    ours.modulation.linear.bias.data = torch.cat(shift.chunk(2)[::-1])
    for block, other in zip(ours.blocks, theirs.transformer_blocks, strict=True):
        give(block.modulation.linear, other.norm1.linear)
        give(block.modulation_words.linear, other.norm1_context.linear)
        if block.last:  # shift and scale come in the other order there
            for p in block.modulation_words.linear.parameters():
                p.data = torch.cat(p.data.chunk(2)[::-1])
        give_attention(block.attention.image, other.attn)
        give_attention(block.attention.words, other.attn, added=True)
        give_perceptron(block.mlp, other.ff)
        if not block.last:
            give_perceptron(block.mlp_words, other.ff_context)
    text, x, t = captions(), images(2, CHANNELS, SIZE, SIZE), torch.tensor([3.0, 970.0])
    with torch.no_grad():
        expected = theirs(x, text.words, text.sentence, t).sample
        found = ours(x, t, ours.condition(text))
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_blocks_without_words_make_dits_transformer():
    theirs = drawn(
        DiTTransformer2DModel(
            num_attention_heads=HEADS, attention_head_dim=WIDTH // HEADS, in_channels=CHANNELS,
            num_layers=2, sample_size=SIZE, patch_size=PATCH, num_embeds_ada_norm=7, norm_eps=1e-6,
        )
    )  # fmt: skip
    ours = network(TextShape(WIDTH, TEXT.words))
    ours.sentence = nn.Identity()  # the sentence is the vector of a class
    give_ends(ours, theirs.pos_embed.proj, theirs.proj_out_2)
    give(ours.modulation.linear, theirs.proj_out_1)
    first = theirs.transformer_blocks[0].norm1.emb
    give_mlp(ours.time, first.timestep_embedder)
    for block, other in zip(ours.blocks, theirs.transformer_blocks, strict=True):
        other.norm1.emb = first
        give(block.modulation.linear, other.norm1.linear)
        give_attention(block.attention.image, other.attn1)
        give_perceptron(block.mlp, other.ff)
        for p in block.cross.out.parameters():
            p.data.zero_()
    # diffusers' last frequency is 1 / 10000 for DiT; that of DiT's own code is a little higher.
    first.time_proj.downscale_freq_shift = 0
    labels, t = torch.tensor([2, 6]), torch.tensor([10, 900])
    text = captions()
    text = TextFeatures(
        first.class_embedder.embedding_table(labels).detach(), text.words, text.mask
    )
    x = images(2, CHANNELS, SIZE, SIZE)
    with torch.no_grad():
        expected = theirs(x, t, labels).sample
        found = ours(x, t, ours.condition(text))
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_blocks_with_words_are_pixarts():
    """There one layer makes the modulation of all blocks, to which each adds a table."""
    theirs = drawn(
        BasicTransformerBlock(
            WIDTH, HEADS, WIDTH // HEADS, cross_attention_dim=WIDTH, attention_bias=True,
            activation_fn="gelu-approximate", norm_type="ada_norm_single",
            norm_elementwise_affine=False, norm_eps=1e-6,
        )
    )  # fmt: skip
    ours, shared = drawn(DiTBlock(config())), drawn(nn.Linear(WIDTH, 6 * WIDTH), seed=3)
    ours.modulation.linear.weight.data = shared.weight.data
    ours.modulation.linear.bias.data = shared.bias.data + theirs.scale_shift_table.data.flatten()
    give_attention(ours.attention.image, theirs.attn1)
    give(ours.cross.q, theirs.attn2.to_q)
    give(ours.cross.words.kv, theirs.attn2.to_k, theirs.attn2.to_v)
    give(ours.cross.out, theirs.attn2.to_out[0])
    give_perceptron(ours.mlp, theirs.ff)
    x, words, c = images(2, 9, WIDTH), images(2, 5, WIDTH, seed=2), images(2, WIDTH, seed=3)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    with torch.no_grad():
        bias = torch.where(mask, 0.0, -1e9).double()[:, None]
        expected = theirs(
            x, encoder_hidden_states=words, encoder_attention_mask=bias,
            timestep=shared(nn.functional.silu(c)),
        )  # fmt: skip
        found, same = ours(x, words, c, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert same is words


@KINDS
def test_words_that_do_not_count_change_nothing(blocks):
    net, x, t = network(blocks=blocks), images(2, CHANNELS, SIZE, SIZE), torch.tensor([3.0, 970.0])
    text = captions()
    longer = text.padded(8)
    longer.words[:, 5:] = 100.0
    shorter = TextFeatures(text.sentence, text.words[:, :4], text.mask[:, :4])
    with torch.no_grad():
        plain, padded, cut = (net(x, t, net.condition(given)) for given in (text, longer, shorter))
    torch.testing.assert_close(padded, plain, rtol=0, atol=1e-10)
    assert (cut - plain).abs().max() > 1e-3


@KINDS
def test_every_way_of_the_text_reaches_the_output(blocks):
    net = network(blocks=blocks, text_map=4, map_hops=1, map_heads=2, outline=0.5)
    x, t, text = images(1, CHANNELS, SIZE, SIZE), torch.tensor([500.0]), captions(1)
    parts = [text.sentence.requires_grad_(), text.words.requires_grad_(), x.requires_grad_()]
    for gradient in torch.autograd.grad(net(x, t, net.condition(text)).square().sum(), parts):
        assert gradient.abs().max() > 1e-6
    outline = net.outline(net.condition(text))
    assert outline.shape == (1, CHANNELS * PATCH**2, SIZE // PATCH, SIZE // PATCH)


@KINDS
def test_it_starts_at_zero_and_every_parameter_learns(blocks):
    net = TextTransformer(config(blocks=blocks, qk_norm=True), CHANNELS, SIZE, TEXT).double()
    x, t, text = images(4, CHANNELS, SIZE, SIZE), torch.tensor([1.0, 300, 600, 999]), captions(4)
    assert net(x, t, net.condition(text)).abs().max() == 0
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(4):
        optimizer.zero_grad()
        (net(x, t, net.condition(text)) - x).square().mean().backward()
        optimizer.step()
    assert [name for name, p in net.named_parameters() if not p.grad.any()] == []


def test_positions_are_sinusoids_of_column_and_row_stretched_over_the_image():
    net = network()
    places = net._at(4, 4).unflatten(0, (4, 4)).double()
    rates = 10_000 ** -(torch.arange(WIDTH // 4, dtype=torch.float64) / (WIDTH // 4))
    for row, column in ((0, 0), (1, 3), (2, 1)):
        waves = [(at * rates, at) for at in (column, row)]
        expected = torch.cat([part for angle, _ in waves for part in (angle.sin(), angle.cos())])
        torch.testing.assert_close(places[row, column], expected, rtol=0, atol=1e-6)
    wide = net._at(4, 8).unflatten(0, (4, 8)).double()
    torch.testing.assert_close(wide[:, ::2], places, rtol=0, atol=1e-6)
    tall = net._at(8, 4).unflatten(0, (8, 4)).double()
    torch.testing.assert_close(tall[::2], places, rtol=0, atol=1e-6)


@KINDS
def test_other_sizes_work_and_an_image_does_not_depend_on_its_batch(blocks):
    net = network(blocks=blocks, text_map=4)
    text, t = captions(3), torch.tensor([1.0, 300, 999])
    x = images(3, CHANNELS, 12, 6)
    with torch.no_grad():
        together = net(x, t, net.condition(text))
        assert together.shape == x.shape
        for i in range(3):
            alone = net(x[i : i + 1], t[i : i + 1], net.condition(text[i : i + 1]))
            torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-10)
    assert net.step == PATCH


def test_widths_that_do_not_fit_are_refused():
    for settings in ({"width": 30, "heads": 3}, {"width": 32, "heads": 5}):
        with pytest.raises(UserError, match=r"must be a multiple of 4 and of heads"):
            TransformerConfig.of(settings, "test")
