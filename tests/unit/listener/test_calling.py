"""How classifiers are called, and left as they were."""

import copy
import functools
import threading

import pytest
import torch

from lmac_sb.listener.calling import (
    FORMS,
    FirstCalls,
    as_needed,
    modules_of,
    place_of,
    private_copy,
)
from lmac_sb.utils.errors import LMACError

NET = torch.nn.Linear(2, 2)


def call_net(wavs):
    return NET(wavs)


def call_call_net(wavs):
    return call_net(wavs)


def test_forms_say_their_shapes():
    shapes = [list(form.waves(torch.rand(1, 8)).shape) for form in FORMS]
    texts = [
        str(form).replace("batch", "1").replace("samples", "8")
        for form in FORMS
    ]
    assert [str(shape) for shape in shapes] == texts
    assert len(set(FORMS)) == len(FORMS)


@pytest.mark.parametrize(
    "function",
    [
        NET,
        NET.forward,
        call_net,
        call_call_net,
        functools.partial(call_net),
        functools.partial(lambda net, wavs: net(wavs), NET),
        lambda wavs, net=NET: net(wavs),
    ],
)
def test_modules_are_seen_inside_callables(function):
    assert modules_of(function) == [NET]


def test_modules_are_seen_in_closures_and_objects():
    nets = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]

    class Mine:
        def __init__(self):
            self.net = nets[0]

        def __call__(self, wavs):
            return self.net(wavs)

    assert modules_of(Mine()) == nets[:1]
    assert set(modules_of(lambda wavs: [net(wavs) for net in nets])) == set(
        nets
    )
    assert modules_of(torch.sigmoid) == modules_of(None) == []


class Holder:
    """An object of somebody's own, with anything inside."""

    def __init__(self, inside):
        self.inside = inside

    def answer(self, wavs):
        return self.inside


HOLDER = Holder(NET)


@pytest.mark.parametrize(
    "function",
    [
        Holder({"net": NET}),
        Holder(Holder(NET)),
        Holder([Holder(NET)]).answer,
        lambda wavs: HOLDER.answer(wavs),
        functools.partial(Holder.answer, {"net": [NET]}),
    ],
)
def test_modules_are_seen_however_deep(function):
    assert modules_of(function) == [NET]


def test_objects_of_libraries_and_rings_are_not_followed():
    ring = Holder(None)
    ring.inside = [ring, {"ring": ring}]
    assert modules_of(ring) == []
    optimizer = torch.optim.SGD(NET.parameters(), lr=1)
    optimizer.net = NET
    assert modules_of(lambda wavs: optimizer) == []


def test_everything_is_restored_after_an_error():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    net[1].eval()
    net[0].bias.requires_grad_(False)
    with pytest.raises(KeyError), as_needed([net], torch.rand(1)):
        assert not any(part.training for part in net.modules())
        assert not any(weight.requires_grad for weight in net.parameters())
        raise KeyError
    assert [part.training for part in net] == [True, False]
    assert net.training
    assert net[0].weight.requires_grad and not net[0].bias.requires_grad


def test_compiled_forms_are_called_too():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    traced = torch.jit.trace(net.eval(), torch.rand(1, 2))
    frozen = torch.jit.freeze(torch.jit.script(net))
    for module in (traced, frozen):
        with as_needed([module], torch.rand(1, 2)):
            module(torch.rand(1, 2))


def test_place():
    net = torch.nn.Linear(2, 2)
    assert place_of([net])["dtype"] == torch.float32
    assert place_of([net.bfloat16()])["dtype"] == torch.bfloat16
    # Two precisions: the callable knows what goes where.
    assert "dtype" not in place_of([net, torch.nn.Linear(2, 2)])
    assert place_of([]) == place_of([torch.nn.ReLU()]) == {}


def test_a_private_copy_leaves_the_original_alone():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv1d(1, 2, 3),
        torch.nn.BatchNorm1d(2),
        torch.nn.utils.weight_norm(torch.nn.Conv1d(2, 2, 3)),
        torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(2, 2, 3)),
    )
    net(torch.rand(2, 1, 16))
    own = private_copy(net)
    own.eval().requires_grad_(False)
    own[1].__class__ = torch.nn.SyncBatchNorm
    own[0].register_forward_hook(lambda *args: 1 / 0)
    assert type(net[1]) is torch.nn.BatchNorm1d and net.training
    assert all(weight.requires_grad for weight in net.parameters())
    assert not any(weight.requires_grad for weight in own.parameters())
    for mine, theirs in zip(own.parameters(), net.parameters()):
        assert mine is not theirs and mine.data_ptr() == theirs.data_ptr()
    for mine, theirs in zip(own.buffers(), net.buffers()):
        assert mine.data_ptr() == theirs.data_ptr()
    net.eval()
    wavs = torch.rand(2, 1, 16)
    torch.testing.assert_close(private_copy(net)(wavs), net(wavs))


@pytest.mark.parametrize("compile_", [torch.jit.script, torch.jit.trace])
def test_a_private_copy_of_torchscript_has_weights_of_its_own(compile_):
    net, wavs = torch.nn.Linear(2, 2), torch.rand(1, 2)
    more = [] if compile_ is torch.jit.script else [wavs]
    compiled = compile_(net, *more)
    own = torch.nn.Sequential(private_copy(compiled)).requires_grad_(False)
    assert compiled.weight.requires_grad and not own[0].weight.requires_grad
    assert torch.equal(own(wavs), compiled(wavs))


def test_tied_weights_stay_tied():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    net[1].weight = net[0].weight
    own = private_copy(net)
    assert own[1].weight is own[0].weight


def test_what_cannot_be_copied_is_said():
    net = torch.nn.Linear(2, 2)
    net.generator = (i for i in range(3))
    with pytest.raises(LMACError, match="Linear cannot be copied"):
        private_copy(net)


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize("compiled", [False, True])
def test_recurrent_layers_run_without_cudnn(kind, compiled):
    """In evaluation mode it refuses the backward pass."""
    before = torch.backends.cudnn.enabled
    net = torch.nn.Sequential(getattr(torch.nn, kind)(4, 4))
    net = torch.jit.script(net) if compiled else net
    with as_needed([net], torch.rand(1, 4)):
        assert not torch.backends.cudnn.enabled
    assert torch.backends.cudnn.enabled == before
    with as_needed([torch.nn.Linear(4, 4)], torch.rand(1, 4)):
        assert torch.backends.cudnn.enabled == before


def test_the_last_of_several_calls_sets_back():
    """A thread that is done does not switch on another's dropout."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    inside, done, seen = threading.Event(), threading.Event(), []

    def first():
        with as_needed([net], torch.rand(1, 2)):
            inside.set()
            done.wait(10)
            seen.append((net[1].training, net[0].weight.requires_grad))

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    with as_needed([net], torch.rand(1, 2)):
        pass
    between = net.training
    done.set()
    thread.join()
    assert (between, seen) == (False, [(False, False)])
    assert net.training and net[0].weight.requires_grad


def test_weights_of_inference_mode_stay_as_they_are():
    """They could not be set back, nor could those after them."""
    with torch.inference_mode():
        net = torch.nn.Linear(2, 2)
    other = torch.nn.Linear(2, 2)
    with as_needed([net, other], torch.rand(1, 2)):
        assert not other.weight.requires_grad
    assert all(p.requires_grad for p in (*net.parameters(), other.weight))


class Hidden:
    """An object whose module nobody sees."""

    __slots__ = ("net",)

    def __init__(self):
        self.net = torch.nn.Sequential(
            torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)
        )


def test_modules_that_nobody_sees_are_noted_as_they_run():
    """In evaluation mode from the first call on, and left as they were."""
    hidden, wavs = Hidden(), torch.randn(8, 2)
    before = copy.deepcopy(hidden.net.state_dict())
    expected = copy.deepcopy(hidden.net).eval()(wavs)
    with FirstCalls([]) as first:
        found = hidden.net(wavs)
        assert not hidden.net[1].training
    assert first.modules == [hidden.net] and first.has_trained
    torch.testing.assert_close(found, expected)
    assert all(part.training for part in hidden.net.modules())
    for name, tensor in hidden.net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_calls_of_another_thread_are_not_noted():
    net = torch.nn.Dropout()
    with FirstCalls([]) as first:
        thread = threading.Thread(target=net, args=(torch.ones(2),))
        thread.start()
        thread.join()
    assert not first.modules and net.training


class Counts(torch.nn.Module):
    """Changes one buffer, puts another tensor for a second, and no third."""

    def __init__(self):
        super().__init__()
        self.register_buffer("n", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(2))
        self.norm = torch.nn.BatchNorm1d(2)
        self.still = torch.nn.BatchNorm1d(2)

    def forward(self, wavs):
        self.n += 1
        self.mean = 0.9 * self.mean + 0.1 * wavs.mean(0)
        self.norm.train()
        return self.still(self.norm(wavs))


def test_buffers_that_a_call_changes_are_set_back():
    net, wavs = Counts(), torch.randn(8, 2, requires_grad=True)
    kept, before = dict(net.named_buffers()), copy.deepcopy(net.state_dict())
    with FirstCalls([net]) as first, as_needed([net], wavs):
        net(wavs)
    assert set(map(type, first.changing)) == {Counts, torch.nn.BatchNorm1d}
    assert net.still not in first.changing
    with as_needed([net], wavs, first.changing):
        answers = net(wavs)
    answers.sum().backward()  # what it kept for its gradient is there
    assert wavs.grad is not None
    for name, tensor in net.named_buffers():
        assert tensor is kept[name] and torch.equal(tensor, before[name]), name


def test_a_copy_has_its_own_modules_and_those_of_nobody():
    net, other = torch.nn.Dropout(), torch.nn.Dropout()
    with FirstCalls([]) as first:
        net(torch.ones(2)), other(torch.ones(2))
    own, noted = copy.deepcopy([net, first.modules])
    assert noted == [own, other] and own is not net
