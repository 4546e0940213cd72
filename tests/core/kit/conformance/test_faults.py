"""A fault in a model, and the check that finds it: the toy model of the tests, with one thing wrong
at a time."""

import os
import signal
import sys

import pytest
import torch

from t2i.core.errors import Interrupted, UserError
from t2i.core.interfaces.generator import Generator
from t2i.core.kit.conformance.catalogue import find, of_kind
from t2i.core.kit.conformance.runner import run_checks
from t2i.core.registry.tables import registry

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def parts():
    """The module that the toy's import paths lead to."""
    return sys.modules["t2i_toy"]


@pytest.fixture
def failed(tmp_path):
    """`failed(*checks)` -> what the toy's checks (all, or those) have against it, by check."""

    def run(*only):
        outcomes = list(run_checks(of_kind("models", "toy", only), tmp_path))
        assert all(outcome.seconds >= 0 and outcome.holds for outcome in outcomes)
        return {outcome.check: outcome.detail for outcome in outcomes if outcome.state == "FAILED"}

    return run


def test_a_sound_model_passes(failed):
    assert failed() == {}


def test_a_trained_parameter_that_no_gradient_reaches(failed, parts):
    class Dead(parts.generator):
        def __init__(self, config, text, assets=None):
            super().__init__(config, text, assets)
            self.unused = torch.nn.Linear(2, 2)

    parts.generator = Dead
    assert failed("gradients") == {
        "gradients": "stage 'only': within 5 steps no gradient reaches generator.unused.bias, "
        "generator.unused.weight"
    }


def test_a_frozen_parameter_that_is_given_gradients_or_changes(failed, parts):
    def stages(config, encoder):
        class Careless(parts.Trainer):
            def step(self, batch, engine):
                self.generator.frozen.data += 1
                (self.generator.other * 2).sum().backward()
                return super().step(batch, engine)

        from t2i.core.interfaces.trainer import Stage

        return [Stage("only", 1.0, lambda networks: Careless(config, networks))]

    class Frozen(parts.generator):
        def __init__(self, config, text, assets=None):
            super().__init__(config, text, assets)
            self.frozen, self.other = (
                torch.nn.Parameter(torch.zeros(1)),
                torch.nn.Parameter(torch.zeros(1)),
            )

        def parameters(self, recurse=True):  # hides them from the optimizer
            return (
                p for n, p in self.named_parameters(recurse=recurse) if n not in ("frozen", "other")
            )

    parts.stages, parts.generator = stages, Frozen
    assert failed("gradients") == {
        "gradients": "stage 'only': in no optimizer, but given gradients: generator.other"
    }


def test_randomness_that_does_not_come_from_the_noise(failed, parts):
    class Restless(parts.generator):
        def forward(self, noise, text):
            return super().forward(noise + torch.randn(4), text)

    parts.generator = Restless
    assert set(failed("same-seed", "batch-size")) == {"same-seed", "batch-size"}


def test_a_image_that_depends_on_its_batch(failed, parts):
    class Sociable(parts.generator):
        def forward(self, noise, text):
            return super().forward(noise - noise.mean(0), text)

    parts.generator = Sociable
    found = failed("same-seed", "batch-size")
    assert list(found) == ["batch-size"]
    assert "in batches of 1, images differ by up to" in found["batch-size"]


def test_images_out_of_range(failed, parts):
    class Bright(parts.generator):
        def forward(self, noise, text):
            return 128 + 127 * super().forward(noise, text)

    parts.generator = Bright
    assert "not in [-1, 1]" in failed("images")["images"]


def test_state_that_is_not_saved(failed, parts):
    class Forgetful(parts.generator):
        calls = 0

        def forward(self, noise, text):
            if self.training:
                self.calls += 1
            return super().forward(noise, text) * (1 - 0.5 * bool(self.calls))

    parts.generator = Forgetful
    assert set(failed("saves", "resumes")) == {"saves"}


def test_a_trainer_that_keeps_what_no_checkpoint_holds(failed, parts):
    from t2i.core.interfaces.trainer import Stage

    class Counting(parts.Trainer):
        def step(self, batch, engine):
            self.steps += 1
            for group in self.optimizers["generator"].param_groups:
                group["lr"] = 0.01 / self.steps
            return super().step(batch, engine)

    parts.stages = lambda config, encoder: [
        Stage("only", 1.0, lambda networks: Counting(config, networks))
    ]
    found = failed("resumes")
    assert (
        "resumed at step 47, in stage 'only', it ends with other weights: modules."
        in found["resumes"]
    )


def test_a_model_that_learns_nothing(failed, parts):
    from t2i.core.interfaces.trainer import Stage

    class Idle(parts.Trainer):
        def step(self, batch, engine):
            z = batch.noise.normal("z", 0, self.generator.noise_shape)
            return {"generator": (self.generator(z, batch.text) - batch.images).square().mean()}

    parts.stages = lambda config, encoder: [
        Stage("only", 1.0, lambda networks: Idle(config, networks))
    ]
    found = failed("learns", "gradients")
    assert (
        "nothing that it logs moves ('generator' most, by 0.0 standard errors)" in found["learns"]
    )
    assert "no gradient reaches" in found["gradients"]


def test_a_validation_that_is_not_repeatable(failed, parts):
    from t2i.core.interfaces.trainer import Stage

    class Counting(parts.Trainer):
        calls = 0

        def validation(self, batch, engine):
            self.calls += 1
            return {"generator": torch.tensor(float(self.calls))}

    parts.stages = lambda config, encoder: [
        Stage("only", 1.0, lambda networks: Counting(config, networks))
    ]
    found = failed("validates")["validates"]
    assert "stage 'only': its validation losses differ from one call to the next" in found


def test_a_generator_that_does_not_extend_its_familys_class(failed, parts):
    """What it calls itself does not matter."""

    class Stray(Generator):
        family, image_size, noise_shape = "one-shot", 8, (4,)

        def __init__(self, config, text, assets=None):
            super().__init__()

    parts.generator = Stray
    assert failed("builds") == {
        "builds": "preset 'tiny': model 'toy' declares the family 'one-shot', but its Stray does "
        "not extend "
        "OneShotGenerator (t2i.core.families.one_shot:OneShotGenerator)"
    }


def test_a_generator_that_is_not_built_where_it_is_asked_for(failed, parts):
    class Settled(parts.generator):
        def __init__(self, config, text, assets=None):
            super().__init__(config, text, assets)
            self.place = torch.nn.Parameter(torch.zeros(1, device="cpu"))

    parts.generator = Settled
    assert "puts parameters on ['cpu', 'meta']" in failed("builds")["builds"]


def test_a_model_that_does_not_train_says_so_once(failed, parts):
    def stages(config, encoder):
        raise RuntimeError("no\nstages")

    parts.stages = stages
    assert failed("trains", "gradients", "resumes", "saves") == {
        "trains": "RuntimeError in test_faults.py:"
        + failed("trains")["trains"].partition(".py:")[2]
    }


def test_a_signal_ends_the_checks(failed, parts):
    from t2i.core.interfaces.trainer import Stage

    class Stopped(parts.Trainer):
        def step(self, batch, engine):
            os.kill(os.getpid(), signal.SIGINT)
            return super().step(batch, engine)

    parts.stages = lambda config, encoder: [
        Stage("only", 1.0, lambda networks: Stopped(config, networks))
    ]
    with pytest.raises(Interrupted, match="stopped, saved at step 1"):
        failed("trains", "gradients")


def test_what_is_found_by_a_name(tmp_path):
    assert [str(check) for check in find("toytext")][:4] == [
        "plugin-toy-registers", "plugin-toy-light-import", "plugin-toy-import-time",
        "plugin-toy-paths",
    ]  # fmt: skip
    kinds = {(check.kind, check.name) for check in find("toy")}
    assert kinds == {
        ("plugins", "toy"),
        ("models", "toy"),
        ("encoders", "toytext"),
        ("datasets", "toydata"),
    }
    assert {check.kind for check in find("t2i-zoo")} == {"plugins", *registry_kinds()}
    with pytest.raises(
        UserError, match="nothing that is installed is called 'toi'; did you mean 'toy'"
    ):
        find("toi")
    with pytest.raises(UserError, match="no check of it is named 'resume'; did you mean 'resumes'"):
        find("toy", ["resume"])
    (skipped,) = run_checks(of_kind("plugins", "toy", ["light-import"]), tmp_path)
    assert (skipped.state, skipped.detail) == (
        "skipped",
        "it was registered by this program, not by an entry point",
    )


def registry_kinds():
    return {kind for plugin in registry().plugins for kind in plugin.names}


def test_the_toys_encoder_and_data(tmp_path, parts):
    checks = [
        *of_kind("encoders", "toytext"),
        *of_kind("datasets", "toydata", ["examples", "repeats"]),
    ]
    assert {o.check: o.detail for o in run_checks(checks, tmp_path) if o.state == "FAILED"} == {}

    class Padded(parts.encoder(parts.EncoderConfig(), None).__class__):
        def encode(self, captions):
            found = super().encode(captions)
            return found.map(
                lambda x: x if x.dtype == torch.bool else x * x.shape[1] if x.dim() == 3 else x
            )

    parts.encoder = lambda config, assets: Padded(config)
    (company,) = run_checks(of_kind("encoders", "toytext", ["company"]), tmp_path)
    assert "'a red circle' gets another words" in company.detail
