"""What is refused before the first explanation, and in which words."""

import dataclasses
import math
import types

import numpy as np
import pytest
import torch
import torchaudio

from lmac_sb.listener.checks import (
    check_listener,
    compare,
    find_sample_rate,
    where_they_part,
)
from lmac_sb.listener.listener import Listener
from lmac_sb.listener.windows import Windows
from lmac_sb.utils.errors import LMACError

RATE = 8000
WEIGHT = torch.randn(3, 80, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def wavs():
    torch.manual_seed(0)
    return torch.randn(2, RATE) / 4


def energies(wavs):
    """Logits [batch, 3] by weighted log energies of 80 parts of a clip."""
    levels = (wavs.unflatten(1, (80, -1)).square().mean(2) + 1e-3).log()
    return levels @ WEIGHT.T


def refused(model, wavs, own=None, labels=None, **options):
    """Message of the error."""
    with pytest.raises(LMACError) as error:
        check_listener(Listener(model, RATE, labels, **options), wavs, own)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("own", [None, energies])
def test_a_good_model_passes(own, wavs):
    before = wavs.clone()
    check_listener(Listener(energies, RATE), wavs, own)
    with torch.inference_mode():
        check_listener(Listener(energies, RATE), 1 * wavs, own)
    assert torch.equal(wavs, before) and not wavs.requires_grad


def numpy_inside(wavs):
    return torch.from_numpy(np.tanh(energies(wavs).numpy()))


def detached_numpy(wavs):
    return torch.from_numpy(np.tanh(energies(wavs).detach().numpy()))


@pytest.mark.parametrize(
    "model",
    [
        numpy_inside,
        detached_numpy,
        torch.no_grad()(energies),
        torch.inference_mode()(energies),
        lambda wavs: energies(wavs).detach(),
        lambda wavs: energies(wavs.data),
    ],
)
def test_no_gradient(model, wavs):
    message = refused(model, wavs)
    assert message.startswith("model: no gradient reaches the sound")
    assert "PyTorch module" in message and "occlusion" in message


def test_onnx(wavs, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(
        np.random.rand(RATE, 3).astype(np.float32), "w"
    )
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, ["b", RATE])],
        [helper.make_tensor_value_info("y", kind, ["b", 3])],
        [weight],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    assert "an ONNX session gives no gradient" in refused(session, wavs)

    def run(wavs):
        return torch.from_numpy(session.run(None, {"x": wavs.numpy()})[0])

    assert "no gradient reaches the sound" in refused(run, wavs)

    def run_to_numpy(wavs):
        return session.run(None, {"x": wavs.numpy()})[0]

    assert "what numpy computes has no gradient" in refused(run_to_numpy, wavs)


def test_weights_made_in_inference_mode(wavs):
    with torch.inference_mode():
        net = torch.nn.Sequential(torch.nn.Linear(RATE, 3))
    assert "inference_mode" in refused(net, wavs)


def test_layers_that_pass_no_gradient(wavs):
    class Cut(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 1 * x

        @staticmethod
        def backward(ctx, gradient):
            return None

    message = refused(lambda wavs: energies(Cut.apply(wavs)), wavs)
    assert message.startswith("model: no gradient reaches the sound; remove")


def test_weights_without_values(wavs):
    net = torch.nn.Linear(RATE, 3, device="meta")
    assert "of Linear on the device 'meta'" in refused(net, wavs)


def test_a_gradient_of_zero(wavs):
    def rounded(wavs):
        return energies(wavs).round() + 0 * wavs[:, :3]

    assert "its gradient is 0 for each sample" in refused(rounded, wavs)

    def sure(wavs):
        return torch.exp((1000 * energies(wavs)).log_softmax(1)).clamp(0, 1)

    message = refused(sure, wavs)
    assert "found the same outputs" in message and "saturated" in message


def test_changes_in_place_are_followed(wavs):
    def normalise(wavs):
        wavs /= wavs.abs().amax(1, keepdim=True)
        return energies(wavs)

    listener, before = Listener(normalise, RATE), wavs.clone()
    check_listener(listener, wavs, normalise)
    assert torch.equal(wavs, before) and listener.found.changes
    wavs.requires_grad_()
    (gradient,) = torch.autograd.grad(listener(wavs)[:, 0].sum(), wavs)
    scaled = energies(wavs / wavs.abs().amax(1, keepdim=True))
    (expected,) = torch.autograd.grad(scaled[:, 0].sum(), wavs)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("size", [0.5, 1e-2])
def test_noise_at_evaluation(size, wavs):
    def noisy(wavs):
        return energies(wavs) + size * torch.randn(len(wavs), 3)

    message = refused(noisy, wavs)
    assert "two calls on the same sound differ by 0" in message or (
        "two calls on the same sound differ by 1" in message
    )
    assert "switch off dropout" in message

    def dropping(wavs):
        return energies(torch.nn.functional.dropout(wavs, 0.5))

    assert "switch off dropout" in refused(dropping, wavs)


def test_a_state_between_calls(wavs):
    calls = []

    def counting(wavs):
        calls.append(1)
        return energies(wavs) + len(calls) * WEIGHT[:, 0]

    assert "states that are kept between calls" in refused(counting, wavs)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite(value, wavs):
    message = refused(lambda wavs: energies(wavs) + value, wavs)
    assert "outputs that are not finite" in message
    assert str(value) in message


def test_outputs_that_hear_nothing(wavs):
    message = refused(lambda wavs: energies(0 * wavs), wavs)
    assert "found the same outputs" in message and "silence" in message


def test_one_label_for_several_outputs(wavs):
    message = refused(energies, wavs, labels=["dog"])
    assert "labels: found 1, but the model gives 3 outputs" in message


def test_labels_of_another_number(wavs):
    message = refused(energies, wavs, labels=["cat", "dog"])
    assert message.startswith("labels: found 2, but the model gives 3 outputs")
    message = refused(
        lambda wavs: energies(wavs)[:, None].expand(-1, 4, -1),
        wavs,
        labels=list("abcdefg"),
    )
    assert message.startswith("labels: found 7, but the model gives 3 outputs")


class Fixed(torch.nn.Module):
    """Takes half a second and nothing else."""

    def __init__(self, channel=False):
        super().__init__()
        shape = torch.nn.Identity if channel else torch.nn.Unflatten
        self.net = torch.nn.Sequential(
            shape(1, (1, -1)),
            torch.nn.Conv1d(1, 2, 80, 40),
            torch.nn.Flatten(),
            torch.nn.Linear(2 * 99, 3),
        )

    def forward(self, wavs):
        return self.net(wavs)


@pytest.mark.parametrize("channel", [False, True])
@pytest.mark.parametrize("n_samples", [8000, 3000, 20])
def test_a_fixed_length_is_named(n_samples, channel, wavs):
    net = Fixed(channel)
    message = refused(net, wavs[:, :n_samples])
    assert f"found a clip of {n_samples} samples" in message
    assert "signal_length_s=0.5" in message and "Windows(4000)" in message
    check_listener(Listener(net, RATE), wavs[:, :4000])
    check_listener(Listener(net, RATE, windows=Windows(4000)), wavs)


def test_another_length_later(wavs):
    listener = Listener(Fixed(), RATE)
    listener(wavs[:, :4000])
    with pytest.raises(LMACError, match="expected 4000, .*signal_length_s=0.5"):
        listener(wavs)


def test_clips_that_are_too_short(wavs):
    net = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, -1)),
        torch.nn.Conv1d(1, 3, 400, 160),
        torch.nn.AdaptiveMaxPool1d(1),
        torch.nn.Flatten(),
    )
    message = refused(net, wavs[:, :300])
    assert "found a clip of 300 samples, expected a length" in message


def test_a_batch_of_another_size_is_no_matter_of_length(wavs):
    def by_twos(wavs):
        if len(wavs) != 2:
            raise ValueError("a batch of two")
        return energies(wavs)

    message = refused(by_twos, wavs)
    assert "a batch of two" in message and "signal_length_s" not in message


def test_an_error_of_a_later_form_hides_no_other(wavs):
    def front_end(wavs):
        if wavs.dim() != 2:
            raise LMACError("waveforms: another shape")
        return wavs

    def broken(wavs):
        raise KeyError("head")

    assert "KeyError: 'head'" in refused(broken, wavs, front_end=front_end)

    def too_short(wavs):
        raise LMACError("waveforms: too short")

    assert refused(too_short, wavs) == "waveforms: too short"


def test_models_that_cannot_be_called(wavs):
    def needs_lengths(wavs, lengths):
        return energies(wavs)

    message = refused(needs_lengths, wavs)
    assert "cannot be called with 8000 samples as [batch, samples]" in message
    assert "'lengths'" in message and "[1, samples]" in message


@pytest.mark.parametrize(
    ("model", "rate"),
    [
        (torchaudio.transforms.MelSpectrogram(RATE, n_mels=16), RATE),
        (torchaudio.transforms.MFCC(16000), 16000),
        (torchaudio.transforms.Resample(44100, 16000), 44100),
        (
            torch.nn.Sequential(
                torchaudio.transforms.Resample(RATE, 16000),
                torchaudio.transforms.MelSpectrogram(16000),
            ),
            RATE,
        ),
        (torch.nn.Linear(2, 2), None),
        (energies, None),
    ],
)
@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
def test_rates_are_found(model, rate):
    assert find_sample_rate(model) == rate


def test_rates_of_other_kinds():
    from speechbrain.lobes.features import Fbank

    assert find_sample_rate(Fbank(sample_rate=22050)) == 22050
    net = torch.nn.Linear(2, 2)
    net.config = types.SimpleNamespace(sampling_rate=32000)
    assert find_sample_rate(lambda wavs: net(wavs)) == 32000
    net.sample_rate = 16000
    assert find_sample_rate(net) is None


def test_another_rate(wavs):
    mel = torchaudio.transforms.MelSpectrogram(16000, n_mels=16)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(640, 3))
    for options in ({"front_end": mel}, {}):
        model = net if options else torch.nn.Sequential(mel, net)
        message = refused(model, wavs, **options)
        assert "sample_rate: found 8000 Hz" in message
        assert "16000 Hz" in message and "MelS" in message


def test_the_users_own_call(wavs):
    net = torch.nn.Sequential(torch.nn.Linear(RATE, 3))
    listener = Listener(net, RATE)
    for own in (
        net,
        net(wavs),
        net(wavs).detach().numpy(),
        lambda wavs: net(wavs).softmax(1),
        lambda wavs: net(wavs).log_softmax(1),
        lambda wavs: {"logits": net(wavs)},
        lambda wavs: net(wavs).detach().numpy().tolist(),
    ):
        compare(listener, own, wavs)
        check_listener(listener, wavs, own)
    with pytest.raises(LMACError, match="differ from your own call by up to"):
        compare(listener, lambda wavs: net(0.9 * wavs), wavs)
    with pytest.raises(LMACError, match=r"own: found outputs .* of \[2, 2\]"):
        compare(listener, lambda wavs: net(wavs)[:, :2], wavs)
    with pytest.raises(LMACError, match="own: found torch.int64"):
        compare(listener, lambda wavs: net(wavs).argmax(1), wavs)


def test_probabilities_are_compared_with_probabilities(wavs):
    def sigmoids(wavs):
        return energies(wavs).sigmoid()

    check_listener(Listener(sigmoids, RATE), wavs, sigmoids)
    check_listener(Listener(energies, RATE, None, True), wavs, sigmoids)
    check_listener(Listener(sigmoids, RATE), wavs, energies)


@pytest.mark.parametrize("windows", [None, Windows(4000, 2000)])
def test_frames_are_compared_as_they_are_pooled(windows, wavs):
    def frames(wavs):
        levels = wavs.unflatten(1, (-1, 400)).square().mean(2) + 1e-3
        return levels.log()[..., None] * WEIGHT[:, 0]

    listener = Listener(frames, RATE, list("abc"), windows=windows)
    own = frames
    if windows is not None:

        def own(wavs):
            return frames(windows.cut(wavs))

    compare(listener, own, wavs)
    with pytest.raises(LMACError, match="differ from your own call"):
        compare(listener, lambda wavs: own(wavs.flip(1)) * 2, wavs)


def test_a_difference_is_traced_to_the_front_end(wavs):
    settings = {"n_fft": 256, "hop_length": 128, "n_mels": 16}
    ours = torchaudio.transforms.MelSpectrogram(RATE, **settings)
    own = torchaudio.transforms.MelSpectrogram(
        RATE, pad_mode="constant", **settings
    )
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16 * 63, 3))
    listener = Listener(net, RATE, front_end=ours)
    with pytest.raises(LMACError, match="only at the edges of axis 2: padding"):
        compare(listener, lambda x: net(own(x)), wavs, own)
    compare(listener, lambda x: net(ours(x)), wavs, ours)


def test_kinds_of_differences():
    torch.manual_seed(0)
    own = torch.rand(2, 20, 12)
    assert where_they_part(own, own) == where_they_part(own + 1e-6, own) == ""
    assert "all are 1.5 lower in yours" in where_they_part(own + 1.5, own)
    assert "yours are 4 times as large" in where_they_part(own / 4, own)
    text = where_they_part((own - 1) / 2, own)
    assert "2 times as large plus 1" in text
    assert "another hop" in where_they_part(own[:, :19], own)
    text = where_they_part(own[0].T, own[0])
    assert "axes are exchanged" in text
    bands = own + torch.rand(12)
    assert "the same along all but axis 2" in where_they_part(bands, own)
    edges = own.clone()
    edges[:, 0] += 1
    text = where_they_part(edges, own)
    assert "only at the edges of axis 1" in text
    one = own.clone()
    one[1, 10, 6] += 3
    text = where_they_part(one, own)
    assert "at [1, 10, 6] of [2, 20, 12]" in text and text.endswith("12]")


@dataclasses.dataclass
class Answer:
    """What a model returns."""

    logits: torch.Tensor


def test_dataclasses_pass(wavs):
    check_listener(
        Listener(lambda wavs: Answer(energies(wavs)), RATE), wavs, energies
    )


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_layer_is_named(wavs):
    net = torch.nn.Sequential(torch.nn.Linear(RATE, 3)).eval()
    net = torch.ao.quantization.quantize_dynamic(
        net, {torch.nn.Linear}, torch.qint8
    )
    assert "its Linear is quantised" in refused(net, wavs)


class AtTwice(torch.nn.Module):
    """Brings sounds to twice their rate, by a function or not at all."""

    def __init__(self, resamples):
        super().__init__()
        self.resamples = resamples
        self.mel = torchaudio.transforms.MelSpectrogram(2 * RATE, n_mels=8)

    def forward(self, wavs):
        if self.resamples:
            wavs = torchaudio.functional.resample(wavs, RATE, 2 * RATE)
        return (self.mel(wavs) + 1e-5).log().mean(2)


@pytest.mark.parametrize("within", [False, True])
def test_a_model_that_resamples_by_a_function(wavs, within):
    """What its front end gets tells that its rate is that of the sounds."""
    model = AtTwice(True).eval()
    listener = Listener((lambda x: model(x)) if within else model, RATE)
    check_listener(listener, wavs)
    torch.testing.assert_close(listener(wavs), model(wavs))
    assert "MelSpectrogram is made for 16000" in refused(AtTwice(False), wavs)


class Unattached(torch.nn.Module):
    """Its rate is known to others alone."""

    @property
    def sample_rate(self):
        raise RuntimeError("not attached")


def test_a_rate_that_cannot_be_read_is_none():
    assert find_sample_rate(Unattached()) is None
