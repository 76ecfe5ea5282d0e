"""Two processes give the figures of one.

Authors
 * The lmac-sb authors 2026
"""

import json

import pytest
import torch

from lmac_sb.checkpoints import best_checkpoint
from lmac_sb.metrics import METRICS

# Those in percent agree to 1e-4 of their range, the rest to 1e-4.
PERCENT = ("AI", "AD", "AG")

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


@pytest.fixture(scope="module")
def options(tiny):
    """Plain descent: Adam's first steps magnify what two runs round apart."""
    return {
        **tiny,
        "lr": 0.005,
        "opt_class": "!name:torch.optim.SGD {lr: 0.005}",
    }


@pytest.fixture(scope="module")
def one(once, recipe, options):
    """Folder of the run of one process."""

    def make(folder):
        done = recipe.main(
            "train_lmac", "lmac.yaml", output_folder=folder, **options
        )
        assert done.code == 0, done.err

    return once("one", make)


@pytest.fixture(scope="module")
def two(once, recipe, options):
    """Folder of the same run with two processes."""

    def make(folder):
        done = recipe.process(
            "train_lmac",
            "lmac.yaml",
            LAUNCHER,
            distributed_backend="gloo",
            output_folder=folder,
            **{**options, "batch_size": options["batch_size"] // 2},
        )
        assert done.code == 0, done.err[-3000:]
        (folder / "console.txt").write_text(done.out, encoding="utf-8")

    return once("two", make)


def test_validation(two, one):
    """Each figure of the best checkpoint, loss and terms included."""
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
    """Each clip once in one results file, with the same figures."""
    rows, expected = helpers.read_rows(two), helpers.read_rows(one)
    assert len(rows) == len(expected) == 60
    for found, row in zip(rows, expected):
        assert (found["id"], found["method"]) == (row["id"], row["method"])
        if row["method"] != "lmac":
            # A bin at the edge of a threshold may fall to the other side.
            continue
        for name in METRICS:
            assert found[name] == pytest.approx(
                row[name], rel=1e-4, abs=1e-2 if name in PERCENT else 1e-4
            ), (row["id"], name)


def test_summary(two, one):
    """Means and intervals too."""
    found, expected = (
        json.loads((folder / "results.json").read_text())["summary"]["lmac"]
        for folder in (two, one)
    )
    for name in METRICS:
        for key in ("mean", "low", "high"):
            assert found[name][key] == pytest.approx(
                expected[name][key],
                rel=1e-4,
                abs=1e-2 if name in PERCENT else 1e-4,
            ), name
        assert found[name]["n"] == expected[name]["n"]


def test_same_weights(two, one):
    """The average of two processes' gradients is that of the whole batch."""
    found, expected = (
        torch.load(
            best_checkpoint(folder / "save", "loss").paramfiles["decoder"]
        )
        for folder in (two, one)
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


def test_one_line_an_epoch(two):
    """The second process prints nothing (defect 47)."""
    lines = (two / "console.txt").read_text().splitlines()
    assert [s.split(" | ")[0] for s in lines if s.startswith("epoch")] == [
        "epoch 1",
        "epoch 2",
    ] + [next(s for s in lines if "test: " in s).split(" | ")[0]]
    assert sum(line.startswith("| lmac |") for line in lines) == 1
    assert len((two / "train_log.txt").read_text().splitlines()) == 3


def test_sounds(two, one):
    """The same clips are written, once."""
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


def test_user_error(recipe, tiny, tmp_path):
    """One message, and no process is left waiting for the other."""
    done = recipe.process(
        "train_lmac",
        "lmac.yaml",
        LAUNCHER,
        distributed_backend="gloo",
        output_folder=tmp_path / "run",
        **{**tiny, "data_folder": tmp_path / "nowhere"},
    )
    assert done.code != 0
    assert "error: " in done.err and "nowhere" in done.err
