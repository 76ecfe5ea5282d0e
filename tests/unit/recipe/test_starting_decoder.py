"""Tests of the trained decoder that a training starts from."""

from pathlib import Path

import pytest
import torch

from lmac_sb.training.hparams import load_hparams
from lmac_sb.utils.errors import LMACError

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "ESC50" / "interpret"
HPARAMS = RECIPE / "hparams"


@pytest.fixture
def begin(recipe, tmp_path, monkeypatch):
    """Begin a training, and stop before anything is written."""
    script = recipe.script("train_lmac")
    monkeypatch.chdir(tmp_path)

    def run(**options):
        """Settings of a training, with what was loaded."""
        argv = [str(HPARAMS / "lmac.yaml")]
        argv += [f"--{key}={value}" for key, value in options.items()]
        seen = []

        def load(*args):
            """The same settings as the script has."""
            seen.append(load_hparams(argv))
            return seen[0]

        def stop(*args):
            """Where the folder would be claimed."""
            raise LMACError("stop")

        monkeypatch.setattr(script, "load_hparams", load)
        monkeypatch.setattr(script, "open_run", stop)
        with pytest.raises(LMACError) as error:
            script.main.__wrapped__([])
        return seen[0], str(error.value)

    return run


@pytest.mark.parametrize("finetuning", [False, True])
def test_training_starts_from_it(begin, tmp_path, finetuning):
    """Whether or not the training is guided, as the key says."""
    hparams, _ = begin()
    state = {k: v + 1 for k, v in hparams["decoder"].state_dict().items()}
    torch.save(state, tmp_path / "decoder.ckpt")
    hparams, said = begin(
        finetuning=finetuning, pretrained_interpreter=tmp_path / "decoder.ckpt"
    )
    assert said == "stop"
    for name, value in hparams["decoder"].state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize("finetuning", [False, True])
def test_there_is_none(begin, tmp_path, finetuning):
    """The message names the key and the folder."""
    folder = tmp_path / "nowhere"
    _, said = begin(finetuning=finetuning, pretrained_interpreter=folder)
    assert said.startswith(f"pretrained_interpreter: {folder} does not exist")


def test_decoder_of_another_kind(begin, tmp_path):
    """The message names the key, the file and the kind."""
    path = tmp_path / "decoder.ckpt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    _, said = begin(pretrained_interpreter=path)
    assert said.startswith(f"pretrained_interpreter: {path}: holds no ")
    assert "the same kind and size as here (MaskDecoder)" in said
