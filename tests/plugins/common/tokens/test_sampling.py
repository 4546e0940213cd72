"""Which tokens may be drawn, and guidance on logits, against values worked out by hand."""

import pytest
import torch

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.plugins.common.tokens.config import TokenSamplerConfig
from t2i.plugins.common.tokens.sampling import Branches, filtered, tempered, top_k, top_p

P = torch.tensor([0.1, 0.4, 0.3, 0.2])


def drawn(logits):
    """The distribution that logits leave."""
    return logits.double().softmax(-1)


def close(found, expected):
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9
    )


def test_temperature_raises_to_a_power():
    close(drawn(tempered(P.log(), 0.5)), [0.01 / 0.3, 0.16 / 0.3, 0.09 / 0.3, 0.04 / 0.3])
    close(drawn(tempered(P.log(), 1)), P.tolist())


def test_temperature_zero_takes_the_first_of_the_likeliest():
    close(
        drawn(tempered(torch.tensor([[1.0, 3.0, 3.0], [5.0, -torch.inf, 2.0]]), 0)),
        [[0, 1, 0], [1, 0, 0]],
    )


def test_top_k_keeps_ties_and_no_more_than_there_are():
    close(drawn(top_k(P.log(), 2)), [0, 4 / 7, 3 / 7, 0])
    close(drawn(top_k(P.log(), 9)), P.tolist())
    close(drawn(top_k(torch.tensor([1.0, 2.0, 1.0, 0.0]), 2)).sum(), 1)
    assert top_k(torch.tensor([1.0, 2.0, 1.0, 0.0]), 2).tolist() == [1, 2, 1, -torch.inf]


@pytest.mark.parametrize(
    ("p", "kept"),
    [
        (0.05, [1]),
        (0.39, [1]),
        (0.41, [1, 2]),
        (0.69, [1, 2]),
        (0.71, [1, 2, 3]),
        (0.95, [0, 1, 2, 3]),
    ],
)
def test_top_p_keeps_the_fewest_that_reach_it(p, kept):
    left = top_p(P.log(), p)
    assert left.isfinite().nonzero().flatten().tolist() == kept
    assert torch.equal(left[kept], P.log()[kept])


def test_rows_are_filtered_one_by_one():
    rows = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    config = TokenSamplerConfig(temperature=0.8, top_k=5, top_p=0.7)
    for i in range(3):
        for j in range(5):
            assert torch.equal(filtered(rows, config)[i, j], filtered(rows[i, j], config))


def test_the_order_is_temperature_then_k_then_p():
    config = TokenSamplerConfig(temperature=0.5, top_k=3, top_p=0.86)
    # Squares 1, 16, 9, 4 of 30; of the largest three, 16 + 9 of 29 reach 0.862: the third is left
    # out.
    close(drawn(filtered(P.log(), config)), [0, 16 / 25, 9 / 25, 0])
    assert torch.equal(filtered(P.log(), TokenSamplerConfig()), P.log())


def request(null=True):
    text = TextFeatures.of(sentence=torch.ones(2, 3), captions=("a", "b"))
    empty = TextFeatures.of(sentence=torch.zeros(2, 3), captions=("", ""))
    return Request(text=text, noise=PromptNoise(0, ((0, 0), (1, 0))), null=empty if null else None)


def test_both_branches_run_as_one_batch_the_unconditional_first():
    branches = Branches.of(request(), 3.0)
    assert branches.text.captions == ("", "", "a", "b")
    assert branches.rows(torch.tensor([4, 5])).tolist() == [4, 5, 4, 5]
    u, c = torch.randn(2, 2, 6, generator=torch.Generator().manual_seed(0)).unbind(0)
    torch.testing.assert_close(branches.guided(torch.cat([u, c])), u + 3 * (c - u))


def test_without_guidance_only_the_conditional_branch_runs():
    branches = Branches.of(request(null=False), 1.0)
    x = torch.randn(2, 4)
    assert branches.text.captions == ("a", "b")
    assert branches.rows(x) is x
    assert branches.guided(x) is x


def test_what_one_branch_forbids_is_not_drawn():
    out = -torch.inf
    both = torch.tensor([[0.0, out, 1.0, out], [1.0, 2.0, out, out]])
    assert Branches(request().text, 2.0).guided(both).tolist() == [[2, out, out, out]]


def test_guidance_without_features_of_no_caption_is_refused():
    with pytest.raises(UserError, match=r"guidance 2\.0 needs the features of no caption"):
        Branches.of(request(null=False), 2.0)
