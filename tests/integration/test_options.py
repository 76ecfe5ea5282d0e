"""Switches of a run: TensorBoard, half precision, a mask that collapses."""

import pytest


def run(recipe, tiny, folder, *flags, **overrides):
    """One epoch of L-MAC; returns what the console showed."""
    options = {**tiny, "number_of_epochs": 1, "save_clips": 0, **overrides}
    done = recipe.main(
        "train_lmac", "lmac.yaml", output_folder=folder, **options
    )
    assert done.code == 0, done.err
    return done.out


def test_tensorboard(recipe, tiny, tmp_path):
    """If it is on, the statistics of each epoch are written for it."""
    pytest.importorskip("tensorboard")
    run(recipe, tiny, tmp_path / "run", use_tensorboard=True)
    events = list((tmp_path / "run" / "tensorboard").rglob("events.out*"))
    assert events
    assert b"Fid-In" in b"".join(path.read_bytes() for path in events)


def test_half_precision(recipe, tiny, tmp_path, helpers):
    """Training with bfloat16 gives similar results as single precision."""
    lmac = {}
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        given = {"precision": precision, "eval_precision": precision}
        # Few clips, as a processor takes its time with half precision.
        run(recipe, tiny, folder, train_fold_nums="[1]", **given)
        rows = helpers.read_rows(folder)
        lmac[precision] = [r for r in rows if r["method"] == "lmac"]
    assert len(lmac["fp32"]) == len(lmac["bf16"]) == 10
    for single, half in zip(lmac["fp32"], lmac["bf16"]):
        assert single["id"] == half["id"]
        assert half["FF"] == pytest.approx(single["FF"], abs=0.1)
        assert half["area"] == pytest.approx(single["area"], abs=0.1)


def test_refinement(recipe, tiny, tmp_path, helpers):
    """Refined masks get their own rows, and the others stay the same."""
    for steps in (0, 2):
        run(recipe, tiny, tmp_path / str(steps), refine_steps=steps)
    rows = [helpers.read_rows(tmp_path / name) for name in "02"]
    assert "lmac+2" not in {row["method"] for row in rows[0]}
    assert [row for row in rows[1] if row["method"] != "lmac+2"] == rows[0]
    lmac, refined = (
        [row for row in rows[1] if row["method"] == name]
        for name in ("lmac", "lmac+2")
    )
    assert [row["id"] for row in refined] == [row["id"] for row in lmac]
    weights = {"FF": 8, "area": -4}
    gains = []
    for before, after in zip(lmac, refined):
        assert after["decision"] == before["decision"]
        gains.append(
            sum(w * (after[k] - before[k]) for k, w in weights.items())
        )
    assert sum(gains) > 0.1


def test_collapse_is_named(recipe, tiny, tmp_path):
    """A mask that becomes all zeros is reported, also in the log."""
    weights = {"reg_w_l1": 10000, "lr": 0.05}
    out = run(recipe, tiny, tmp_path, number_of_epochs=2, **weights)
    assert "the mask has collapsed to all zeros" in out
    assert "lower reg_w_l1" in out
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "the mask has collapsed to all zeros (area 0.000)" in log


@pytest.mark.parametrize(
    ("area", "named"), [(0.96, "all ones"), (0.004, "all zeros"), (0.5, "")]
)
def test_what_counts_as_collapse(recipe, caplog, area, named):
    """Only masks that keep everything or nothing count as collapsed."""
    brain = recipe.script("train_lmac").LMACBrain
    brain.warn_of_collapse(brain, {"area": area})
    assert len(caplog.messages) == bool(named)
    assert named in "".join(caplog.messages)
