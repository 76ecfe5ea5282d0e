"""Tests of other people's front ends: ours gives what theirs gives."""

import copy
import random

import pytest
import torch
import torchaudio.compliance.kaldi
import torchaudio.transforms as T
from speechbrain.lobes import features as lobes
from speechbrain.processing.features import (
    STFT,
    Filterbank,
    InputNormalization,
    spectral_magnitude,
)

from lmac_sb.adapters.front_ends import KaldiFbank, fast_path, per_clip
from lmac_sb.listener.listener import Listener
from lmac_sb.models.features import LogForm
from lmac_sb.utils.errors import LMACError

pytestmark = pytest.mark.filterwarnings(
    "ignore:At least one mel filterbank has all zero values"
)
RATES = [8000, 16000, 22050, 44100, 48000]


class Net(torch.nn.Module):
    """A small classifier of [batch, rows, columns], in any layout."""

    def __init__(self, rows):
        super().__init__()
        self.conv = torch.nn.Conv1d(rows, 8, 3, padding=1)
        self.linear = torch.nn.Linear(8, 5)

    def forward(self, x):
        """Logits [batch, 5]."""
        x = x.reshape(len(x), -1, x.shape[-1]) / 20
        return self.linear(self.conv(x).relu().mean(2))


class Log(torch.nn.Module):
    """A user's own last step."""

    def forward(self, x):
        """A logarithm with an offset."""
        return torch.log(x + 1e-6)


class Channel(torch.nn.Module):
    """The axis that image models want."""

    def forward(self, x):
        """[batch, 1, ...]."""
        return x[:, None]


def clips(n_samples=4000):
    """A loud one, a quiet one, one that ends early, and silence."""
    wavs = torch.rand(4, n_samples) * 2 - 1
    wavs[1] *= 1e-3
    wavs[2, n_samples // 3 :] = 0
    wavs[3] = 0
    return wavs


def through(front_end, wavs):
    """What the owner gets, clip after clip."""
    steps = front_end if isinstance(front_end, tuple) else (front_end,)
    found = []
    for wav in wavs:
        x = wav[None]
        for step in steps:
            x = step(x)
        found.append(x)
    return torch.cat(found)


def check(front_end, wavs=None, theirs=None):
    """The fast path is the front end, with its gradients and its logits."""
    wavs = clips() if wavs is None else wavs
    expected = through(copy.deepcopy(theirs or front_end), wavs)
    found = fast_path(front_end)
    assert found is not None
    features, layout = found
    stft = features.stft(wavs)
    magnitude = features.magnitude(stft)
    assert magnitude.shape == (
        len(wavs),
        features.n_frames(wavs.shape[1]),
        features.n_bins,
    )
    ours = layout(features.mel(magnitude))
    assert ours.shape == expected.shape
    assert close(ours, expected)
    assert features.istft(stft, wavs.shape[1]).shape == wavs.shape
    if expected.dim() < 5:
        net = Net(expected[0].numel() // expected.shape[-1])
        scale = expected.abs().amax().clamp(min=1)
        logits = net(expected / scale)
        assert torch.allclose(net(ours / scale), logits, atol=1e-4)
    mask = torch.rand_like(magnitude).requires_grad_()
    layout(features.mel(mask * magnitude)).square().sum().backward()
    assert mask.grad.isfinite().all()
    assert mask.grad[0].abs().max() > 0
    return features, layout


def close(ours, theirs):
    """Equal to 1e-4, or to 1e-5 of a clip's highest value."""
    size = theirs.abs().flatten(1).amax(1)
    error = (ours - theirs).abs().flatten(1).amax(1)
    return bool((error <= (1e-5 * size).clamp(min=1e-4)).all())


def random_frame(numbers):
    """Random settings of a spectrogram of torchaudio."""
    window = numbers.choice(["hann", "hamming", "blackman", "kaiser"])
    win = numbers.randint(120, 450)
    return {
        "n_fft": win + numbers.choice([0, 0, 1, 12, 200]),
        "win_length": win,
        "hop_length": numbers.randint(win // 4, win // 2),
        "pad": numbers.choice([0, 0, 37]),
        "window_fn": getattr(torch, f"{window}_window"),
        "wkwargs": numbers.choice([None, {"periodic": False}]),
        "power": numbers.choice([1, 2]),
        "normalized": numbers.choice([False, True, "frame_length", "window"]),
        "center": numbers.random() < 0.7,
        "pad_mode": numbers.choice(["reflect", "constant", "replicate"]),
    }


def random_mel(rate, numbers):
    """A random mel spectrogram of torchaudio."""
    return T.MelSpectrogram(
        rate,
        n_mels=numbers.randint(8, 128),
        f_min=numbers.choice([0, 20, 133.3]),
        f_max=numbers.choice([None, rate / 2 - 300]),
        norm=numbers.choice([None, "slaney"]),
        mel_scale=numbers.choice(["htk", "slaney"]),
        **random_frame(numbers),
    )


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("rate", RATES)
def test_mel_spectrogram(rate, seed):
    numbers = random.Random(f"{rate} {seed}")
    front_end = random_mel(rate, numbers)
    wavs = clips(numbers.randint(1200, 4000))
    features, _ = check(front_end, wavs)
    assert features.sample_rate == rate
    assert features.hop_samples == front_end.hop_length
    stype = numbers.choice(["power", "magnitude"])
    top_db = numbers.choice([None, 0, 30, 80])
    decibel = T.AmplitudeToDB(stype, top_db)
    check(torch.nn.Sequential(front_end, decibel), wavs)
    check((front_end, Log(), Channel()), wavs)


@pytest.mark.parametrize("seed", range(12))
def test_spectrogram(seed):
    """The classifier sees the bins, in linear steps."""
    numbers = random.Random(seed)
    front_end = T.Spectrogram(**random_frame(numbers))
    wavs = clips(numbers.randint(1200, 4000))
    features, _ = check(front_end, wavs)
    assert features.linear
    assert features.n_mels == features.n_bins == front_end.n_fft // 2 + 1
    decibel = T.AmplitudeToDB(top_db=numbers.choice([None, 60]))
    check(torch.nn.Sequential(front_end, decibel, Channel()), wavs)
    bands = T.MelScale(40, n_stft=features.n_bins)
    check(torch.nn.Sequential(front_end, bands, Log()), wavs)


@pytest.mark.parametrize("log_mels", [True, False])
@pytest.mark.parametrize("norm", ["ortho", None])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_mfcc(log_mels, norm, rate):
    front_end = T.MFCC(
        rate,
        n_mfcc=13,
        norm=norm,
        log_mels=log_mels,
        melkwargs={"n_fft": 512, "hop_length": 133, "n_mels": 40},
    )
    features, _ = check(front_end)
    assert features.n_mels == 40
    check(torch.nn.Sequential(front_end, torch.nn.LayerNorm(31), Channel()))


def test_defaults_of_torchaudio():
    """With bands that hold no bin, as its own defaults have them."""
    check(T.MelSpectrogram())
    check(T.Spectrogram())
    check(T.MFCC())


def test_range_is_the_clips_own():
    """One maximum for all would cut off the quiet clip."""
    front_end = torch.nn.Sequential(
        T.MelSpectrogram(n_mels=40), T.AmplitudeToDB(top_db=30)
    )
    wavs = clips()[:2]
    assert not close(front_end(wavs), through(front_end, wavs))
    assert close(per_clip(front_end)(wavs), through(front_end, wavs))
    features, layout = fast_path(front_end)
    assert len(layout) == 1 and features.log.top_db == 30


def test_range_behind_a_step_of_the_users():
    """Not the spectrogram's levels any more: a step of the layout."""
    front_end = torch.nn.Sequential(
        T.MelSpectrogram(n_mels=40),
        torch.nn.Softplus(),
        T.AmplitudeToDB(top_db=30),
        torch.nn.InstanceNorm1d(40),
    )
    features, _ = check(front_end)
    assert features.log == LogForm("none")
    wavs = clips()
    assert close(per_clip(front_end)(wavs), through(front_end, wavs))


def test_reference_of_decibels():
    """One that somebody has set by hand."""
    decibel = T.AmplitudeToDB(top_db=60)
    decibel.db_multiplier = 0.7
    check(torch.nn.Sequential(T.MelSpectrogram(n_mels=40), decibel))


def test_nested_and_whole_models():
    """The model may be in there, too: then `layout` gives the logits."""
    inner = torch.nn.Sequential(T.MelSpectrogram(n_mels=40), Log())
    model = torch.nn.Sequential(inner, Channel(), Net(40))
    features, layout = fast_path(model)
    wavs = clips()
    levels = features.mel(features.magnitude(features.stft(wavs)))
    assert torch.allclose(layout(levels), through(model, wavs), atol=1e-4)


def test_against_a_listener():
    """Through the spectrogram, or through the sound: the same logits."""
    front_end = torch.nn.Sequential(
        T.MelSpectrogram(22050, n_fft=512, hop_length=171, n_mels=40),
        T.AmplitudeToDB(top_db=80),
    )
    net = Net(40)
    listener = Listener(net, 22050, front_end=per_clip(front_end))
    features, layout = fast_path(front_end)
    wavs = clips()
    stft = features.stft(wavs)
    levels = features.mel(features.magnitude(stft))
    assert torch.allclose(net(layout(levels)), listener(wavs), atol=1e-4)
    again = listener(features.istft(stft, wavs.shape[1]))
    assert torch.allclose(again, listener(wavs), atol=1e-4)


def normalization(kind, x, **settings):
    """SpeechBrain's, which has seen some features."""
    normalize = InputNormalization(norm_type=kind, **settings)
    normalize(x)
    return normalize


@pytest.mark.parametrize("kind", ["global", "sentence", "batch"])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize("std_norm", [True, False])
def test_speechbrain(kind, rate, std_norm):
    """`Fbank` and its normalisation, whose statistics stay as they are."""
    fbank = lobes.Fbank(sample_rate=rate, n_fft=1200, n_mels=23, f_min=30)
    features, _ = check(fbank)
    assert features.sample_rate == rate
    assert features.hop_samples == fbank.compute_STFT.hop_length
    normalize = normalization(kind, fbank(clips()[:3]), std_norm=std_norm)
    frozen = copy.deepcopy(normalize).eval()
    wavs = clips()[:3]
    check((fbank, normalize), wavs, theirs=(fbank, frozen))
    assert normalize.count == frozen.count
    normalize.train()
    _, layout = check(
        torch.nn.Sequential(fbank, normalize), wavs, theirs=(fbank, frozen)
    )
    layout.train()(torch.rand(1, 7, 23))
    assert normalize.count == frozen.count


@pytest.mark.parametrize("lobe", [lobes.Fbank, lobes.MFCC])
@pytest.mark.parametrize("deltas", [True, False])
@pytest.mark.parametrize("context", [True, False])
def test_speechbrain_with_context(lobe, deltas, context):
    check(lobe(n_mels=20, deltas=deltas, context=context, left_frames=2))


@pytest.mark.parametrize("shape", ["triangular", "rectangular", "gaussian"])
def test_speechbrain_step_by_step(shape):
    """Also with filters that were trained."""
    stft = STFT(
        22050,
        win_length=20,
        hop_length=7,
        n_fft=500,
        window_fn=torch.hann_window,
        normalized_stft=True,
        center=False,
    )
    bank = Filterbank(
        n_mels=20,
        n_fft=500,
        sample_rate=22050,
        filter_shape=shape,
        ref_value=0.3,
        top_db=40,
        freeze=False,
    )
    with torch.no_grad():
        bank.band *= 1.3
    features, _ = check((stft, spectral_magnitude, bank))
    assert features.sample_rate == 22050
    bank.log_mel = False
    check((stft, spectral_magnitude, bank, torch.log1p))
    check((stft, spectral_magnitude, lambda x: x.flatten(2)))


class Louder(T.MelSpectrogram):
    """A class of its own."""

    def forward(self, waveform):
        """Twice as loud."""
        return 2 * super().forward(waveform)


def with_hook():
    """A front end that does more than its class says."""
    front_end = T.MelSpectrogram(n_mels=40)
    front_end.register_forward_hook(lambda module, inputs, output: 2 * output)
    return front_end


def with_hook_inside():
    """The same, deeper inside."""
    front_end = T.MelSpectrogram(n_mels=40)
    front_end.spectrogram.register_forward_pre_hook(
        lambda module, inputs: 2 * inputs[0]
    )
    return front_end


@pytest.mark.parametrize(
    "front_end",
    [
        Louder(n_mels=40),
        with_hook(),
        with_hook_inside(),
        T.Spectrogram(power=None),
        T.Spectrogram(onesided=False),
        torch.nn.Sequential(T.Resample(16000, 8000), T.MelSpectrogram(8000)),
        torch.nn.Sequential(),
        torch.nn.Sequential(STFT(16000), Channel()),
        (STFT(16000),),
        KaldiFbank(),
        torch.fft.rfft,
        None,
    ],
)
def test_what_is_not_recognised(front_end):
    """The general path is taken."""
    assert fast_path(front_end) is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_not_recognised():
    assert fast_path(torch.jit.script(T.MelSpectrogram(n_mels=40))) is None


def test_hooks_behind_the_spectrogram_are_called():
    front_end = T.MelSpectrogram(n_mels=40)
    front_end.mel_scale.register_forward_hook(lambda m, i, output: 2 * output)
    features, _ = check(front_end)
    assert features.linear
    decibel = T.AmplitudeToDB(top_db=30)
    decibel.register_forward_hook(lambda module, inputs, output: -output)
    check((T.MelSpectrogram(n_mels=40), decibel))


def test_buffers_are_what_counts():
    """Not the settings from which somebody has changed them."""
    front_end = T.MelSpectrogram(n_mels=40)
    front_end.mel_scale.fb.mul_(torch.rand(40))
    front_end.spectrogram.window.mul_(torch.rand(400))
    features, _ = check(front_end)
    before = features.fbank_matrix.clone()
    front_end.mel_scale.fb.zero_()
    assert torch.equal(features.fbank_matrix, before)


def test_rates():
    """Of the front end, unless it is said or has none."""
    assert fast_path(T.Spectrogram())[0].sample_rate == 16000
    assert fast_path(T.Spectrogram(), 8000)[0].sample_rate == 8000
    mel = T.MelSpectrogram(22050, n_mels=40)
    assert fast_path(mel)[0].sample_rate == 22050
    assert fast_path((mel, Log()), 44100)[0].sample_rate == 44100
    split = (T.Spectrogram(), T.MelScale(40, 8000, n_stft=201))
    assert fast_path(split)[0].sample_rate == 8000
    assert fast_path(T.MFCC(8000))[0].sample_rate == 8000


def test_steps_that_are_none():
    with pytest.raises(LMACError, match="front_end: found '3' in it, expect"):
        fast_path((T.MelSpectrogram(n_mels=40), 3))
    with pytest.raises(LMACError, match=r"the class Log .* of it: Log\("):
        fast_path((T.MelSpectrogram(n_mels=40), Log))
    with pytest.raises(LMACError, match="the class MelSpectrogram in it"):
        per_clip(T.MelSpectrogram)


def kaldi(wavs, **options):
    """torchaudio's function, clip after clip."""
    return torch.stack(
        [
            torchaudio.compliance.kaldi.fbank(wav[None], dither=0.0, **options)
            for wav in wavs
        ]
    )


def random_kaldi(numbers):
    """Random options of Kaldi's filterbank."""
    rate = numbers.choice([8000, 16000, 22050, 44100])
    return {
        "sample_frequency": float(rate),
        "frame_length": numbers.choice([25.0, 20.0, 32.0]),
        "frame_shift": numbers.choice([10.0, 7.3, 30.0]),
        "num_mel_bins": numbers.choice([23, 40, 64]),
        "low_freq": numbers.choice([0.0, 20.0, 125.0]),
        "high_freq": numbers.choice([0.0, -400.0, rate / 2 - 200]),
        "window_type": numbers.choice(
            ["povey", "hanning", "hamming", "rectangular", "blackman"]
        ),
        "blackman_coeff": numbers.choice([0.42, 0.4]),
        "preemphasis_coefficient": numbers.choice([0.97, 0.0, 0.5]),
        "remove_dc_offset": numbers.random() < 0.6,
        "round_to_power_of_two": numbers.random() < 0.6,
        "snip_edges": numbers.random() < 0.5,
        "use_power": numbers.random() < 0.6,
        "use_log_fbank": numbers.random() < 0.7,
        "use_energy": numbers.random() < 0.5,
        "htk_compat": numbers.random() < 0.5,
        "raw_energy": numbers.random() < 0.5,
        "energy_floor": numbers.choice([1.0, 0.0, 0.1]),
        "subtract_mean": numbers.random() < 0.4,
        "vtln_warp": numbers.choice([1.0, 1.0, 0.9, 1.1]),
    }


@pytest.mark.parametrize("seed", range(60))
def test_kaldi(seed):
    numbers = random.Random(seed)
    options = random_kaldi(numbers)
    length = int(options["sample_frequency"] * options["frame_length"] * 0.001)
    if length % 2:
        options["round_to_power_of_two"] = True
    if options["vtln_warp"] != 1:
        options["low_freq"] = 20.0
    wavs = clips(numbers.randint(2 * length, 6000))
    wavs = wavs + 0.1 * wavs.amax(1, keepdim=True)  # not free of DC
    if numbers.random() < 0.3:
        wavs = wavs * 32768
    wavs.requires_grad_()
    module = KaldiFbank(**options)
    found = module(wavs)
    expected = kaldi(wavs.detach(), **options)
    assert found.shape == expected.shape
    assert close(found, expected)
    (gradient,) = torch.autograd.grad(found.square().mean(), wavs)
    assert gradient.isfinite().all() and gradient[0].abs().max() > 0


@pytest.mark.parametrize("use_power", [True, False])
def test_kaldi_of_silence(use_power):
    """The floor, and no gradient that is not a number."""
    wavs = torch.zeros(1, 2000, requires_grad=True)
    module = KaldiFbank(use_energy=True, use_power=use_power)
    found = module(wavs)
    assert torch.equal(
        found.detach(),
        kaldi(wavs.detach(), use_energy=True, use_power=use_power),
    )
    found.sum().backward()
    assert wavs.grad.isfinite().all()


def test_kaldi_keeps_nothing():
    assert len(KaldiFbank().state_dict()) == 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dither": 1.0}, "dither: found 1.0, expected 0"),
        ({"window_type": "hann"}, "window_type: found 'hann', expected povey"),
        ({"num_mel_bins": 3}, "KaldiFbank: Must have at least 3 mel bins"),
        ({"low_freq": 9000.0}, "KaldiFbank: Bad values in options: low-freq"),
        ({"frame_shift": 0.01}, "found 400 and 0 samples, expected at least"),
        (
            {"frame_length": 25.1, "round_to_power_of_two": False},
            "frame_length: found 401 samples, expected an even",
        ),
    ],
)
def test_kaldi_options_that_are_none(options, message):
    with pytest.raises(LMACError, match=message):
        KaldiFbank(**options)


def test_kaldi_of_a_short_clip():
    assert KaldiFbank()(torch.rand(1, 400)).shape == (1, 1, 23)
    with pytest.raises(LMACError, match="399 samples, expected at least 400"):
        KaldiFbank()(torch.rand(1, 399))
