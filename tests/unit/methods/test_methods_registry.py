"""Tests of the registry of methods: masks and costs."""

from dataclasses import replace

import pytest
import torch

from lmac_sb.methods.registry import Case, make_methods, min_max, passes
from lmac_sb.methods.trivial import TRIVIAL_MASKS
from lmac_sb.utils.errors import LMACError


@pytest.fixture(scope="module")
def explainer(interpreter):
    return interpreter.explainer


@pytest.fixture(scope="module")
def case(explainer, sounds):
    analysis = explainer.analyze(sounds)
    target = analysis.logits.argmax(1)
    event = (torch.rand(analysis.magnitude.shape) > 0.5).float()
    ids = [str(i) for i in range(len(sounds))]
    return Case(explainer, sounds, analysis, target, ids, event)


def test_order_and_kinds(explainer):
    names = ["lmac+3", "lmac", "ones", "loudest", "saliency", "ideal"]
    methods = make_methods(names, {"lmac": explainer})
    assert list(methods) == names
    kinds = ["mask", "mask", "fixed", "area", "scores", "fixed"]
    assert [method.kind for method in methods.values()] == kinds


def test_a_single_name_may_stand_alone():
    assert list(make_methods("random", {})) == ["random"]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["salience"], "unknown 'salience'; did you mean 'saliency'"),
        (["lmac"], "unknown 'lmac'"),  # none was given
        (["saliency+2"], "unknown 'saliency\\+2'"),
        (["ones", "ones"], "'ones' is given twice"),
        ([], "none given"),
    ],
)
def test_bad_names(names, text):
    with pytest.raises(LMACError, match=text):
        make_methods(names, {})


@pytest.mark.parametrize(
    "name",
    ["random", "saliency", "ones", "ideal", "optimised", "lmac_binary"],
)
def test_an_interpreter_with_the_name_of_a_method(explainer, name):
    """It would be left out in silence, or take the method's place."""
    with pytest.raises(LMACError, match=f"interpreters: '{name}' is the name"):
        make_methods(["lmac"], {"lmac": explainer, name: explainer})


def test_the_message_lists_what_there_is(explainer):
    with pytest.raises(LMACError) as error:
        make_methods(["xyz"], {"mine": explainer})
    for name in ("mine", "optimised", "ideal", "gradcam", *TRIVIAL_MASKS):
        assert name in str(error.value)


def test_lmac_is_the_decoders_mask(explainer, case):
    method = make_methods(["lmac"], {"lmac": explainer})["lmac"]
    with torch.no_grad():
        expected = explainer.mask(case.analysis)
    assert torch.equal(method.function(case), expected)


def test_another_model_sees_the_sounds_itself(explainer, case):
    """Each model analyses the sounds itself."""

    class Other:
        mask_domain = case.explainer.mask_domain

        def analyze(self, wavs, target):
            assert torch.equal(wavs, case.wavs)
            assert torch.equal(target, case.target)
            return "its own view"

        def mask(self, analysis, target):
            assert analysis == "its own view"
            return torch.full((3, 2, 2), 0.25)

    method = make_methods(["x"], {"x": Other()})["x"]
    assert (method.function(case) == 0.25).all()


def test_steps_refine(explainer, case):
    methods = make_methods(["lmac+2", "optimised+2"], {"lmac": explainer})
    with torch.no_grad():
        start = explainer.mask(case.analysis)
    expected = explainer.refine(case.analysis, start, 2)
    assert torch.equal(methods["lmac+2"].function(case), expected)
    half = torch.full_like(start, 0.5)
    expected = explainer.refine(case.analysis, half, 2)
    assert torch.equal(methods["optimised+2"].function(case), expected)


def test_default_steps_of_optimised(explainer):
    method = make_methods(["optimised"], {}, optimised_steps=7)["optimised"]
    assert method.steps == 7


def test_passes_are_those_made(explainer, case):
    """The stated passes equal those counted at the classifier."""
    counts = {"forward": 0, "backward": 0}
    head = explainer.classifier.classifier

    def forward(module, inputs, output):
        counts["forward"] += len(output)
        if output.requires_grad:
            output.register_hook(backward)

    def backward(gradient):
        counts["backward"] += len(gradient)

    handle = head.register_forward_hook(forward)
    try:
        names = ["lmac", "lmac+3", "optimised+3"]
        for name, method in make_methods(names, {"lmac": explainer}).items():
            counts.update(forward=0, backward=0)
            if name.startswith("lmac"):
                counts["forward"] = len(case.wavs)  # the analysis
            method.function(case)
            made = sum(counts.values()) / len(case.wavs)
            # Clips that finish early cost less.
            assert 0 < made <= passes(method), name
            if name == "optimised+3":
                assert made == passes(method)
    finally:
        handle.remove()


def test_passes_of_methods_without_steps():
    assert passes(make_methods(["ones"], {})["ones"]) is None


def test_ideal_is_the_event(case):
    method = make_methods(["ideal"], {})["ideal"]
    assert torch.equal(method.function(case), case.event)
    with pytest.raises(LMACError, match="does not tell where"):
        method.function(replace(case, event=None))


def test_min_max():
    scores = torch.tensor(
        [[[1.0, 3.0, 2.0]], [[-9.0, 2.0, 1.0]], [[3.0, 3.0, 3.0]]]
    )
    expected = torch.tensor(
        [[[0.0, 1.0, 0.5]], [[0.0, 1.0, 0.5]], [[0.0, 0.0, 0.0]]]
    )
    assert torch.equal(min_max(scores), expected)
