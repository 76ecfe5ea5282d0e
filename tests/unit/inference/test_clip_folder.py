"""Tests of the sounds and pictures of an explanation."""

import json

import matplotlib.image
import numpy as np
import pytest
import soundfile as sf
import torch

from lmac_sb.inference import clip_folder, spectra
from lmac_sb.inference.clip_folder import (
    read_clip,
    save_clip,
)
from lmac_sb.inference.explanation import AudioExplanation
from lmac_sb.lmac.explainer import Explanation
from lmac_sb.models.features import SpectralFeatures
from lmac_sb.utils.errors import LMACError

RATE = 8000
SAMPLES = 3001
CLASSES = ["dog", "cat"]
STEP = 1 / (1 << 23)  # of 24 bits


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


def save(
    folder, wav, explanation, index, features, classes, truth=None, **more
):
    """Save one clip of a batch; `more` is known of it."""
    audio_format = more.pop("audio_format", "wav")
    for name, names in (
        ("file", "files"),
        ("metrics", "metrics"),
        ("windows", "windows"),
    ):
        if name in more:
            more[names] = [more.pop(name)]
    one = explanation[index].cpu()
    clip = AudioExplanation.of(one, wav[None], features, classes, **more)
    return save_clip(folder, clip, truth, audio_format)


def read(folder):
    """Read the three sounds, and check their format."""
    sounds = {}
    for name in ("original", "interpretation", "residual"):
        info = sf.info(folder / f"{name}.wav")
        assert info.channels == 1
        assert info.subtype == "PCM_24"
        assert info.samplerate == RATE
        assert info.frames == SAMPLES
        sounds[name] = torch.from_numpy(
            sf.read(folder / f"{name}.wav", dtype="float32")[0]
        )
    return sounds


@pytest.mark.parametrize("index", [0, 2])
def test_the_chosen_clip_alone(features, index, tmp_path):
    """Sounds are mono, of the clip's length, and hold no other clip."""
    wavs, explanation = explain(features)
    folder = save(
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
        "explanation.json",
        "interpretation.wav",
        "maps.npz",
        "original.wav",
        "residual.wav",
        "spectra.png",
    ]


@pytest.mark.parametrize("peak", [1.5, -3.0])
def test_one_gain_for_all_and_nothing_clips(features, peak, tmp_path):
    """Nothing is clipped, even if the negative peak is the larger one."""
    wavs, explanation = explain(features)
    explanation.residual[0, 100] = peak
    save(tmp_path, wavs[0], explanation, 0, features, CLASSES)
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


@pytest.mark.parametrize("audio_format", ["wav", "flac"])
@pytest.mark.parametrize("level", [-3, -20, -40, -60, -80, -100, -160])
def test_quiet_clips_can_be_heard(features, level, audio_format, tmp_path):
    """60 dB between sound and error at any level; what was done is undone."""
    wavs, explanation = explain(features)
    scale = 2 * 10 ** (level / 20)
    for sound in (wavs, explanation.waveform, explanation.residual):
        sound *= scale
    explanation.residual *= 0.01
    more = {"audio_format": audio_format}
    save(tmp_path, wavs[0], explanation, 0, features, CLASSES, **more)
    clip = read_clip(tmp_path)
    sounds = {
        "original": wavs,
        "interpretation": explanation.waveform,
        "residual": explanation.residual,
    }
    for name, expected in sounds.items():
        error = (clip.sounds[name] - expected[0]).double()
        ratio = expected[0].double().square().sum() / error.square().sum()
        assert ratio > 1e6, name
        written, _ = sf.read(clip.files[name])
        undone = torch.from_numpy(written) / clip.info["gain"]
        assert torch.allclose(undone.float(), clip.sounds[name], rtol=1e-6)
    written, _ = sf.read(clip.files["original"])
    assert abs(written).max() > 0.0999


def picture(path):
    """A picture as [rows, columns, colours]."""
    image = matplotlib.image.imread(path / "spectra.png")
    assert image.ndim == 3
    return image


def test_picture(features, tmp_path):
    """The picture has a sensible size and depends on the clip."""
    wavs, explanation = explain(features)
    images = []
    for index in (0, 1):
        folder = tmp_path / str(index)
        save(folder, wavs[index], explanation, index, features, CLASSES, "dog")
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
    """Any name of a class is shown as it is."""
    wavs, explanation = explain(features)
    folder = tmp_path / "Vögel im Käfig"
    save(folder, wavs[0], explanation, 0, features, [name, "b"], name)
    assert picture(folder).std() > 0.05
    read(folder)


def test_from_a_training_step(features, tmp_path):
    """Half-precision tensors with a graph can be written."""
    wavs, explanation = explain(features)
    weight = torch.ones(1, requires_grad=True)
    explanation.mask = (explanation.mask * weight).bfloat16()
    explanation.logits_in = (explanation.logits_in * weight).bfloat16()
    explanation.waveform = explanation.waveform * weight
    save(tmp_path, wavs[0], explanation, 0, features, CLASSES)
    assert picture(tmp_path).std() > 0.05


def test_silence(features, tmp_path):
    """A silent clip has a picture too."""
    wavs, explanation = explain(features)
    for sound in (wavs, explanation.waveform, explanation.residual):
        sound.zero_()
    save(tmp_path, wavs[0], explanation, 0, features, CLASSES)
    assert not any(sound.any() for sound in read(tmp_path).values())
    assert picture(tmp_path).std() > 0


def test_written_over(features, tmp_path):
    """A second call replaces the files of the first."""
    wavs, explanation = explain(features)
    for index in (0, 1):
        save(tmp_path, wavs[index], explanation, index, features, CLASSES)
    assert torch.allclose(read(tmp_path)["original"], wavs[1], atol=STEP)
    assert len(list(tmp_path.iterdir())) == 6


def read_content(folder):
    """Content of explanation.json, without NaN."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    text = (folder / "explanation.json").read_text(encoding="utf-8")
    return json.loads(text, parse_constant=refuse)


def test_figures(features, tmp_path):
    """explanation.json holds the values of this clip."""
    wavs, explanation = explain(features)
    folder = save(
        tmp_path / "Käfer 1",
        wavs[1],
        explanation,
        1,
        features,
        CLASSES,
        truth="dog",
        file="a/ü.wav",
        threshold=0.25,
    )
    content = read_content(folder)
    assert content["id"] == "Käfer 1"
    # Where it lay is not told.
    assert (content["file"], content["label"]) == ("ü.wav", "dog")
    assert content["decision"] == "cat"
    assert content["classes"] == CLASSES
    for key, logits in (("p", (0, 1)), ("p_in", (0, 2)), ("p_out", (1, 0))):
        e = [2.718281828459045**x for x in logits]
        assert content[key] == pytest.approx([x / sum(e) for x in e])
    assert content["metrics"]["AI"] == 100
    assert content["metrics"]["area"] == pytest.approx(0.7)
    assert content["verdict"] == "faithful"
    assert (content["stable"], content["agreement"]) == (None, {})
    assert content["sample_rate"] == RATE
    assert content["n_samples"] == SAMPLES
    assert content["hop_samples"] == features.hop_samples
    assert content["n_bins"] == 129
    assert (content["gain"], content["threshold"]) == (1.0, 0.25)


@pytest.mark.parametrize(("more", "steps"), [({}, 0), ({"refine_steps": 5}, 5)])
def test_steps_of_refinement(features, more, steps, tmp_path):
    wavs, explanation = explain(features)
    save(tmp_path, wavs[0], explanation, 0, features, CLASSES, **more)
    assert read_content(tmp_path)["refine_steps"] == steps


def test_an_earlier_unrefined_explanation_goes(features, tmp_path):
    """An earlier `unrefined` is deleted; other folders stay."""
    wavs, explanation = explain(features)
    arguments = (wavs[0], explanation, 0, features, CLASSES)
    save(tmp_path, *arguments, refine_steps=5)
    save(tmp_path / "unrefined", *arguments)
    save(tmp_path, *arguments)
    assert not (tmp_path / "unrefined").exists()
    (tmp_path / "unrefined").mkdir()
    (tmp_path / "unrefined" / "notes.txt").write_text("mine")
    save(tmp_path, *arguments)
    assert (tmp_path / "unrefined" / "notes.txt").read_text() == "mine"


def test_unknown_things_are_null(features, tmp_path):
    """Unknown values are null in the JSON."""
    wavs, explanation = explain(features)
    explanation.logits[0, 0] = torch.nan
    save(tmp_path, wavs[0], explanation, 0, features, CLASSES)
    content = read_content(tmp_path)
    assert content["label"] is content["file"] is content["threshold"] is None
    assert content["metrics"]["AI"] is None
    assert content["p"] == [None, None]
    assert content["verdict"] == "unknown"


def test_given_figures(features, tmp_path):
    """Metrics that are passed in are written."""
    wavs, explanation = explain(features)
    more = {"metrics": {"AI": 7.0}, "windows": [{"start": 0.0}, {"start": 1.0}]}
    save(tmp_path, wavs[0], explanation, 0, features, CLASSES, **more)
    content = read_content(tmp_path)
    assert {key: content[key] for key in more} == more


def test_a_name_that_is_no_text(features, tmp_path):
    """A file name that is not UTF-8 can be written."""
    wavs, explanation = explain(features)
    save(
        tmp_path, wavs[0], explanation, 0, features, CLASSES, file="\udcff.wav"
    )
    assert read_content(tmp_path)["file"] == "?.wav"


def test_maps(features, tmp_path):
    """maps.npz holds mask and level of this clip's frames."""
    wavs, explanation = explain(features)
    explanation.mask = explanation.mask.clone()
    explanation.mask[1, :, :7] = 1
    explanation.mask[1, :, 7:9] = 0
    save(tmp_path, wavs[1], explanation, 1, features, CLASSES)
    maps = np.load(tmp_path / "maps.npz")
    mask, level = maps["mask"], maps["level"]
    assert mask.dtype == level.dtype == np.uint8
    assert mask.shape == level.shape == tuple(explanation.mask[1].shape)
    assert (mask[:, :7] == 255).all()
    assert not mask[:, 7:9].any()
    assert (mask[:, 9:] == round(0.7 * 255)).all()
    assert level.max() == 255
    magnitude = explanation.magnitude[1].double().numpy()
    decibels = 20 * np.log10(magnitude / magnitude.max())
    expected = (255 * (1 + decibels / 80)).clip(0, 255)
    assert np.abs(level - expected).max() <= 0.51


def test_level_of_silence(features, tmp_path):
    wavs, explanation = explain(features)
    save(tmp_path, 0 * wavs[0], explanation, 0, features, CLASSES)
    assert not np.load(tmp_path / "maps.npz")["level"].any()


def test_what_is_heard_of_another_mask(features, tmp_path):
    """On log1p, a half of a loud bin is much less than half of its level."""
    wavs, explanation = explain(features)
    analysis = features.stft(wavs)
    kept = features.magnitude(analysis).log1p() * explanation.mask
    gain = kept.expm1() / features.magnitude(analysis).clamp(min=1e-9)
    stft = analysis * gain[..., None]
    explanation.waveform = features.istft(stft, wavs.shape[1])
    save(tmp_path / "a", wavs[1], explanation, 1, features, CLASSES)
    assert read_clip(tmp_path / "a").kept is None
    more = {"mask_domain": "log1p"}
    save(tmp_path / "b", wavs[1], explanation, 1, features, CLASSES, **more)
    clip = read_clip(tmp_path / "b")
    assert np.array_equal(clip.mask, read_clip(tmp_path / "a").mask)
    whole, heard = (
        features.magnitude(features.stft(x[1:2]))[0].numpy()
        for x in (wavs, explanation.waveform)
    )
    loud = whole > whole.max() / 100
    expected = (255 * heard / whole).clip(0, 255)
    assert clip.kept.shape == clip.mask.shape
    assert np.abs(clip.kept - expected)[loud].max() <= 0.51
    peak = len(whole) // 2, whole[len(whole) // 2].argmax()
    share = ((1 + whole[peak]) ** 0.7 - 1) / whole[peak]
    assert share < 0.6
    assert clip.kept[peak] == pytest.approx(255 * share, rel=0.05)
    # Nothing is let through of nothing.
    silent = save(
        tmp_path / "c", 0 * wavs[1], explanation, 1, features, CLASSES, **more
    )
    assert not read_clip(silent).level.any()


@pytest.mark.parametrize("block", [1 << 18, 500])
def test_maps_of_long_clips_are_pooled(features, block, tmp_path, monkeypatch):
    """Long maps hold mean masks and maximum levels of frames."""
    wavs, explanation = explain(features)
    n_frames = explanation.mask.shape[1]
    explanation.mask = torch.rand(explanation.mask.shape)
    save(tmp_path / "a", wavs[1], explanation, 1, features, CLASSES)
    monkeypatch.setattr(spectra, "MAX_FRAMES", 9)
    monkeypatch.setattr(spectra, "_BLOCK", block)
    save(tmp_path / "b", wavs[1], explanation, 1, features, CLASSES)
    whole, pooled = (np.load(tmp_path / x / "maps.npz") for x in "ab")
    pool = read_content(tmp_path / "b")["hop_samples"] // features.hop_samples
    assert pool == 4
    assert len(pooled["mask"]) == -(-n_frames // pool)
    for row in range(len(pooled["mask"])):
        part = slice(row * pool, (row + 1) * pool)
        mean = whole["mask"][part].astype(float).mean(0)
        assert np.abs(pooled["mask"][row] - mean).max() <= 1.01
        loudest = whole["level"][part].max(0)
        assert np.array_equal(pooled["level"][row], loudest)
    before, after = read(tmp_path / "a"), read(tmp_path / "b")
    assert torch.equal(before["residual"], after["residual"])
    picture(tmp_path / "b")


def test_flac(features, tmp_path):
    """FLAC has the same samples, and replaces wav files."""
    wavs, explanation = explain(features)
    save(tmp_path, wavs[0], explanation, 0, features, CLASSES)
    before = sf.read(tmp_path / "residual.wav", dtype="int32")[0]
    save(
        tmp_path,
        wavs[0],
        explanation,
        0,
        features,
        CLASSES,
        audio_format="flac",
    )
    assert not list(tmp_path.glob("*.wav"))
    after = sf.read(tmp_path / "residual.flac", dtype="int32")[0]
    assert np.abs(before.astype(int) - after).max() <= 256
    with pytest.raises(LMACError, match="found 'mp3', expected one of wav"):
        save(
            tmp_path,
            wavs[0],
            explanation,
            0,
            features,
            CLASSES,
            audio_format="mp3",
        )


def test_nothing_half_written(features, tmp_path, monkeypatch):
    """A failure leaves an earlier clip as it was, and no other file."""
    wavs, explanation = explain(features)
    save(tmp_path, wavs[0], explanation, 0, features, CLASSES)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(clip_folder.np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path, wavs[1], explanation, 1, features, CLASSES)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before == after


def test_other_files_of_the_folder_stay(features, tmp_path):
    wavs, explanation = explain(features)
    (tmp_path / "notes.txt").write_text("mine")
    save(tmp_path, wavs[0], explanation, 0, features, CLASSES)
    assert (tmp_path / "notes.txt").read_text() == "mine"
