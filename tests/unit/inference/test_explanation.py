"""Tests of the verdicts on explanations of a classifier with known reasons.

It hears a low and a high band, and decides for the louder one.
"""

import json
import math

import numpy as np
import pytest
import torch

from lmac_sb.inference import spectra
from lmac_sb.inference.clip_folder import read_clip
from lmac_sb.inference.explanation import AudioExplanation, verdict, window
from lmac_sb.lmac.explainer import Explanation
from lmac_sb.models.features import SpectralFeatures
from lmac_sb.utils.errors import LMACError

RATE, SAMPLES = 8000, 8000
LOW, HIGH = 500.0, 3000.0
CLASSES = ["low", "high"]
REST = "unfaithful: the rest decides the same"
KEPT = "unfaithful: the kept part does not decide so"


@pytest.fixture(scope="module")
def features():
    """Front end at a low rate."""
    return SpectralFeatures(RATE, n_fft=256, n_mels=20)


def tones(*levels, n_samples=SAMPLES):
    """A low and a high tone over faint noise, [1, samples]."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(n_samples) / RATE
    wav = torch.randn(n_samples, generator=generator) * 1e-4
    for level, hertz in zip(levels, (LOW, HIGH)):
        wav = wav + level * torch.sin(2 * torch.pi * hertz * time)
    return wav[None]


def logits_of(magnitude):
    """The classifier: level of both bands in dB, as log-odds."""
    middle = magnitude.shape[-1] // 2
    power = [
        part.square().sum((1, 2)).clamp_min(1e-12)
        for part in (magnitude[..., :middle], magnitude[..., middle:])
    ]
    return torch.stack(power, 1).log10()


def chord(magnitude):
    """Another classifier: a chord is where there are both tones."""
    both = logits_of(magnitude).amin(1)
    return torch.stack([20 * (both - 2), 0 * both], 1)


def masked(features, wavs, mask, target=None, classify=logits_of):
    """The explanation by a mask, [freq] or the whole of it, without names."""
    stft = features.stft(wavs)
    magnitude = features.magnitude(stft)
    mask = mask.expand(magnitude.shape).contiguous()
    logits = classify(magnitude)
    n_samples = wavs.shape[1]
    waveform, residual = (
        features.istft(stft * part[..., None], n_samples)
        for part in (mask, 1 - mask)
    )
    if target is None:
        target = logits.argmax(1)
    return Explanation(
        waveform=waveform,
        residual=residual,
        mask=mask,
        logits=logits,
        logits_in=classify(magnitude * mask),
        logits_out=classify(magnitude * (1 - mask)),
        decision=torch.as_tensor(target).reshape(-1),
        magnitude=magnitude,
    )


def explain(features, wavs, mask, target=None, **more):
    """The same with names and a verdict."""
    found = masked(features, wavs, mask, target)
    return AudioExplanation.of(found, wavs, features, CLASSES, **more)


def band(low, high, inside=1.0, outside=0.0):
    """A mask between two frequencies in Hz, [freq]."""
    hertz = torch.linspace(0, RATE / 2, 129)
    return torch.where((hertz >= low) & (hertz < high), inside, outside)


ONES, ZEROS = torch.ones(129), torch.zeros(129)


@pytest.mark.parametrize(
    ("levels", "mask", "target", "expected"),
    [
        # It decides by the low tone.
        ((0.5, 0.05), band(300, 700), None, "faithful"),
        ((0.5, 0.05), band(300, 700, 0.98, 0.02), None, "faithful"),
        ((0.5, 0.05), band(2000, 4000), None, REST),
        ((0.5, 0.05), band(0, 4000, 0.5), None, REST),
        # The other class is the high tone's.
        ((0.5, 0.05), band(2800, 3200), 1, "faithful"),
        ((0.5, 0.05), band(300, 700), 1, REST),
        # Masks that select nothing.
        ((0.5, 0.05), ONES, None, "everything kept"),
        ((0.5, 0.05), 0.97 * ONES, None, "everything kept"),
        ((0.5, 0.05), ZEROS, None, "nothing kept"),
        ((0.5, 0.05), 0.004 * ONES, None, "nothing kept"),
        # Nothing to judge, whatever the mask.
        ((0.0,), None, None, "silent"),
    ],
)
def test_verdict_on_known_reasons(features, levels, mask, target, expected):
    silent = mask is None
    wavs = 0 * tones(0.5) if silent else tones(*levels)
    found = explain(features, wavs, ONES if silent else mask, target)
    assert found.verdicts == [expected]
    assert found.judged == [expected]
    assert repr(found).endswith(f"; {expected})")
    assert f"<strong>{expected}</strong>" in found._repr_html_()
    assert found.plot().get_suptitle().endswith(f", {expected}")
    assert found.windows[0][0]["verdict"] == expected


def test_what_takes_both_parts(features):
    """A chord is neither in the one tone nor in the other."""
    wavs = tones(0.5, 0.5)
    for mask, expected in (
        (band(300, 700), KEPT),
        (band(2800, 3200), KEPT),
        (band(300, 3200), "faithful"),
        (band(1000, 2000), REST),
    ):
        found = masked(features, wavs, mask, 0, chord)
        named = AudioExplanation.of(found, wavs, features, ["chord", "none"])
        assert named.p_before[0] > 0.9
        assert named.verdicts == [expected]


@pytest.mark.parametrize("above", [0.0, 1.0])
def test_empty_bins_do_not_count(features, above):
    """As of a telephone's sound in a file of a high rate."""
    time = torch.arange(SAMPLES) / RATE
    tone = torch.sin(2 * torch.pi * 300 * time)
    # It swells and fades away: a sudden end has all frequencies.
    wavs = (0.5 * tone * torch.sin(torch.pi * time).square())[None]
    kept = explain(features, wavs, band(0, 2000, 0.97, above))
    assert 0.4 < kept.metrics[0]["area"] < 1
    assert kept.verdicts == ["everything kept"]
    lost = explain(features, wavs, band(0, 2000, 0.003, above))
    assert lost.metrics[0]["area"] == pytest.approx(above / 2, abs=0.02)
    assert lost.verdicts == ["nothing kept"]


@pytest.mark.parametrize(
    ("wav", "silent"),
    [
        (torch.zeros(1, SAMPLES), True),
        (torch.full((1, SAMPLES), 0.7), True),
        (torch.randint(-1, 2, (1, SAMPLES)) / 32768, True),
        (1e-3 * tones(1.0), False),
    ],
)
def test_silence(features, wav, silent):
    (found,) = explain(features, wav, band(300, 700)).verdicts
    assert (found == "silent") == silent


def test_no_number(features):
    found = explain(features, tones(0.5, 0.05), band(300, 700))
    found.logits_in[0, 0] = math.nan
    assert verdict(found) == "unknown"


def test_clips_of_a_batch(features):
    """Each at its own length, in the order of the clips."""
    wavs = torch.cat([tones(0.5, 0.05), torch.full((1, SAMPLES), 0.3)])
    wavs[1, 5000:] = 0
    masks = torch.stack([band(300, 700), ONES])[:, None]
    found = explain(features, wavs, masks, n_samples=[SAMPLES, 5000])
    assert found.verdicts == ["faithful", "silent"]
    assert found[1].verdicts == ["silent"]
    assert found[[1, 0]].verdicts == ["silent", "faithful"]
    for number in (np.int64(1), torch.tensor(1), np.array(1)):
        assert found[number].verdicts == ["silent"]
        assert found[number].labels == found[1].labels
        assert found[number].mask.shape == found[1].mask.shape
    joined = AudioExplanation.join([found[1], found])
    assert joined.verdicts == ["silent", "faithful", "silent"]
    assert joined.agreement == [{}] * 3
    assert joined.fit(4000, 43).verdicts == joined.verdicts


@pytest.mark.parametrize("most", [3000, 9])
def test_without_a_magnitude(features, most, monkeypatch):
    """That of a long clip is computed in blocks, and pooled."""
    monkeypatch.setattr(spectra, "MAX_FRAMES", most)
    wavs = tones(0.5, 0.05)
    for mask, expected in (
        (band(300, 700), "faithful"),
        (band(2000, 4000), REST),
        (ONES, "everything kept"),
        (ZEROS, "nothing kept"),
    ):
        found = masked(features, wavs, mask)
        found.magnitude = None
        more = {"windows": [[]]}
        long = AudioExplanation.of(found, wavs, features, CLASSES, **more)
        assert long.verdicts == [expected]
        assert long.magnitude is None


def test_a_verdict_needs_sounds(features):
    found = explain(features, tones(0.5, 0.05), band(300, 700))
    found.waveform = None
    with pytest.raises(LMACError, match="found no sounds, mask or magnitude"):
        verdict(found)


def test_a_window_by_its_parts(features):
    """The level of a window is that of its two parts together."""
    for wavs, expected in (
        (tones(0.5, 0.05), "faithful"),
        (0.2 + 0 * tones(0.5), "silent"),
    ):
        found = explain(features, wavs, band(300, 700))
        assert window(found, CLASSES, 0.0, 1.0)["verdict"] == expected


def test_written_and_read(features, tmp_path):
    found = explain(features, tones(0.5, 0.05), band(300, 700))
    (folder,) = found.save(tmp_path / "a")
    info = read_clip(folder).info
    assert info["verdict"] == "faithful"
    assert (info["stable"], info["agreement"]) == (None, {})
    found.agreement = [{"shift and noise": 0.5, "another start": 0.9}]
    (folder,) = found.save(tmp_path / "b")
    info = read_clip(folder).info
    assert (info["stable"], info["agreement"]) == (False, found.agreement[0])
    path = folder / "explanation.json"
    content = json.loads(path.read_text("utf-8"))
    for key, value, expected in (
        ("verdict", "good", "one of 'silent', 'unknown', 'nothing kept'"),
        ("verdict", None, "one of"),
        ("stable", "yes", "True or False or null"),
        ("agreement", None, "names with numbers or null"),
    ):
        path.write_text(json.dumps({**content, key: value}), "utf-8")
        with pytest.raises(LMACError, match=f"{key}: found .*{expected}"):
            read_clip(folder)
        path.write_text(
            json.dumps({k: v for k, v in content.items() if k != key}), "utf-8"
        )
        with pytest.raises(LMACError, match=f"the key '{key}' is missing"):
            read_clip(folder)
