"""What is done around the training of the shipped model, and its table."""

import csv
import importlib
import sys
from pathlib import Path

import pytest
import torch

from lmac_sb.data.manifest import to_lines

ROOT = Path(__file__).resolve().parents[3]
CREDITS = (
    "- **[1-30-A.ogg](https://x/1-30-A.ogg)**: clip derived from "
    "[My [old] dog](http://www.freesound.org/30/) by *Jane* "
    "([CC0](http://cc/zero/))\n"
    "- **[4-1-B.ogg](https://x/4-1-B.ogg)**:   clip derived from "
    "[a.wav](http://www.freesound.org/1/) by *J. D.* "
    "([CC-BY](http://cc/by/))\n"
)


@pytest.fixture
def load(monkeypatch):
    """Imports a script, whose folder is no package."""
    for folder in ("tools", "benchmarks"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    sys.modules.pop("esc10", None)
    return importlib.import_module


def test_split_halves_fold_4_by_source(load, tmp_path):
    """No source is on both sides, and no other fold changes."""
    (tmp_path / "in" / "audio").mkdir(parents=True)
    (tmp_path / "in" / "meta").mkdir()
    rows = [
        {
            "filename": f"{fold}-{fold * 10 + i // 2}-{'AB'[i % 2]}-0.ogg",
            "fold": fold,
            "category": "dog",
            "src_file": fold * 10 + i // 2,
        }
        for fold in (1, 4)
        for i in range(8)
    ]
    with open(tmp_path / "in" / "meta" / "esc50.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    load("esc10").main(["split", str(tmp_path / "in"), str(tmp_path / "out")])
    with open(tmp_path / "out" / "meta" / "esc50.csv", newline="") as file:
        found = list(csv.DictReader(file))
    folds = {row["filename"]: row["fold"] for row in found}
    assert [folds[row["filename"]] for row in rows[:8]] == ["1"] * 8
    sides = {
        fold: {row["src_file"] for row in found if row["fold"] == fold}
        for fold in ("4", "5")
    }
    assert [len(sides[fold]) for fold in ("4", "5")] == [2, 2]
    assert not sides["4"] & sides["5"]
    assert (tmp_path / "out" / "audio").is_dir()


def test_credits(load, tmp_path):
    """A line a clip of the run, by what it was used for."""
    (tmp_path / "manifests").mkdir()
    clips = {"train": "1-30-A-0", "valid": "4-1-B-0"}
    for split in ("train", "valid", "test"):
        name = clips.get(split)
        entries = {} if name is None else {name: {"wav": f"/x/{name}.ogg"}}
        path = tmp_path / "manifests" / f"{split}.jsonl"
        path.write_text(to_lines(entries), "utf-8")
    lines = load("esc10").credits(tmp_path, CREDITS).splitlines()[-2:]
    assert lines == [
        "1-30-A (train): My [old] dog by Jane, "
        "http://www.freesound.org/30/, CC0, http://cc/zero/",
        "4-1-B (valid): a.wav by J. D., "
        "http://www.freesound.org/1/, CC-BY, http://cc/by/",
    ]


def test_area(load):
    area = load("far").area
    near, far = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0, 0.0])
    # Of six pairs, three are in order and one is even.
    assert area(near, far) == pytest.approx(3.5 / 6)


def test_scores(load):
    """Each is larger for what is far and in doubt."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    clips = 4 * torch.eye(8)[labels] + torch.randn(60, 8) / 4
    logits = 9 * torch.eye(3)[labels] + torch.randn(60, 3) / 4
    found = load("far").scores(clips, labels, (clips, logits))
    assert len(found) == 6
    for name, score in found.items():
        near = score(clips, logits).mean()
        assert score(-clips, 0 * logits).mean() > near, name
