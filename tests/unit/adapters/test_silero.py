"""Silero's detector as a listener hears what its package's model hears."""

import subprocess
import sys

import pytest
import soundfile as sf
import torch
from safetensors.torch import load_file

pytest.importorskip("silero_vad", reason="no silero-vad here")

from lmac_sb.adapters import silero  # noqa: E402
from lmac_sb.adapters.silero import load_silero  # noqa: E402
from lmac_sb.utils.errors import LMACError  # noqa: E402

OTHER = "silero_vad_16k.safetensors"


@pytest.fixture(scope="module")
def listener():
    """The detector with the weights that people use."""
    return load_silero()


def speech(real_data, name="ljspeech/LJ001-0002.flac"):
    """A recorded sentence, [1, samples]."""
    wav, _ = sf.read(real_data / "speech" / name, dtype="float32")
    return torch.from_numpy(wav)[None]


def noise(real_data, n_samples):
    """A part of a recorded street, [1, samples]."""
    path = real_data / "noise" / "tr" / "gui-project__construction.flac"
    wav, _ = sf.read(path, frames=n_samples, dtype="float32")
    return torch.from_numpy(wav)[None]


def package_says(wavs):
    """Probabilities of speech by the package's TorchScript, [1, time]."""
    # Its import sets torch's number of threads to one.
    threads = torch.get_num_threads()
    from silero_vad import load_silero_vad

    torch.set_num_threads(threads)
    return load_silero_vad().audio_forward(wavs, 16000)


# ----------------------------------------------------------- the package's


@pytest.mark.parametrize(
    "name",
    [
        "ljspeech/LJ001-0002.flac",
        "picovoice/0c6a26aa-bc20-4c64-960a-9162b5f81925.flac",
    ],
)
def test_speech_is_heard_as_by_the_package(real_data, listener, name):
    wavs = speech(real_data, name)
    found = listener.model(wavs)
    assert found.shape == (1, -(-wavs.shape[1] // 512), 2)
    expected = package_says(wavs)
    torch.testing.assert_close(
        found.softmax(2)[..., 0], expected, atol=1e-4, rtol=0
    )
    assert expected.max() > 0.9


def test_speech_in_noise_is_heard_as_by_onnx(real_data, listener):
    """The package's other copy of the network, on a sound of 0 dB."""
    pytest.importorskip("onnxruntime", reason="no onnxruntime here")
    from silero_vad import load_silero_vad

    wavs = speech(real_data)
    noises = noise(real_data, wavs.shape[1])
    wavs = wavs + noises * wavs.norm() / noises.norm()
    expected = load_silero_vad(onnx=True).audio_forward(wavs, 16000)
    torch.testing.assert_close(
        listener.model(wavs).softmax(2)[..., 0], expected, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("n_samples", [1, 511, 512, 513, 1600])
def test_any_length(real_data, listener, n_samples):
    wavs = speech(real_data)[:, 6000 : 6000 + n_samples]
    # The package itself refuses less than one chunk.
    filled = torch.nn.functional.pad(wavs, (0, max(0, 512 - n_samples)))
    torch.testing.assert_close(
        listener.model(wavs).softmax(2)[..., 0],
        package_says(filled),
        atol=1e-4,
        rtol=0,
    )


def test_each_clip_has_its_own_state(real_data, listener):
    sentence = speech(real_data)[0, :16000]
    wavs = torch.stack((sentence, torch.zeros(16000), sentence.flip(0)))
    together = listener.model(wavs)
    for wav, found in zip(wavs, together):
        torch.testing.assert_close(
            found, listener.model(wav[None])[0], atol=1e-4, rtol=0
        )
    # Nothing is kept from one call to the next.
    assert torch.equal(together, listener.model(wavs))


# ------------------------------------------------------ once more, in loops


def slowly(wav, weights):
    """Probabilities of one clip, chunk by chunk and gate by gate."""
    wav = torch.cat((torch.zeros(64), wav, torch.zeros(-len(wav) % 512)))
    hidden, cell, found = torch.zeros(128), torch.zeros(128), []
    for start in range(64, len(wav), 512):
        chunk = wav[start - 64 : start + 512]
        chunk = torch.cat((chunk, chunk[-65:-1].flip(0)))
        columns = []
        for first in range(0, len(chunk) - 255, 128):
            parts = weights["stft_conv.weight"][:, 0] @ chunk[first:][:256]
            columns.append((parts[:129] ** 2 + parts[129:] ** 2).sqrt())
        for layer, stride in (("1", 1), ("2", 2), ("3", 2), ("4", 1)):
            kernel = weights[f"conv{layer}.weight"]
            bias = weights[f"conv{layer}.bias"]
            edge = torch.zeros_like(columns[0])
            around = [edge, *columns, edge]
            columns = [
                sum(kernel[..., k] @ around[at + k] for k in range(3))
                .add(bias)
                .relu()
                for at in range(0, len(columns), stride)
            ]
        gates = (
            weights["lstm_cell.weight_ih"] @ columns[0]
            + weights["lstm_cell.bias_ih"]
            + weights["lstm_cell.weight_hh"] @ hidden
            + weights["lstm_cell.bias_hh"]
        )
        take, forget, new, give = gates.chunk(4)
        cell = forget.sigmoid() * cell + take.sigmoid() * new.tanh()
        hidden = give.sigmoid() * cell.tanh()
        odds = weights["final_conv.weight"][0, :, 0] @ hidden.relu()
        found.append((odds + weights["final_conv.bias"][0]).sigmoid())
    return torch.stack(found)


def test_the_other_training_in_loops(real_data):
    """The package has no model that uses the safetensors but tinygrad's."""
    path = silero._data_folder() / OTHER
    if not path.exists():
        pytest.skip("silero-vad before 6.2.1: no safetensors")
    wavs = speech(real_data)[:, :16000]
    torch.testing.assert_close(
        load_silero(OTHER).model(wavs)[0].softmax(1)[:, 0],
        slowly(wavs[0], load_file(path)),
        atol=1e-4,
        rtol=0,
    )


def test_the_files_hold_different_weights(real_data, listener):
    """What the docstring says; if it is no longer so, change it."""
    if not (silero._data_folder() / OTHER).exists():
        pytest.skip("silero-vad before 6.2.1: no safetensors")
    wavs = speech(real_data, "ljspeech/LJ001-0001.flac")
    found, other = (
        x.model(wavs).softmax(2)[..., 0] for x in (listener, load_silero(OTHER))
    )
    assert float((found - other).abs().max()) == pytest.approx(0.33, abs=0.01)


# ----------------------------------------------------------------- gradients


def test_gradients_pass_through_all_chunks(real_data, listener):
    """The last chunk's decision depends on what was heard before."""
    wavs = speech(real_data)[:, :16000].requires_grad_()
    last = listener.model(wavs)[0, -1, 0]
    (gradient,) = torch.autograd.grad(last, wavs)
    assert gradient.isfinite().all()
    sizes = gradient[0, : 31 * 512].view(31, 512).norm(dim=1)
    assert (sizes > 0).all()
    # Against a difference, in double precision.
    double = load_silero().double()
    wavs = wavs.detach().double()
    direction = torch.randn_like(wavs)
    direction /= direction.norm()
    values = [
        double.model(wavs + step * direction)[0, -1, 0]
        for step in (1e-5, -1e-5)
    ]
    slope = float(values[0] - values[1]) / 2e-5
    expected = float((gradient.double() * direction).sum())
    assert slope == pytest.approx(expected, rel=0.01)


def test_silence_has_a_gradient_that_is_a_number(listener):
    wavs = torch.zeros(1, 2048, requires_grad=True)
    logits = listener(wavs)
    (gradient,) = torch.autograd.grad(logits.sum(), wavs)
    assert gradient.isfinite().all()


def test_cudnn_is_left_out_where_gradients_are_wanted(listener, monkeypatch):
    """Its recurrent layers refuse the backward pass in evaluation mode."""
    seen = []
    monkeypatch.setattr(
        listener.model.lstm,
        "forward",
        lambda x: seen.append(torch.backends.cudnn.enabled) or (x, None),
    )
    enabled = torch.backends.cudnn.enabled
    listener.model(torch.zeros(1, 512))
    listener.model(torch.zeros(1, 512, requires_grad=True))
    with torch.no_grad():
        listener.model(torch.zeros(1, 512, requires_grad=True))
    assert seen == [enabled, False, enabled]
    assert torch.backends.cudnn.enabled == enabled


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_gradients_on_a_gpu(real_data):
    listener = load_silero().cuda()
    wavs = speech(real_data)[:, :16000].cuda().requires_grad_()
    (gradient,) = torch.autograd.grad(listener(wavs)[:, 0].sum(), wavs)
    assert gradient.isfinite().all() and gradient.abs().max() > 0


# ---------------------------------------------------------------- the rest


def test_labels_and_frozen_weights(listener):
    assert listener.labels == ["speech", "no speech"]
    assert (listener.sample_rate, listener.multilabel) == (16000, False)
    assert not any(p.requires_grad for p in listener.parameters())
    assert not any(module.training for module in listener.model.modules())


def test_noise_is_no_speech(real_data, listener):
    for wavs, label in (
        (noise(real_data, 32000), "no speech"),
        (speech(real_data), "speech"),
    ):
        logits = listener(wavs)
        assert listener.labels[int(logits.argmax())] == label
        # The clip's probability is the mean of those of its chunks.
        torch.testing.assert_close(
            logits.softmax(1), listener.model(wavs).softmax(2).mean(1)
        )


def test_loading_leaves_the_threads_alone():
    code = (
        "import torch; torch.set_num_threads(3)\n"
        "from lmac_sb.adapters.silero import load_silero\n"
        "load_silero(); print(torch.get_num_threads())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "3\n", done.stderr


def test_unknown_file():
    with pytest.raises(LMACError, match="file: found 'x.onnx', expected one"):
        load_silero("x.onnx")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(LMACError, match=r"install \"lmac-sb\[silero\]\""):
        load_silero()


def test_without_its_file(monkeypatch, tmp_path):
    monkeypatch.setattr(silero, "_data_folder", lambda: tmp_path)
    with pytest.raises(LMACError, match="no such file, expected the package"):
        load_silero(OTHER)
