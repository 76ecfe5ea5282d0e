"""Tests of the recipe: its noise, where fine-tuning starts, old weights.

Authors
 * The lmac-sb authors 2026
"""

import sys
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.lobes.models.Cnn14 import CNN14PSI_stft
from speechbrain.utils.checkpoints import Checkpointer

ROOT = Path(__file__).resolve().parents[3]
RECIPE = ROOT / "recipes" / "ESC50" / "interpret"


@pytest.fixture(scope="module")
def script():
    """The training script as a module."""
    sys.path.insert(0, str(RECIPE))
    try:
        import train_lmac
    finally:
        sys.path.remove(str(RECIPE))
    return train_lmac


def load(name, folder, **overrides):
    """Hyperparameters of the recipe."""
    text = (RECIPE / "hparams" / f"{name}.yaml").read_text(encoding="utf-8")
    folders = {"data_folder": str(folder), "output_folder": str(folder)}
    return load_hyperpyyaml(text, {**folders, **overrides})


def test_noise(script):
    """Clip and noise have one energy, the mixture has a peak of 1."""
    clips = torch.randn(3, 1000) * torch.tensor([[1.0], [0.01], [0.0]])
    noise = iter(torch.randn(9, 1, 1000))
    mixture, clean = script.add_noise(clips, noise)
    assert mixture.isfinite().all()
    torch.testing.assert_close(mixture.abs().amax(1), torch.ones(3))
    rest = (mixture - clean).norm(dim=1)
    torch.testing.assert_close(clean.norm(dim=1)[:2], rest[:2])
    # The clips are only scaled, and silence stays silent.
    likeness = torch.cosine_similarity(clean, clips)
    torch.testing.assert_close(likeness, torch.tensor([1.0, 1.0, 0.0]))


def test_where_fine_tuning_starts(script, tmp_path):
    """From a file of weights, or the best checkpoint of a run."""
    run, decoder = tmp_path / "run", torch.nn.Linear(1, 1)
    checkpointer = Checkpointer(run / "save", {"psi_model": decoder})
    best, _ = (
        checkpointer.save_checkpoint({"loss": loss}) for loss in (1.0, 2.0)
    )
    hparams = {"output_folder": str(tmp_path / "ft")}
    for source in (run, best.paramfiles["psi_model"]):
        hparams["pretrained_interpreter"] = str(source)
        assert script.find_decoder(hparams) == best.paramfiles["psi_model"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "fine-tuning needs the decoder's weights"),
        ("nowhere", "is no file of weights"),
        ("run", "fine-tuning needs a folder of its own"),
        ("run/save/psi_model.ckpt", "fine-tuning needs a folder of its own"),
    ],
)
def test_where_it_cannot_start(script, source, message, tmp_path):
    """Without weights, or from the folder that it would write to."""
    hparams = {
        "output_folder": str(tmp_path / "run"),
        "pretrained_interpreter": source and str(tmp_path / source),
    }
    with pytest.raises(ValueError, match=message):
        script.find_decoder(hparams)


def test_published_weights(script, tmp_path):
    """A checkpoint of the former recipe loads, and gives the former mask."""
    torch.manual_seed(0)
    psi = CNN14PSI_stft(dim=2048)
    former = Checkpointer(tmp_path / "save", {"psi_model": psi})
    former.save_checkpoint({"loss": 1.0})
    hparams = load("lmac_cnn14", tmp_path)
    hparams["psi_model"].train()
    assert set(hparams["checkpointer"].recoverables) == {"psi_model", "counter"}
    # The optimiser's state of a former run fits as well.
    brain = script.LMAC(hparams["modules"], hparams["opt_class"], hparams)
    brain.init_optimizers()
    groups = brain.optimizer.param_groups
    trained = [id(p) for group in groups for p in group["params"]]
    assert trained == [id(p) for p in hparams["psi_model"].parameters()]
    del hparams["checkpointer"].recoverables["counter"]
    assert hparams["checkpointer"].recover_if_possible(min_key="loss")

    explainer, wavs = hparams["explainer"], torch.randn(1, 5 * 16000) / 8
    with torch.no_grad():
        analysis = explainer.analyze(wavs)
        expected = torch.sigmoid(psi(analysis.latents).squeeze(1))
        found = explainer.mask(analysis)
    covered = expected.shape[1]
    assert expected.std() > 0
    assert 400 < covered < found.shape[1]
    torch.testing.assert_close(found[:, :covered], expected)
    # The mask acts where it did: on the log magnitude.
    logarithm = torch.log1p(analysis.magnitude)
    inside = torch.log1p(explainer.let_through(analysis.magnitude, found))
    torch.testing.assert_close(inside, found * logarithm)
