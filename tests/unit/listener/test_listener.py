"""One way of calling classifiers of many kinds."""

import copy
import logging

import numpy as np
import pytest
import torch
import torchaudio

from lmac_sb.listener.listener import Listener
from lmac_sb.listener.windows import Windows
from lmac_sb.utils.errors import LMACError

RATE = 8000
LABELS = ["cat", "cow", "dog"]


class Net(torch.nn.Module):
    """Logits [batch, 26, 3] of a second's frames, and an answer from them."""

    def __init__(self, answer=None, n_outputs=3):
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(
            RATE, n_fft=512, hop_length=320, n_mels=16
        )
        self.norm = torch.nn.BatchNorm1d(16)
        self.dropout = torch.nn.Dropout()
        self.head = torch.nn.Linear(16, n_outputs)
        self.answer = answer

    def frames(self, wavs):
        levels = torch.log(self.mel(wavs) + 1e-3)
        return self.head(self.dropout(self.norm(levels)).transpose(1, 2))

    def forward(self, wavs):
        return self.answer(self, wavs)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def wavs():
    return torch.randn(3, RATE) / 4


def only(condition):
    if not condition:
        raise RuntimeError("wrong shape")


def clip(net, wavs):
    only(wavs.dim() == 2)
    return net.frames(wavs).mean(1)


def with_channel(net, wavs):
    only(wavs.dim() == 3 and wavs.shape[1] == 1)
    return clip(net, wavs[:, 0])


def with_last_axis(net, wavs):
    only(wavs.dim() == 3 and wavs.shape[2] == 1)
    return clip(net, wavs[:, :, 0])


def alone(net, wavs):
    only(wavs.dim() == 2 and len(wavs) == 1)
    return clip(net, wavs)


def flat(net, wavs):
    only(wavs.dim() == 1)
    return clip(net, wavs[None])[0]


def alone_with_channel(net, wavs):
    only(list(wavs.shape[:2]) == [1, 1])
    return clip(net, wavs[0])


def squeezed(net, wavs):
    return clip(net, wavs).squeeze()


def whole_batch(net, wavs):
    levels = torchaudio.functional.amplitude_to_DB(
        net.mel(wavs), 10, 1e-10, 0, top_db=30
    )
    return net.head(levels.transpose(1, 2) / 10).mean(1)


def batch_statistics(net, wavs):
    scores = clip(net, wavs)
    return scores - scores.mean(0)


def by_windows_first(net, wavs):
    """Two windows of each clip, the first of all clips before the second."""
    halves = wavs.reshape(len(wavs), 2, -1).transpose(0, 1).flatten(0, 1)
    return clip(net, halves)


def sum_of_channels(net, wavs):
    """[channels, samples] of one clip to [classes]."""
    only(wavs.dim() == 2)
    return clip(net, wavs.mean(0, keepdim=True))[0]


@pytest.mark.parametrize(
    ("answer", "text", "alike"),
    [
        (clip, "[batch, samples]", clip),
        (with_channel, "[batch, 1, samples]", clip),
        (with_last_axis, "[batch, samples, 1]", clip),
        (alone, "[1, samples]", clip),
        (flat, "[samples]", clip),
        (alone_with_channel, "[1, 1, samples]", clip),
        (squeezed, "[batch, samples]", clip),
        (sum_of_channels, "[1, samples]", clip),
        (whole_batch, "[1, samples]", None),
        (batch_statistics, "[1, samples]", None),
        (by_windows_first, "[1, samples]", None),
    ],
)
@pytest.mark.parametrize("labels", [None, LABELS])
def test_the_form_is_found(answer, text, alike, labels, wavs):
    net = Net(answer).eval()
    listener = Listener(net, RATE, labels)
    wavs.requires_grad_()
    logits = listener(wavs)
    assert str(listener.found.form) == text
    assert listener.labels == (labels or ["0", "1", "2"])
    assert logits.shape == (3, 3) and logits.dtype == torch.float32
    # Each clip as if it were alone, with a gradient for its own samples.
    single = torch.cat([listener(wav[None]) for wav in wavs])
    torch.testing.assert_close(logits, single)
    if alike is not None:
        torch.testing.assert_close(logits, alike(net, wavs))
    (gradient,) = torch.autograd.grad(logits[1, 0] - logits[1, 1], wavs)
    if answer is not batch_statistics:
        assert gradient[1].abs().sum() > 0
    assert not gradient[0].any() and not gradient[2].any()


def test_the_batch_is_kept_where_asked_for(wavs):
    listener = Listener(Net(whole_batch), RATE, one_by_one=False)
    assert listener(wavs).shape == (3, 3)
    assert not listener.found.form.one_by_one
    listener = Listener(Net(clip), RATE, one_by_one=True)
    assert listener(wavs).shape == (3, 3)
    assert str(listener.found.form) == "[1, samples]"
    with pytest.raises(LMACError, match="one_by_one: found False"):
        Listener(Net(sum_of_channels), RATE, one_by_one=False)(wavs)


def frames(net, wavs):
    only(wavs.dim() == 2)
    return net.frames(wavs)


def frames_last(net, wavs):
    return frames(net, wavs).transpose(1, 2)


def flat_frames(net, wavs):
    only(wavs.dim() == 1)
    return net.frames(wavs[None])[0]


def flat_frames_last(net, wavs):
    return flat_frames(net, wavs).T


@pytest.mark.parametrize(
    "answer", [frames, frames_last, flat_frames, flat_frames_last]
)
@pytest.mark.parametrize("labels", [None, LABELS])
def test_frames_are_pooled_or_picked(answer, labels, wavs):
    net = Net(answer).eval()
    listener = Listener(net, RATE, labels, pool="max")
    every = net.frames(wavs)
    assert every.shape == (3, 26, 3)
    torch.testing.assert_close(listener(wavs), every.amax(1))
    listener.pool = "mean"
    torch.testing.assert_close(
        listener(wavs).softmax(1), every.softmax(2).mean(1)
    )
    # The frames are spread evenly over the second.
    listener.at = 13.5 / 26
    torch.testing.assert_close(listener(wavs), every[:, 13])
    listener.at, listener.pool = (2.5 / 26, 5 / 26), "mean_logits"
    torch.testing.assert_close(listener(wavs), every[:, 2:5].mean(1))
    listener.at = 1.1
    with pytest.raises(LMACError, match="at: found 1.1"):
        listener(wavs)


@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize("axes", [(1, 1), (2, 1), (1, 2), (3, 1)])
def test_axes_of_one_do_not_matter(axes, labels, wavs):
    place, class_axis = axes

    def answer(net, wavs):
        every = net.frames(wavs)
        every = every.transpose(1, 2) if class_axis == 1 else every
        return every.unsqueeze(place)

    net = Net(answer).eval()
    listener = Listener(net, RATE, labels)
    torch.testing.assert_close(listener.frames(wavs), net.frames(wavs))
    assert listener.found.class_axis == class_axis


def test_only_the_asked_time_has_a_gradient(wavs):
    listener = Listener(Net(frames), RATE, LABELS, at=0.25)
    wavs.requires_grad_()
    listener(wavs)[:, 0].sum().backward()
    heard = wavs.grad.abs() > 0
    assert heard[:, 1600:2400].any()
    assert not heard[:, :1200].any() and not heard[:, 2800:].any()


def test_a_square_of_frames_and_classes_needs_its_layout(wavs):
    def square(net, wavs):
        return net.frames(wavs)[:, :3]

    with pytest.raises(LMACError, match="class_axis: outputs have shape"):
        Listener(Net(square), RATE, LABELS)(wavs)
    net = Net(square).eval()
    for axis, expected in ((2, net(wavs).amax(1)), (1, net(wavs).amax(2))):
        listener = Listener(net, RATE, LABELS, class_axis=axis, pool="max")
        torch.testing.assert_close(listener(wavs), expected)


@pytest.mark.parametrize(
    "shape",
    [
        lambda x: x,  # [batch, time, 1]
        lambda x: x[..., 0],  # [batch, time]
        lambda x: x.transpose(1, 2),  # [batch, 1, time]
        lambda x: x.amax(1),  # [batch, 1]
        lambda x: x.amax(1)[:, 0],  # [batch]
    ],
)
@pytest.mark.parametrize("labels", [None, ["speech"], ["none", "speech"]])
def test_one_output_is_yes_or_no(shape, labels, wavs):
    net = Net(lambda net, wavs: shape(net.frames(wavs)), 1).eval()
    every = net.frames(wavs).amax(1)
    listener = Listener(net, RATE, labels, pool="max")
    if labels is not None and len(labels) == 2:
        if net(wavs).shape == (3, 26):
            with pytest.raises(LMACError, match="labels: found 2"):
                listener(wavs)
            return
        logits = listener(wavs)
        assert not listener.multilabel
        torch.testing.assert_close(logits.softmax(1)[:, 1:], every.sigmoid())
    else:
        torch.testing.assert_close(listener(wavs), every)
        assert listener.multilabel and len(listener.labels) == 1


def rows(net, wavs):
    """A model that cuts its windows itself: four rows a clip."""
    return net.frames(wavs.reshape(-1, 2000)).mean(1)


@pytest.mark.parametrize("windows", [None, Windows(4000)])
@pytest.mark.parametrize("answer", [clip, frames, rows])
def test_frames_before_they_are_pooled(answer, windows, wavs):
    net = Net(answer).eval()
    listener = Listener(net, RATE, windows=windows, pool="max")
    every = listener.frames(wavs)
    counts = {clip: 1, frames: 26, rows: 4}
    if windows is not None:
        counts = {clip: 2, frames: 2 * 13, rows: 2 * 2}
    assert every.shape == (3, counts[answer], 3)
    torch.testing.assert_close(listener(wavs), every.amax(1))


def test_another_way_to_listen(wavs):
    def answer(net, wavs):
        scores = net.frames(wavs).mean(1)
        return {"logits": scores[:, :2], "speech": scores[:, 2:]}

    listener = Listener(Net(answer), RATE)
    assert listener(wavs).shape == (3, 2)
    other = listener.with_options(output="speech")
    assert other(wavs).shape == (3, 1)
    assert other.multilabel and other.labels == ["0"]
    again = other.with_options(output="logits", labels=["a", "b"])
    torch.testing.assert_close(again(wavs), listener(wavs))
    assert not again.multilabel and listener.labels == ["0", "1"]
    with pytest.raises(LMACError, match="pol: no such option"):
        listener.with_options(pol="max")


def test_evaluation_mode_for_good():
    net = Net(clip)
    container = torch.nn.Sequential(Listener(net, RATE))
    container.eval()
    assert net.training
    container[0].eval()
    assert not net.training


def test_windows_that_the_model_cuts_are_folded_back(wavs):
    net = Net(rows).eval()
    expected = net(wavs).reshape(3, 4, 3)
    listener = Listener(net, RATE, pool="max")
    torch.testing.assert_close(listener(wavs), expected.amax(1))
    listener.at = 0.3
    torch.testing.assert_close(listener(wavs), expected[:, 1])


@pytest.mark.parametrize("answer", [clip, frames])
@pytest.mark.parametrize("pool", ["max", "mean"])
def test_windows_are_cut_and_pooled(answer, pool, wavs):
    net = Net(answer).eval()
    windows = Windows(2400, 1200)
    listener = Listener(
        net, RATE, LABELS, multilabel=True, windows=windows, pool=pool
    )
    parts = [wavs[:, k : k + 2400] for k in range(0, 7200, 1200)]
    parts[-1] = torch.nn.functional.pad(parts[-1], (0, 400))
    every = torch.stack([net(part) for part in parts], 1)
    every = every.flatten(1, -2)
    expected = every.amax(1) if pool == "max" else every.sigmoid().mean(1)
    found = listener(wavs)
    found = found if pool == "max" else found.sigmoid()
    torch.testing.assert_close(found, expected)


def test_a_time_finds_its_windows(wavs):
    net = Net(clip).eval()
    listener = Listener(net, RATE, windows=Windows(2400, 1200), pool="max")
    listener.at = 0.2  # 1600 samples: the first two windows
    expected = torch.stack([net(wavs[:, :2400]), net(wavs[:, 1200:3600])])
    torch.testing.assert_close(listener(wavs), expected.amax(0))


def test_short_clips_fill_a_window():
    net = Net(clip).eval()
    listener = Listener(net, RATE, windows=Windows(4000))
    short = torch.randn(2, 1000)
    padded = torch.nn.functional.pad(short, (0, 3000))
    torch.testing.assert_close(listener(short), net(padded))


@pytest.mark.parametrize(
    ("last", "skipped"),
    [
        (lambda x: x.softmax(-1), True),
        (lambda x: x.softmax(-1).clamp(1e-7, 1), False),
        (lambda x: x.double().softmax(-1).float().clone(), True),
        (lambda x: torch.exp(x.log_softmax(-1)), False),
        (lambda x: x.log_softmax(-1), None),
    ],
)
def test_probabilities_of_a_softmax(last, skipped, wavs, caplog):
    net = Net(lambda net, wavs: last(net.frames(wavs).mean(1))).eval()
    logits = net.frames(wavs).mean(1)
    listener = Listener(net, RATE, LABELS)
    with caplog.at_level(logging.WARNING):
        found = listener(wavs)
        listener(wavs)
    torch.testing.assert_close(found.softmax(1), logits.softmax(1))
    assert not listener.multilabel
    said = caplog.text.count("returns probabilities instead of logits")
    assert said == (skipped is not None)
    assert ("left out" in caplog.text) is bool(skipped)
    if skipped:
        torch.testing.assert_close(found, logits)


@pytest.mark.parametrize("multilabel", [True, False])
def test_probabilities_of_sigmoids(multilabel, wavs, caplog):
    net = Net(lambda net, wavs: net.frames(wavs).mean(1).sigmoid()).eval()
    listener = Listener(net, RATE, LABELS, multilabel)
    torch.testing.assert_close(listener(wavs), net.frames(wavs).mean(1))
    assert listener.multilabel and "do not sum to one" in caplog.text


def test_probabilities_that_are_pooled_inside(wavs):
    net = Net(lambda net, wavs: net.frames(wavs).sigmoid().mean(1)).eval()
    listener = Listener(net, RATE, LABELS)
    torch.testing.assert_close(listener(wavs).sigmoid(), net(wavs))
    assert listener.found.activations is None


def test_an_attention_inside_is_no_probability(wavs):
    def attend(net, wavs):
        every = net.frames(wavs)
        return (every.softmax(1) * every).sum(1)

    net = Net(attend).eval()
    torch.testing.assert_close(Listener(net, RATE)(wavs), net(wavs))


def test_a_saturated_model_still_has_a_gradient(wavs):
    def sure(net, wavs):
        return (1000 * net.frames(wavs).mean(1)).softmax(1)

    wavs.requires_grad_()
    logits = Listener(Net(sure), RATE)(wavs)
    assert logits.softmax(1).max() == 1
    logits.amax(1).sum().backward()
    assert wavs.grad.abs().max() > 0


def test_percentages_are_refused_with_a_way_out(wavs):
    net = Net(lambda net, wavs: 100 * net.frames(wavs).mean(1).softmax(1))
    with pytest.raises(LMACError, match="sum to 100 for each sound") as error:
        Listener(net, RATE, LABELS)(wavs)
    assert "output=lambda returned: returned / 100" in str(error.value)
    listener = Listener(
        net, RATE, LABELS, output=lambda returned: returned / 100
    )
    torch.testing.assert_close(
        listener(wavs).softmax(1), net.eval()(wavs) / 100
    )
    # On some processors a layer with gradient rounds otherwise than without.
    net.requires_grad_(False)
    assert torch.equal(
        Listener(net, RATE, LABELS, scale="logits")(wavs), net(wavs)
    )
    # Outputs of which none is negative, by chance or by a rectifier.
    positive = Net(lambda net, wavs: net.frames(wavs).mean(1).exp())
    positive.requires_grad_(False)
    assert torch.equal(Listener(positive, RATE)(wavs), positive.eval()(wavs))


@pytest.mark.parametrize(
    "percent",
    [lambda p: 100 * p, lambda p: p * torch.tensor(100.0), lambda p: p / 0.01],
)
def test_percentages_of_each_class_are_refused(percent, wavs):
    def model(net, wavs):
        return percent(net.frames(wavs).mean(1).sigmoid())

    with pytest.raises(LMACError, match="of a sigmoid times a number, up to"):
        Listener(Net(model), RATE, LABELS)(wavs)
    listener = Listener(
        Net(model), RATE, LABELS, output=lambda returned: returned / 100
    )
    listener(wavs)
    assert listener.found.scale == "sigmoid"
    net = Net(model).eval().requires_grad_(False)
    as_they_are = Listener(net, RATE, LABELS, scale="logits")
    torch.testing.assert_close(as_they_are(wavs), net(wavs))


def test_logits_that_a_sigmoid_weighs_stay_logits(wavs):
    def swish(net, wavs):
        x = net.frames(wavs).mean(1).abs() + 1
        return x * x.sigmoid()

    net = Net(swish).eval()
    torch.testing.assert_close(Listener(net, RATE)(wavs), net(wavs))


def test_logits_between_0_and_1_stay_logits(wavs):
    def small(net, wavs):
        return torch.nn.functional.linear(
            net.frames(wavs).mean(1), torch.eye(3) / 1000, torch.ones(3) / 2
        )

    net = Net(small).eval()
    torch.testing.assert_close(Listener(net, RATE)(wavs), net(wavs))


@pytest.mark.parametrize(
    ("scale", "multilabel", "last"),
    [
        ("logits", True, lambda x: x),
        ("probabilities", True, torch.sigmoid),
        ("log_probabilities", True, torch.nn.functional.logsigmoid),
        ("log_probabilities", False, lambda x: x.log_softmax(1)),
        ("logits", False, torch.sigmoid),
    ],
)
def test_a_scale_that_is_given(scale, multilabel, last, wavs):
    net = Net(lambda net, wavs: last(net.frames(wavs).mean(1))).eval()
    logits = Listener(net, RATE, LABELS, multilabel, scale=scale)(wavs)
    if scale == "logits":
        expected = net(wavs)
    else:
        expected = net.frames(wavs).mean(1)
        if not multilabel:
            expected = expected.log_softmax(1)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


def test_parts_of_outputs_are_read(wavs):
    def answer(net, wavs):
        scores = net.frames(wavs).mean(1)
        return {"embedding": wavs[:, :5], "a": scores, "b": -scores}

    net = Net(answer).eval()
    with pytest.raises(LMACError, match="a: tensor .*choose by output="):
        Listener(net, RATE)(wavs)
    for output in ("b", 2, lambda returned: returned["b"]):
        listener = Listener(net, RATE, output=output)
        torch.testing.assert_close(listener(wavs), net(wavs)["b"])


def test_a_front_end_and_its_channel(wavs):
    front = torchaudio.transforms.MelSpectrogram(
        RATE, n_fft=256, hop_length=128, n_mels=16
    )
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )
    listener = Listener(net, RATE, LABELS, front_end=front)
    expected = net(front(wavs)[:, None])
    torch.testing.assert_close(listener(wavs), expected)
    assert listener.found.form.feature_axis
    features = listener.features(wavs)
    assert features.shape == (3, 1, 16, 63)
    torch.testing.assert_close(listener.classify(features, RATE), expected)


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("windows", [None, Windows(3000, 1000)])
def test_classify_continues_from_features(windows, one_by_one, wavs):
    front = torchaudio.transforms.MelSpectrogram(
        RATE, n_fft=256, hop_length=128, n_mels=16
    )
    net = torch.nn.Sequential(
        torch.nn.Conv1d(16, 3, 3), torch.nn.Sigmoid()
    )  # [batch, classes, time]
    listener = Listener(
        net,
        RATE,
        LABELS,
        front_end=front,
        windows=windows,
        at=(0.2, 0.6),
        one_by_one=one_by_one,
    )
    with pytest.raises(LMACError, match="classify: called before settle"):
        listener.classify(front(wavs), RATE)
    logits = listener(wavs)
    features = listener.features(wavs)
    torch.testing.assert_close(listener.classify(features, RATE), logits)


def test_complex_and_whole_features_stay_what_they_are(wavs):
    stft = torchaudio.transforms.Spectrogram(256, power=None)
    net = torch.nn.Linear(129, 3)
    listener = Listener(
        lambda x: net(x.abs().transpose(1, 2)).mean(1), RATE, front_end=stft
    )
    expected = net(stft(wavs).abs().transpose(1, 2)).mean(1)
    torch.testing.assert_close(listener(wavs), expected)

    def numbered(wavs):
        return (4 * wavs).long().clamp(0, 3)

    embedded = torch.nn.Embedding(4, 3)
    listener = Listener(lambda x: embedded(x).mean(1), RATE, front_end=numbered)
    assert listener(wavs).shape == (3, 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype, wavs):
    net = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, -1)),
        torch.nn.Conv1d(1, 3, 400, 160),
        torch.nn.AdaptiveAvgPool1d(1),
        torch.nn.Flatten(),
    )
    expected = net(wavs)
    listener = Listener(net.to(dtype), RATE)
    wavs.requires_grad_()
    logits = listener(wavs)
    logits[:, 0].sum().backward()
    assert wavs.grad.dtype == torch.float32 and wavs.grad.any()
    assert logits.dtype == (
        torch.float64 if dtype == torch.float64 else torch.float32
    )
    torch.testing.assert_close(logits.float(), expected, atol=0.01, rtol=0.01)


def test_nothing_of_the_model_changes(wavs, caplog):
    net = Net(clip)  # in training mode
    net.head.bias.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    listener = Listener(net, RATE)
    listener.train()
    wavs.requires_grad_()
    listener(wavs)[:, 0].sum().backward()
    assert caplog.text.count("in training mode") == 1
    assert all(part.training for part in net.modules())
    assert net.head.weight.requires_grad and not net.head.bias.requires_grad
    assert all(weight.grad is None for weight in net.parameters())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    torch.testing.assert_close(listener(wavs), net.eval()(wavs))
    # A model that only a function calls is left alone too.
    net.train()
    inside = Listener(lambda wavs: net(wavs), RATE)
    torch.testing.assert_close(inside(wavs), listener(wavs))
    assert net.training and not net.head.bias.requires_grad


def test_sounds_are_not_changed_in_place(wavs):
    def normalise(net, wavs):
        wavs -= wavs.mean(1, keepdim=True)
        return clip(net, wavs.clamp_(-0.5, 0.5))

    before = wavs.clone()
    listener = Listener(Net(normalise), RATE)
    assert listener(wavs).shape == (3, 3)
    assert torch.equal(wavs, before)
    leaf = wavs.clone().requires_grad_()
    listener(leaf)[:, 0].sum().backward()
    assert leaf.grad.any()


def test_recurrent_layers(wavs):
    class Recurrent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = torch.nn.GRU(80, 8, batch_first=True)
            self.head = torch.nn.Linear(8, 3)

        def forward(self, wavs):
            states, _ = self.gru(wavs.unflatten(1, (-1, 80)))
            return self.head(states[:, -1])

    net = Recurrent().eval()
    listener = Listener(net, RATE)
    torch.testing.assert_close(listener(wavs), net(wavs))


@pytest.mark.parametrize("compile_", [torch.jit.script, torch.jit.trace])
def test_torchscript(compile_, wavs):
    net = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, -1)),
        torch.nn.Conv1d(1, 3, 400, 160),
        torch.nn.AdaptiveMaxPool1d(1),
        torch.nn.Flatten(),
        torch.nn.Dropout(),
    )
    net.train(compile_ is torch.jit.script)
    more = [] if compile_ is torch.jit.script else [wavs]
    compiled = compile_(net, *more)
    listener = Listener(compiled, RATE)
    wavs.requires_grad_()
    logits = listener(wavs)
    torch.testing.assert_close(logits, net.eval()(wavs))
    logits[:, 0].sum().backward()
    assert wavs.grad.any()


def test_silence_has_a_finite_gradient(wavs, caplog):
    def rooted(net, wavs):
        return wavs.abs().unflatten(1, (-1, 1600)).sum(2).sqrt()

    wavs[:, :1600] = 0
    wavs.requires_grad_()
    listener = Listener(Net(rooted), RATE, scale="logits")
    listener(wavs).sum().backward()
    assert wavs.grad.isfinite().all() and wavs.grad.any()
    assert "not finite at some samples" in caplog.text


def test_inference_mode_does_not_matter(wavs):
    listener = Listener(Net(clip), RATE)
    with torch.inference_mode():
        quiet = wavs * 0.5
        logits = listener(quiet)
    wavs.requires_grad_()
    other = Listener(listener.model, RATE)(0.5 * wavs)
    torch.testing.assert_close(logits.clone(), other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "facebook/x"}, "model: found 'facebook/x', expected a torc"),
        ({"model": {"a": torch.zeros(1)}}, "load_state_dict"),
        ({"model": torch.nn.Linear}, "the class Linear.*Linear\\("),
        ({"front_end": 3}, "front_end: found an int"),
        ({"sample_rate": 0}, "sample_rate: found 0"),
        ({"sample_rate": 16.5}, "sample_rate: found 16.5"),
        ({"labels": "dog"}, "labels: found 'dog'"),
        ({"labels": []}, "labels: found none"),
        ({"labels": {"cat", "dog"}}, "labels: found {.*expected a list"),
        ({"labels": {1: "cat"}}, "labels: found .* from 0"),
        ({"scale": "db"}, "scale: found 'db'"),
        ({"class_axis": 3}, "class_axis: found 3"),
        ({"pool": "median"}, "pool: found 'median'"),
        ({"windows": 16000}, r"expected Windows\(size, hop\)"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(LMACError, match=message):
        Listener(**{"model": Net(clip), "sample_rate": RATE, **options})


@pytest.mark.parametrize("rate", [8000.0, np.int64(8000)])
def test_whole_rates_of_other_types(rate):
    assert type(Listener(Net(clip), rate).sample_rate) is int


def test_labels_by_number():
    labels = {"1": "cow", "0": "cat", "2": "dog"}
    assert Listener(Net(clip), RATE, labels).labels == LABELS


@pytest.mark.parametrize("wavs", [torch.rand(3), torch.ones(2, 3).long(), [1]])
def test_wrong_sounds_are_refused(wavs):
    with pytest.raises(LMACError, match="wavs: found"):
        Listener(Net(clip), RATE)(wavs)


class Embedder(torch.nn.Module):
    """Sums of parts of a window, and a layer on them."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(4, 3)

    def embed(self, wavs):
        return wavs.unflatten(1, (4, -1)).square().sum(2)

    def forward(self, wavs):
        return self.head(self.embed(wavs))


@pytest.mark.parametrize("one_by_one", [False, True])
def test_what_the_head_reads(wavs, one_by_one):
    """Its input, the largest of all windows in each dimension."""
    net, windows = Embedder(), Windows(2000, 1000)
    listener = Listener(
        net, RATE, windows=windows, pool="max", head="head",
        one_by_one=one_by_one,
    )  # fmt: skip
    logits, embedding = listener.logits_and_embedding(wavs)
    torch.testing.assert_close(logits, listener(wavs))
    for wav, found in zip(wavs, embedding):
        rows = [wav[i : i + 2000] for i in range(0, 7000, 1000)]
        slow = [net.embed(row[None])[0].tolist() for row in rows]
        expected = [max(values) for values in zip(*slow)]
        assert found.tolist() == pytest.approx(expected, rel=1e-5)
    assert not any(m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("options", [{}, {"head": "head", "at": 0.5}])
def test_without_a_head_it_is_the_logits(wavs, options):
    """So it is where a time is asked for, which the embedding is not of."""
    windows = Windows(2000, 1000)
    listener = Listener(Embedder(), RATE, windows=windows, **options)
    logits, embedding = listener.logits_and_embedding(wavs)
    assert embedding is logits


@pytest.mark.parametrize(
    ("model", "head"),
    [(Embedder(), "tail"), (Embedder(), 3), (lambda wavs: wavs, "head")],
)
def test_head_that_is_no_layer(model, head):
    with pytest.raises(LMACError, match=r"head: found .*, expected the name"):
        Listener(model, RATE, head=head)


def test_head_that_is_not_run(wavs):
    """It is there, but the answer is made without it."""
    net = Embedder()
    net.spare = torch.nn.Linear(4, 3)
    listener = Listener(net, RATE, head="spare")
    with pytest.raises(LMACError, match="'spare' gets 0 rows for 3 clips"):
        listener.logits_and_embedding(wavs)


class Recognizer:
    """Holds its network where nobody looks."""

    __slots__ = ("net",)

    def __init__(self):
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Unflatten(1, (1, -1)),
            torch.nn.Conv1d(1, 4, 400, 160),
            torch.nn.BatchNorm1d(4),
            torch.nn.AdaptiveAvgPool1d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(4, 3),
        )

    def __call__(self, wavs):
        return self.net(wavs)


class Listed(torch.nn.Module):
    """Holds its network in a list."""

    def __init__(self):
        super().__init__()
        self.nets = [Recognizer().net]

    def forward(self, wavs):
        return self.nets[0](wavs)


@pytest.mark.parametrize("kind", ["object", "function", "list"])
def test_a_hidden_network_is_in_evaluation_mode(kind, caplog):
    """Clips of a batch do not change each other; its statistics stay."""
    holder = Listed() if kind == "list" else Recognizer()
    net = holder.nets[0] if kind == "list" else holder.net
    expected = copy.deepcopy(net).eval()
    before = copy.deepcopy(net.state_dict())
    model = (lambda wavs: holder.net(wavs)) if kind == "function" else holder
    listener, wavs = Listener(model, 16000), torch.randn(3, 16000)
    torch.testing.assert_close(listener(wavs), expected(wavs))
    assert not listener.found.form.one_by_one
    assert "training mode" in caplog.text
    assert net.training and net[1].weight.requires_grad
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_buffers_without_values_are_refused_with_their_module():
    """Nobody can look whether a call changes them."""
    lazy = torch.nn.Sequential(
        torch.nn.LazyBatchNorm1d(), torch.nn.LazyLinear(3)
    )
    meta = torch.nn.Sequential(torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))
    for net, message in ((lazy, "LazyBatchNorm1d"), (meta.to("meta"), "meta")):
        with pytest.raises(LMACError, match=message):
            Listener(net, 16000)(torch.randn(1, 8))


def test_weights_without_values_are_refused():
    """Else they would be drawn here, and the model changed for good."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))
    with pytest.raises(LMACError, match="LazyLinear that were never given"):
        Listener(net, 16000)(torch.randn(1, 16000))
    assert isinstance(net[1], torch.nn.LazyLinear)


@pytest.mark.parametrize("kind", [ValueError, AssertionError, IndexError])
def test_another_length_is_named_whatever_is_raised(kind):
    def model(wavs):
        if wavs.shape[1] != 8000:
            raise kind("other")
        return wavs[:, :3]

    listener = Listener(model, 16000)
    listener(torch.randn(1, 8000))
    with pytest.raises(LMACError, match="16000 samples, expected 8000"):
        listener(torch.randn(1, 16000))
