"""Tests of the sounds and pictures of an explanation.

Authors
 * The lmac-sb authors 2026
"""

import matplotlib.image
import numpy as np
import pytest
import soundfile as sf
import torch

from lmac_sb.artifacts import save_clip
from lmac_sb.explainer import Explanation
from lmac_sb.features import SpectralFeatures

RATE = 8000
SAMPLES = 3001
CLASSES = ["dog", "cat"]
STEP = 1 / 32768  # of 16 bits


@pytest.fixture(scope="module")
def features():
    """Front end at a low rate."""
    return SpectralFeatures(RATE, n_fft=256, n_mels=20)


def explain(features, peak=0.5):
    """Three clips and their explanation, each clip with sounds of its own."""
    time = torch.arange(SAMPLES) / RATE
    hertz = torch.tensor([[200.0], [700.0], [1900.0]])
    wavs = 0.5 * torch.sin(2 * torch.pi * hertz * time)
    shares = torch.tensor([[0.9], [0.7], [0.4]])
    magnitude = features.magnitude(features.stft(wavs))
    scale = peak / 0.5
    explanation = Explanation(
        waveform=wavs * shares * scale,
        residual=wavs * (1 - shares) * scale,
        mask=shares[..., None].expand_as(magnitude),
        logits=torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]),
        logits_in=torch.tensor([[1.0, 0.0], [0.0, 2.0], [2.0, 0.0]]),
        logits_out=torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]]),
        decision=torch.tensor([0, 1, 0]),
        magnitude=magnitude,
    )
    return wavs, explanation


def read(folder):
    """The three sounds, and that their format is as promised."""
    sounds = {}
    for name in ("original", "interpretation", "residual"):
        info = sf.info(folder / f"{name}.wav")
        assert info.channels == 1
        assert info.subtype == "PCM_16"
        assert info.samplerate == RATE
        assert info.frames == SAMPLES
        sounds[name] = torch.from_numpy(
            sf.read(folder / f"{name}.wav", dtype="float32")[0]
        )
    return sounds


@pytest.mark.parametrize("index", [0, 2])
def test_the_chosen_clip_alone(features, index, tmp_path):
    """Defect 30: mono, of the clip's length, and no other clip of the batch."""
    wavs, explanation = explain(features)
    folder = save_clip(
        tmp_path / "a" / "b", wavs[index], explanation, index, features, CLASSES
    )
    assert folder == tmp_path / "a" / "b"
    sounds = read(folder)
    for name, expected in (
        ("original", wavs),
        ("interpretation", explanation.waveform),
        ("residual", explanation.residual),
    ):
        assert torch.allclose(sounds[name], expected[index], atol=STEP), name
    assert sorted(path.name for path in folder.iterdir()) == [
        "interpretation.wav",
        "original.wav",
        "residual.wav",
        "spectra.png",
    ]


@pytest.mark.parametrize("peak", [1.5, -3.0])
def test_one_gain_for_all_and_nothing_clips(features, peak, tmp_path):
    """Defects 30 and 32: also where the negative peak is the larger one."""
    wavs, explanation = explain(features)
    explanation.residual[0, 100] = peak
    save_clip(tmp_path, wavs[0], explanation, 0, features, CLASSES)
    sounds = read(tmp_path)
    gain = 1 / abs(peak)
    for name, expected in (
        ("original", wavs),
        ("interpretation", explanation.waveform),
        ("residual", explanation.residual),
    ):
        expected = gain * expected[0]
        assert torch.allclose(sounds[name], expected, atol=1.5 * STEP), name
    assert sounds["residual"].abs().max() > 0.999


def test_quiet_clips_keep_their_level(features, tmp_path):
    """Nothing is amplified."""
    wavs, explanation = explain(features)
    for sound in (wavs, explanation.waveform, explanation.residual):
        sound *= 0.01
    save_clip(tmp_path, wavs[0], explanation, 0, features, CLASSES)
    assert torch.allclose(read(tmp_path)["original"], wavs[0], atol=STEP)


def picture(path):
    """A picture as [rows, columns, colours]."""
    image = matplotlib.image.imread(path / "spectra.png")
    assert image.ndim == 3
    return image


def test_picture(features, tmp_path):
    """A PNG of sane size that shows something, another for another clip."""
    wavs, explanation = explain(features)
    images = []
    for index in (0, 1):
        folder = tmp_path / str(index)
        save_clip(
            folder, wavs[index], explanation, index, features, CLASSES, "dog"
        )
        header = (folder / "spectra.png").read_bytes()[:8]
        assert header == b"\x89PNG\r\n\x1a\n"
        images.append(picture(folder))
    rows, columns = images[0].shape[:2]
    assert 300 <= rows <= 2000
    assert 500 <= columns <= 3000
    assert images[0].std() > 0.05
    assert not np.array_equal(images[0], images[1])


@pytest.mark.parametrize(
    "name",
    ["Vögel im Käfig", "犬 の 声", "a/b: 100 %_\\", "$_{$"],
)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_any_name_of_a_class(features, name, tmp_path):
    """Names are shown as they are, never parsed; folders may have any."""
    wavs, explanation = explain(features)
    folder = tmp_path / "Vögel im Käfig"
    save_clip(folder, wavs[0], explanation, 0, features, [name, "b"], name)
    assert picture(folder).std() > 0.05
    read(folder)


def test_from_a_training_step(features, tmp_path):
    """Sounds, masks and logits with a graph, in half precision, are taken."""
    wavs, explanation = explain(features)
    weight = torch.ones(1, requires_grad=True)
    explanation.mask = (explanation.mask * weight).bfloat16()
    explanation.logits_in = (explanation.logits_in * weight).bfloat16()
    explanation.waveform = explanation.waveform * weight
    save_clip(tmp_path, wavs[0], explanation, 0, features, CLASSES)
    assert picture(tmp_path).std() > 0.05


def test_silence(features, tmp_path):
    """A dead clip has a picture as well."""
    wavs, explanation = explain(features)
    for sound in (wavs, explanation.waveform, explanation.residual):
        sound.zero_()
    save_clip(tmp_path, wavs[0], explanation, 0, features, CLASSES)
    assert not any(sound.any() for sound in read(tmp_path).values())
    assert picture(tmp_path).std() > 0


def test_written_over(features, tmp_path):
    """A second call replaces the first one's files."""
    wavs, explanation = explain(features)
    for index in (0, 1):
        save_clip(tmp_path, wavs[index], explanation, index, features, CLASSES)
    assert torch.allclose(read(tmp_path)["original"], wavs[1], atol=STEP)
    assert len(list(tmp_path.iterdir())) == 4
