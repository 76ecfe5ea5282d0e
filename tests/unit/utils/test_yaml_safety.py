"""Tests of what a model's yaml may make, and of what must be refused."""

import io
import random
import re
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

import lmac_sb
from lmac_sb.lmac import refine
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.yaml_safety import ACTIVATIONS, OTHERS, is_safe, safe_yaml

OURS = """\
lmac_sb.data.audio.Preprocessor
lmac_sb.data.dataset.MultilabelEncoder
lmac_sb.lmac.explainer.Explainer
lmac_sb.lmac.losses.LMACLoss
lmac_sb.lmac.refine.Refiner
lmac_sb.methods.l2i.L2IDecoder
lmac_sb.models.decoder.LevelDecoder
lmac_sb.models.decoder.MaskDecoder
lmac_sb.models.encoders.AttentionEmbedding
lmac_sb.models.encoders.ConvEmbedding
lmac_sb.models.familiarity.Familiarity
lmac_sb.models.features.FbankFeatures
lmac_sb.models.features.LogForm
lmac_sb.models.features.SpectralFeatures
lmac_sb.models.frozen.FrozenClassifier
lmac_sb.models.psi.PSIAdapter
lmac_sb.models.sound.SoundFeatures
""".split()


@pytest.mark.parametrize("name", [*OTHERS, *OURS])
def test_allowed_classes_exist(name):
    """All allowed classes exist under their names."""
    text = safe_yaml(f"a: !new:{name} {{}}", "x.yaml")
    assert f"!new:{name}" in text
    module, _, attribute = name.rpartition(".")
    assert isinstance(
        getattr(__import__(module, fromlist=[attribute]), attribute), type
    )


def test_these_classes_of_ours_are_allowed():
    """Whoever allows one more has looked at what it does, and adds it here."""
    found = []
    for path in sorted(Path(lmac_sb.__file__).parent.rglob("*.py")):
        module = ".".join(("lmac_sb", *path.parts[-2:]))[: -len(".py")]
        for name in re.findall(r"^class (\w+)", path.read_text("utf-8"), re.M):
            if is_safe(f"{module}.{name}"):
                found.append(f"{module}.{name}")
    assert sorted(found) == sorted(OURS)


@pytest.mark.parametrize(
    "name",
    [
        # Imported there, but another's.
        "lmac_sb.models.psi.CNN14PSI_stft",
        "lmac_sb.lmac.explainer.MaskDecoder",
        # Says nothing of itself, or is no class.
        "lmac_sb.models.classifier_folder.save_classifier",
        "lmac_sb.methods.l2i.DictionaryLearner",
        "lmac_sb.lmac.refine.Other",
        # In no such room or module.
        "lmac_sb.training.brain.OneCycle",
        "lmac_sb.models.nothing.MaskDecoder",
        "lmac_sb.models.decoder.MaskDecoder.forward",
        "lmac_sb.cli.main",
        "MaskDecoder",
        "",
    ],
)
def test_other_names_are_not_allowed(name):
    assert not is_safe(name)


def test_a_derived_class_speaks_for_itself(monkeypatch):
    """What it adds was not looked at."""

    class Derived(refine.Refiner):
        """Whatever."""

    Derived.__module__ = refine.__name__
    monkeypatch.setattr(refine, "Derived", Derived, raising=False)
    assert not is_safe("lmac_sb.lmac.refine.Derived")
    Derived.SAFE_IN_YAML = True
    assert is_safe("lmac_sb.lmac.refine.Derived")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: !apply:os.system [touch OWNED]", "'!apply:os.system'"),
        ("a: !applyref:os.system [touch OWNED]", "'!applyref:os.system'"),
        ("a: !include:other.yaml", "'!include:other.yaml'"),
        ("a: !module:os", "'!module:os'"),
        ("a: !name:os.system {command: x}", "'!name:os.system'"),
        ("a: !name:torch.nn.Linear", "'!name:torch.nn.Linear'"),
        ("a: !name:torch.nn.functional.relu", "'!name:torch.nn.functional."),
        ("a: !name:torch.nn.ReLU.forward", "'!name:torch.nn.ReLU.forward'"),
        ("a: !name:torch.nn.ReLU {x: !apply:os.getcwd []}", "'!apply:os."),
        (
            "a: !new:subprocess.Popen [[touch, OWNED]]",
            "'!new:subprocess.Popen'",
        ),
        # Names below an allowed module are not allowed.
        (
            "a: !new:lmac_sb.data.audio.os.system [x]",
            "'!new:lmac_sb.data.audio.os.",
        ),
        (
            "a: !new:lmac_sb.training.checkpoints.SafeCheckpointer [/x]",
            "Checkpointer'",
        ),
        (
            'a: !!python/object/apply:os.system ["touch OWNED"]',
            "'tag:yaml.org,2002:python/object/apply:os.system'",
        ),
        ("a: !!python/name:os.system ''", "python/name:os.system'"),
        ("%TAG !e! tag:yaml.org,2002:python/\n---\na: !e!name:os.x ''", "name"),
        # hyperpyyaml passes (...) to a loader that makes any object.
        (
            "a: (!!python/object/apply:os.system ['touch OWNED'],)",
            'the value "(!!python',
        ),
        ('a: "(!!python/object/apply:os.system [x],)"', "the value"),
        ("a: {b: [1, {c: !apply:os.getcwd []}]}", "'!apply:os.getcwd'"),
        ("!apply:os.getcwd []: 1", "'!apply:os.getcwd'"),
        # References can read attributes and compute.
        ("b: 1\na: !ref <b.__class__>", "'<b.__class__>'"),
        ("b: 9\na: !ref <b> ** <b> ** <b>", "the reference"),
        ("b: x\na: !ref <<b>>", "the reference"),
        ("c: <b.real>\nb: 1\na: !ref <c>", "the value '<b.real>'"),
        ("b: x\na: !ref <b>/<b.__class__>", "the reference"),
        ("b: x\na: !ref <b[0]>/x", "the reference"),
        ("b: x\na: !ref <b>/x + 1", "the reference"),
        ("b: x\na: !ref <b>/<<b>>", "the reference"),
        ("b: x\na: !ref (<b>/x)", "the reference"),
        ("b: x\na: !ref '<b>/\"x\"'", "the reference"),
        ("b: x\na: !copy <b>/x", "the reference"),
        ("b: x\na: !ref <c>/x", "the reference"),
        # What is joined is a text, or a whole number in one.
        ("b: 9\na: !ref <b>/3", "the reference"),
        ("b: '9'\na: !ref <b>/3", "the reference"),
        ("b: 9\na: !ref <b>-<b>", "the reference"),
        ("b: True\na: !ref <b>/2", "the reference"),
        ("b: 1.5\na: !ref <b>/x", "the reference"),
        ("b: 1e5\na: !ref <b>/x", "the reference"),
        ("b: [x]\na: !ref <b>/x", "the reference"),
        ("b: !new:torch.nn.ReLU {}\na: !ref <b>/x", "the reference"),
        ("b: !name:torch.nn.ReLU\na: !ref <b>/x", "the reference"),
        ("b: '(x)'\na: !ref <b>/x", "the value"),
        ("b: \"'x'\"\na: !ref <b>/x", "the reference"),
        ("b: x*y\na: !ref <b>/x", "the reference"),
        ("b: !ref <c>/x\nc: !ref <b>/y", "the reference"),
        ("b: !ref x/<b>", "the reference"),
        (f"b: {'x' * 600}\na: !ref <b>/<b>", "the reference"),
        ("a: &x [1]\nb: *x", "an alias"),
        ("a: !PLACEHOLDER", "'!PLACEHOLDER'"),
    ],
)
def test_what_could_run_is_refused(text, found, tmp_path, monkeypatch):
    """Dangerous yaml is refused, by name and line."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LMACError, match="hyperparams.yaml") as caught:
        safe_yaml(text, "hyperparams.yaml")
    assert found in str(caught.value)
    assert "line " in str(caught.value)
    assert "trusted=True" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_bracket_hole_is_real(tmp_path, monkeypatch):
    """A value in brackets can run code, so it is refused."""
    monkeypatch.chdir(tmp_path)
    text = "a: (!!python/object/apply:os.mkdir ['owned'],)"
    load_hyperpyyaml(io.StringIO(text))
    assert (tmp_path / "owned").is_dir()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_may_be_named(name):
    """A class, or one that is given its arguments later."""
    for arguments in ("", " {}"):
        text = safe_yaml(f"a: !name:{name}{arguments}", "x.yaml")
        made = load_hyperpyyaml(io.StringIO(text))["a"]()
        assert isinstance(made, torch.nn.Module)
        assert f"{type(made).__module__}.{type(made).__name__}".endswith(
            name.rpartition(".")[2]
        )


PARTS = ["<x>", "<y>", "<n>", "<r>", "<dot>", "/", "/", "-", ".", "+", "a", "7"]


def test_joined_references_are_texts():
    """For hyperpyyaml the same text as before, and no reference any more."""
    head = "x: me/model\ny: True\nn: 12\nr: !ref <x>/b\ndot: .\n"
    draw = random.Random(0)
    allowed = 0
    for _ in range(400):
        value = "".join(draw.choices(PARTS, k=draw.randint(2, 7)))
        text = f"{head}a: {{k: [!ref '{value}']}}\n"
        try:
            safe = safe_yaml(text, "x.yaml")
        except LMACError:
            continue
        allowed += 1
        try:
            plain = load_hyperpyyaml(io.StringIO(text))["a"]
        except ValueError as error:
            # Its search for circles stumbles over one that is named twice.
            assert "Circular" in str(error)
            continue
        assert load_hyperpyyaml(io.StringIO(safe))["a"] == plain, value
        assert "!ref" not in safe.partition("a:")[2]
    assert allowed > 100


def test_joined_references_do_not_multiply():
    """Each key is joined once, so doubling thirty times ends at once."""
    lines = [f"a{i}: !ref <a{i + 1}><a{i + 1}>" for i in range(30)]
    with pytest.raises(LMACError, match="the reference"):
        safe_yaml("\n".join([*lines, "a30: x"]), "x.yaml")
    lines = [f"a{i}: !ref <a{i + 1}>/" for i in range(3000)]
    with pytest.raises(LMACError, match="the reference"):
        safe_yaml("\n".join([*lines, "a3000: x"]), "x.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not yaml"),
        ("a: 1\n---\nb: 1", "not yaml"),
        ("- 1", "holds no keys"),
        ("", "holds no keys"),
        ("[" * 5000, "not yaml"),
    ],
)
def test_no_yaml(text, message):
    with pytest.raises(LMACError, match=f"x.yaml: {message}"):
        safe_yaml(text, "x.yaml")


def test_data_comes_through():
    """The rewritten text means the same."""
    text = """
a: 1
b: [1.5, null, true, "x: y", 'ä "q"']
c: {d: , e: -3}
m: !new:torch.nn.Linear
    in_features: 2
    out_features: !ref <a>
"""
    plain, safe = (
        load_hyperpyyaml(io.StringIO(x)) for x in (text, safe_yaml(text, "x"))
    )
    assert str(plain.pop("m")) == str(safe.pop("m"))
    assert plain == safe
    assert safe["b"] == [1.5, None, True, "x: y", 'ä "q"']
