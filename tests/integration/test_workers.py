"""Workers that are not forked, as on a Mac and from Python 3.14 on."""

import pytest


@pytest.mark.slow
def test_training_with_spawned_workers(
    recipe, tiny, lmac_run, helpers, tmp_path
):
    """They change no result."""
    done = recipe.process(
        "train_lmac",
        "lmac.yaml",
        start=recipe.python,
        output_folder=tmp_path,
        dataloader_options="{num_workers: 1, multiprocessing_context: spawn}",
        **tiny,
    )
    assert done.code == 0, done.err
    assert helpers.read_rows(tmp_path) == helpers.read_rows(lmac_run)
