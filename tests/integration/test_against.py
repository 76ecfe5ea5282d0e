"""Why this class and not that, asked of a classifier that was trained."""

import importlib
import json
from pathlib import Path
from statistics import fmean

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_mask_goes_to_what_is_asked_for(
    classifier, pairs, tmp_path, monkeypatch, capsys
):
    """In scenes of two events, as the benchmark measures it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = tmp_path / "found.json"
    importlib.import_module("against").main(
        ["--runs", str(classifier), "--scenes", str(pairs), "--fold", "1"]
        + ["--json", str(found)]
    )
    values = {}
    for row in json.loads(found.read_text("utf-8"))["rows"]:
        for name in ("event_mass", "other_mass"):
            values.setdefault((row["asked"], name), []).append(row[name])
    assert {len(rows) for rows in values.values()} == {10}
    means = {key: fmean(rows) for key, rows in values.items()}
    this, that = "A against B", "B against A"
    assert means[this, "event_mass"] > 2 * means[that, "event_mass"]
    assert means[that, "other_mass"] > 2 * means[this, "other_mass"]
    assert "| A against B − B against A | event_mass |" in (
        capsys.readouterr().out
    )
