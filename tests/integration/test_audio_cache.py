"""Runs with an audio cache give the same results as runs without."""

from lmac_sb.training.checkpoints import best_checkpoint


def test_same_run_from_the_cache(recipe, tiny, lmac_run, helpers, tmp_path):
    """One run fills the cache; the next run and its workers read it."""
    cache = tmp_path / "cache"
    options = {**tiny, "audio_cache": cache}
    for name, workers in (("filled", 0), ("read", 2)):
        done = recipe.main(
            "train_lmac",
            "lmac.yaml",
            output_folder=tmp_path / name,
            dataloader_options=f"{{num_workers: {workers}}}",
            **options,
        )
        assert done.code == 0, done.err
        assert helpers.read_rows(tmp_path / name) == helpers.read_rows(lmac_run)
        found, expected = (
            best_checkpoint(folder / "save", "loss").meta
            for folder in (tmp_path / name, lmac_run)
        )
        found.pop("unixtime"), expected.pop("unixtime")
        assert found == expected
        if name == "filled":
            # Fifty scenes, each once.
            before = helpers.digest(cache)
            assert len(before) == 50
    assert helpers.digest(cache) == before


def test_folder_that_cannot_be_used(recipe, tiny, tmp_path):
    """One message, before anything is trained."""
    (tmp_path / "cache").write_text("a file")
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        **{**tiny, "audio_cache": tmp_path / "cache"},
    )
    assert done.code == 1
    assert "error: audio_cache: " in done.err and "Traceback" not in done.err
    assert not (tmp_path / "run" / "results.csv").exists()
