"""What tests of normalising flows share."""

import torch

from t2i.core.families.flow import standard_normal_log_prob
from t2i.core.interfaces.text import TextFeatures, TextShape

TEXT = TextShape(6, 5)
MAPPED = {"text_map": 4, "map_hops": 1, "map_heads": 1}


def captions(n, seed=3):
    """Random features of captions, with padding."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(4)[None] < torch.tensor([4, 2, 3, 4, 1])[:n, None]
    return TextFeatures(
        torch.randn(n, TEXT.sentence, generator=generator).double(),
        torch.randn(n, 4, TEXT.words, generator=generator).double(),
        mask,
    )


def drawn(generator, std=0.1, seed=0):
    """Draw all weights at random, in float64: layers that start at zero hide errors."""
    torch.manual_seed(seed)
    generator = generator.double().eval()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.copy_(torch.randn_like(parameter) * std)
        for name, module in generator.named_modules():
            if name.endswith(".out") and isinstance(module, torch.nn.Linear):
                module.weight *= 0.3  # log scales of a transformer: their exponentials must not
                module.bias *= 0.3  # run away, block by block
            if name.endswith("mix") and hasattr(module, "weight"):
                module.weight += torch.eye(len(module.weight))
            if name.endswith("parametrizations.weight"):
                module.original0.abs_().add_(0.2)
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 1.5)
    return generator


def check_log_det(generator, x, text):
    """log |det| is that of autograd's Jacobian."""
    text = generator.condition(text)
    _, log_det = generator.to_noise(x, text)
    for row in range(len(x)):
        found = jacobian(
            lambda copies, own: generator.to_noise(copies, own)[0], x[row], text[[row]]
        )
        expected = torch.linalg.slogdet(found)[1]
        torch.testing.assert_close(log_det[row], expected, rtol=1e-8, atol=1e-8)


def jacobian(function, x, text):
    """Return d function / d x, (outputs, inputs), by one backward pass.

    Row i is the gradient of output i of copy i, since copies do not depend on each other.
    """
    copies = x.expand(x.numel(), *x.shape).clone().requires_grad_()
    out = function(copies, text[[0] * x.numel()])
    (rows,) = torch.autograd.grad(out.flatten(1).diagonal().sum(), copies)
    return rows.flatten(1)


def check_inverse(generator, x, text):
    """x -> z -> x in float64 and in float32, and z -> x -> z."""
    text = generator.condition(text)
    noise, _ = generator.to_noise(x, text)
    assert noise.shape[1:] == generator.noise_shape
    torch.testing.assert_close(generator(noise, text), x, rtol=0, atol=1e-10)
    z = torch.randn_like(noise) * 0.5
    torch.testing.assert_close(
        generator.to_noise(generator(z, text), text)[0], z, rtol=0, atol=1e-8
    )
    generator = generator.float()
    single = text.map(lambda value: value.float() if value.is_floating_point() else value)
    noise, _ = generator.to_noise(x.float(), single)
    assert float((generator(noise, single) - x).detach().abs().max()) < 1e-5
    generator.double()


def check_rows(generator, x, text):
    """An image's density does not depend on the others of its batch."""
    text = generator.condition(text)
    together = generator.log_density(x, text)
    alone = torch.cat([generator.log_density(x[i : i + 1], text[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)
    noise, log_det = generator.to_noise(x, text)
    torch.testing.assert_close(together, standard_normal_log_prob(noise) + log_det)


def check_text_reaches(generator, x, text, other):
    """The density depends on the caption."""
    one = generator.log_density(x, generator.condition(text))
    two = generator.log_density(x, generator.condition(other))
    assert float((one - two).abs().min()) > 1e-3
