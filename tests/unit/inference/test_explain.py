"""One call from a classifier and a sound, and all that may be asked."""

import json
import math

import numpy as np
import pytest
import soundfile as sf
import torch

import lmac_sb
from lmac_sb import LMACInterpreter
from lmac_sb.cli import main
from lmac_sb.inference.clip_folder import read_clip
from lmac_sb.lmac.masking import ideal_mask
from lmac_sb.metrics.localisation import event_mass
from lmac_sb.metrics.verdict import VERDICTS
from lmac_sb.utils.errors import LMACError

RATE = 16000
SECONDS = 1.5
BANDS = {"low": (300, 600), "middle": (1000, 1800), "high": (2500, 4000)}


class Bands(torch.nn.Module):
    """Logits are the levels of bands, so what it hears is known."""

    def __init__(self, scale=3.0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, wavs):
        """Logits [batch, classes] of waveforms [batch, samples]."""
        spectrum = torch.fft.rfft(wavs).abs().square()
        hertz = torch.linspace(0, RATE / 2, spectrum.shape[1])
        levels = [
            spectrum[:, (hertz >= low) & (hertz < high)].mean(1)
            for low, high in BANDS.values()
        ]
        levels = torch.stack(levels, 1) / wavs.shape[1]
        return self.scale * (1e-4 + levels).log10()


def tone(hertz, start, end, level=0.3):
    """A tone from one time to another, faded, [1, samples]."""
    time = torch.arange(int(SECONDS * RATE)) / RATE
    inside = ((time - start) * 50).clamp(0, 1) * ((end - time) * 50).clamp(0, 1)
    return (level * inside * torch.sin(2 * torch.pi * hertz * time))[None]


EVENTS = {
    "low": tone(450, 0.1, 0.6, 0.5),
    "middle": tone(1400, 0.7, 0.9),
    "high": tone(3200, 0.9, 1.4, 0.4),
}


def noise(level=0.01):
    """Of the length of the events, [1, samples]."""
    generator = torch.Generator().manual_seed(3)
    return level * torch.randn(1, int(SECONDS * RATE), generator=generator)


MIX = EVENTS["low"] + EVENTS["high"] + noise()


@pytest.fixture(scope="module")
def interpreter():
    """Of the bands."""
    return LMACInterpreter.from_classifier(Bands(), RATE, list(BANDS))


def ideals(features, mix):
    """Bins of each event, by name."""
    whole = features.stft(mix)
    return {
        name: ideal_mask(features.stft(event), whole)
        for name, event in EVENTS.items()
    }


# ---------------------------------------------------------- two events


@pytest.mark.parametrize(
    "target, against",
    [("low", "high"), ("high", "low"), (None, "runner-up")],
)
@pytest.mark.parametrize("multilabel", [False, True])
def test_why_this_and_not_that(target, against, multilabel):
    """In a scene of two events, the mask finds the one that is asked for."""
    found = lmac_sb.explain(
        Bands(),
        MIX,
        target,
        against,
        sample_rate=RATE,
        labels=list(BANDS),
        multilabel=multilabel,
    )
    asked = target or "low"
    rest = {"low": "high", "high": "low"}[asked]
    assert found.labels == [f"{asked} rather than {rest}"]
    events = ideals(found.features, MIX)
    mass = float(event_mass(found.mask, events[asked]))
    other = float(event_mass(found.mask, events[rest]))
    assert mass > 5 * other
    # What is kept is that event: by energy, in the sound that is heard.
    kept = found.waveform
    shares = {
        name: float((kept * event).sum() / event.square().sum())
        for name, event in EVENTS.items()
    }
    assert shares[asked] > 0.8 and shares[rest] < 0.1
    numbers = [found.logits, found.logits_in, found.logits_out]
    columns = [list(BANDS).index(name) for name in (asked, rest)]
    odds = [float(x[0, columns[0]] - x[0, columns[1]]) for x in numbers]
    for p, z in zip((found.p_before, found.p_inside, found.p_outside), odds):
        assert float(p) == pytest.approx(1 / (1 + math.exp(-z)), abs=1e-4)
    assert odds[1] > odds[0] and odds[2] < 0


def test_one_of_several_finds_both():
    """Either event may be kept, and nothing of what is not asked for."""
    mix = MIX + EVENTS["middle"]
    found = lmac_sb.explain(
        Bands(),
        mix,
        {"low", "high"},
        "middle",
        sample_rate=RATE,
        labels=list(BANDS),
    )
    assert found.labels == ["low or high rather than middle"]
    events = ideals(found.features, mix)
    masses = {n: float(event_mass(found.mask, e)) for n, e in events.items()}
    assert masses["low"] + masses["high"] > 5 * masses["middle"]


def test_a_score_finds_its_band():
    """The level of one band, as a number of the outputs."""

    def loudness(logits):
        """Of the high band."""
        return logits[:, 2]

    found = lmac_sb.explain(Bands(), MIX, loudness, sample_rate=RATE)
    events = ideals(found.features, MIX)
    masses = {n: float(event_mass(found.mask, e)) for n, e in events.items()}
    assert masses["high"] > 5 * masses["low"]
    assert found.labels == ["loudness"] and found.verdicts == ["faithful"]


# -------------------------------------------------------------- sounds


def as_pcm(wav, kind):
    """Samples as whole numbers."""
    return (wav * np.iinfo(kind).max).round().astype(kind)


WAV = MIX[0].numpy()
SOUNDS = {
    "tensor": MIX[0],
    "batch of one": MIX,
    "array": WAV,
    "double": WAV.astype(np.float64),
    "list": WAV.tolist(),
    "int16": as_pcm(WAV, np.int16),
    "int32": as_pcm(WAV, np.int32),
    "channels first": np.stack([WAV, WAV]),
    "samples first": np.stack([WAV, WAV], 1),
    "int16, samples first": as_pcm(np.stack([WAV, WAV], 1), np.int16),
    "with a rate": (WAV, RATE),
    "tensor with a rate": (MIX, RATE),
    "rate of NumPy": (WAV, np.int64(RATE)),
    "rate in a tensor": {"array": MIX, "sampling_rate": torch.tensor(RATE)},
    "rate in an array": (WAV, np.array(RATE)),
    "list of NumPy's numbers": list(WAV),
    "rate first": (RATE, as_pcm(WAV, np.int16)),
    "Hugging Face": {"path": None, "array": WAV, "sampling_rate": RATE},
    "with a gradient": MIX[0].clone().requires_grad_(),
}


@pytest.mark.parametrize("name", list(SOUNDS))
def test_any_form_of_a_sound(interpreter, name):
    """All forms of one sound are heard alike."""
    found = interpreter.explain_sound(SOUNDS[name], refine_steps=1)
    assert torch.allclose(found.wavs, MIX, atol=1e-4)
    assert torch.allclose(found.logits, Bands()(MIX), atol=1e-3)
    assert found.labels == ["low"]


def test_files(interpreter, tmp_path):
    """By name or path, of other rates and channels."""
    path = tmp_path / "sound.wav"
    sf.write(path, np.stack([WAV, WAV], 1), RATE)
    for name in (path, str(path)):
        found = interpreter.explain_sound(name, refine_steps=1)
        assert torch.allclose(found.wavs, MIX, atol=1e-4)
        assert found.files == [str(path)]


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates(interpreter, rate):
    """Brought to the model's rate, whichever way the rate is told."""
    time = np.arange(rate) / rate
    wav = 0.3 * np.sin(2 * np.pi * 450 * time)
    by_tuple = interpreter.explain_sound((wav, float(rate)), refine_steps=1)
    by_option = lmac_sb.explain(
        Bands(), wav, rate=rate, sample_rate=RATE, steps=1
    )
    assert torch.equal(by_tuple.wavs, by_option.wavs)
    assert by_tuple.n_samples == [RATE]
    assert by_tuple.labels == ["low"] and by_option.labels == ["0"]


@pytest.mark.parametrize(
    "sound, message",
    [
        (torch.zeros(0), "sound: found shape"),
        (torch.rand(2, 3, 8000), "sound: found shape"),
        (torch.rand(100), "sound: 0.0063 s long"),
        (torch.full((RATE,), math.nan), "NaN or infinite"),
        ((torch.rand(RATE), 0), "sample_rate: found 0"),
        ((torch.rand(RATE), "16k"), "sample_rate: found '16k'"),
        ({"wav": WAV}, "sound: found a dict"),
        ("nowhere.wav", "nowhere.wav: no such audio file"),
        (None, "sound: found None, expected"),
    ],
)
def test_what_is_no_sound(interpreter, sound, message):
    with pytest.raises(LMACError, match=message):
        interpreter.explain_sound(sound)


@pytest.mark.parametrize("kind", [torch.int16, torch.int32, torch.uint8])
def test_whole_numbers_in_a_batch(interpreter, kind):
    """They would be heard 32768 times as loud as the same sound alone."""
    wavs = (MIX * 100).to(kind)
    with pytest.raises(LMACError, match=f"wavs: found {kind}, expected float"):
        interpreter.explain_batch(wavs)


def test_a_sound_far_above_full_scale(interpreter, tmp_path):
    """As scipy.io.wavfile reads it, then .astype("float32"): with a note."""
    path = tmp_path / "loud.wav"
    sf.write(path, WAV * 32767, RATE, subtype="FLOAT")
    loud = MIX * 32767
    for found in (
        interpreter.explain_sound(loud[0], refine_steps=1),
        interpreter.explain_batch(loud, refine_steps=1),
        interpreter.explain_file(path, refine_steps=1),
    ):
        ((note,),) = found.notes
        assert "though full scale is 1" in note and str(found).count(note) == 1
    assert interpreter.explain_sound(MIX * 4, refine_steps=1).notes == [[]]


def test_a_rate_is_told_once():
    for sound in ((WAV, RATE), "sound.wav", SOUNDS["Hugging Face"]):
        with pytest.raises(LMACError, match="rate: found 8000, but the sound"):
            lmac_sb.explain(Bands(), sound, rate=8000, sample_rate=RATE)


def test_the_users_array_is_the_users(interpreter):
    """It stays as it is, and what is done to it later changes nothing."""
    wav, wavs = WAV.copy(), MIX.clone()
    found = interpreter.explain_sound(wav, refine_steps=1)
    batch = interpreter.explain_batch(wavs, refine_steps=1)
    assert np.array_equal(wav, WAV) and torch.equal(wavs, MIX)
    wav[:], wavs[:] = 0, 0
    assert torch.equal(found.wavs, MIX) and torch.equal(batch.wavs, MIX)


def test_silence():
    """No error, and the verdict says it."""
    silence = torch.zeros(RATE)
    found = lmac_sb.explain(Bands(), silence, sample_rate=RATE, steps=2)
    assert found.verdicts == ["silent"]


# ------------------------------------------------------------- targets


@pytest.mark.parametrize(
    "target, label",
    [
        (None, "low"),
        ("middle", "middle"),
        (1, "middle"),
        (np.int64(1), "middle"),
        (np.array(1), "middle"),
        (torch.tensor(1), "middle"),
        (torch.tensor([1]), "middle"),
        (np.array([1]), "middle"),
        (["middle"], "middle"),
        ({"low", "high"}, "low or high"),
        (["low", 2], "low or high"),
        (frozenset({0, 2}), "low or high"),
        (torch.tensor([True, False, True]), "low or high"),
        (np.array([[True, False, True]]), "low or high"),
    ],
)
def test_forms_of_a_target(interpreter, target, label):
    found = interpreter.explain_sound(MIX, target, refine_steps=1)
    assert found.labels == [label]


@pytest.mark.parametrize(
    "target, message",
    [
        ("lo", "target: 'lo' is no class; did you mean 'low'"),
        (3, "target: 3 is no class"),
        (-1, "target: -1 is no class"),
        (True, "target: True is no class"),
        (1.0, "target: 1.0 is no class"),
        (set(), "target: found no class"),
        ([], "target: 0 classes for 1 clips"),
        ({"low", "mid"}, "target: 'mid' is no class"),
        (set(BANDS), "target: all classes are asked for"),
        (lambda logits: logits[:, 5], "target: the function fails"),
        (lambda logits: logits.sum(), "target: the function returned shape"),
    ],
)
def test_what_cannot_be_asked(interpreter, target, message):
    with pytest.raises(LMACError, match=message):
        interpreter.explain_sound(MIX, target)


@pytest.mark.parametrize(
    "target, against, message",
    [
        (None, "low", "against: class 0 is the one that is asked for"),
        ("low", {"low", "high"}, "against: class 0 is the one that"),
        ("low", "next", "against: 'next' is no class"),
        (set(BANDS), "runner-up", "against: there is no other class"),
        (lambda logits: logits[:, 0], "low", "target: found a function"),
    ],
)
def test_what_cannot_be_compared(interpreter, target, against, message):
    with pytest.raises(LMACError, match=message):
        interpreter.explain_sound(MIX, target, against)


@pytest.mark.parametrize("target", ["low", None])
def test_what_is_compared_with_itself_is_named(interpreter, target):
    """As the user has named it; a target that is given needs no sound."""
    message = "against: class 0 is the one that is asked for, 'low' "
    with pytest.raises(LMACError, match=message):
        interpreter.explain_sound(MIX, target, "low")
    if target is not None:
        with pytest.raises(LMACError, match=message):
            interpreter.check_question(target, "low")


def test_sets_of_each_clip(interpreter):
    """A list has one entry for each clip; entries may be sets."""
    wavs = MIX.repeat(2, 1)
    found = interpreter.explain_batch(
        wavs, target=["middle", {"low", "high"}], refine_steps=1
    )
    assert found.labels == ["middle", "low or high"]
    with pytest.raises(LMACError, match="target: 3 classes for 2 clips"):
        interpreter.explain_batch(wavs, target=["low", "low", "low"])


def test_a_class_named_like_the_word():
    """It is meant if there is one of that name."""
    found = lmac_sb.explain(
        Bands(),
        MIX,
        "low",
        "runner-up",
        steps=1,
        sample_rate=RATE,
        labels=["low", "runner-up", "high"],
    )
    assert found.labels == ["low rather than runner-up"]
    assert found.question.against.tolist() == [1]


# ------------------------------------------------------------- options


def test_an_interpreter_in_place_of_a_model(interpreter):
    """With its own steps unless others are asked for, and no other option."""
    found = lmac_sb.explain(interpreter, MIX)
    assert found.refine_steps == interpreter.explainer.refine_steps == 10
    assert lmac_sb.explain(interpreter, MIX, steps=1).refine_steps == 1
    with pytest.raises(LMACError, match="labels: of no use to an interpreter"):
        lmac_sb.explain(interpreter, MIX, labels=["a", "b", "c"])


def test_steps_make_it_better(interpreter):
    """Ten steps keep the decision in less, or more of it."""
    few, many = (
        interpreter.explain_sound(MIX, refine_steps=n) for n in (0, 10)
    )
    loss = interpreter.explainer.refiner.loss

    def objective(found):
        """What the steps descend."""
        sides = (found.logits_in, found.logits_out)
        return float(loss(found.mask, *sides, found.decision)[0])

    assert objective(many) < objective(few)
    assert many.verdicts == ["faithful"]


def test_steps_in_double_precision():
    """Where the classifier comes without a decoder."""
    made = LMACInterpreter.from_classifier(Bands(), RATE, list(BANDS))
    expected = made.explain_sound(MIX, refine_steps=2)
    found = made.double().explain_sound(MIX, refine_steps=2)
    assert found.mask.dtype == torch.float32
    torch.testing.assert_close(found.mask, expected.mask, atol=1e-3, rtol=0)


def test_threshold_and_the_mask_before(interpreter):
    found = interpreter.explain_sound(MIX, threshold=0.5, unrefined=True)
    assert set(found.mask.unique().tolist()) <= {0.0, 1.0}
    assert found.unrefined.verdicts[0] in VERDICTS
    assert not torch.equal(found.unrefined.mask, found.mask)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "^steps: -1, expected a whole number from 0"),
        ({"steps": "2"}, "^steps: '2', expected a whole number from 0"),
        ({"stable": "no"}, "^stable: found 'no', expected True or False"),
        ({"unrefined": 1}, "^unrefined: found 1, expected True or False"),
        ({"second_look": 1}, "^second_look: 1, expected True or False"),
        ({"threshold": "0.5"}, "^threshold: '0.5' is not in"),
        ({"threshold": True}, "^threshold: True is not in"),
        (
            {"targets": "all", "min_p": "x"},
            "^min_p: found 'x', expected a number",
        ),
        ({"min_p": 0.5}, "^min_p: found 0.5 without targets"),
        ({"targets": 7}, "^targets: 7 is no class"),
        ({"targets": 1.5}, "^targets: 1.5 is no class"),
    ],
)
def test_what_cannot_be_explained_so(
    interpreter, monkeypatch, options, message
):
    """It is said before the work starts, by the name that was given."""
    monkeypatch.setattr(interpreter, "_explain", None)
    with pytest.raises(LMACError, match=message):
        lmac_sb.explain(interpreter, MIX, **options)


def test_several_by_a_number_of_numpy(interpreter):
    found = interpreter.explain_sound(
        MIX, targets=np.int64(2), threshold=np.float32(0.5), refine_steps=1
    )
    assert found.labels == ["high"] and found.threshold == 0.5
    assert type(found.threshold) is float  # as JSON takes it


@pytest.mark.parametrize("against", [None, "high"])
def test_stability(interpreter, against):
    found = interpreter.explain_sound(MIX, against=against, stable=True)
    assert set(found.agreement[0]) == {"shift and noise", "another start"}
    assert found.stable[0] in (True, False)
    assert found.stable[0] == all(v >= 0.7 for v in found.agreement[0].values())


# --------------------------------------------- folders, report, notebook


def level_of_low(logits):
    """A score."""
    return logits[:, 0]


QUESTIONS = {
    "plain": {},
    "against": {"against": "runner-up"},
    "sets": {"target": {"low", "middle"}, "against": {"high"}},
    "score": {"target": level_of_low},
    "unrefined": {"against": "high", "unrefined": True},
}


@pytest.mark.parametrize("multilabel", [False, True])
def test_saved_and_reported(tmp_path, multilabel):
    """Each kind of question is written, read and shown."""
    made = LMACInterpreter.from_classifier(
        Bands(), RATE, list(BANDS), multilabel=multilabel, steps=2
    )
    for name, question in QUESTIONS.items():
        found = made.explain_sound(MIX, **question)
        (folder,) = found.save(tmp_path / name)
        info = read_clip(folder).info
        text = (folder / "explanation.json").read_text("utf-8")
        assert json.loads(text) == info
        assert info["decision"] in info["classes"]
        assert info["verdict"] == found.verdicts[0]
        asked = info.get("answer", {})
        if found.labels[0] == info["decision"]:
            assert not asked
            continue
        assert asked["name"] == found.labels[0]
        for key, p in (
            ("p", found.p_before),
            ("p_in", found.p_inside),
            ("p_out", found.p_outside),
        ):
            assert asked[key] == pytest.approx(float(p))
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "low rather than high" in page
    assert "low or middle rather than high" in page
    assert "level_of_low of silence" in page


def test_notebook(interpreter):
    """The question in words, escaped, with three players."""
    found = interpreter.explain_sound(MIX, against="high", refine_steps=1)
    page = found._repr_html_()
    assert "<h4>low rather than high</h4>" in page
    assert page.count("<audio") == 3 and found.verdicts[0] in page
    assert "'low rather than high': p = " in repr(found)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_bytes_of_a_file_are_no_path(kind, tmp_path):
    """One short line, whichever function is asked."""
    sf.write(tmp_path / "x.wav", np.zeros(RATE), RATE)
    content = kind((tmp_path / "x.wav").read_bytes())
    mine = LMACInterpreter.from_classifier(Bands(), RATE)
    for call in (
        mine.explain_sound,
        lambda sound: next(mine.explain_classes(sound)),
        lambda sound: lmac_sb.explain(Bands(), sound, sample_rate=RATE),
        lambda sound: lmac_sb.fit(mine, [sound, sound]),
    ):
        with pytest.raises(LMACError, match=r"sound: found .*32044 bytes") as e:
            call(content)
        assert len(str(e.value)) < 120
    name = bytes(tmp_path / "x.wav")
    assert mine.explain_file(name).files == [str(tmp_path / "x.wav")]


def test_the_text_of_a_file_is_no_path():
    mine = LMACInterpreter.from_classifier(Bands(), RATE)
    with pytest.raises(LMACError, match="path: found the content of a file, 5"):
        mine.explain_file("a" * 5000)
