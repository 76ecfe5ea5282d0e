"""A decoder for somebody's classifier, trained in seconds."""

import numpy as np
import pytest
import torch
import torchaudio

import lmac_sb
from lmac_sb import LMACInterpreter
from lmac_sb.metrics.registry import evaluate
from lmac_sb.utils.errors import LMACError

RATE = 16000
TONES = (300, 1500, 4000)


def clip(number):
    """Noise with a burst of one of three tones, half a second long."""
    generator = torch.Generator().manual_seed(number)
    wav = 0.05 * torch.randn(8000, generator=generator)
    start = int(torch.randint(0, 4000, (1,), generator=generator))
    time = torch.arange(4000) / RATE
    wav[start : start + 4000] += torch.sin(
        2 * torch.pi * TONES[number % 3] * time
    )
    return wav


class Net(torch.nn.Module):
    """A small network on mel bands."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, 2, 1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 16, 3, 2, 1),
            torch.nn.ReLU(),
            torch.nn.AdaptiveMaxPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(16, 3),
        )

    def forward(self, mels):
        return self.layers((mels + 1e-4).log()[:, None])


def front_end():
    return torchaudio.transforms.MelSpectrogram(
        RATE, 512, hop_length=256, n_mels=40
    )


@pytest.fixture(scope="module")
def net():
    """The network, trained to tell the tones apart."""
    torch.manual_seed(0)
    net, mels = Net(), front_end()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    wavs = torch.stack([clip(i) for i in range(48)])
    target = torch.arange(48) % 3
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(net(mels(wavs)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    return net.eval()


@pytest.fixture(scope="module")
def steps(net):
    """What explains it by steps from nothing."""
    return LMACInterpreter.from_classifier(
        net, RATE, ["low", "middle", "high"], front_end()
    )


@pytest.fixture(scope="module")
def trained(steps):
    """The same with a decoder."""
    sounds = [clip(100 + i) for i in range(24)]
    return lmac_sb.fit(steps, sounds, epochs=8, batch_size=4, width=8, lr=5e-3)


@torch.no_grad()
def judged(interpreter, clips, steps):
    """Means of the metrics."""
    found = interpreter.explainer(
        clips, refine_steps=steps, sounds=False
    ).asked()
    return {k: float(v.mean()) for k, v in evaluate(found).items()}


def test_one_pass_is_faithful(steps, trained):
    """On clips never seen, better than the loud bins, with less area."""
    clips = torch.stack([clip(200 + i) for i in range(12)])
    start, found = judged(steps, clips, 0), judged(trained, clips, 0)
    assert found["AD"] < 5 and found["FF"] > 0.5
    assert found["area"] < start["area"]


def test_it_takes_one_pass(trained):
    assert trained.explainer.refine_steps == 0
    explanation = trained.explain_sound(clip(300))
    assert explanation.labels == ["low"]
    assert explanation.refine_steps == 0
    refined = trained.explain_sound(clip(300), refine_steps=3)
    assert not torch.equal(explanation.mask, refined.mask)


def test_the_first_one_stays(net, steps):
    assert steps.explainer.refine_steps == 10
    assert not any(m._forward_hooks for m in net.modules())
    assert all(weight.requires_grad for weight in net.parameters())


def test_its_history(trained):
    history = trained.history
    assert [row["epoch"] for row in history] == list(range(1, 9))
    assert {"train_loss", "loss", "AI", "AD", "FF", "area"} <= set(history[0])
    assert history[-1]["loss"] < history[0]["loss"]


def test_a_gain_changes_no_mask(trained):
    """Of one analysis: the classifier itself hears the level."""
    analysis = trained.explainer.analyze(clip(1)[None])
    mask = trained.explainer.mask(analysis)
    analysis.magnitude = 0.01 * analysis.magnitude
    torch.testing.assert_close(trained.explainer.mask(analysis), mask)


def test_a_seed_repeats(steps):
    sounds = [clip(i) for i in range(8)]
    options = {"epochs": 1, "width": 4, "batch_size": 4}
    torch.manual_seed(3)
    one = lmac_sb.fit(steps, sounds, **options)
    state = torch.get_rng_state()
    torch.manual_seed(4)
    two = lmac_sb.fit(steps, sounds, **options)
    other = lmac_sb.fit(steps, sounds, seed=2, **options)
    assert one.history == two.history != other.history
    # Nor does it draw from the random numbers of its caller.
    torch.manual_seed(3)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_best_epoch_is_kept(steps, monkeypatch):
    """Validation losses are made to rise after the second epoch."""
    from lmac_sb.training import fitting

    losses, weights = iter([3.0, 1.0, 2.0, 2.0, 2.0]), []

    def validate(explainer, *rest):
        state = explainer.decoder.state_dict()
        weights.append({k: v.clone() for k, v in state.items()})
        return dict.fromkeys((*fitting._SHOWN, "loss"), next(losses))

    monkeypatch.setattr(fitting, "_validate", validate)
    sounds = [clip(i) for i in range(6)]
    found = lmac_sb.fit(steps, sounds, epochs=5, patience=2, width=4)
    assert len(found.history) == 4
    state = found.explainer.decoder.state_dict()
    assert all(torch.equal(state[k], v) for k, v in weights[1].items())
    assert any(not torch.equal(state[k], v) for k, v in weights[3].items())


def test_training_goes_on(trained):
    more = lmac_sb.fit(trained, [clip(i) for i in range(6)], 1, lr=1e-9)
    clips = clip(400)[None]
    one, two = (x.explain_batch(clips).mask for x in (trained, more))
    torch.testing.assert_close(one, two, atol=1e-3, rtol=0)
    assert more.explainer.decoder is not trained.explainer.decoder


def test_on_sound_itself():
    """A model of waveforms, with sigmoids, clips of several lengths."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, -1)),
        torch.nn.Conv1d(1, 8, 400, 160),
        torch.nn.ReLU(),
        torch.nn.AdaptiveMaxPool1d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    )
    steps = LMACInterpreter.from_classifier(net, RATE, multilabel=True)
    sounds = [clip(i)[: 8000 - 300 * i] for i in range(6)]
    found = lmac_sb.fit(steps, sounds, 1, width=4, valid=sounds[:2])
    explanation = found.explain_batch(torch.stack([clip(7), clip(8)]))
    assert explanation.mask.shape[0] == 2
    assert explanation.mask.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: found 0, expected a whole number from 1"),
        ({"batches": 3}, "batches: no such option, expected one of valid, "),
        ({"valid": 1.5}, "valid: found 1.5, expected a share"),
        ({"lr": 0}, "lr: found 0"),
        ({"lr": "1"}, "lr: found '1', expected a number above 0"),
        ({"seed": 2**70}, "seed: found .*, expected a whole number from 0 to "),
        ({"loss": 3}, "loss: found 3, expected an lmac_sb.losses.LMACLoss"),
        ({"layers": []}, r"layers: found \[\], expected a list of names"),
        ({"layers": "0"}, "layers: found '0', expected a list of names"),
        ({"valid": []}, r"valid: found none in \[\], expected audio files"),
        ({"valid": [clip(0)[:9]]}, "valid: item 0: sound: 0.0006 s long"),
        ({"valid": True}, "valid: found True, expected a share"),
        ({"layers": ["nowhere"]}, "layers: found 'nowhere', which names 0"),
    ],
)
def test_what_cannot_be_trained(steps, options, message):
    with pytest.raises(LMACError, match=message):
        lmac_sb.fit(steps, [clip(0), clip(1)], **options)


def test_numbers_of_numpy(steps):
    """As options of a search have them."""
    sounds = [(clip(i).numpy(), np.int64(RATE)) for i in range(4)]
    few = {"epochs": 1, "width": 4, "seed": 3, "batch_size": 2, "valid": 0.5}
    found = [
        lmac_sb.fit(steps, sounds, **options, progress=False).history
        for options in (
            few,
            {key: np.asarray(value)[()] for key, value in few.items()},
        )
    ]
    assert found[0] == found[1]


def test_one_sound_is_too_few(steps):
    with pytest.raises(LMACError, match="found 1, expected at least 2"):
        lmac_sb.fit(steps, [clip(0)])


def test_a_model_with_its_own_decoder(interpreter):
    with pytest.raises(LMACError, match="expected one of LMACInterpreter.fr"):
        lmac_sb.fit(interpreter, [clip(0), clip(1)])


def test_torchscript_has_no_layers_to_read():
    layers = torch.nn.Conv1d(1, 4, 400, 160), torch.nn.AdaptiveMaxPool1d(1)
    net = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, -1)),
        *(*layers, torch.nn.Flatten(), torch.nn.Linear(4, 3)),
    )
    net = torch.jit.trace(net, torch.rand(1, 8000))
    steps = LMACInterpreter.from_classifier(net, RATE)
    with pytest.raises(LMACError, match="layers: found none of"):
        lmac_sb.fit(steps, [clip(0), clip(1)], epochs=1)


def test_nothing_but_silence_teaches_nothing():
    net = torch.nn.Sequential(front_end(), Net())
    steps = LMACInterpreter.from_classifier(net, RATE)
    with pytest.raises(LMACError, match="all of them silent"):
        lmac_sb.fit(steps, [torch.zeros(8000)] * 4, epochs=1)


def test_a_classifier_is_no_interpreter():
    with pytest.raises(LMACError, match="found a Net, expected what"):
        lmac_sb.fit(Net(), [clip(0), clip(1)])
