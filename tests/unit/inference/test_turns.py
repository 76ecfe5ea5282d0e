"""Tests of interpreters that several threads use."""

import threading
import time

import pytest
import torch

from lmac_sb.inference.clip_folder import facts_of
from lmac_sb.inference.interpreter import LMACInterpreter
from lmac_sb.inference.order import Order
from lmac_sb.inference.turns import Turns, may_have_twins
from lmac_sb.jobs.threads import crew

ORDER = Order({}, {"refine_steps": 2, "unrefined": True, "stable": True}, {})


@pytest.fixture
def wavs(tmp_path, sounds):
    """Paths of six sounds, one of which is longer than a window."""
    import soundfile as sf

    paths = []
    for i in range(6):
        wav = sounds[i % 3].repeat(30 if i == 5 else 1) / (i + 1)
        paths.append(tmp_path / f"{i}.wav")
        sf.write(paths[-1], wav.numpy(), 16000)
    return paths


def explained(turns, path):
    """All that is known of a sound's explanation."""
    (clip,) = turns.explanations(ORDER, path)
    tensors = (clip.waveform, clip.residual, clip.mask, clip.logits_in)
    return [x.clone() for x in tensors], repr(facts_of(clip))


def test_twins_explain_as_one(interpreter, wavs):
    """Not a bit differs, whoever explains what beside whom."""
    alone = [explained(Turns(interpreter, 1), path) for path in wavs]
    turns = Turns(interpreter, 3)
    assert turns.n_models == 3
    with crew(3) as hands:
        futures = [hands.submit(explained, turns, path) for path in wavs * 3]
        found = [future.result() for future in futures]
    for (tensors, facts), (expected, facts_expected) in zip(found, alone * 3):
        assert facts == facts_expected
        for one, other in zip(tensors, expected):
            assert torch.equal(one, other)


def test_twins_have_the_same_weights_and_nothing_else(interpreter):
    assert Turns(interpreter, 1)._places[0][0] is interpreter
    one, other = (place[0] for place in Turns(interpreter, 2)._places)
    for name, value in one.named_parameters():
        assert dict(other.named_parameters())[name] is value
    modules = {*one.explainer.modules()} & {*other.explainer.modules()}
    assert not modules


@pytest.mark.parametrize("others", [False, True])
def test_a_long_sound_is_stopped_between_windows(interpreter, wavs, others):
    """In another thread, where Python tells nobody of Ctrl-C."""
    if others:
        net = torch.nn.Conv1d(1, 3, 400, 160)
        net = torch.nn.Sequential(
            torch.nn.Unflatten(1, (1, -1)), net, torch.nn.AdaptiveMaxPool1d(1)
        )
        model = torch.nn.Sequential(net, torch.nn.Flatten())
        interpreter = LMACInterpreter.from_classifier(model, 16000, steps=1)
        interpreter.window = 16000
        interpreter.overlap = 4096
    turns, order = Turns(interpreter, 2), Order({}, {}, {})
    n_windows, stop = [0], threading.Event()
    for model, _ in turns._places:

        def count(*args, _explainer=model.explainer, **kwargs):
            n_windows[0] += 1
            if n_windows[0] == 3:
                stop.set()
                time.sleep(0.5)
            return type(_explainer).forward(_explainer, *args, **kwargs)

        model.explainer.forward = count
    with pytest.raises(ValueError):
        with crew(2) as hands:
            done = hands.submit(
                lambda: list(turns.explanations(order, wavs[5]))
            )
            stop.wait(60)
            raise ValueError
    assert isinstance(done.exception(), KeyboardInterrupt)
    assert n_windows == [3]


def test_a_classifier_of_others_is_called_by_one_thread(wavs):
    """It may keep what it computes, as this one does."""
    n_inside, most = [0], [0]

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv1d(1, 3, 400, 160)

        def forward(self, x):
            n_inside[0] += 1
            most[0] = max(most[0], n_inside[0])
            time.sleep(0.002)
            found = self.conv(x[:, None]).amax(2)
            n_inside[0] -= 1
            return found

    torch.manual_seed(0)
    mine = LMACInterpreter.from_classifier(Net(), 16000, steps=1)
    assert not may_have_twins(mine)
    turns, order = Turns(mine, 3), Order({}, {}, {})
    threads, lock = set(), threading.Lock()

    def work(path):
        (clip,) = turns.explanations(order, path)
        with lock:
            threads.add(threading.get_ident())
        time.sleep(0.02)  # as if it were written
        return clip.decision

    with crew(3) as hands:
        futures = [hands.submit(work, path) for path in wavs[:5] * 2]
        for future in futures:
            future.result()
    assert most[0] == 1 and len(threads) > 1
