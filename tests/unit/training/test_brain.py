"""Tests of the recipes' base Brain, on a model of two weights."""

import io
import logging
import math
import os
import re
import signal
import sys
from types import SimpleNamespace

import pytest
import torch
from speechbrain import Stage
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.nnet.schedulers import ReduceLROnPlateau
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.train_logger import FileTrainLogger

from lmac_sb.training.brain import OneCycle, RecipeBrain, gather_rows
from lmac_sb.training.checkpoints import SafeCheckpointer
from lmac_sb.utils.console import Loudness, set_loudness
from lmac_sb.utils.errors import LMACError


@pytest.mark.parametrize("lr", [0.003, 1.0])
@pytest.mark.parametrize("warmup", [0.0, 0.15, 0.5])
def test_one_cycle(lr, warmup):
    """The schedule equals the formula, step by step."""
    schedule = OneCycle(lr, warmup)
    for percent in range(0, 101):
        done = percent / 100
        if done < warmup:
            expected = lr * (done / warmup)
        else:
            angle = math.pi * (done - warmup) / (1 - warmup)
            expected = lr * 0.5 * (1 + math.cos(angle))
        assert schedule.at(done) == pytest.approx(expected, abs=1e-12)
    assert schedule.at(warmup) == pytest.approx(lr)
    assert schedule.at(1) == pytest.approx(0, abs=1e-12)
    # One step after the end, the rate does not rise again.
    assert schedule.at(1.01) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "lr, warmup", [(0, 0.1), (-1, 0.1), (math.nan, 0.1), (1, 1), (1, -0.1)]
)
def test_one_cycle_is_checked(lr, warmup):
    """The message names both keys and what is expected."""
    with pytest.raises(LMACError, match="lr, warmup: .* expected"):
        OneCycle(lr, warmup)


class Line(torch.nn.Module):
    """y = a x, with a buffer that counts the calls."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        return self.a * x


class LineBrain(RecipeBrain):
    """Squared error of a line; records its steps."""

    later = ("score",)

    def compute_forward(self, batch, stage):
        """y of x."""
        self.seen.append((stage, list(batch.id)))
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.draws.append(torch.rand(1).item())
        return self.modules.line(batch.x)

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Record the rates of steps."""
        if should_step:
            self.stepped.append(self.optimizer.param_groups[0]["lr"])

    def compute_objectives(self, predictions, batch, stage):
        """Squared error, a metric, and their mean."""
        losses = (predictions - batch.y) ** 2
        self.record(batch.id, metric=batch.metric)
        return self.mean_loss(losses, batch.id)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """End the stage as the recipes do."""
        stats = self.averages()
        if stage == Stage.TRAIN:
            self.train_stats = stats
        elif stage == Stage.VALID:
            for key, values in self.planned.items():
                stats[key] = values[epoch - 1]
            self.finish_epoch(epoch, stats)
        else:
            self.test_stats = stats
            self.log({"epoch": self.tested.meta["epoch"]}, test_stats=stats)


def dataset_of(n_clips, nan_clips=(), y=2.0):
    """Clips with x = 1, y = 2; some with NaN."""
    data = {
        f"clip{i}": {
            "x": 1.0,
            "y": math.nan if i in nan_clips else y,
            "metric": float(i),
        }
        for i in range(n_clips)
    }
    dataset = DynamicItemDataset(data, [], ["id", "x", "y", "metric"])
    dataset.n_samples = [1] * n_clips
    return dataset


def brain_of(folder, n_epochs=3, planned=None, run_opts=None, **changes):
    """Brain of a new line, with a checkpointer in `folder`."""
    folder.mkdir(exist_ok=True)
    line = Line()
    settings = {
        "seed": 1,
        "number_of_epochs": n_epochs,
        "select_key": "loss",
        "select_largest": False,
        "lr_annealing": OneCycle(0.1),
        "epoch_counter": EpochCounter(n_epochs),
        "train_logger": FileTrainLogger(str(folder / "train_log.txt")),
        **changes,
    }
    checkpointer = SafeCheckpointer(
        folder / "save", {"line": line, "counter": settings["epoch_counter"]}
    )
    if isinstance(settings["lr_annealing"], ReduceLROnPlateau):
        checkpointer.add_recoverable("annealing", settings["lr_annealing"])
    counter = settings.pop("epoch_counter")
    brain = LineBrain(
        {"line": line},
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        {"epoch_counter": counter},
        {"noprogressbar": True, **(run_opts or {})},
        checkpointer,
        **settings,
    )
    brain.seen, brain.rates, brain.draws, brain.stepped = [], [], [], []
    brain.planned = planned or {}
    return brain


def fit(brain, train, valid=None, batch_size=2):
    """Fit with batches of two."""
    options = {"batch_size": batch_size}
    brain.fit(
        brain.hparams.epoch_counter,
        train,
        dataset_of(3) if valid is None else valid,
        train_loader_kwargs=dict(options),
        valid_loader_kwargs=dict(options),
    )


def kept(folder):
    """Epoch of each checkpoint, in order."""
    checkpointer = SafeCheckpointer(folder / "save")
    return sorted(c.meta["epoch"] for c in checkpointer.list_checkpoints())


def weight(brain):
    """The line's weight."""
    return brain.modules.line.a.item()


def trained_ids(brain):
    """Clips of the training steps."""
    return [ids for stage, ids in brain.seen if stage == Stage.TRAIN]


def test_fit(tmp_path):
    """A finite run learns, and sees each clip in each epoch."""
    brain = brain_of(tmp_path, n_epochs=10)
    fit(brain, dataset_of(5))
    assert weight(brain) == pytest.approx(2, abs=0.1)
    ids = [i for batch in trained_ids(brain) for i in batch]
    assert len(ids) == 50 and {ids.count(i) for i in ids} == {10}
    assert len((tmp_path / "train_log.txt").read_text().splitlines()) == 10


def test_schedule_is_followed(tmp_path):
    """The rate rises and falls over the steps of all epochs."""
    brain = brain_of(tmp_path, n_epochs=3, lr_annealing=OneCycle(0.1, 0.5))
    fit(brain, dataset_of(6))
    rates = [
        rate
        for (stage, _), rate in zip(brain.seen, brain.rates)
        if stage == Stage.TRAIN
    ]
    schedule = OneCycle(0.1, 0.5)
    assert rates == pytest.approx([schedule.at(i / 10) for i in range(1, 10)])
    assert min(rates) > 0


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_schedule_of_accumulated_steps(tmp_path, factor):
    """It is that of the steps; what an epoch leaves over makes none."""
    schedule = OneCycle(0.1, 0.5)
    opts = {"grad_accumulation_factor": factor}
    brain = brain_of(tmp_path, lr_annealing=schedule, run_opts=opts)
    fit(brain, dataset_of(7), batch_size=1)
    n_steps = 3 * (7 // factor)
    assert brain.optimizer_step == n_steps
    assert brain.stepped == pytest.approx(
        [schedule.at(i / (n_steps + 1)) for i in range(1, n_steps + 1)]
    )


def test_each_accumulated_batch_draws_its_own(tmp_path):
    """Batches of a step differ, and the first run's seeds are the same."""
    draws = {}
    for factor in (1, 3):
        opts = {"grad_accumulation_factor": factor}
        brain = brain_of(tmp_path / str(factor), n_epochs=2, run_opts=opts)
        fit(brain, dataset_of(6), batch_size=1)
        stages = [stage for stage, _ in brain.seen]
        draws[factor] = [
            draw
            for stage, draw in zip(stages, brain.draws)
            if stage == Stage.TRAIN
        ]
    assert len(set(draws[1])) == len(set(draws[3])) == 12
    # The batch that ends a step draws what that step has always drawn.
    assert draws[3][2::3] == draws[1][:4]


@pytest.mark.parametrize("killed_after", [4, 5, 6, 10])
def test_accumulated_steps_resume_exactly(tmp_path, killed_after):
    """A checkpoint within an epoch never lies within a step."""
    opts = {"grad_accumulation_factor": 3, "ckpt_interval_steps": 1}
    whole = brain_of(tmp_path / "a", n_epochs=2, run_opts=opts)
    fit(whole, dataset_of(7), batch_size=1)
    brain = brain_of(tmp_path / "b", n_epochs=2, run_opts=opts)
    forward, calls = brain.compute_forward, []

    def stop(batch, stage):
        calls.append(stage)
        if calls.count(Stage.TRAIN) > killed_after:
            raise KeyboardInterrupt
        return forward(batch, stage)

    brain.compute_forward = stop
    with pytest.raises(KeyboardInterrupt):
        fit(brain, dataset_of(7), batch_size=1)
    again = brain_of(tmp_path / "b", n_epochs=2, run_opts=opts)
    fit(again, dataset_of(7), batch_size=1)
    assert weight(again) == weight(whole)
    assert again.optimizer_step == whole.optimizer_step == 4


@pytest.mark.parametrize(
    "opts, told",
    [
        ({}, "is 4, expected at most 3, the number of batches an epoch"),
        (
            {"debug": True, "debug_batches": 2},
            "is 4, expected at most 2, the number of debug_batches",
        ),
    ],
)
def test_epoch_without_a_step(tmp_path, opts, told):
    """It would train nothing, so it is refused."""
    opts = {"grad_accumulation_factor": 4, **opts}
    brain = brain_of(tmp_path, run_opts=opts)
    with pytest.raises(LMACError) as caught:
        fit(brain, dataset_of(3), batch_size=1)
    assert str(caught.value) == f"grad_accumulation_factor {told}"


def test_step_limit(tmp_path):
    """Training ends with that step."""
    brain = brain_of(tmp_path, run_opts={"optimizer_step_limit": 4})
    fit(brain, dataset_of(3), batch_size=1)
    assert brain.optimizer_step == 4
    assert len(trained_ids(brain)) == 4


def test_one_line_an_epoch(tmp_path, capsys):
    """The console shows only a line of metrics for each epoch."""
    brain = brain_of(tmp_path, n_epochs=3)
    fit(brain, dataset_of(4))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines] == [
        "epoch 1",
        "epoch 2",
        "epoch 3",
    ]
    assert all("train: loss" in s and "valid: loss" in s for s in lines)


def test_long_trainings_print_some_of_their_epochs(tmp_path, capsys):
    """The first, evenly spread ones and the last; the log file has all."""
    brain = brain_of(tmp_path, n_epochs=60)
    fit(brain, dataset_of(2))
    lines = capsys.readouterr().out.splitlines()
    epochs = [int(line.split(" | ")[0].split()[1]) for line in lines]
    assert epochs == [*range(1, 60, 3), 60]
    log = (tmp_path / "train_log.txt").read_text().splitlines()
    assert len(log) == 60


@pytest.mark.parametrize("loudness", [Loudness.QUIET, Loudness.VERBOSE])
def test_less_or_more_is_printed(tmp_path, capsys, loudness):
    """Quiet: only the test. Verbose: all epochs and values."""
    set_loudness(loudness)
    try:
        brain = brain_of(tmp_path, n_epochs=30)
        fit(brain, dataset_of(2))
        brain.evaluate(dataset_of(2), test_loader_kwargs={"batch_size": 2})
    finally:
        set_loudness(Loudness.USUAL)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == {Loudness.QUIET: 1, Loudness.VERBOSE: 31}[loudness]
    assert "test: " in lines[-1]
    assert ("metric" in lines[0]) == (loudness is Loudness.VERBOSE)


def test_one_bar_for_all_epochs(tmp_path, monkeypatch):
    """On a terminal; it counts the steps that an earlier run has done."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    sys.stderr.isatty = lambda: True
    for n_epochs in (2, 3):
        opts = {"noprogressbar": False}
        brain = brain_of(tmp_path, n_epochs=n_epochs, run_opts=opts)
        fit(brain, dataset_of(4))
        assert brain.bar.n == brain.bar.total == 2 * n_epochs
    shown = sys.stderr.getvalue()
    assert "6/6" in shown and "\n" not in shown


def test_nan_loss_leaves_the_step_out(tmp_path, caplog):
    """The weights stay, the log names the clip, and the run continues."""
    brain = brain_of(tmp_path, n_epochs=2)
    weights = []
    original = brain.fit_batch

    def fit_batch(batch):
        before = weight(brain)
        loss = original(batch)
        weights.append((list(batch.id), before, weight(brain)))
        return loss

    brain.fit_batch = fit_batch
    with caplog.at_level(logging.WARNING):
        fit(brain, dataset_of(6, nan_clips=[3]))
    assert len(weights) == 6
    for ids, before, after in weights:
        assert math.isfinite(after)
        assert (before == after) == ("clip3" in ids), ids
    warnings = [r.getMessage() for r in caplog.records if "not finite" in r.msg]
    assert len(warnings) == 2
    # Only the bad clip, not the other one in its batch.
    assert all(text.endswith("clips: clip3") for text in warnings)
    assert brain.optimizer_step == 4
    assert weight(brain) > 0
    # The training loss is the mean over the good clips.
    assert math.isfinite(brain.train_stats["loss"])
    assert brain.train_stats["n_nan"] == 1


def test_gradients_of_a_left_out_step_do_not_leak(tmp_path):
    """A skipped step does not change the next one."""
    brain = brain_of(tmp_path, n_epochs=1)
    fit(brain, dataset_of(4, nan_clips=[1]), batch_size=1)
    alone = brain_of(tmp_path / "b", n_epochs=1)
    value = 0.0
    for (stage, ids), rate in zip(brain.seen, brain.rates):
        if stage == Stage.TRAIN and ids != ["clip1"]:
            value -= rate * 2 * (value - 2)
    assert weight(brain) == pytest.approx(value)
    assert weight(alone) == 0


def test_too_many_in_a_row(tmp_path):
    """An error that names the clips; the last checkpoint is intact."""
    brain = brain_of(tmp_path, n_epochs=1)
    fit(brain, dataset_of(6))
    good = weight(brain)

    brain = brain_of(tmp_path, n_epochs=2, run_opts={"nonfinite_patience": 2})
    with pytest.raises(LMACError, match="3 steps in a row.*clip") as caught:
        fit(brain, dataset_of(6, nan_clips=range(6)), batch_size=1)
    assert "last checkpoint" in str(caught.value)
    assert kept(tmp_path) == [1]
    brain = brain_of(tmp_path, n_epochs=2)
    brain.checkpointer.recover_if_possible()
    assert weight(brain) == good


def test_patience_counts_steps_in_a_row(tmp_path):
    """Bad steps that are not in a row do not stop the run."""
    brain = brain_of(tmp_path, n_epochs=4, run_opts={"nonfinite_patience": 1})
    fit(brain, dataset_of(6, nan_clips=[0]), batch_size=1)
    assert brain.optimizer_step == 4 * 5


def test_nan_in_validation(tmp_path):
    """A NaN clip in validation changes no weights and no other mean."""
    brain = brain_of(tmp_path, n_epochs=2)
    fit(brain, dataset_of(4), valid=dataset_of(3, nan_clips=[1]))
    checkpoint = SafeCheckpointer(tmp_path / "save").find_checkpoint()
    assert math.isfinite(checkpoint.meta["loss"])
    assert checkpoint.meta["n_nan"] == 1


def test_nan_metric_keeps_the_newest(tmp_path):
    """A metric that is NaN for all clips deletes no checkpoint."""
    brain = brain_of(
        tmp_path,
        planned={"score": [math.nan] * 3},
        select_key="score",
        select_largest=True,
    )
    fit(brain, dataset_of(4))
    assert 3.0 in kept(tmp_path)
    newest = SafeCheckpointer(tmp_path / "save").find_checkpoint()
    assert newest.meta["epoch"] == 3 and newest.meta["score"] == -math.inf


@pytest.mark.parametrize("largest", [False, True])
def test_nan_is_never_the_best(tmp_path, largest):
    """NaN is never the best value."""
    brain = brain_of(
        tmp_path,
        planned={"score": [math.nan, 5.0, math.nan]},
        select_key="score",
        select_largest=largest,
    )
    fit(brain, dataset_of(4))
    brain.evaluate(
        dataset_of(3),
        test_loader_kwargs={"batch_size": 2},
    )
    assert brain.tested.meta["epoch"] == 2


@pytest.mark.parametrize(
    "largest, best", [(False, 2), (True, 3)], ids=["smallest", "largest"]
)
def test_best_is_kept_and_tested(tmp_path, largest, best):
    """The run keeps the best by the declared key, and the last two."""
    brain = brain_of(
        tmp_path,
        n_epochs=5,
        planned={"score": [5.0, 1.0, 9.0, 9.0 - 1e-3, 8.5]},
        select_key="score",
        select_largest=largest,
    )
    weights = {}
    finish = brain.finish_epoch

    def finish_epoch(epoch, stats):
        finish(epoch, stats)
        weights[epoch] = weight(brain)
        assert epoch in kept(tmp_path)

    brain.finish_epoch = finish_epoch
    fit(brain, dataset_of(4))
    assert kept(tmp_path) == [best, 4, 5]
    brain.evaluate(
        dataset_of(3),
        test_loader_kwargs={"batch_size": 2},
    )
    assert brain.tested.meta["epoch"] == best
    assert weight(brain) == weights[best] != weights[5]


def test_unknown_select_key(tmp_path):
    """A select_key that is not a statistic is an error in the first batch."""
    brain = brain_of(tmp_path, select_key="faithfulnesstop-3_fid")
    with pytest.raises(LMACError) as caught:
        fit(brain, dataset_of(4))
    message = str(caught.value)
    assert message.startswith("select_key: 'faithfulnesstop-3_fid' is none of")
    assert "loss" in message and "metric" in message
    assert len(brain.seen) == 1


def test_select_key_that_validation_lacks(tmp_path):
    """What only validation could have is an error after it."""
    brain = brain_of(tmp_path, select_key="score")
    with pytest.raises(
        LMACError, match="^select_key: 'score' is none of metric, loss$"
    ):
        fit(brain, dataset_of(4))
    assert kept(tmp_path) == []


def test_evaluate_without_checkpoint(tmp_path):
    """Without a checkpoint there is an error, not a test of random weights."""
    brain = brain_of(tmp_path)
    with pytest.raises(LMACError, match="no checkpoint with 'loss' to test"):
        brain.evaluate(
            dataset_of(3),
            test_loader_kwargs={"batch_size": 2},
        )
    assert brain.seen == []


def test_evaluate_without_the_key(tmp_path):
    """A checkpoint without the key does not count."""
    fit(brain_of(tmp_path), dataset_of(4))
    brain = brain_of(tmp_path, select_key="AI")
    with pytest.raises(LMACError, match="'AI'"):
        brain.evaluate(dataset_of(3), test_loader_kwargs={"batch_size": 2})


@pytest.mark.parametrize("n_clips, batch_size", [(5, 2), (33, 16), (1, 4)])
def test_mean_over_clips(tmp_path, n_clips, batch_size):
    """Means are over clips, so a short last batch counts less."""
    brain = brain_of(tmp_path, n_epochs=1)
    fit(brain, dataset_of(4), valid=dataset_of(n_clips), batch_size=batch_size)
    expected = sum(range(n_clips)) / n_clips
    found = SafeCheckpointer(tmp_path / "save").find_checkpoint().meta
    assert found["metric"] == pytest.approx(expected)


def bare(records):
    """A Brain with only these records."""
    brain = SimpleNamespace(records=records)
    brain.gathered_records = lambda: RecipeBrain.gathered_records(brain)
    return RecipeBrain.averages(brain)


def test_averages_leave_nan_out_and_count_them():
    """Clips with a NaN are counted once each."""
    found = bare(
        {
            "a": {"AI": 100.0, "AD": 4.0, "none": math.nan},
            "b": {"AI": math.nan, "AD": 6.0, "none": math.nan},
            "c": {"AI": 0.0, "none": math.nan},
        }
    )
    assert found["AI"] == 50.0
    assert found["AD"] == 5.0
    assert math.isnan(found["none"])
    assert found["n_nan"] == 3
    assert "n_nan" not in bare({"a": {"AI": 1.0}})


def test_records_once_a_clip():
    """A clip that two processes saw counts once."""
    brain = SimpleNamespace(records={})
    RecipeBrain.record(brain, ["b", "a"], loss=torch.tensor([1.0, 2.0]))
    RecipeBrain.record(brain, ["b", "a"], hit=torch.tensor([True, False]))
    RecipeBrain.record(brain, ["b"], loss=torch.tensor([1.0]))
    assert RecipeBrain.gathered_records(brain) == {
        "a": {"loss": 2.0, "hit": 0.0},
        "b": {"loss": 1.0, "hit": 1.0},
    }


def test_gather_rows():
    """Each clip and method appears once, sorted by clip."""
    rows = [
        {"id": "b", "method": "z", "AI": 1},
        {"id": "b", "method": "a", "AI": 2},
        {"id": "a", "method": "z", "AI": 3},
        {"id": "b", "method": "z", "AI": 1},
    ]
    assert [(r["id"], r["method"]) for r in gather_rows(rows)] == [
        ("a", "z"),
        ("b", "z"),
        ("b", "a"),
    ]


def test_random_numbers_depend_on_the_step(tmp_path):
    """So a resumed run draws the same numbers as an uninterrupted one."""
    whole = brain_of(tmp_path / "a", n_epochs=3)
    fit(whole, dataset_of(4))
    first = brain_of(tmp_path / "b", n_epochs=1)
    fit(first, dataset_of(4))
    torch.rand(7)
    second = brain_of(tmp_path / "b", n_epochs=3)
    fit(second, dataset_of(4))

    def draws(brain):
        return [
            draw
            for (stage, _), draw in zip(brain.seen, brain.draws)
            if stage == Stage.TRAIN
        ]

    assert draws(first) + draws(second) == draws(whole)
    assert len(set(draws(whole))) == len(draws(whole)) == 6
    assert trained_ids(first) + trained_ids(second) == trained_ids(whole)


def plateau():
    """Halves the rate after an epoch without improvement."""
    return ReduceLROnPlateau(factor=0.5, patience=0, dont_halve_until_epoch=0)


def test_plateau_is_resumed(tmp_path):
    """Resuming every three epochs leads to the same learning rate."""
    losses = [1.0, 2.0, 0.5, 0.6, 0.7, 0.4, 0.9, 0.8, 0.3]

    def rate_of(folder, stops):
        for n_epochs in stops:
            brain = brain_of(
                folder,
                n_epochs=n_epochs,
                planned={"loss": losses},
                lr_annealing=plateau(),
            )
            fit(brain, dataset_of(4))
        return brain.optimizer.param_groups[0]["lr"], weight(brain)

    whole = rate_of(tmp_path / "a", [9])
    assert whole[0] < 0.1
    assert rate_of(tmp_path / "b", [3, 6, 9]) == whole


def test_plateau_survives_nan(tmp_path):
    """A NaN loss is no improvement and no crash."""
    brain = brain_of(
        tmp_path,
        planned={"loss": [1.0, math.nan, math.nan]},
        lr_annealing=plateau(),
    )
    fit(brain, dataset_of(4))
    assert brain.optimizer.param_groups[0]["lr"] == pytest.approx(0.025)
    assert kept(tmp_path) == [1, 2, 3]


def test_finished_run_says_so(tmp_path, capsys):
    """The console says that no step is left."""
    fit(brain_of(tmp_path, n_epochs=2), dataset_of(4))
    capsys.readouterr()
    brain = brain_of(tmp_path, n_epochs=2)
    fit(brain, dataset_of(4))
    assert brain.seen == []
    assert capsys.readouterr().out == "all 2 epochs are already done\n"


def test_gradient_that_is_not_finite(tmp_path, caplog):
    """A finite loss may have such a gradient; the step is skipped."""
    brain = brain_of(tmp_path, n_epochs=1)
    forward = brain.compute_forward

    def root(batch, stage):
        # Its gradient at zero is infinite, but its value is not.
        found = forward(batch, stage)
        return found - found + (brain.modules.line.a * 0).sqrt()

    brain.compute_forward = root
    with caplog.at_level(logging.WARNING):
        fit(brain, dataset_of(2))
    texts = [r.getMessage() for r in caplog.records if "skipped" in r.msg]
    assert texts == [
        "gradient is not finite, step skipped; clips: clip0, clip1"
    ]
    assert weight(brain) == 0 and brain.optimizer_step == 0


def test_skipped_step_keeps_processes_in_step(tmp_path):
    """An exception within an accumulated step must not end the syncing."""
    brain = brain_of(
        tmp_path, n_epochs=1, run_opts={"grad_accumulation_factor": 2}
    )
    brain.modules["line"].require_backward_grad_sync = True
    fit(brain, dataset_of(3, nan_clips=[0, 1, 2]), batch_size=1)
    assert brain.modules.line.require_backward_grad_sync


def memory_errors():
    """Errors that too large a batch raises on different devices."""
    yield MemoryError()
    yield torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")


@pytest.mark.parametrize("stage", [Stage.TRAIN, Stage.VALID, Stage.TEST])
@pytest.mark.parametrize("error", [None, *memory_errors()])
def test_batch_too_large(tmp_path, stage, error):
    """The message says what to change."""
    brain = brain_of(tmp_path, n_epochs=1)
    forward = brain.compute_forward

    def large(batch, stage, where=stage):
        if stage == where and error is None:
            torch.empty(1 << 58)
        elif stage == where:
            raise error
        return forward(batch, stage)

    brain.compute_forward = large
    with pytest.raises(LMACError, match="^batch_size: 2 clips do not fit"):
        fit(brain, dataset_of(4))
        brain.evaluate(dataset_of(3), test_loader_kwargs={"batch_size": 2})


def test_other_errors_stay_as_they_are(tmp_path):
    """An error that is not about memory keeps its type and message."""
    brain = brain_of(tmp_path, n_epochs=1)

    def wrong(batch, stage):
        raise RuntimeError("shapes differ")

    brain.compute_forward = wrong
    with pytest.raises(RuntimeError, match="^shapes differ$"):
        fit(brain, dataset_of(4))


def spoilt_dataset(spoil):
    """Clips of which number 3 does something when it is read."""

    @takes("id")
    @provides("x")
    def pipeline(clip_id):
        if clip_id == "clip3":
            spoil()
        return 1.0

    data = {f"clip{i}": {"y": 2.0, "metric": 1.0} for i in range(6)}
    dataset = DynamicItemDataset(data, [pipeline], ["id", "x", "y", "metric"])
    dataset.n_samples = [1] * 6
    return dataset


def unreadable():
    """Fail like a reader that does not know the file's name."""
    raise OSError("bad sector")


def refused():
    """Fail like the audio reader."""
    raise LMACError("a.wav: truncated")


def killed():
    """Kill the process, as the system does without memory."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "spoil, n_workers, message",
    [
        (unreadable, 0, "clip 'clip3': OSError: bad sector"),
        (unreadable, 2, "clip 'clip3': OSError: bad sector"),
        (refused, 0, "a.wav: truncated"),
        (refused, 2, "a.wav: truncated"),
        (
            killed,
            2,
            "num_workers: DataLoader worker .* It was reading clip clip3. .*",
        ),
    ],
)
def test_clip_that_ends_a_worker(tmp_path, spoil, n_workers, message):
    """The message names the clip, without a worker's traceback."""
    brain = brain_of(tmp_path, n_epochs=1)
    options = {"batch_size": 1, "num_workers": n_workers}
    with pytest.raises(LMACError) as caught:
        brain.fit(
            brain.hparams.epoch_counter,
            spoilt_dataset(spoil),
            dataset_of(3),
            train_loader_kwargs=dict(options),
            valid_loader_kwargs=dict(options),
        )
    assert re.fullmatch(message, str(caught.value))
