"""Three processes with an uneven last batch give the results of one."""

import json
import shutil

import pytest

from lmac_sb.metrics.registry import METRICS

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3")

# Tolerance: 1e-4 of the range for values in percent, else 1e-4.
PERCENT = [name for name, metric in METRICS.items() if metric.unit == "%"]


@pytest.fixture(scope="module")
def three(once, recipe, tiny, lmac_run, helpers):
    """Copy of a finished run, tested again by three processes."""

    def make(folder):
        shutil.copytree(lmac_run, folder)
        for name in ("results.csv", "results.json"):
            (folder / name).unlink()
        helpers.pretend(folder, batch_size=1)
        done = recipe.process(
            "train_lmac",
            "lmac.yaml",
            LAUNCHER,
            distributed_backend="gloo",
            output_folder=folder,
            # Ten clips, three at a time: at the end two processes have none.
            **{**tiny, "batch_size": 1, "save_clips": 0},
        )
        assert done.code == 0, done.err[-3000:]
        assert "epochs are already done" in done.out

    return once("three", make)


def test_each_clip_once_with_its_figures(three, lmac_run, helpers):
    """Values agree, except for masks that are cut at a threshold."""
    rows, expected = (helpers.read_rows(run) for run in (three, lmac_run))
    assert [(row["id"], row["method"]) for row in rows] == [
        (row["id"], row["method"]) for row in expected
    ]
    compared = 0
    for found, row in zip(rows, expected):
        if row["method"] not in ("lmac", "ones"):
            continue
        for name in set(METRICS) & set(row):
            assert found[name] == pytest.approx(
                row[name],
                rel=1e-4,
                abs=1e-2 if name in PERCENT else 1e-4,
                nan_ok=True,
            ), (row["id"], row["method"], name)
            compared += 1
    assert compared >= 2 * 10 * 8


def test_means_count_each_clip_once(three, lmac_run):
    """Means and intervals of the summary count each clip once."""
    found, expected = (
        json.loads((run / "results.json").read_text("utf-8"))["summary"]
        for run in (three, lmac_run)
    )
    assert found.keys() == expected.keys()
    for name, figure in expected["lmac"].items():
        assert found["lmac"][name]["n"] == figure["n"]
        for key in ("mean", "low", "high"):
            assert found["lmac"][name][key] == pytest.approx(
                figure[key], rel=1e-4, abs=1e-2 if name in PERCENT else 1e-4
            ), (name, key)


def test_training_is_not_touched(three, lmac_run):
    """No epoch is trained again, and the log gets one line."""
    log, before = (
        (run / "train_log.txt").read_text("utf-8").splitlines()
        for run in (three, lmac_run)
    )
    assert log[: len(before)] == before
    assert len(log) == len(before) + 1
