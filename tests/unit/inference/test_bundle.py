"""Tests of what a model folder may hold, and of what must be refused."""

import io
import re
import shutil
from pathlib import Path

import pytest
from hyperpyyaml import load_hyperpyyaml

import lmac_sb
from lmac_sb import LMACInterpreter
from lmac_sb.inference.bundle import find_bundle
from lmac_sb.inference.yaml_safety import OTHERS, is_safe, safe_yaml
from lmac_sb.lmac import refine
from lmac_sb.utils.checksums import check_sums, file_sha256, write_sums
from lmac_sb.utils.errors import LMACError

OURS = """\
lmac_sb.data.audio.Preprocessor
lmac_sb.lmac.explainer.Explainer
lmac_sb.lmac.losses.LMACLoss
lmac_sb.lmac.refine.Refiner
lmac_sb.methods.l2i.L2IDecoder
lmac_sb.models.decoder.MaskDecoder
lmac_sb.models.encoders.AttentionEmbedding
lmac_sb.models.encoders.ConvEmbedding
lmac_sb.models.features.FbankFeatures
lmac_sb.models.features.LogForm
lmac_sb.models.features.SpectralFeatures
lmac_sb.models.frozen.FrozenClassifier
lmac_sb.models.psi.PSIAdapter
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


@pytest.fixture
def folder(tmp_path):
    """A small folder with sums."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for name in ("hyperparams.yaml", "sub/a.wav"):
        (folder / name).write_text(name)
    write_sums(folder)
    return folder


def test_sums_are_needed(folder):
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(LMACError, match="SHA256SUMS: no such file"):
        find_bundle(folder)


def test_sums_must_vouch_for_the_yaml(folder):
    sums = folder / "SHA256SUMS"
    lines = sums.read_text().splitlines(True)
    sums.write_text("".join(x for x in lines if "yaml" not in x))
    with pytest.raises(LMACError, match="does not name hyperparams.yaml"):
        find_bundle(folder)


@pytest.mark.parametrize(
    "source", [Path("no/where"), "./no/where", "/no/where", "nowhere"]
)
def test_no_such_folder(source, monkeypatch):
    """A path is never treated as a hub id."""
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda _: pytest.fail("asked")
    )
    with pytest.raises(LMACError, match="no such folder"):
        find_bundle(source)


def test_hub(folder, monkeypatch):
    """An id is downloaded, and errors of the hub are shown."""
    import huggingface_hub

    asked = []

    def download(repository):
        asked.append(repository)
        if repository == "me/gone":
            raise OSError("404\nnot found")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_bundle("me/model") == folder
    with pytest.raises(LMACError, match="me/gone: not a local folder.*404 not"):
        find_bundle("me/gone")
    assert asked == ["me/model", "me/gone"]


def test_savedir_gets_a_copy(folder, tmp_path):
    """The copy has files, not links to the source."""
    savedir = tmp_path / "deep" / "saved"
    assert find_bundle(folder, savedir) == savedir
    shutil.rmtree(folder)
    assert check_sums(savedir) == ["hyperparams.yaml", "sub/a.wav"]
    assert not any(path.is_symlink() for path in savedir.rglob("*"))
    assert [path.name for path in savedir.parent.iterdir()] == ["saved"]


def test_savedir_is_one_models(folder, tmp_path):
    """A savedir of another model is refused."""
    savedir = tmp_path / "saved"
    find_bundle(folder, savedir)
    assert find_bundle(folder, savedir) == savedir
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "hyperparams.yaml").write_text("changed")
    write_sums(other)
    with pytest.raises(LMACError, match="does not hold the model"):
        find_bundle(other, savedir)
    (savedir / "sub" / "a.wav").write_text("damaged")
    with pytest.raises(LMACError, match="a.wav: truncated or changed"):
        find_bundle(folder, savedir)


def test_savedir_with_other_things(folder, tmp_path):
    """A savedir with other files is refused, and stays as it is."""
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "mine").write_text("keep")
    with pytest.raises(LMACError, match="does not hold the model"):
        find_bundle(folder, tmp_path / "saved")
    assert (tmp_path / "saved" / "mine").read_text() == "keep"


def test_sums_are_checked_once(bundle, monkeypatch):
    """Checksums are computed once, since that takes long."""
    checked = []

    def counted(path):
        checked.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr("lmac_sb.utils.checksums.file_sha256", counted)
    LMACInterpreter.from_hparams(bundle)
    assert sorted(checked) == sorted(set(checked)) and len(checked) > 3
