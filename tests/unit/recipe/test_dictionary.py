"""Tests of the frames that the dictionary of L2I is learnt from."""


def test_fewer_frames_than_patterns(recipe, tmp_path):
    """The run is refused before it has a folder."""
    done = recipe.main(
        "train_l2i",
        "l2i.yaml",
        nmf_frames=5,
        output_folder=tmp_path / "run",
        scenes_folder=tmp_path / "scenes",
        classifier_folder=tmp_path / "model",
    )
    assert done.code == 1
    assert "nmf_frames: 5, expected at least as many as n_com" in done.err
    assert not list(tmp_path.iterdir())
