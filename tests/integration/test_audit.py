"""The recipe's audit, with its real yaml, of scenes and a trained decoder."""

import json

import pandas as pd


def test_audit_of_scenes(recipe, scenes, lmac_run, tmp_path):
    chosen = {
        "data_folder": scenes,
        "model": lmac_run,
        "output_folder": tmp_path / "run",
        "limit": 12,
        "examples": 1,
    }
    done = recipe.main("audit", "audit.yaml", **chosen)
    assert done.code == 0, done.err
    assert f"page: {tmp_path / 'run' / 'audit.html'}" in done.out
    clips = pd.read_csv(tmp_path / "run" / "tables" / "clips.csv")
    assert len(clips) == 12 and clips["error"].isna().all()
    assert clips["right"].notna().all()
    found = json.loads((tmp_path / "run" / "audit.json").read_text("utf-8"))
    assert found["corpus"]["labels"] and found["classes"]
    assert (tmp_path / "run" / "hyperparams.yaml").is_file()
    before = (tmp_path / "run" / "log.txt").read_bytes()
    other = recipe.main("audit", "audit.yaml", **{**chosen, "limit": 3})
    assert other.code != 0
    assert "options.limit: there 12, here 3" in other.err
    assert (tmp_path / "run" / "log.txt").read_bytes() == before


def test_the_folder_of_another_experiment(recipe, scenes, lmac_run, tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "part-00000.parquet").write_bytes(b"")
    done = recipe.main(
        "audit",
        "audit.yaml",
        data_folder=scenes,
        model=lmac_run,
        output_folder=tmp_path,
    )
    assert done.code != 0
    assert "holds rows, but no job.json" in done.err
