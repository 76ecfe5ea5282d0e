"""Sounds and classifiers at the edge of numbers: a verdict, or one line."""

import numpy as np
import pytest
import soundfile as sf
import torch

from lmac_sb import LMACError, LMACInterpreter
from lmac_sb.inference.explanation import numbers, verdict

RATE = 16000
NOISE = np.random.default_rng(0).standard_normal(RATE)
ONE = np.arange(RATE) == 5
SOUNDS = {
    "near-silent": NOISE * 1e-7,
    "nearer": NOISE * 1e-20,
    "denormal": np.sign(NOISE) * 1e-40,
    "zeros": NOISE * 0,
    "constant": NOISE * 0 + 0.5,
    "hardly constant": NOISE * 0 + 1e-6,
    "alternating": np.tile([1.0, -1.0], RATE // 2),
    "one impulse": ONE.astype(float),
    "one of 1e30": np.where(ONE, 1e30, NOISE),
    "all of 1e30": NOISE * 1e30,
    "largest": np.sign(NOISE) * 3.4e38,
    "shortest": NOISE[: RATE // 10],
}
REFUSED = {
    "NaN": np.where(ONE, np.nan, NOISE),
    "infinite": np.where(ONE, np.inf, NOISE),
    "one sample": NOISE[:1],
    "no sample": NOISE[:0],
    "too short": NOISE[: RATE // 10 - 1],
}


def both(interpreter, wav, folder):
    """The sound from memory, and from a file."""
    sf.write(folder / "x.wav", wav, RATE, subtype="FLOAT")
    yield lambda: interpreter.explain_sound((torch.tensor(wav), RATE))
    yield lambda: interpreter.explain_file(folder / "x.wav")


@pytest.mark.parametrize("name", SOUNDS)
def test_a_verdict(interpreter, tmp_path, name):
    for explain in both(interpreter, SOUNDS[name], tmp_path):
        found = explain()[0]
        assert verdict(found)
        assert all(map(np.isfinite, numbers(found).values()))
        assert found.mask.isfinite().all()


@pytest.mark.parametrize("name", REFUSED)
def test_one_line(interpreter, tmp_path, name):
    for explain in both(interpreter, REFUSED[name], tmp_path):
        with pytest.raises(LMACError) as caught:
            explain()
        assert "\n" not in str(caught.value)


class Network(torch.nn.Module):
    """A classifier of any number of classes."""

    def __init__(self, n_classes):
        super().__init__()
        self.filters = torch.nn.Conv1d(1, 8, 400, 160)
        self.head = torch.nn.Linear(8, n_classes)

    def forward(self, wavs):
        hidden = self.filters(wavs[:, None]).relu()
        return self.head(hidden.mean(2))


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("n_classes", [1, 2, 10_000])
def test_any_number_of_classes(n_classes, multilabel, tmp_path):
    interpreter = LMACInterpreter.from_classifier(
        Network(n_classes).eval(),
        sample_rate=RATE,
        labels=[f"class {i}" for i in range(n_classes)],
        multilabel=multilabel,
        steps=2,
    )
    found = interpreter.explain_sound(torch.randn(RATE))
    assert verdict(found[0]) and len(found[0].titles) == 1
    assert all(map(np.isfinite, numbers(found[0]).values()))
    last = interpreter.explain_sound(torch.randn(RATE), n_classes - 1)
    assert last.titles == [f"class {n_classes - 1}"]
