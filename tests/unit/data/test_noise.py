"""Tests of the noise mixer."""

import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf
import torch

from lmac_sb.data.noise import NoiseMixer
from lmac_sb.utils.errors import LMACError

RATE = 8000


def write(folder, name, wav, rate=RATE, subtype="FLOAT"):
    """Write a noise file, making its split's folder."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, wav, rate, subtype=subtype)
    return path


@pytest.fixture
def folder(tmp_path):
    """Three noise files of different length for each split."""
    rng = np.random.default_rng(0)
    for split in ("tr", "cv", "tt"):
        for index, seconds in enumerate((2.0, 3.0, 4.0)):
            wav = rng.normal(0, 0.1, int(seconds * RATE))
            write(tmp_path, f"{split}/n{index}.wav", wav)
    return tmp_path


def clip():
    """One second of a clip with a peak of one."""
    wav = torch.randn(RATE)
    return wav / wav.abs().max()


def measured_snr(mixture, clean):
    """The ratio in dB, computed from sums."""
    signal = sum(float(x) ** 2 for x in clean)
    noise = sum((float(m) - float(c)) ** 2 for m, c in zip(mixture, clean))
    return 10 * math.log10(signal / noise)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20])
@pytest.mark.parametrize("gain", [1.0, 0.001])
def test_ratio(folder, snr_db, gain):
    """The mixture has the stated ratio, for any level of the clip."""
    mixer = NoiseMixer(folder, "tr", RATE, snr_db)
    mixture, clean, _ = mixer(gain * clip(), "a")
    assert measured_snr(mixture, clean) == pytest.approx(snr_db, abs=0.01)


def test_clean_has_the_gain_that_it_has_in_the_mixture(folder):
    """Mixture minus clean is the noise alone, with nothing of the clip."""
    wav = clip()
    mixture, clean, gain = NoiseMixer(folder, "tr", RATE)(wav, "a")
    assert mixture.abs().max() == pytest.approx(1.0)
    assert gain == pytest.approx(float(clean.abs().max() / wav.abs().max()))
    assert gain < 0.95  # so that a clean target at gain 1 would show
    assert torch.allclose(clean, gain * wav, atol=1e-6)
    # The noise is an excerpt of one of the files, up to its gain.
    noise = (mixture - clean).double()
    noise /= noise.norm()
    best = 0.0
    for index in range(3):
        file = sf.read(folder / "tr" / f"n{index}.wav")[0]
        windows = torch.from_numpy(file).unfold(0, RATE, 1)
        match = (windows @ noise) / windows.norm(dim=1)
        best = max(best, match.max().item())
    assert best > 0.9999


def test_result_depends_on_id_and_epoch_alone(folder):
    """Noise depends on no order of visits, global state or process."""
    wav = clip()
    mixer = NoiseMixer(folder, "cv", RATE, seed=7)
    first = {name: mixer(wav, name)[0] for name in "abc"}
    torch.manual_seed(99)
    np.random.seed(99)
    again = pickle.loads(pickle.dumps(mixer))
    for name in "cab":
        assert torch.equal(again(wav, name)[0], first[name])
    assert not torch.equal(first["a"], first["b"])
    epochs = [mixer(wav, "a", epoch)[0] for epoch in (1, 2, 1)]
    assert torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[1])
    other = NoiseMixer(folder, "cv", RATE, seed=8)
    assert not torch.equal(other(wav, "a")[0], first["a"])


def test_other_process(folder):
    """A fresh process with another hash seed mixes the same."""
    code = (
        "import sys, torch; from lmac_sb.data.noise import NoiseMixer;"
        f"m = NoiseMixer(sys.argv[1], 'cv', {RATE});"
        "print(m(torch.ones(800), 'a', 3)[0].double().sum().item())"
    )
    mixer = NoiseMixer(folder, "cv", RATE)
    here = mixer(torch.ones(800), "a", 3)[0].double().sum().item()
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) == pytest.approx(here, abs=1e-6)


def test_order_of_listing_plays_no_part(folder, monkeypatch):
    """Noise does not depend on the order of files in the file system."""
    wav = clip()
    wanted = NoiseMixer(folder, "tr", RATE)(wav, "a")[0]
    names = os.listdir(folder / "tr")
    for order in (sorted(names), sorted(names, reverse=True)):
        monkeypatch.setattr(os, "listdir", lambda _, order=order: order)
        assert torch.equal(NoiseMixer(folder, "tr", RATE)(wav, "a")[0], wanted)


def test_splits_are_apart(folder):
    """Each split uses only the files of its own part."""
    for split in ("tr", "cv", "tt"):
        files = NoiseMixer(folder, split, RATE).files
        assert [os.path.dirname(path) for path in files] == [
            str(folder / split)
        ] * 3


def test_all_of_a_file_is_used(tmp_path):
    """Excerpts may start anywhere and reach the last sample of a file."""
    ramp = np.linspace(0.1, 0.9, 2 * RATE)
    write(tmp_path, "tr/ramp.wav", ramp)
    mixer = NoiseMixer(tmp_path, "tr", RATE)
    wav = torch.zeros(RATE)
    wav[::2], wav[1::2] = 1e-4, -1e-4
    starts = []
    for epoch in range(300):
        mixture, clean, _ = mixer(wav, "a", epoch)
        noise = mixture - clean
        # On the ramp, the ratio of the ends gives the place.
        first = 1.0 / (noise[-1] / noise[0] - 1) * 0.8 * (RATE - 1)
        starts.append((first.item() / (2 * RATE - 1) - 0.1) / 0.8 * 2)
    assert min(starts) < 0.05 and max(starts) > 0.95
    assert 0.4 < np.mean(starts) < 0.6


@pytest.mark.parametrize("rate", [4000, 11025, 44100])
@pytest.mark.parametrize("n_samples", [799, 8000, 20001])
def test_lengths_rates_and_channels(tmp_path, rate, n_samples):
    """Shorter files repeat, others are cut; stereo becomes mono."""
    wav = np.random.default_rng(0).normal(0, 0.1, (rate, 2))
    write(tmp_path, "tt/n.wav", wav, rate)
    mixer = NoiseMixer(tmp_path, "tt", RATE, snr_db=3.0)
    mixture, clean, _ = mixer(torch.randn(n_samples), "a")
    assert mixture.shape == clean.shape == (n_samples,)
    assert measured_snr(mixture, clean) == pytest.approx(3.0, abs=0.01)


def test_short_file_repeats(tmp_path):
    """The repeated file fills the clip with its own period."""
    write(tmp_path, "tr/n.wav", np.random.default_rng(0).normal(0, 0.1, 500))
    mixture, clean, _ = NoiseMixer(tmp_path, "tr", RATE)(clip(), "a")
    noise = mixture - clean
    assert noise[-500:].abs().max() > 0.01
    assert torch.allclose(noise[500:], noise[:-500], atol=1e-5)


def test_silent_excerpts_are_drawn_again(tmp_path):
    """A file that is half silent gives noise, never NaN."""
    wav = np.zeros(40 * RATE)
    wav[20 * RATE :] = np.random.default_rng(0).normal(0, 0.1, 20 * RATE)
    write(tmp_path, "tr/n.wav", wav)
    mixer = NoiseMixer(tmp_path, "tr", RATE)
    for epoch in range(30):
        mixture, clean, _ = mixer(clip(), "a", epoch)
        assert measured_snr(mixture, clean) == pytest.approx(0.0, abs=0.01)


def test_all_silent(tmp_path):
    """Noise files that are all silent are refused, by name."""
    write(tmp_path, "tr/n.wav", np.full(2 * RATE, 1e-6))
    with pytest.raises(LMACError, match="n.wav: .*all silent"):
        NoiseMixer(tmp_path, "tr", RATE)(clip(), "a")


def test_quiet_noise_is_used(tmp_path):
    """Real recordings of -50 dBFS and less are noise, not silence."""
    wav = np.random.default_rng(0).normal(0, 10 ** (-70 / 20), 2 * RATE)
    write(tmp_path, "tr/n.wav", wav, subtype="PCM_16")
    mixture, clean, _ = NoiseMixer(tmp_path, "tr", RATE)(clip(), "a")
    assert measured_snr(mixture, clean) == pytest.approx(0.0, abs=0.01)


def test_silent_clip(folder):
    """A silent clip comes back as it is."""
    mixture, clean, gain = NoiseMixer(folder, "tr", RATE)(torch.zeros(800), "a")
    assert gain == 1
    assert torch.equal(mixture, torch.zeros(800))
    assert torch.equal(clean, torch.zeros(800))


def test_missing_folder_and_split(tmp_path):
    """The message names the missing folder and the existing ones."""
    with pytest.raises(LMACError, match="nowhere: no such noise folder"):
        NoiseMixer(tmp_path / "nowhere", "tr", RATE)
    (tmp_path / "wham_tr").mkdir()
    with pytest.raises(LMACError, match="tr: no such .* holds wham_tr"):
        NoiseMixer(tmp_path, "tr", RATE)
    (tmp_path / "tr").mkdir()
    (tmp_path / "tr" / "README.txt").write_text("no noise")
    with pytest.raises(LMACError, match="tr: no noise files"):
        NoiseMixer(tmp_path, "tr", RATE)


def test_unknown_split(folder):
    """Splits other than those of WHAM! are refused."""
    with pytest.raises(LMACError, match="'test', expected one of tr, cv, tt"):
        NoiseMixer(folder, "test", RATE)


@pytest.mark.parametrize("snr_db", [float("nan"), float("inf"), "0", None])
def test_bad_ratio(folder, snr_db):
    """A ratio that is not a number is refused."""
    with pytest.raises(LMACError, match="snr_db"):
        NoiseMixer(folder, "tr", RATE, snr_db)


@pytest.mark.parametrize("shape", [(0,), (2, 800)])
def test_bad_clip(folder, shape):
    """The message has the clip and its shape."""
    with pytest.raises(LMACError, match="clip a: found shape"):
        NoiseMixer(folder, "tr", RATE)(torch.ones(shape), "a")


def test_bad_noise_file(tmp_path):
    """Unusable noise files are named: not audio, empty, NaN."""
    (tmp_path / "tr").mkdir()
    path = tmp_path / "tr" / "n.wav"
    path.write_bytes(b"no audio")
    mixer = NoiseMixer(tmp_path, "tr", RATE)
    with pytest.raises(LMACError, match="n.wav: noise cannot be read"):
        mixer(clip(), "a")
    write(tmp_path, "tr/n.wav", np.zeros(0))
    with pytest.raises(LMACError, match="n.wav: noise file holds no samples"):
        mixer(clip(), "a")
    write(tmp_path, "tr/n.wav", np.full(2 * RATE, np.nan))
    with pytest.raises(LMACError, match="n.wav: noise holds NaN"):
        mixer(clip(), "a")


def test_truncated_noise(tmp_path):
    """Also where the excerpt is whole."""
    wav = np.random.default_rng(0).normal(0, 0.1, 9 * RATE)
    path = write(tmp_path, "tr/n.wav", wav)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(LMACError, match="n.wav: truncated, 9000 bytes fewer"):
        NoiseMixer(tmp_path, "tr", RATE)(clip(), "a")


def test_real_noise(real_data):
    """Every real file is loud enough, in every split."""
    for split in ("tr", "cv", "tt"):
        mixer = NoiseMixer(real_data / "noise", split, 16000)
        for path in mixer.files[:6]:
            mixer.files = [path]
            mixture, clean, _ = mixer(torch.randn(8000), "a")
            assert measured_snr(mixture, clean) == pytest.approx(0.0, abs=0.01)
