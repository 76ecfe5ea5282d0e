"""Tests of the front end."""

import io
import math
import random

import pytest
import torch
import torchaudio
from hyperpyyaml import load_hyperpyyaml
from speechbrain.lobes.features import Fbank
from speechbrain.processing.features import (
    STFT,
    Filterbank,
    InputNormalization,
    spectral_magnitude,
)

from lmac_sb.models.features import (
    FbankFeatures,
    FixedNormalization,
    LogForm,
    OverlapAdd,
    SpectralFeatures,
    linear_bands,
    magnitude_of,
)
from lmac_sb.utils.errors import LMACError

LENGTHS = [1600, 5000, 12345, 16000, 80000]
# Window and hop of 23.2 and 11.6 ms fit 1024 points up to 44.1 kHz.
RATES = [8000, 16000, 22050, 32000, 44100]


@pytest.fixture(scope="module")
def features():
    """The default front end, 16 kHz."""
    return SpectralFeatures()


@pytest.mark.parametrize("length", LENGTHS)
def test_there_and_back(features, length):
    """ISTFT of STFT is the waveform, its last samples included."""
    wavs = torch.rand(2, length) * 2 - 1
    back = features.istft(features.stft(wavs), length)
    assert back.shape == wavs.shape
    assert (back - wavs).abs().max() < 1e-5


def test_there_and_back_by_magnitude(features):
    """A mask of ones in log1p, and the input's phase, change nothing."""
    wavs = torch.rand(1, 12345) * 2 - 1
    stft = features.stft(wavs)
    magnitude = features.magnitude(stft)
    again = torch.expm1(torch.log1p(magnitude))
    back = features.istft(stft * (again / magnitude)[..., None], 12345)
    assert (back - wavs).abs().max() < 1e-4


@pytest.mark.parametrize("rate", RATES)
def test_there_and_back_at_rates(rate):
    """At each rate, half a second."""
    features = SpectralFeatures(sample_rate=rate, n_mels=40)
    wavs = torch.rand(1, rate // 2) * 2 - 1
    back = features.istft(features.stft(wavs), rate // 2)
    assert (back - wavs).abs().max() < 1e-5


@pytest.mark.parametrize("length", [*LENGTHS, 185, 186, 187, 371, 372])
def test_n_frames(features, length):
    """The promised number of frames is the real one."""
    stft = features.stft(torch.rand(1, length))
    assert stft.shape == (1, features.n_frames(length), features.n_bins, 2)


def test_stft_is_of_its_own_clip(features):
    """The spectrogram of a clip does not depend on the batch."""
    wavs = torch.rand(4, 5000)
    together = features.stft(wavs)
    alone = features.stft(wavs[2:3])
    assert torch.allclose(together[2:3], alone, atol=1e-5)


def test_settings_in_milliseconds(features):
    """Window and hop in samples."""
    assert features.hop_samples == 186
    assert features.compute_stft.win_length == 372
    fast = SpectralFeatures(sample_rate=44100)
    assert fast.hop_samples == 512
    assert fast.compute_stft.win_length == 1024


@pytest.mark.parametrize("n_mels", [40, 80])
def test_mel_is_speechbrains(n_mels):
    """As SpeechBrain's own chain, step by step."""
    features = SpectralFeatures(n_mels=n_mels)
    wavs = torch.rand(2, 5000) * 2 - 1
    stft = STFT(
        sample_rate=16000, n_fft=1024, win_length=23.2199, hop_length=11.6099
    )(wavs)
    magnitude = spectral_magnitude(stft, power=0.5)
    bands = Filterbank(
        n_mels=n_mels, n_fft=1024, f_min=0, f_max=8000, log_mel=False
    )(magnitude)
    assert torch.equal(features.stft(wavs), stft)
    assert torch.equal(features.magnitude(stft), magnitude)
    found = features.mel(magnitude)
    assert found.shape == (2, features.n_frames(5000), n_mels)
    assert torch.allclose(found, torch.log1p(bands), atol=1e-5)


@pytest.mark.parametrize("rate", RATES)
def test_every_bin_reaches_the_classifier(rate):
    """Each bin up to half the rate moves the classifier's input."""
    features = SpectralFeatures(sample_rate=rate)
    magnitude = torch.zeros(1, 1, features.n_bins, requires_grad=True)
    features.mel(magnitude).sum().backward()
    weight = magnitude.grad[0, 0]
    # The triangles begin at 0 Hz and end at half the rate with weight 0.
    assert (weight[1:-1] > 1e-3).all()
    assert weight[0] == 0 and weight[-1] < 1e-3


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("place", [0.05, 0.5, 0.95])
def test_tones_are_seen(rate, place):
    """A tone anywhere below half the rate is far above silence."""
    features = SpectralFeatures(sample_rate=rate)
    time = torch.arange(rate // 4) / rate
    tone = torch.sin(torch.pi * place * rate * time)[None]
    mel = features.mel(features.magnitude(features.stft(tone)))
    loudest = mel[0].mean(0).argmax().item()
    assert mel.max() > 1
    # The bands rise with the frequency.
    if place == 0.05:
        assert loudest < features.n_mels * 0.5
    if place == 0.95:
        assert loudest >= features.n_mels - 3


def test_window_longer_than_fft():
    """A window longer than the FFT is refused."""
    with pytest.raises(LMACError, match="372 samples at 16000 Hz.*= 256"):
        SpectralFeatures(n_fft=256)
    SpectralFeatures(n_fft=372, n_mels=20)


@pytest.mark.parametrize("rate", [None, 0, "16000", float("nan")])
def test_no_rate(rate):
    with pytest.raises(LMACError, match="sample_rate: found .*, expected a n"):
        SpectralFeatures(rate)


def test_empty_bands():
    """More bands than the bins can fill are refused, with their number."""
    with pytest.raises(LMACError, match="200 bands on 257 bins leave .* bands"):
        SpectralFeatures(n_fft=512, n_mels=200)


def test_gradient_at_silence(features):
    """Finite, and the magnitude is above zero."""
    stft = torch.zeros(1, 4, features.n_bins, 2, requires_grad=True)
    magnitude = features.magnitude(stft)
    assert (magnitude > 0).all() and magnitude.max() < 1e-6
    features.mel(magnitude).sum().backward()
    assert stft.grad.isfinite().all()


def test_magnitude(features):
    """The root of both squares."""
    stft = torch.tensor([3.0, 4.0]).expand(1, 2, 3, 2)
    assert features.magnitude(stft).flatten().tolist() == [5.0] * 6


def test_moves():
    """The filterbank moves to a device with the module."""
    features = SpectralFeatures()
    magnitude = torch.rand(1, 3, features.n_bins)
    single = features.mel(magnitude)
    double = features.to(torch.float64).mel(magnitude.double())
    assert double.dtype == torch.float64
    assert torch.allclose(double.float(), single, atol=1e-5)
    features.to("meta")
    assert features.mel(magnitude.to("meta")).device.type == "meta"


def test_state_dict_is_empty(features):
    """The settings define it, so a checkpoint holds nothing of it."""
    assert len(features.state_dict()) == 0
    assert len(list(features.parameters())) == 0


def test_istft_of_half_precision(features):
    """Autocast may hand over bf16; the waveform is in single precision."""
    wavs = torch.rand(1, 5000) * 2 - 1
    stft = features.stft(wavs).bfloat16()
    back = features.istft(stft, 5000)
    assert back.dtype == torch.float32
    assert (back - wavs).abs().max() < 0.05


def slow_levels(bands, form, power):
    """A log form, one number after the other; the clip is [time][bands]."""
    logarithms = {
        "log1p": math.log1p,
        "log": math.log,
        "log10": math.log10,
        "dB": lambda x: (20 / power) * math.log10(x),
        "none": lambda x: x,
    }
    levels = []
    for frame in bands:
        levels.append([])
        for value in frame:
            value = value + form.offset
            if value < form.floor:
                value = form.floor
            level = logarithms[form.kind](value)
            if form.gain is not None:
                level = level * form.gain
                if form.kind == "dB":
                    level = level / (20 / power)
            levels[-1].append(level)
    if form.top_db is not None:
        least = max(map(max, levels)) - form.top_db
        levels = [[max(x, least) for x in frame] for frame in levels]
    return levels


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "log1p"},
        {"kind": "log1p", "top_db": 2},
        {"kind": "log", "offset": 1e-6},
        {"kind": "log", "floor": 1e-3, "gain": 0.5},
        {"kind": "log10", "floor": 1e-10, "top_db": 8},
        {"kind": "log10", "offset": 0.1, "floor": 0.2},
        {"kind": "dB", "floor": 1e-10},
        {"kind": "dB", "floor": 1e-10, "top_db": 30},
        {"kind": "dB", "floor": 1e-5, "gain": 10},
        {"kind": "none"},
        {"kind": "none", "offset": 1, "gain": 3},
    ],
)
def test_log_forms(settings, power):
    """Each clip has its own range, and silence a finite level."""
    form = LogForm(**settings)
    bands = torch.rand(3, 4, 5) ** 8
    bands[1] *= 1e-4
    bands[2] = 0
    expected = [slow_levels(clip.tolist(), form, power) for clip in bands]
    found = form(bands, power)
    assert found.isfinite().all()
    assert torch.allclose(found, torch.tensor(expected), atol=1e-4)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"kind": "ln"}, "log: found 'ln', expected one of log1p, log, log10"),
        ({"kind": "log"}, "log: found log without offset or floor"),
        ({"kind": "dB", "top_db": 80}, "log: found dB without offset or"),
        ({"offset": -1}, "found offset -1 and floor 0.0, expected none below"),
        ({"top_db": -3}, "found top_db -3, expected none below zero"),
    ],
)
def test_log_forms_that_are_none(settings, message):
    with pytest.raises(LMACError, match=message):
        LogForm(**settings)


def test_a_log_form_may_be_a_name():
    linear = SpectralFeatures(log="none")
    magnitude = torch.rand(1, 3, linear.n_bins)
    bands = linear.mel(magnitude)
    assert torch.equal(bands, magnitude @ linear.fbank_matrix)
    assert torch.equal(SpectralFeatures().mel(magnitude), bands.log1p())


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_samples_are_exact(rate):
    """Windows and hops given in samples, at rates where ms are fractions."""
    for hop in (1, 79, 80, 81, 101, 160, 221, 367, 441, 512):
        for window in (hop + 1, 2 * hop + 1, 1023):
            features = SpectralFeatures(
                rate,
                n_fft=2048,
                n_mels=20,
                win_samples=window,
                hop_samples=hop,
            )
            assert features.hop_samples == hop
            assert features.compute_stft.win_length == window


WINDOWS = [
    ("hamming", torch.hamming_window(30)),
    ("hann_window", torch.hann_window(30)),
    ("blackman", torch.blackman_window(30)),
    ("bartlett", torch.bartlett_window(30)),
    ("kaiser", torch.kaiser_window(30)),
    ("nuttall", torch.signal.windows.nuttall(30, sym=False)),
    ("cosine", torch.signal.windows.cosine(30, sym=False)),
    ("ones", torch.ones(30)),
]


@pytest.mark.parametrize("name, values", WINDOWS)
def test_windows(name, values):
    """By name, or by their values."""
    frame = {"n_fft": 32, "win_samples": 30, "hop_samples": 7, "n_mels": None}
    wavs = torch.rand(1, 100)
    by_name = SpectralFeatures(**frame, window=name).stft(wavs)
    by_value = SpectralFeatures(**frame, window=values).stft(wavs)
    assert torch.equal(by_name, by_value)
    by_list = SpectralFeatures(**frame, window=values.tolist())
    assert torch.allclose(by_list.stft(wavs), by_value, atol=1e-6)


def test_symmetric_windows():
    frame = {"n_fft": 32, "win_samples": 30, "hop_samples": 7, "n_mels": None}
    features = SpectralFeatures(**frame, window="hann", periodic=False)
    values = torch.hann_window(30, periodic=False)
    assert torch.equal(features.compute_stft.window, values)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"window": "square"}, "window: found 'square', expected a window of"),
        ({"window": "compile"}, "window: found 'compile', expected a window"),
        ({"window": torch.ones(7)}, r"of shape \(7,\), expected 372"),
        ({"pad_mode": "mirror"}, "pad_mode: found 'mirror', expected one of"),
        ({"mel_scale": "bark"}, "mel_scale: found 'bark', expected speech"),
        ({"norm": "l2"}, "norm: found 'l2', expected slaney or none"),
        ({"norm": "slaney"}, "norm: found slaney with mel_scale speechbrain"),
        ({"f_min": 9000}, "f_min, f_max: found 9000 and 8000.0 Hz"),
        ({"power": 0}, "power: found 0, expected one above zero"),
        ({"hop_samples": 0}, "found 372 and 0 samples at 16000 Hz, expected"),
        ({"hop_length": 0.001}, "found 372 and 0 samples at 16000 Hz"),
        (
            {"fbank_matrix": torch.ones(5, 3)},
            r"shape \(5, 3\), expected .* 513, ",
        ),
        ({"pad": -1}, "pad: found -1 samples, expected none below zero"),
    ],
)
def test_settings_that_are_none(settings, message):
    with pytest.raises(LMACError, match=message):
        SpectralFeatures(**settings)


def torchaudios(rate, numbers):
    """Random settings of ours, and torchaudio's front end with the same."""
    window = numbers.choice(["hann", "hamming", "blackman"])
    win = numbers.randint(150, 500)
    frame = {
        "n_fft": win + numbers.choice([0, 0, 1, 12, 200]),
        "pad": numbers.choice([0, 0, 37]),
        "center": numbers.random() < 0.7,
        "pad_mode": numbers.choice(["reflect", "constant", "replicate"]),
        "power": numbers.choice([1, 2]),
    }
    bands = {
        "n_mels": numbers.randint(10, 40),
        "f_min": numbers.choice([0, 50, 133.3]),
        "f_max": numbers.choice([None, rate / 2 - 500]),
        "norm": numbers.choice([None, "slaney"]),
        "mel_scale": numbers.choice(["htk", "slaney"]),
    }
    hop = numbers.randint(win // 4, win // 2)
    theirs = torchaudio.transforms.MelSpectrogram(
        rate,
        win_length=win,
        hop_length=hop,
        window_fn=getattr(torch, f"{window}_window"),
        **frame,
        **bands,
    )
    ours = SpectralFeatures(
        rate,
        win_samples=win,
        hop_samples=hop,
        window=window,
        log="none",
        eps=1e-30,
        **frame,
        **bands,
    )
    return ours, theirs


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_torchaudios_settings(rate, seed):
    """The same bands for random settings; and back, where frames lie."""
    ours, theirs = torchaudios(rate, random.Random(seed))
    length = random.Random(seed).randint(1500, 4000)
    wavs = torch.rand(2, length) * 2 - 1
    wavs[1, length // 2 :] = 0
    stft = ours.stft(wavs)
    found = ours.mel(ours.magnitude(stft)).transpose(1, 2)
    expected = theirs(wavs)
    assert found.shape == expected.shape
    assert found.shape[2] == ours.n_frames(length)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    back = ours.istft(stft, length)
    assert back.shape == wavs.shape
    covered = cover(ours, length) > 1e-4
    assert covered.float().mean() > 0.7
    assert (back - wavs)[:, covered].abs().max() < 1e-4


def cover(features, length):
    """Sum of the squared windows on each sample, in parts of the highest."""
    window = features.compute_stft.window
    before = (features.n_fft - len(window)) // 2 + features.frame_start
    total = [0.0] * length
    for t in range(features.n_frames(length)):
        for i, value in enumerate(window.tolist()):
            place = t * features.hop_samples + before + i
            if 0 <= place < length:
                total[place] += value**2
    return torch.tensor(total) / float(window.max()) ** 2


@pytest.mark.parametrize("window", ["hann", "hamming", "blackman", "ones"])
@pytest.mark.parametrize("win", [96, 127, 128])
@pytest.mark.parametrize("hop", [31, 32, 48])
@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
def test_there_and_back_with_settings(window, win, hop, pad_mode):
    """Centred, also where the window is shorter than the FFT."""
    features = SpectralFeatures(
        n_fft=128,
        win_samples=win,
        hop_samples=hop,
        window=window,
        pad_mode=pad_mode,
        n_mels=None,
    )
    for length in range(601, 601 + hop, 6):
        wavs = torch.rand(1, length) * 2 - 1
        back = features.istft(features.stft(wavs), length)
        assert back.shape == wavs.shape
        error = (back - wavs).abs()[0]
        assert error[:-12].max() < 1e-4
        # A Hann window's last samples may be too low to be divided by.
        assert error[cover(features, length) > 1e-4].max() < 1e-4


def test_edges_without_centring():
    """They fade in and out, and what no frame covers is silent."""
    features = SpectralFeatures(
        n_fft=64,
        win_samples=64,
        hop_samples=16,
        window="hann",
        center=False,
        n_mels=None,
    )
    wavs = torch.ones(1, 205)
    assert features.n_frames(205) == 9
    assert features.n_frames(63) == 0
    back = features.istft(features.stft(wavs), 205)[0]
    end = 8 * 16 + 64
    # Periodic: the sample behind the last frame has the first one's weight.
    assert back[end:].eq(0).all()
    for i in (0, 1, 2, 3, 7, end - 1, end - 2):
        square = float(cover(features, 205)[i])
        expected = square / max(square, 1e-4)
        assert back[i] == pytest.approx(expected, abs=1e-4)
    assert (back[8 : end - 8] - 1).abs().max() < 1e-5
    # A mask that is as rough as can be: nothing bursts at the edges.
    stft = features.stft(torch.rand(1, 205) * 2 - 1)
    rough = (torch.rand(stft.shape[:-1]) > 0.5)[..., None]
    assert features.istft(stft * rough, 205).abs().max() < 30


@pytest.mark.parametrize("win", [48, 64])
@pytest.mark.parametrize("center", [True, False])
def test_inverse_is_the_sum_of_frames(win, center):
    """Slowly, frame by frame, for a masked spectrogram."""
    features = SpectralFeatures(
        n_fft=64,
        win_samples=win,
        hop_samples=24,
        window="hann",
        center=center,
        pad=5,
        n_mels=None,
    )
    stft = features.stft(torch.rand(1, 301) * 2 - 1)
    stft = stft * torch.rand(stft.shape[:-1])[..., None]
    window = torch.zeros(64)
    window[(64 - win) // 2 : (64 + win) // 2] = torch.hann_window(win)
    total = torch.zeros(600)
    for t, frame in enumerate(torch.view_as_complex(stft[0].contiguous())):
        total[t * 24 : t * 24 + 64] += torch.fft.irfft(frame, 64) * window
    found = features.istft(stft, 301)
    first = -features.frame_start
    total = total[first : first + 301]
    weight = cover(features, 301)
    assert torch.allclose(found[0], total / weight.clamp(min=1e-4), atol=1e-4)


@pytest.mark.parametrize(
    "settings, least",
    [
        ({"center": False}, 1024),
        ({"center": False, "pad": 100}, 824),
        ({"pad_mode": "reflect"}, 513),
        ({"pad_mode": "circular"}, 512),
        ({}, 1),
    ],
)
def test_shortest_clip(settings, least):
    """It works, and one sample less is refused with both numbers."""
    features = SpectralFeatures(**settings)
    stft = features.stft(torch.rand(1, least))
    assert stft.shape[1] == features.n_frames(least) > 0
    message = f"found {least - 1} samples, expected at least {least} "
    with pytest.raises(LMACError, match=message):
        features.stft(torch.rand(1, least - 1))


@pytest.mark.parametrize(
    "log",
    [
        "log1p",
        "none",
        LogForm("log", offset=1e-6),
        LogForm("log10", floor=1e-10, top_db=8),
        LogForm("dB", floor=1e-10, top_db=80),
    ],
)
@pytest.mark.parametrize("power", [0.5, 1, 2])
@pytest.mark.parametrize("eps", [1e-14, 1e-30])
def test_gradients_of_silence(log, power, eps):
    """Finite, to the mask and to the waveform."""
    features = SpectralFeatures(log=log, power=power, eps=eps)
    wavs = torch.zeros(2, 2000)
    wavs[1, :100] = torch.rand(100)
    wavs.requires_grad_()
    magnitude = features.magnitude(features.stft(wavs))
    mask = torch.rand_like(magnitude).requires_grad_()
    features.mel(mask * magnitude).sum().backward()
    assert mask.grad.isfinite().all() and wavs.grad.isfinite().all()
    assert mask.grad[1].abs().max() > 0


def test_without_bands():
    """The classifier sees the bins."""
    features = SpectralFeatures(n_mels=None, log="none", scale=0.5, power=2)
    magnitude = torch.rand(2, 3, 513)
    assert features.n_mels == 513
    found = features.mel(magnitude)
    assert torch.allclose(found, magnitude**2 / 4)
    assert torch.equal(features.fbank_matrix, torch.eye(513))


def test_settings_in_a_yaml():
    text = """
features: !new:lmac_sb.models.features.SpectralFeatures
    sample_rate: 22050
    n_fft: 512
    win_samples: 401
    hop_samples: 133
    window: hann
    center: False
    mel_scale: slaney
    norm: slaney
    n_mels: 30
    power: 2
    log: !new:lmac_sb.models.features.LogForm
        kind: dB
        floor: 1.0e-10
        top_db: 80
"""
    features = load_hyperpyyaml(io.StringIO(text))["features"]
    assert features.log == LogForm("dB", floor=1e-10, top_db=80)
    levels = features.mel(features.magnitude(features.stft(torch.rand(1, 900))))
    assert levels.shape == (1, 3, 30)
    assert features.hop_samples == 133


@pytest.mark.parametrize("shape", ["triangular", "rectangular", "gaussian"])
@pytest.mark.parametrize("learned", [False, True])
def test_bands_of_speechbrain(shape, learned):
    """The matrix by which it multiplies, and no random change of it."""
    bank = Filterbank(
        filter_shape=shape, freeze=not learned, log_mel=False, f_min=100
    )
    spectrum = torch.rand(1, 3, 201)
    expected = bank(spectrum)
    bank.log_mel, bank.param_rand_factor = True, 0.3
    matrix = linear_bands(bank)
    assert torch.allclose(spectrum @ matrix, expected, atol=1e-5)
    assert bank.log_mel and bank.training and not matrix.requires_grad


def normalized(kind, std_norm=True):
    """SpeechBrain's normalisation that has seen two batches."""
    normalize = InputNormalization(norm_type=kind, std_norm=std_norm)
    fbank = Fbank(n_mels=23)
    for _ in range(2):
        normalize(fbank(torch.rand(3, 4000) * 2 - 1), torch.ones(3))
    return normalize


@pytest.mark.parametrize("kind", ["global", "sentence"])
@pytest.mark.parametrize("std_norm", [True, False])
def test_fbank_is_speechbrains(kind, std_norm):
    """With statistics that were learned or loaded, and remain so."""
    normalize = normalized(kind, std_norm)
    fbank = Fbank(n_mels=23, f_min=50, f_max=7000)
    wavs = torch.rand(2, 5000) * 2 - 1
    expected = normalize.eval()(fbank(wavs), torch.ones(2))
    normalize.train()
    features = FbankFeatures(fbank, normalize).train()
    before = normalize._statistics_dict()
    for _ in range(2):
        found = features.mel(features.magnitude(features.stft(wavs)))
        assert torch.allclose(found, expected, atol=1e-4)
    after = normalize._statistics_dict()
    assert all(before[key] is after[key] for key in ("glob_mean", "glob_std"))
    assert before["count"] == after["count"]
    assert torch.equal(
        features.fbank_matrix, linear_bands(fbank.compute_fbanks)
    )
    # What they mean for a gradient: no way around the mask.
    magnitude = torch.rand(1, 5, features.n_bins, requires_grad=True)
    features.mel(magnitude).square().sum().backward()
    assert magnitude.grad.isfinite().all() and magnitude.grad.abs().max() > 0


def test_global_statistics_that_are_missing():
    features = FbankFeatures(Fbank(), InputNormalization())
    with pytest.raises(LMACError, match="normalize: found no global stat"):
        features.mel(torch.rand(1, 5, 201))


def test_global_statistics_from_a_checkpoint(tmp_path):
    normalize = normalized("global")
    normalize._save(tmp_path / "norm.ckpt")
    again = InputNormalization(norm_type="global")
    again._load(tmp_path / "norm.ckpt")
    x = torch.rand(2, 9, 23)
    expected = (x - normalize.glob_mean) / normalize.glob_std
    assert torch.allclose(FixedNormalization(again)(x), expected, atol=1e-5)


def test_global_statistics_follow_the_features():
    """To the device, without a call of the module's own `to`."""
    normalize = normalized("global")
    FixedNormalization(normalize)(torch.rand(1, 4, 23, device="meta"))
    assert normalize.glob_mean.device.type == "meta"


def test_banks_with_empty_bands():
    """A bank that somebody else has trained with is taken as it is."""
    fbank = Fbank(n_mels=200, n_fft=256, win_length=10)
    features = FbankFeatures(fbank, InputNormalization(norm_type="sentence"))
    assert (features.fbank_matrix.sum(0) == 0).any()
    with pytest.warns(UserWarning, match="all zero values"):
        SpectralFeatures(n_fft=512, n_mels=200, mel_scale="htk")


def test_fbank_with_deltas():
    with pytest.raises(LMACError, match="found Fbank with deltas or context"):
        FbankFeatures(Fbank(deltas=True), InputNormalization())


# ------------------------------------------------- the same in less time


def test_magnitude_is_speechbrains():
    """To the bit, silence and its gradient included."""
    stft = torch.randn(2, 9, 17, 2)
    stft[0, 3] = 0
    assert torch.equal(
        magnitude_of(stft), spectral_magnitude(stft, power=0.5, eps=1e-14)
    )
    stft.requires_grad_()
    magnitude_of(stft).sum().backward()
    assert stft.grad.isfinite().all()


# n_fft, hop, length of the window
FRAMES = [
    (16, 4, 16),
    (16, 4, 12),
    (16, 5, 11),
    (15, 5, 15),
    (64, 18, 37),
    (1024, 186, 372),
]


@pytest.mark.parametrize("n_fft, hop, length", FRAMES)
@pytest.mark.parametrize("batch", [1, 3])
def test_inverse_is_that_of_torch(n_fft, hop, length, batch):
    """Also of a spectrogram that no sound has, such as a masked one."""
    window = torch.hamming_window(length)
    stft = torch.randn(batch, 20, n_fft // 2 + 1, 2)
    n_samples = 18 * hop
    expected = torch.istft(
        torch.view_as_complex(stft).transpose(1, 2),
        n_fft,
        hop,
        length,
        window,
        length=n_samples,
    )
    inverse = OverlapAdd(n_fft, hop, window, center=True)
    found = inverse(stft, n_samples)
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("n_fft, hop, length", [*FRAMES, (16, 12, 8)])
def test_inverse_by_loops(n_fft, hop, length, center):
    """Frame by frame and sample by sample; some lie under no window."""
    window = torch.hann_window(length, periodic=False)
    n_frames, n_samples = 6, 5 * hop + n_fft
    stft = torch.randn(1, n_frames, n_fft // 2 + 1, 2)
    frames = torch.fft.irfft(torch.view_as_complex(stft), n_fft)[0]
    left = (n_fft - length) // 2
    first = left - (n_fft // 2 if center else 0)
    total = [0.0] * n_samples
    cover = [0.0] * n_samples
    for t in range(n_frames):
        for i in range(length):
            place = t * hop + first + i
            if 0 <= place < n_samples:
                weight = window[i].item()
                total[place] += frames[t, left + i].item() * weight
                cover[place] += weight**2
    least = 1e-4 * window.square().max().item()
    expected = [x / max(c, least) for x, c in zip(total, cover)]
    inverse = OverlapAdd(n_fft, hop, window, center)
    found = inverse(stft, n_samples)
    assert found.shape == (1, n_samples)
    assert found[0].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-4)
