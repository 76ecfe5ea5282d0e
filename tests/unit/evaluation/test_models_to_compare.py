"""Tests of what evaluations load."""

import pytest

from lmac_sb.evaluation.models import sources_of
from lmac_sb.utils.errors import LMACError


def test_the_name_of_the_first_model_is_taken():
    """Another `lmac` would replace what --interpreter names."""
    with pytest.raises(LMACError, match=r"interpreters: 'lmac' .* \(runs/a\)"):
        sources_of("runs/a", {"lmac": "runs/b"})


@pytest.mark.parametrize(
    "script, yaml",
    [
        ("eval", "eval.yaml"),
        ("sanity", "sanity.yaml"),
        ("make_listening_test", "listening.yaml"),
    ],
)
def test_scripts_refuse_it(recipe, tmp_path, script, yaml):
    """Before a model is read."""
    done = recipe.main(
        script,
        yaml,
        interpreter=tmp_path / "nowhere",
        interpreters="{lmac: x}",
        output_folder=tmp_path / "run",
    )
    assert done.code == 1
    assert "interpreters: 'lmac' is the name" in done.err
    assert not (tmp_path / "run").exists()
