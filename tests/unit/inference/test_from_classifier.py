"""Interpreters of classifiers that others made, one of each kind."""

import copy
import functools

import numpy as np
import pytest
import torch
import torchaudio
from encoder_yaml import ENDING
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.processing.features import InputNormalization

import lmac_sb
from lmac_sb import LMACInterpreter
from lmac_sb.adapters.source import FeatureListener, as_listener
from lmac_sb.listener.listener import Listener
from lmac_sb.listener.windows import Windows
from lmac_sb.metrics.verdict import VERDICTS
from lmac_sb.models.sound import SoundFeatures
from lmac_sb.utils.errors import LMACError

RATE = 16000
NAMES = ["low", "middle", "high"]


class Ears(torch.nn.Module):
    """A small network on waveforms, with a batch norm and dropout."""

    def __init__(self, n_outputs=3):
        super().__init__()
        torch.manual_seed(0)
        self.filters = torch.nn.Conv1d(1, 12, 256, 64)
        self.norm = torch.nn.BatchNorm1d(12)
        self.drop = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(12, n_outputs)
        with torch.no_grad():  # statistics that are not the default
            self(torch.randn(8, RATE))
            self.head.weight *= 20

    def maps(self, wavs):
        """[batch, time, channels]."""
        found = torch.relu(self.norm(self.filters(wavs[:, None])))
        return found.transpose(1, 2)

    def forward(self, wavs):
        """Logits [batch, classes]."""
        return self.head(self.drop(self.maps(wavs).mean(1)))


class Frames(Ears):
    """Logits of each frame, [batch, time, classes]."""

    def forward(self, wavs):
        """Of a time."""
        return self.head(self.maps(wavs))


class Fixed(Ears):
    """Only clips of one second."""

    def forward(self, wavs):
        """Logits [batch, classes]."""
        return super().forward(wavs.reshape(-1, RATE))


class OnFeatures(torch.nn.Module):
    """Features [batch, bands, time], or the other way round, to logits."""

    def __init__(self, n_bands=40, time_axis=2):
        super().__init__()
        torch.manual_seed(0)
        self.axis = time_axis
        self.one = torch.nn.Linear(n_bands, 16)
        self.two = torch.nn.Linear(16, 3)

    def forward(self, features):
        """Logits [batch, classes]."""
        if self.axis == 2:
            features = features.transpose(1, 2)
        return self.two(torch.tanh(self.one(features) / 10).mean(1))


def sounds(n_clips=2, n_samples=RATE):
    """Tones in noise."""
    time = torch.arange(n_samples) / RATE
    hertz = 400.0 * torch.arange(1, n_clips + 1)[:, None]
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(n_clips, n_samples, generator=generator)
    return 0.3 * torch.sin(2 * torch.pi * hertz * time) + 0.05 * noise


def interpreter_of(model, *args, steps=3, **options):
    """A quick one."""
    if not isinstance(model, Listener) and not args:
        args = (RATE,)
    return LMACInterpreter.from_classifier(model, *args, steps=steps, **options)


def decibel_mel(**options):
    """torchaudio's usual front end."""
    return torch.nn.Sequential(
        torchaudio.transforms.MelSpectrogram(
            RATE, n_fft=512, hop_length=160, n_mels=40, **options
        ),
        torchaudio.transforms.AmplitudeToDB(top_db=80),
    )


def check(explanation, logits):
    """An explanation is complete, and of these logits."""
    assert torch.allclose(explanation.logits, logits, atol=1e-4)
    assert explanation.verdicts[0] in VERDICTS
    both = explanation.waveform + explanation.residual
    assert torch.allclose(both, explanation.wavs, atol=1e-4)
    assert 0 <= explanation.mask.min() <= explanation.mask.max() <= 1


# --------------------------------------------------------------- waveforms


def test_module_on_waveforms():
    net, wavs = Ears().eval(), sounds()
    interpreter = interpreter_of(net, labels=NAMES)
    assert isinstance(interpreter.explainer.features, SoundFeatures)
    assert interpreter.classes == NAMES
    found = interpreter.explain_batch(wavs)
    check(found, net(wavs))
    assert found.labels == [NAMES[c] for c in net(wavs).argmax(1)]
    # What is judged is what is heard.
    assert torch.allclose(net(found.waveform), found.logits_in, atol=1e-4)
    assert torch.allclose(net(found.residual), found.logits_out, atol=1e-4)


def test_the_mask_starts_at_the_documented_place():
    """-1 and 2; a check of stability has another start, and only then."""
    interpreter = interpreter_of(Ears().eval())
    decoder = interpreter.explainer.decoder
    assert (decoder.offset, decoder.gain) == (-1.0, 2.0)
    wavs = sounds(1)
    plain = interpreter.explain_batch(wavs)
    stable = interpreter.explain_batch(wavs, stable=True)
    assert set(stable.agreement[0]) == {"shift and noise", "another start"}
    assert stable.agreement[0]["another start"] < 1 - 1e-4
    assert (decoder.offset, decoder.gain) == (-1.0, 2.0)
    assert interpreter.explainer.decoder is decoder
    again = interpreter.explain_batch(wavs)
    assert torch.equal(again.mask, plain.mask)
    assert torch.equal(stable.mask, plain.mask)


def test_function_of_waveforms():
    net, wavs = Ears().eval(), sounds()
    check(interpreter_of(lambda x: net(x)).explain_batch(wavs), net(wavs))
    part = functools.partial(net)
    check(interpreter_of(part).explain_batch(wavs), net(wavs))


def spoilt():
    """A user's model in as many unusual states as there may be."""
    net = Ears().train()
    net.head.eval()
    net.head.weight.requires_grad_(False)
    net.filters.weight.grad = torch.ones_like(net.filters.weight)
    return net


def state_of(net):
    """All that an explanation might change in a model."""
    return {
        "values": {k: v.clone() for k, v in net.state_dict().items()},
        "training": [m.training for m in net.modules()],
        "grad": [p.requires_grad for p in net.parameters()],
        "gradients": [
            p.grad if p.grad is None else p.grad.clone()
            for p in net.parameters()
        ],
        "devices": [p.device for p in net.parameters()],
        "classes": [type(m) for m in net.modules()],
        "hooks": [
            len(m._forward_hooks)
            + len(m._forward_pre_hooks)
            + len(m._backward_hooks)
            for m in net.modules()
        ],
        "attributes": [sorted(vars(m)) for m in net.modules()],
        "pointers": [p.data_ptr() for p in net.parameters()],
    }


def same_state(one, two):
    """Whether two states are the same, to the bit."""
    values, others = one.pop("values"), two.pop("values")
    assert list(values) == list(others)
    assert all(torch.equal(values[k], others[k]) for k in values)
    for a, b in zip(one.pop("gradients"), two.pop("gradients")):
        assert (a is None and b is None) or torch.equal(a, b)
    assert one == two


@pytest.mark.parametrize("call", [lambda net: net, lambda net: net.forward])
@pytest.mark.parametrize("how", [{}, {"stable": True}, {"unrefined": True}])
def test_the_users_model_stays_as_it_is(how, call):
    """Also in training mode, with gradients and odd flags."""
    net = spoilt()
    before = state_of(net)
    interpreter = interpreter_of(call(net))
    interpreter.explain_batch(sounds(1), **how)
    same_state(before, state_of(net))


def test_weights_that_change_later_are_those_of_the_checksum():
    net, wav = Ears(), sounds(1)[0]
    mine = interpreter_of(net)
    before = mine.explain_sound(wav)
    assert mine.explain_sound(wav).made == before.made
    net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()})
    after = mine.explain_sound(wav)
    assert not torch.equal(after.logits, before.logits)
    assert after.made == interpreter_of(net).explain_sound(wav).made
    assert after.made["checksum"] != before.made["checksum"]


def test_the_users_front_end_stays_as_it_is():
    net, front_end = OnFeatures().train(), decibel_mel().train()
    before = state_of(net), state_of(front_end)
    interpreter = interpreter_of(net, features=front_end)
    interpreter.explain_batch(sounds(1))
    same_state(before[0], state_of(net))
    same_state(before[1], state_of(front_end))


class Lock:
    """What no copy can be made of."""

    def __deepcopy__(self, memo):
        raise TypeError("there is one of it")


def test_a_model_that_cannot_be_copied():
    """Then it is called as it is, and stays as it is."""
    net, front_end = OnFeatures().train(), decibel_mel().train()
    net.lock = front_end.lock = Lock()
    before = state_of(net), state_of(front_end)
    found = interpreter_of(net, features=front_end).explain_batch(sounds(1))
    same_state(before[0], state_of(net))
    same_state(before[1], state_of(front_end))
    del net.lock, front_end.lock
    same = interpreter_of(net, features=front_end).explain_batch(sounds(1))
    # Not to the bit: on some processors rounding depends on where weights lie.
    torch.testing.assert_close(found.logits, same.logits)


def test_random_numbers_stay_as_they_are():
    torch.manual_seed(4)
    state = torch.get_rng_state()
    net = Ears().eval()
    torch.set_rng_state(state)
    interpreter_of(net).explain_batch(sounds(1), stable=True)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_twice():
    net, wavs = Ears(), sounds()
    first, second = (interpreter_of(net) for _ in range(2))
    one, two = first.explain_batch(wavs), second.explain_batch(wavs)
    again = first.explain_batch(wavs)
    for other in (two, again):
        assert torch.equal(one.mask, other.mask)
        assert torch.equal(one.waveform, other.waveform)
        assert one.verdicts == other.verdicts


@pytest.mark.parametrize("against", [None, "runner-up"])
def test_a_batch_is_its_clips(against):
    interpreter, wavs = interpreter_of(Ears()), sounds(3)
    lengths = torch.tensor([1.0, 0.6, 1.0])
    whole = interpreter.explain_batch(wavs, lengths, against=against)
    for i, n in enumerate((RATE, 9600, RATE)):
        alone = interpreter.explain_batch(wavs[i : i + 1, :n], against=against)
        frames = alone.mask.shape[1]
        assert torch.allclose(whole.mask[i, :frames], alone.mask[0], atol=1e-3)
        assert whole.labels[i] == alone.labels[0]
        assert whole.verdicts[i] == alone.verdicts[0]
        assert torch.allclose(whole.p_inside[i], alone.p_inside[0], atol=1e-3)


# ---------------------------------------------------------------- features


FRONT_ENDS = {
    "torchaudio": (decibel_mel(), OnFeatures()),
    "reflected": (decibel_mel(pad_mode="reflect"), OnFeatures()),
    "MFCC": (
        torchaudio.transforms.MFCC(
            RATE, 20, melkwargs={"n_fft": 512, "n_mels": 40}
        ),
        OnFeatures(20),
    ),
    "speechbrain": (
        [Fbank(n_mels=40), InputNormalization(norm_type="sentence")],
        OnFeatures(40, 1),
    ),
}


@pytest.mark.parametrize("name", list(FRONT_ENDS))
def test_fast_path_and_general_path(name):
    """Both give the user's own logits, and the general path is on request."""
    front_end, net = FRONT_ENDS[name]
    wavs = sounds()
    fast = interpreter_of(net, features=front_end)
    assert isinstance(
        fast.explainer.classifier.embedding_model, FeatureListener
    )
    general = interpreter_of(
        net, features=front_end, spectrogram=SoundFeatures(RATE, 512, 128)
    )
    assert isinstance(general.explainer.features, SoundFeatures)
    parts = front_end if isinstance(front_end, list) else [front_end]
    features = wavs
    for part in parts:
        if isinstance(part, InputNormalization):
            features = part(features, torch.ones(len(wavs)))
        elif isinstance(part, torch.nn.Sequential):
            # One maximum for each clip, as its owner calls it.
            features = torch.cat([part(wav[None]) for wav in wavs])
        else:
            features = part(features)
    own = net(features)
    check(fast.explain_batch(wavs), own)
    check(general.explain_batch(wavs), own)
    analyses = [x.explainer.analyze(wavs).logits for x in (fast, general)]
    assert torch.allclose(*analyses, atol=1e-4)


def test_what_is_judged_on_the_fast_path_is_near_what_is_heard():
    """The mask acts before the inverse, whose sound has a mask of its own."""
    net, wavs = OnFeatures(), sounds()
    interpreter = interpreter_of(net, features=decibel_mel())
    found = interpreter.explain_batch(wavs)
    listener = interpreter.hparams.listener
    heard = listener(found.waveform).softmax(1)
    judged = found.logits_in.softmax(1)
    assert (heard - judged).abs().max() < 0.1


def test_callable_front_end():
    """Any differentiable function, by the general path."""

    def front_end(wavs):
        """Log energies of 10 ms."""
        return wavs.unfold(1, 160, 160).square().add(1e-6).log()

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(160, 3), torch.nn.Tanh(), torch.nn.Flatten(1)
    )

    def model(features):
        """Mean over time."""
        return 5 * net[1](net[0](features)).mean(1)

    interpreter = interpreter_of(model, features=front_end)
    assert isinstance(interpreter.explainer.features, SoundFeatures)
    wavs = sounds()
    check(interpreter.explain_batch(wavs), model(front_end(wavs)))


# -------------------------------------------------- forms of the outputs


def test_multilabel():
    net, wavs = Ears().eval(), sounds()
    interpreter = interpreter_of(net, multilabel=True, labels=NAMES)
    found = interpreter.explain_batch(wavs, target="high")
    check(found, net(wavs))
    assert torch.allclose(found.p_before, net(wavs)[:, 2].sigmoid(), atol=1e-5)
    assert torch.allclose(found.probabilities, net(wavs).sigmoid(), atol=1e-5)


@pytest.mark.parametrize(
    "activation", [torch.nn.Softmax(1), torch.nn.Sigmoid()]
)
def test_model_that_returns_probabilities(activation, caplog):
    net, wavs = Ears().eval(), sounds()
    interpreter = interpreter_of(torch.nn.Sequential(net, activation))
    assert "returns probabilities" in caplog.text
    found = interpreter.explain_batch(wavs)
    own = activation(net(wavs))
    assert torch.allclose(found.probabilities, own, atol=1e-4)
    assert torch.allclose(found.p_before, own.amax(1), atol=1e-4)


class Edges(Ears):
    """So steep that rounding decides where many steps lead."""

    def forward(self, wavs):
        """Logits [batch, classes]; what is heard depends on the batch."""
        rounding = 1 + 1e-6 * len(wavs)
        return (300 * super().forward(rounding * wavs)).sin()


def test_no_clip_depends_on_the_others_of_its_batch():
    wavs = sounds(3) * torch.tensor([[1.0], [0.3], [0.1]])
    made = interpreter_of(Edges().eval(), labels=NAMES, steps=8)
    together = made.explain_batch(wavs, target=[0, 2, 1])
    for i, target in enumerate([0, 2, 1]):
        alone = made.explain_batch(wavs[i : i + 1], target=target)
        assert torch.equal(together.mask[i], alone.mask[0])
        assert together.labels[i] == alone.labels[0] == NAMES[target]


def test_frames_are_pooled_and_chosen():
    net, wavs = Frames().eval(), sounds()
    frames = net(wavs)
    mean = interpreter_of(net, labels=NAMES).explain_batch(wavs)
    expected = frames.softmax(2).mean(1)
    assert torch.allclose(mean.probabilities, expected, atol=1e-4)
    most = interpreter_of(net, pool="max", labels=NAMES).explain_batch(wavs)
    check(most, most.logits)
    at = interpreter_of(net, at=(0.25, 0.5), labels=NAMES)
    found = at.explain_batch(wavs)
    # The classifier hears no more than its frames' samples.
    inside = found.mask[:, 17:30].mean()
    assert found.mask[:, 45:].mean() < inside
    with pytest.raises(LMACError, match="at: found a sound of 40 s, expected"):
        at.explain_sound(torch.rand(40 * RATE))


@pytest.mark.parametrize("at", [1.6, (1.5, 1.8)])
@pytest.mark.parametrize("sound", [None, torch.rand(RATE // 2) - 0.5])
def test_a_time_may_lie_behind_the_end_of_the_sound_it_is_tried_on(at, sound):
    """That is a second of noise, or the user's example."""
    net, wavs = Frames().eval(), torch.cat(2 * [sounds(1)], 1)
    made = interpreter_of(net, at=at, labels=NAMES, sound=sound)
    found = made.explain_batch(wavs)
    first, last = at if isinstance(at, tuple) else (at, at)
    frames = net(wavs)[0].softmax(1)
    starts = torch.arange(len(frames)) * 2 / len(frames)
    held = (starts <= last) & (starts + 2 / len(frames) > first)
    expected = frames[held].mean(0)
    assert torch.allclose(found.probabilities[0], expected, atol=1e-4)
    with pytest.raises(LMACError, match="at: found .* clip, 0 to 1$"):
        made.explain_batch(wavs[:, :RATE])


@pytest.mark.parametrize("at", [-1, (2, 1), (1, 1), "1", (1,), float("inf")])
def test_what_is_no_time_of_any_sound_is_refused_at_once(at):
    with pytest.raises(LMACError, match="at: found .*within the clip$"):
        interpreter_of(Frames(), at=at, labels=NAMES)


@pytest.mark.parametrize("at", [0.0, 0.31, 0.77, (0.2, 0.4), (0.7, 0.77)])
def test_time_of_frames_of_features(at):
    """Frames are spread evenly over the clip, to its last sample."""
    torch.manual_seed(0)
    linear, front_end = torch.nn.Linear(40, 3), decibel_mel()

    def net(features):
        """Logits of each frame."""
        return linear(features.transpose(1, 2) / 20)

    wavs = sounds(1, 12345)
    wavs[:, 6000:] *= 0.1
    made = interpreter_of(
        net, features=front_end, at=at, labels=NAMES, sound=wavs
    )
    frames = net(front_end(wavs))[0].softmax(1)
    size = 12345 / RATE / len(frames)
    first, last = at if isinstance(at, tuple) else (at, at)
    chosen = [
        row
        for i, row in enumerate(frames)
        if (i * size < last or i * size <= first == last)
        and (i + 1) * size > first
    ]
    found = made.explain_batch(wavs).probabilities[0]
    assert torch.allclose(found, sum(chosen) / len(chosen), atol=1e-4)


def test_windows_in_the_batch():
    net = Fixed().eval()
    wavs = sounds(2, 2 * RATE)
    listener = Listener(
        net, RATE, NAMES, windows=Windows(RATE, RATE // 2), pool="mean"
    )
    found = interpreter_of(listener).explain_batch(wavs)
    windows = wavs.unfold(1, RATE, RATE // 2)
    each = torch.stack([net(windows[:, i]) for i in range(3)]).softmax(2)
    assert torch.allclose(found.probabilities, each.mean(0), atol=1e-4)
    check(found, found.logits)


def test_fixed_length():
    """Padded and cut to what the model takes; longer ones in windows."""
    net = Fixed().eval()
    interpreter = interpreter_of(net, signal_length_s=1.0)
    short = interpreter.explain_sound(sounds(1, 9000)[0])
    padded = torch.nn.functional.pad(sounds(1, 9000), (0, RATE - 9000))
    assert torch.allclose(short.logits, net(padded), atol=1e-4)
    assert short.waveform.shape == (1, 9000)
    long = interpreter.explain_sound(sounds(1, 40000)[0])
    assert long.waveform.shape == (1, 40000) and len(long.windows[0]) > 2
    with pytest.raises(LMACError, match="signal_length_s="):
        interpreter_of(net, sound=sounds(1, 9000))


class FixedFeatures(torch.nn.Module):
    """Only spectrograms of one second."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(40 * 101, 3)

    def forward(self, features):
        """Logits [batch, classes]."""
        return self.head(features.flatten(1))


@pytest.mark.parametrize("front_end", [None, decibel_mel()])
def test_a_length_that_the_model_does_not_take(front_end):
    net = Fixed() if front_end is None else FixedFeatures()
    interpreter = interpreter_of(net.eval(), features=front_end)
    message = (
        r"model: found a clip of (24100|about 24160) samples, expected 16000, "
        r"which it took before; signal_length_s=1 pads and cuts"
    )
    with pytest.raises(LMACError, match=message):
        interpreter.explain_sound(sounds(1, 24100)[0])


def test_long_sounds():
    """In windows of 30 s; sounds add up, and one question is asked of all."""
    net = Ears().eval()
    interpreter = interpreter_of(net, labels=NAMES, steps=1)
    wav = sounds(1, 40 * RATE)[0]
    found = interpreter.explain_sound(wav)
    both = (found.waveform + found.residual)[0]
    assert torch.allclose(both, wav, atol=1e-4)
    assert [(w["start"], w["end"]) for w in found.windows[0]][-1][1] == 40
    assert found.verdicts[0] in VERDICTS
    others = [name for name in NAMES if name != found.labels[0]]
    for other in (*others, "runner-up"):
        why = interpreter.explain_sound(wav, against=other)
        assert why.labels[0].startswith(f"{found.labels[0]} rather than ")
    with pytest.raises(LMACError, match="the one that is asked for"):
        interpreter.explain_sound(wav, against=found.labels[0])


def test_windows_with_other_decisions_answer_one_question():
    """Why the whole is that and not this, where a window decides for this."""

    def net(wavs):
        """Quiet or loud."""
        level = wavs.square().mean(1).add(1e-6).log10()
        return torch.stack((-level - 2, level + 2), 1)

    wav = 0.01 * torch.randn(50 * RATE)
    wav[: 20 * RATE] *= 100
    interpreter = interpreter_of(net, labels=["quiet", "loud"], steps=1)
    decided = interpreter.explain_sound(wav)
    assert {w["decision"] for w in decided.windows[0]} == {"quiet", "loud"}
    other = {"quiet": "loud", "loud": "quiet"}[decided.labels[0]]
    found = interpreter.explain_sound(wav, against=other)
    asked = f"{decided.labels[0]} rather than {other}"
    assert found.labels == [asked]
    assert {w["decision"] for w in found.windows[0]} == {asked}


# ------------------------------------------------- folders and embeddings


SMALL_WAV2VEC2 = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 8),
    "conv_kernel": (80, 4),
    "conv_stride": (80, 4),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 12,
}


def test_hugging_face_embeddings():
    """They have no names: a score of them is asked for, as of any outputs."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        **SMALL_WAV2VEC2,
        tdnn_dim=(8, 8),
        tdnn_kernel=(3, 1),
        tdnn_dilation=(1, 1),
        xvector_output_dim=6,
    )
    model = transformers.Wav2Vec2ForXVector(config).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor()
    interpreter = LMACInterpreter.from_classifier(
        model, features=extractor, steps=2
    )
    assert interpreter.classes == ["0", "1", "2", "3", "4", "5"]
    found = interpreter.explain_batch(sounds(1), target=lambda y: y[:, 0])
    assert found.labels == ["score"]


def test_hugging_face_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        **SMALL_WAV2VEC2,
        num_labels=3,
        id2label=dict(enumerate(NAMES)),
        label2id={name: i for i, name in enumerate(NAMES)},
    )
    model = transformers.Wav2Vec2ForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    extractor = transformers.Wav2Vec2FeatureExtractor()
    extractor.save_pretrained(tmp_path)
    interpreter = LMACInterpreter.from_classifier(str(tmp_path), steps=2)
    assert interpreter.classes == NAMES and interpreter.sample_rate == RATE
    wavs = sounds(1)
    inputs = extractor(wavs[0].numpy(), sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        check(interpreter.explain_batch(wavs), model(**inputs).logits)
    model.train()
    before = state_of(model)
    direct = LMACInterpreter.from_classifier(model, features=extractor, steps=2)
    assert direct.classes == NAMES
    again = direct.explain_batch(wavs)
    same_state(before, state_of(model))
    with torch.no_grad():
        check(again, model.eval()(**inputs).logits)


ENCODER = f"""\
sample_rate: 16000
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 24
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 24
    channels: [16, 16, 16, 16, 48]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 8
    lin_neurons: 12
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 12
    out_neurons: 3
{ENDING}"""


def test_speechbrain_folder(tmp_path):
    """The same logits as SpeechBrain's own interface."""
    from hyperpyyaml import load_hyperpyyaml
    from speechbrain.inference.classifiers import EncoderClassifier

    torch.manual_seed(0)
    folder = tmp_path / "model"
    folder.mkdir()
    parts = load_hyperpyyaml(ENCODER)
    for name in ("embedding_model", "classifier"):
        torch.save(parts[name].state_dict(), folder / f"{name}.ckpt")
    parts["label_encoder"].update_from_iterable(NAMES)
    parts["label_encoder"].save(folder / "label_encoder.ckpt")
    (folder / "hyperparams.yaml").write_text(ENCODER, encoding="utf-8")
    interpreter = LMACInterpreter.from_classifier(folder, steps=2)
    assert interpreter.classes == NAMES
    own = EncoderClassifier.from_hparams(
        str(folder), savedir=str(tmp_path / "copy")
    )
    wavs = sounds(1)
    with torch.no_grad():
        expected = own.classify_batch(wavs)[0]
    found = interpreter.explain_batch(wavs)
    assert torch.allclose(
        found.logits.softmax(1), expected.softmax(1), atol=1e-5
    )
    assert found.verdicts[0] in VERDICTS
    assert found.labels == [NAMES[int(expected.argmax())]]
    again = LMACInterpreter.from_classifier(own, steps=2)
    assert torch.allclose(
        again.explain_batch(wavs).logits, found.logits, atol=1e-5
    )


def test_speaker_embeddings():
    """Why does a voice sound like that of the reference?"""
    torch.manual_seed(0)
    encoder = ECAPA_TDNN(
        24,
        channels=[16, 16, 16, 16, 48],
        attention_channels=8,
        lin_neurons=12,
    ).eval()
    fbank = Fbank(n_mels=24)
    wavs = sounds(2)

    def embed(wavs):
        """Embeddings [batch, 12]."""
        return encoder(fbank(wavs))[:, 0]

    with torch.no_grad():
        reference = embed(wavs[:1])

    def likeness(embeddings):
        """Cosine to the reference."""
        return torch.cosine_similarity(embeddings, reference)

    interpreter = interpreter_of(embed)
    found = interpreter.explain_batch(wavs, target=likeness)
    assert found.labels == ["likeness", "likeness"]
    assert found.classes == ["likeness", "likeness of silence"]
    assert torch.allclose(found.question.high[0], torch.ones(1), atol=1e-4)
    with torch.no_grad():
        kept = likeness(embed(found.waveform))
    low, high = found.question.low, found.question.high
    expected = (6 * (kept - low) / (high - low) - 3).sigmoid()
    assert torch.allclose(found.p_inside, expected, atol=1e-3)
    assert found.verdicts[0] in VERDICTS
    assert "likeness" in repr(found)


def test_regression():
    """One number a clip."""
    net = Ears(1).eval()
    interpreter = interpreter_of(net)
    found = interpreter.explain_batch(sounds(1), target=lambda y: y[:, 0])
    assert found.labels == ["score"]
    assert float(found.p_before[0]) == pytest.approx(0.9526, abs=1e-3)
    assert found.question.high.tolist() == pytest.approx(
        net(sounds(1))[:, 0].tolist(), abs=1e-4
    )


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    "labels, message",
    [
        (["a", "b", "a"], "labels: found 'a' twice, expected one name"),
        (["a", "b"], "labels: found 2, but the model gives 3 outputs"),
        (["a", "b", "c", "d"], "labels: found 4, but the model gives 3"),
        ([], "labels: found none"),
    ],
)
def test_labels(labels, message):
    with pytest.raises(LMACError, match=message):
        interpreter_of(Ears(), labels=labels)


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"colour": 1},
            "colour: no such option.* one of absences, at, .*, steps, ",
        ),
        ({"steeps": 1}, "steeps: no such option; did you mean 'steps'"),
        ({"spectrogram": 512}, "spectrogram: found 512, expected a Sound"),
        (
            {"spectrogram": SoundFeatures(8000)},
            "spectrogram: found 8000 Hz, but the model hears 16000 Hz",
        ),
        ({"signal_length_s": 0}, "signal_length_s: found 0, expected"),
        ({"steps": -1}, "^steps: -1, expected"),
    ],
)
def test_options(options, message):
    with pytest.raises(LMACError, match=message):
        LMACInterpreter.from_classifier(Ears(), RATE, **options)


def test_a_model_in_double_precision():
    explanation = lmac_sb.explain(
        Ears().double(), 0.1 * torch.randn(RATE), sample_rate=RATE, steps=2
    )
    assert explanation.logits.isfinite().all()


def test_what_torch_compile_gives():
    """It is explained as it was written, which is not compiled each time."""
    net = Ears().eval()
    compiled = torch.compile(net, backend="eager")
    assert as_listener(compiled, RATE).model is net


def test_torchscript():
    scripted = torch.jit.script(Ears())
    explanation = lmac_sb.explain(
        scripted, 0.1 * torch.randn(RATE), sample_rate=RATE, steps=2
    )
    assert explanation.logits.isfinite().all()
    assert all(weight.requires_grad for weight in scripted.parameters())


def in_itself(module):
    return module


def in_a_function(module):
    return lambda wavs: module(wavs)


def in_a_module(module):
    return torch.nn.Sequential(module, torch.nn.Identity())


@pytest.mark.parametrize("inside", [in_itself, in_a_function, in_a_module])
def test_torchscript_with_a_spectrogram(inside):
    """Its own gradient of a complex number's absolute value fails."""
    net = torch.nn.Sequential(
        torchaudio.transforms.MelSpectrogram(RATE, n_mels=40),
        torchaudio.transforms.AmplitudeToDB(),
        torch.nn.AdaptiveAvgPool2d((5, 1)),
        torch.nn.Flatten(),
        torch.nn.Linear(5, 3),
    ).eval()
    wav, gradients = torch.randn(1, RATE) / 10, []
    scripted = torch.jit.script(net)
    scripted(wav)  # as somebody who has used it
    for model in (net, inside(scripted)):
        leaf = wav.clone().requires_grad_()
        logits = as_listener(model, RATE)(leaf)
        gradients += torch.autograd.grad(logits[:, 0].sum(), leaf)
    torch.testing.assert_close(*gradients)
    sound = wav[0]
    explanation = lmac_sb.explain(inside(scripted), sound, sample_rate=RATE)
    assert explanation.logits.isfinite().all()


def test_features_beside_a_front_end():
    listener = Listener(Ears(), RATE)
    with pytest.raises(LMACError, match="features: found some, but the model"):
        LMACInterpreter.from_classifier(listener, features=torch.nn.Identity())


def test_weights_in_a_file(tmp_path):
    torch.save(Ears().state_dict(), tmp_path / "ears.pt")
    with pytest.raises(
        LMACError, match="ears.pt: found a file, expected a folder"
    ):
        LMACInterpreter.from_classifier(tmp_path / "ears.pt", RATE)


def test_no_rate():
    with pytest.raises(LMACError, match="sample_rate: found none"):
        LMACInterpreter.from_classifier(Ears())


def test_the_users_own_call_is_compared():
    net = Ears().eval()
    interpreter_of(net, own=net)
    with pytest.raises(LMACError, match="differ from your own call by up to"):
        interpreter_of(net, own=lambda wavs: net(wavs) * 1.5)


def test_a_copy_is_an_interpreter_too():
    interpreter, wavs = interpreter_of(Ears()), sounds(1)
    other = copy.deepcopy(interpreter)
    expected = interpreter.explain_batch(wavs).mask
    assert torch.equal(other.explain_batch(wavs).mask, expected)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_another_default_precision(kind):
    """Ours is single whatever others are made in."""
    wav = torch.rand(8000) - 0.5
    expected = lmac_sb.explain(Ears().eval(), wav, sample_rate=RATE, steps=2)
    model = Ears().eval().to(kind)
    torch.set_default_dtype(torch.float64)
    try:
        found = lmac_sb.explain(model, wav, sample_rate=RATE, steps=2)
        ready = LMACInterpreter.from_pretrained("esc10")
        assert ready.explain_sound(wav, refine_steps=1, second_look=True)
        fitted = lmac_sb.fit(
            LMACInterpreter.from_classifier(model, RATE, steps=1),
            [wav, wav.flip(0)],
            epochs=1,
            width=4,
            progress=False,
        )
        assert fitted.explain_sound(wav).mask.dtype == torch.float32
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found.mask, expected.mask, atol=1e-3, rtol=0)


def test_all_within_inference_mode():
    """What is made there has a gradient nonetheless."""
    model, wav = Ears().eval(), torch.rand(8000) - 0.5
    expected = lmac_sb.explain(model, wav, sample_rate=RATE, steps=2)
    with torch.inference_mode():
        found = lmac_sb.explain(model, wav * 1.0, sample_rate=RATE, steps=2)
        ready = LMACInterpreter.from_pretrained("esc10")
        ready.explain_sound(wav, refine_steps=1)
        steps = LMACInterpreter.from_classifier(model, RATE, steps=1)
        sounds = [wav * 1.0, wav.flip(0)]
        fitted = lmac_sb.fit(steps, sounds, epochs=1, width=4, progress=False)
    assert torch.equal(found.mask, expected.mask)
    assert fitted.explain_sound(wav, refine_steps=1).mask.isfinite().all()


def test_both_sides_add_up_where_frames_leave_samples_out():
    """Without padding no frame holds the last samples: the rest does."""
    net = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, -1)),
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    ).eval()
    front = torchaudio.transforms.Spectrogram(
        2048, hop_length=1024, center=False
    )
    wav = torch.rand(16900) - 0.5
    found = lmac_sb.explain(net, wav, sample_rate=RATE, steps=1, features=front)
    torch.testing.assert_close(
        (found.waveform + found.residual)[0], wav, atol=1e-5, rtol=0
    )
    assert not found.waveform[0, -500:].any()


@pytest.mark.parametrize("model", [None, ("net", 16000), 3, [1]])
def test_what_is_no_model_is_named(model):
    with pytest.raises(LMACError, match="model: found .*expected a torch.nn"):
        lmac_sb.explain(model, torch.rand(8000))


def test_a_classifier_of_the_recipe_needs_a_decoder(run_folder):
    """Its weights come without the network, and a config.json of their own."""
    model = run_folder.parent / "model"
    with pytest.raises(
        LMACError,
        match=f"^{model}: found a classifier that .*; train one with "
        f"--classifier_folder {model}$",
    ):
        LMACInterpreter.from_classifier(model, RATE)


@pytest.mark.parametrize("name", ["results/my model", "runs/a#1", "a/b--c"])
def test_a_folder_that_is_not_there_and_no_id(name):
    with pytest.raises(LMACError, match="no such file or folder, and no id"):
        lmac_sb.explain(name, torch.rand(8000))


def test_a_number_of_numpy_is_a_number_of_steps(tmp_path):
    steps = np.int64(1)
    found = lmac_sb.explain(
        Ears().eval(), torch.rand(8000), sample_rate=RATE, steps=steps
    )
    assert found.save(tmp_path / "clip")


def test_ten_thousand_classes_are_numbered_at_once():
    steps = LMACInterpreter.from_classifier(Ears(10_000).eval(), RATE)
    assert steps.classes[9_999] == "9999"
    with pytest.raises(LMACError, match="found 'b' twice"):
        LMACInterpreter.from_classifier(Ears(), RATE, ["b", "a", "b"])


def test_a_batch_has_to_be_a_tensor():
    steps = LMACInterpreter.from_classifier(Ears().eval(), RATE)
    with pytest.raises(LMACError, match="wavs: found an ndarray"):
        steps.explain_batch(np.zeros((1, 8000)))
