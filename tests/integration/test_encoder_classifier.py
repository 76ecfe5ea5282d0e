"""L-MAC for an ordinary classifier folder of SpeechBrain."""

import json

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.inference.classifiers import EncoderClassifier

from lmac_sb import LMACInterpreter
from lmac_sb.data.audio import Preprocessor
from lmac_sb.data.scenes import CLASSES
from lmac_sb.inference.export import export_run

# What such a folder's hyperparams.yaml looks like, here with few channels.
HYPERPARAMS = """
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 80
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 80
    channels: [16, 16, 16, 16, 48]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 8
    lin_neurons: 24
    res2net_scale: 4
    se_channels: 8
classifier: !new:speechbrain.lobes.models.Xvector.Classifier
    input_shape: [null, null, 24]
    lin_neurons: 16
    out_neurons: 10
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
    paths:
        embedding_model: !ref <folder>/embedding_model.ckpt
        classifier: !ref <folder>/classifier.ckpt
        label_encoder: !ref <folder>/label_encoder.txt
"""

# The same, as a user gives it to lmac_encoder.yaml.
NARROW = {
    "n_classes": 10,
    "emb_dim": 24,
    "embedding_model": "{channels: [16, 16, 16, 16, 48], "
    "attention_channels: 8, res2net_scale: 4, se_channels: 8}",
    "classifier": "{lin_neurons: 16}",
    "latent_channels": "[48, 48, 16, 16, 16]",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that `EncoderClassifier` loads; its weights are random."""
    folder = tmp_path_factory.mktemp("encoder")
    text = f"folder: {folder}\n{HYPERPARAMS}"
    torch.manual_seed(0)
    modules = load_hyperpyyaml(text)["modules"]
    for name in ("embedding_model", "classifier"):
        torch.save(modules[name].state_dict(), folder / f"{name}.ckpt")
    labels = CategoricalEncoder()
    labels.update_from_iterable(CLASSES)
    labels.save(folder / "label_encoder.txt")
    (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(folder, recipe, scenes, tmp_path_factory):
    """A finished run on this folder."""
    out = tmp_path_factory.mktemp("run") / "lmac"
    done = recipe.main(
        "train_lmac",
        "lmac_encoder.yaml",
        data_folder=scenes,
        classifier_folder=folder,
        output_folder=out,
        number_of_epochs=1,
        batch_size=8,
        save_clips=1,
        **NARROW,
    )
    assert done.code == 0, done.err
    return out


def test_the_decision_is_the_classifiers_own(folder, run, scenes, helpers):
    """The decisions equal those of EncoderClassifier."""
    theirs = EncoderClassifier.from_hparams(
        source=str(folder), savedir=str(folder / "cache")
    )
    theirs.hparams.label_encoder.expect_len(10)
    preprocess = Preprocessor(16000)
    rows = [r for r in helpers.read_rows(run) if r["method"] == "lmac"]
    assert len(rows) == 10
    for row in rows:
        wav, _ = preprocess(scenes / "audio" / f"{row['id']}.wav")
        label = theirs.classify_batch(wav[None])[3]
        assert label == [row["decision"]]


def test_it_is_explained(run):
    """The run writes the files of every run."""
    (clip,) = (run / "interpretations" / "test").iterdir()
    assert (clip / "interpretation.wav").is_file()
    assert (run / "results.json").is_file()


def test_it_is_exported_and_explains(run, scenes, tmp_path):
    """The exported folder explains a file."""
    export_run(run, tmp_path / "model")
    model = LMACInterpreter.from_hparams(tmp_path / "model")
    (clip,) = (run / "interpretations" / "test").iterdir()
    facts = json.loads((clip / "explanation.json").read_text("utf-8"))
    wav, label, rate = model.interpret_file(
        scenes / "audio" / f"{facts['id']}.wav"
    )
    assert (wav.shape, rate) == ((1, 16000), 16000)
    assert label == facts["decision"]
