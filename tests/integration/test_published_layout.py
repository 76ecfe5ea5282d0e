"""Files of SpeechBrain's former recipe give the same mask here."""

import gc
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.lobes.models.Cnn14 import Cnn14, CNN14PSI_stft
from speechbrain.processing.features import (
    STFT,
    Filterbank,
    spectral_magnitude,
)

import lmac_sb
from lmac_sb.inference.interpreter import LMACInterpreter
from lmac_sb.utils.checksums import SUMS, write_sums
from lmac_sb.utils.yaml_safety import safe_yaml

TEMPLATE = Path(lmac_sb.__file__).parent / "inference" / "published.yaml"
CLASSES = [f"class {i}" for i in range(50)]
RATE = 16000


def randomize(module):
    """Every weight and statistic differs from what a new model has."""
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif value.is_floating_point() and value.dim() == 1:
            value.add_(0.1 * torch.randn_like(value))


def public_mask(wavs, embedding_model, classifier, psi):
    """Mask and decision as the public recipe computes them, step by step."""
    analysis = {"sample_rate": RATE, "hop_length": 11.6099}
    spectra = STFT(n_fft=1024, win_length=23.2199, **analysis)(wavs)
    magnitude = spectral_magnitude(spectra, power=0.5)
    bank = Filterbank(n_mels=80, n_fft=1024, sample_rate=RATE, log_mel=False)
    mel = torch.log1p(bank(magnitude))
    embeddings, latents = embedding_model(mel)
    decision = classifier(embeddings).squeeze(1).argmax(1)
    return torch.sigmoid(psi(latents).squeeze(1)), decision


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A published folder with random weights; sounds, mask and decision."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("published")
    wavs = torch.randn(1, 5 * RATE)
    # The old recipe divides by the largest sample, this one by the peak.
    wavs = (wavs * torch.linspace(0, 1, 5 * RATE) / 8).clamp(-1, 1)
    wavs[:, 12345] = 1
    parts = {
        "embedding_model": Cnn14(mel_bins=80, emb_dim=2048, return_reps=True),
        "classifier": torch.nn.Linear(2048, len(CLASSES)),
        "psi_model": CNN14PSI_stft(dim=2048),
    }
    for module in parts.values():
        randomize(module.eval())
    with torch.no_grad():
        logits = public_mask(wavs, *parts.values())[0].logit()
        # A new decoder gives 0.5 everywhere, which would hide mistakes.
        last = parts["psi_model"].convt9
        last.weight.mul_(2 / logits.std())
        last.bias.sub_(logits.mean()).mul_(2 / logits.std())
        mask, decision = public_mask(wavs, *parts.values())
    for name, module in parts.items():
        torch.save(module.state_dict(), folder / f"{name}.ckpt")
    parts.clear()
    del last, module
    gc.collect()
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(CLASSES)
    encoder.save(folder / "label_encoder.txt")
    shutil.copy(TEMPLATE, folder / "hyperparams.yaml")
    write_sums(folder)
    yield folder, wavs, mask, decision
    shutil.rmtree(folder)


def test_the_template_makes_known_classes_only():
    assert safe_yaml(TEMPLATE.read_text(encoding="utf-8"), TEMPLATE)


@pytest.mark.slow
def test_same_mask_on_the_frames_of_the_old_recipe(published):
    folder, wavs, expected, decision = published
    explanation = LMACInterpreter.from_hparams(folder).explain_batch(wavs)
    covered = expected.shape[1]
    assert 400 < covered < explanation.mask.shape[1]
    assert expected.std() > 0.1
    found = explanation.mask[:, :covered]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert explanation.labels == [CLASSES[int(decision)]]
    assert explanation.waveform.shape == wavs.shape


def test_checksums_by_the_usual_command(tmp_path):
    """The command in the template writes the same as `write_sums`."""
    sha256sum = shutil.which("sha256sum")
    if not sha256sum:
        pytest.skip("no sha256sum on this machine")
    names = ["hyperparams.yaml", "psi_model.ckpt"]
    for name in names:
        (tmp_path / name).write_text(name)
    done = subprocess.run(
        [sha256sum, *names], cwd=tmp_path, capture_output=True, text=True
    )
    sums = write_sums(tmp_path)
    assert done.stdout == sums.read_text(encoding="utf-8")
    assert f"sha256sum * > {SUMS}\n" in TEMPLATE.read_text(encoding="utf-8")
