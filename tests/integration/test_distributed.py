"""Two processes give the same results as one."""

import json

import pytest
import torch

from lmac_sb.metrics.registry import METRICS
from lmac_sb.training.checkpoints import best_checkpoint

# Tolerance: 1e-4 of the range for values in percent, else 1e-4.
PERCENT = [name for name, metric in METRICS.items() if metric.unit == "%"]


@pytest.fixture(scope="module")
def one(once, recipe, descent):
    """Folder of the run of one process."""

    def make(folder):
        done = recipe.main(
            "train_lmac", "lmac.yaml", output_folder=folder, **descent
        )
        assert done.code == 0, done.err

    return once("one", make)


def test_validation(two, one):
    """All statistics of the best checkpoint agree."""
    found, expected = (
        best_checkpoint(folder / "save", "loss").meta for folder in (two, one)
    )
    assert found.keys() == expected.keys()
    assert found["epoch"] == expected["epoch"]
    for name in expected:
        if name != "unixtime":
            assert found[name] == pytest.approx(
                expected[name], rel=1e-4, abs=1e-2 if name in PERCENT else 1e-5
            ), name


def test_test_clips(two, one, helpers):
    """The results have each clip once, with the same values."""
    rows, expected = helpers.read_rows(two), helpers.read_rows(one)
    assert len(rows) == len(expected) == 60
    for found, row in zip(rows, expected):
        assert (found["id"], found["method"]) == (row["id"], row["method"])
        if row["method"] != "lmac":
            # A bin near a threshold may be on the other side of it.
            continue
        for name in helpers.KNOWN:
            assert found[name] == pytest.approx(
                row[name], rel=1e-4, abs=1e-2 if name in PERCENT else 1e-4
            ), (row["id"], name)


def test_summary(two, one, helpers):
    """Means and intervals too."""
    found, expected = (
        json.loads((folder / "results.json").read_text())["summary"]["lmac"]
        for folder in (two, one)
    )
    for name in helpers.KNOWN:
        for key in ("mean", "low", "high"):
            assert found[name][key] == pytest.approx(
                expected[name][key],
                rel=1e-4,
                abs=1e-2 if name in PERCENT else 1e-4,
            ), name
        assert found[name]["n"] == expected[name]["n"]


def test_same_weights(two, one):
    """The mean gradient of two processes is that of the whole batch."""
    found, expected = (
        torch.load(
            best_checkpoint(folder / "save", "loss").paramfiles["decoder"]
        )
        for folder in (two, one)
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-5, rtol=1e-4)


def test_one_line_an_epoch(two):
    """Only the first process prints."""
    lines = (two / "console.txt").read_text().splitlines()
    assert [s.split(" | ")[0] for s in lines if s.startswith("epoch")] == [
        "epoch 1",
        "epoch 2",
    ] + [next(s for s in lines if "test: " in s).split(" | ")[0]]
    assert sum(line.startswith("| lmac |") for line in lines) == 1
    assert len((two / "train_log.txt").read_text().splitlines()) == 3


def test_sounds(two, one):
    """The same clips are written, each once."""
    found, expected = (
        sorted(
            str(path.relative_to(folder))
            for path in (folder / "interpretations").rglob("*.wav")
        )
        for folder in (two, one)
    )
    assert found == expected


def test_checkpoint_serves_one_process(recipe, two, tiny, tmp_path):
    """Fine-tuning in one process starts from the run of two."""
    done = recipe.main(
        "train_lmac",
        "lmac_ft.yaml",
        pretrained_interpreter=two,
        output_folder=tmp_path,
        wham_folder="null",
        **{**tiny, "number_of_epochs": 1, "save_clips": 0},
    )
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    "more, part",
    [({"data_folder": "nowhere"}, "nowhere"), ({"n_mels": 64}, "[64]")],
    ids=["of the main process", "of all processes"],
)
def test_user_error(recipe, tiny, helpers, tmp_path, more, part):
    """There is one message, and no process waits for the other."""
    done = recipe.process(
        "train_lmac",
        "lmac.yaml",
        helpers.two_processes,
        distributed_backend="gloo",
        output_folder=tmp_path / "run",
        **{**tiny, **more},
    )
    assert done.code != 0
    assert done.err.count("error: ") == 1, done.err
    message = done.err[done.err.index("error: ") :].splitlines()[0]
    assert part in message
    # The launcher has its own traceback, but no process has.
    assert 'train_lmac.py", line' not in done.err


LINE = """
import sys
import torch
import speechbrain as sb
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.train_logger import FileTrainLogger
from lmac_sb.training.checkpoints import SafeCheckpointer
from lmac_sb.training.brain import OneCycle, RecipeBrain

folder, batch_size = sys.argv[1], int(sys.argv[2])


class Line(RecipeBrain):
    def compute_forward(self, batch, stage):
        return self.modules.line(batch.x.float()[:, None])[:, 0]

    def compute_objectives(self, predictions, batch, stage):
        return self.mean_loss((predictions - batch.y) ** 2, batch.id)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        stats = self.averages()
        if stage == sb.Stage.TRAIN:
            self.train_stats = stats
        else:
            self.finish_epoch(epoch, stats)


if int(sys.argv[3]):
    sb.utils.distributed.ddp_init_group({"distributed_backend": "gloo"})
line = torch.nn.Linear(1, 1)
torch.nn.init.constant_(line.weight, 0.5)
torch.nn.init.constant_(line.bias, 0.1)
clips = {f"c{i}": {"x": 0.3 * i - 1, "y": 0.1 * i * i} for i in range(8)}
data = DynamicItemDataset(clips, [], ["id", "x", "y"])
data.n_samples = [1] * len(clips)
counter = EpochCounter(2)
brain = Line(
    {"line": line},
    lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    {"epoch_counter": counter},
    {"noprogressbar": True, "distributed_backend": "gloo", "device": "cpu"},
    SafeCheckpointer(folder + "/save", {"line": line, "counter": counter}),
    seed=1,
    number_of_epochs=2,
    lr_annealing=OneCycle(0.1),
    train_logger=FileTrainLogger(folder + "/train_log.txt"),
    select_key="loss",
)
options = {"batch_size": batch_size}
brain.fit(
    counter,
    data,
    data,
    train_loader_kwargs=dict(options),
    valid_loader_kwargs=dict(options),
)
"""


def test_repeated_clip_weighs_nothing(recipe, helpers, tmp_path):
    """A process without a clip in the last step has no influence."""
    script = tmp_path / "line.py"
    script.write_text(LINE)
    states = []
    for name, launcher, batch_size in (
        ("one", (), 3),
        ("three", (*helpers.two_processes[:-1], "--nproc_per_node=3"), 1),
    ):
        folder = tmp_path / name
        folder.mkdir()
        distributed = int(bool(launcher))
        done = recipe.command(
            [*launcher, str(script), str(folder), str(batch_size)]
            + [str(distributed)]
        )
        assert done.code == 0, done.err[-3000:]
        found = best_checkpoint(folder / "save", "loss")
        states.append((torch.load(found.paramfiles["line"]), found.meta))
    (one, meta), (three, found) = states
    for name, value in one.items():
        torch.testing.assert_close(three[name], value, atol=1e-6, rtol=1e-6)
    assert found["loss"] == pytest.approx(meta["loss"], rel=1e-6)
