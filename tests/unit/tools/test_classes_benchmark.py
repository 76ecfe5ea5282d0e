"""The benchmark that says whether each class of a multi-label run is found."""

import csv
import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """The benchmark, whose folder is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("classes")


def write(folder, classes, columns):
    """classes.csv of a run: each class to the figures that are not .5."""
    folder.mkdir()
    with open(folder / "classes.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "figure", "mean", "low", "high", "n"])
        for name, figures in classes.items():
            for column in columns:
                mean = figures.get(column, 0.5)
                writer.writerow([name, column, mean, 0, 1, 4])
    return str(folder)


def test_a_class_is_found_in_some_runs(benchmark, tmp_path, capsys):
    """Means over runs, the worst of them, and how many reach both goals."""
    good = {"event_auc": 0.75, "event_mass": 0.4, "other_mass": 0.1}
    low = {"event_auc": 0.74, "event_mass": 0.6, "other_mass": 0.1}
    equal = {"event_auc": 0.9, "event_mass": 0.3, "other_mass": 0.3}
    runs = [
        write(tmp_path / name, {"bounce": figures}, benchmark.COLUMNS)
        for name, figures in (("a", good), ("b", low), ("c", equal))
    ]
    benchmark.main(runs)
    heads, _, row = capsys.readouterr().out.strip().splitlines()
    shown = dict(zip(heads.split(" | "), row.split(" | ")))
    shown = {key.strip("| "): value.strip(" |") for key, value in shown.items()}
    assert shown["class"] == "bounce" and shown["explanations"] == "12"
    assert shown["event_auc"] == "0.797"  # (.75 + .74 + .9) / 3
    assert shown["event_mass"] == "0.433" and shown["AD"] == "0.50"
    assert shown["lowest event_auc"] == "0.740"
    assert shown["least event_mass - other_mass"] == "0.000"
    assert shown["found in"] == "1 of 3"


def test_bad_runs(benchmark, tmp_path, capsys):
    """A folder without a table, and runs of other classes: a line each."""
    one = write(tmp_path / "one", {"bounce": {}}, benchmark.COLUMNS)
    two = write(tmp_path / "two", {"trill": {}}, benchmark.COLUMNS)
    (tmp_path / "none").mkdir()
    for runs, said in (
        ([str(tmp_path / "none")], "classes.csv: no such file, expected that"),
        ([one, two], "classes: found ['trill'] beside ['bounce'], expected"),
    ):
        with pytest.raises(SystemExit):
            benchmark.main(runs)
        assert said in capsys.readouterr().err
