"""Fixtures: a finished tiny run, and the folder exported from it."""

import io
import json
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references

from lmac_sb.data.manifest import to_lines
from lmac_sb.inference.clip_folder import save_clip
from lmac_sb.inference.explanation import AudioExplanation
from lmac_sb.metrics.registry import evaluate
from lmac_sb.metrics.summary import summarize
from lmac_sb.models.classifier_folder import save_classifier
from lmac_sb.training.experiment import frontend
from lmac_sb.training.identity import EXPERIMENT, weights_identity
from lmac_sb.utils.io import write_json
from lmac_sb.utils.provenance import provenance

ROOT = Path(__file__).resolve().parents[2]
HPARAMS = ROOT / "recipes" / "ESC50" / "interpret" / "hparams"
CLASSES = ["cat", "dog", "Käfer"]


TINY = {
    "channels": [4, 4, 8, 8, 8, 8],
    "emb_dim": 8,
    "latent_channels": [8, 8, 8, 8, 8],
}


def write_run(folder, recipe="lmac.yaml", **more):
    """A run folder as `train_lmac.py` leaves it, with random weights."""
    torch.manual_seed(1)
    base = folder.parent
    overrides = {
        "output_folder": str(folder),
        "classifier_folder": str(base / "model"),
        "n_classes": len(CLASSES),
        "decoder_width": 4,
        **(more or TINY),
    }
    folder.mkdir()
    (file,) = HPARAMS.rglob(recipe)
    text = resolve_references(
        file.read_text(encoding="utf-8"), overrides
    ).read()
    (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
    hparams = load_hyperpyyaml(io.StringIO(text))
    if recipe == "lmac.yaml":
        teach(hparams)
    encoder = hparams["label_encoder"]
    encoder.update_from_iterable(CLASSES)
    save_classifier(
        base / "model",
        {name: hparams[name] for name in ("embedding_model", "classifier")},
        encoder,
        {
            "frontend": frontend(hparams),
            "results": {"test": {"accuracy": 0.875}},
        },
    )
    hparams["checkpointer"].save_checkpoint({"loss": 1.0, "epoch": 2.0})
    write_json(
        folder / EXPERIMENT,
        {
            "classifier_folder": weights_identity(
                "", hparams["frozen_classifier"]
            )
        },
    )
    (folder / "manifests").mkdir()
    for split in ("train", "valid", "test"):
        path = folder / "manifests" / f"{split}.jsonl"
        path.write_text(to_lines({"a": {}, "b": {}}), encoding="utf-8")
    explainer = hparams["explainer"]
    wavs = torch.randn(2, 16000) / 4
    with torch.no_grad():
        explanation = explainer(wavs)
    rows = [
        {"id": str(i), "method": "lmac", **row}
        for i, row in enumerate(columns_to_rows(evaluate(explanation)))
    ]
    write_json(
        folder / "results.json",
        {
            "provenance": provenance(
                data_folder="/data/ESC-10", test_folds=[5], seed=1234, epoch=2.0
            ),
            "summary": summarize(rows),
        },
    )
    clip = AudioExplanation.of(
        explanation[0], wavs[:1], hparams["features"], CLASSES
    )
    save_clip(folder / "interpretations" / "test" / "clip", clip, "dog")
    return folder


def example_sounds():
    """One second of each class: a low tone, a high tone and noise."""
    time = torch.arange(16000) / 16000
    return torch.stack(
        [
            torch.sin(2 * torch.pi * 300 * time),
            torch.sin(2 * torch.pi * 4000 * time),
            torch.rand(16000) * 2 - 1,
        ]
    )


def teach(hparams):
    """Train the classifier to distinguish the three example sounds."""
    features, head = hparams["features"], hparams["classifier"]
    mel = features.mel(features.magnitude(features.stft(example_sounds())))
    with torch.no_grad():
        embeddings = hparams["frozen_classifier"].embedding_model(mel)
        mean = embeddings.mean(0)
        weight = 9 * torch.linalg.pinv(embeddings - mean).T
        head.weight.copy_(weight)
        head.bias.copy_(-weight @ mean)


def columns_to_rows(columns):
    """Dict of tensors [batch] as a list of dicts of numbers."""
    lists = {name: values.tolist() for name, values in columns.items()}
    return [dict(zip(lists, values)) for values in zip(*lists.values())]


@pytest.fixture(scope="session")
def make_run():
    """`write_run`, for other recipes and sizes."""
    return write_run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A finished run, which tests must not change."""
    torch.set_num_threads(1)
    return write_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="session")
def bundle(run_folder):
    """The exported folder, which tests must not change."""
    from lmac_sb.inference.export import export_run

    return export_run(run_folder, run_folder.parent / "bundle")


@pytest.fixture(scope="session")
def interpreter(bundle):
    """The loaded model."""
    from lmac_sb import LMACInterpreter

    return LMACInterpreter.from_hparams(bundle)


@pytest.fixture(scope="session")
def sounds():
    """One second of each class at 16 kHz, [3, samples]."""
    torch.manual_seed(2)
    return example_sounds()


@pytest.fixture
def results(run_folder):
    """The run's results.json."""
    return json.loads((run_folder / "results.json").read_text("utf-8"))
