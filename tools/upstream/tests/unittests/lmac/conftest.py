"""A folder with a small model, its interface, and sounds.

Authors
 * The lmac-sb authors 2026
"""

import pytest
import safetensors.torch
import torch
from hyperpyyaml import load_hyperpyyaml

CLASSES = ["cat", "dog", "Käfer"]
WEIGHTS = ["embedding_model", "classifier", "decoder"]
YAML = """\
# A small model with random weights, but for a classifier that tells the
# sounds of these tests apart.

preprocess: !new:speechbrain.lobes.lmac.audio.Preprocessor
    sample_rate: 16000
    signal_length_s: null

features: !new:speechbrain.lobes.lmac.features.SpectralFeatures
    sample_rate: 16000
    n_fft: 1024
    win_length: 23.2199
    hop_length: 11.6099
    n_mels: 80

embedding_model: !new:speechbrain.lobes.lmac.encoders.ConvEmbedding
    n_mels: 80
    channels: [4, 4, 8, 8, 8, 8]

classifier: !new:torch.nn.Linear
    in_features: 8
    out_features: 3

frozen_classifier: !new:speechbrain.lobes.lmac.frozen.FrozenClassifier
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
    latent_layers: [blocks.5, blocks.4, blocks.3, blocks.2]
    min_frames: 32
    evidence: True

decoder: !new:speechbrain.lobes.lmac.decoder.MaskDecoder
    latent_channels: [8, 8, 8, 8, 8]
    n_mels: 80
    n_fft: 1024
    sample_rate: 16000
    width: 4

lmac_loss: !new:speechbrain.lobes.lmac.losses.LMACLoss
    l_in_w: 12
    l_out_w: 8
    l_out_type: probability
    reg_w_l1: 4

refiner: !new:speechbrain.lobes.lmac.refine.Refiner
    loss: !ref <lmac_loss>

explainer: !new:speechbrain.lobes.lmac.explainer.Explainer
    features: !ref <features>
    classifier: !ref <frozen_classifier>
    decoder: !ref <decoder>
    mask_domain: linear
    refiner: !ref <refiner>
    refine_steps: 0

label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder

modules:
    explainer: !ref <explainer>

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        label_encoder: !ref <label_encoder>
        embedding_model: !ref <embedding_model>
        classifier: !ref <classifier>
        decoder: !ref <decoder>
"""


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


@torch.no_grad()
def teach(hparams):
    """Make the classifier tell the three example sounds apart."""
    features, head = hparams["features"], hparams["classifier"]
    mel = features.mel(features.magnitude(features.stft(example_sounds())))
    embeddings = hparams["frozen_classifier"].embedding_model(mel)
    mean = embeddings.mean(0)
    weight = 9 * torch.linalg.pinv(embeddings - mean).T
    head.weight.copy_(weight)
    head.bias.copy_(-weight @ mean)


@pytest.fixture(autouse=True)
def seed():
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """The folder; only read it."""
    # Contributions before the interface have these tests without it.
    from speechbrain.lobes.lmac.checksums import write_sums

    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    folder.mkdir()
    torch.manual_seed(1)
    hparams = load_hyperpyyaml(YAML)
    teach(hparams)
    for name in WEIGHTS:
        state = hparams[name].state_dict()
        safetensors.torch.save_file(state, folder / f"{name}.safetensors")
    hparams["label_encoder"].update_from_iterable(CLASSES)
    hparams["label_encoder"].save(folder / "label_encoder.txt")
    (folder / "hyperparams.yaml").write_text(YAML, encoding="utf-8")
    write_sums(folder)
    return folder


@pytest.fixture(scope="session")
def interpreter(bundle):
    """The loaded model."""
    from speechbrain.inference.interpretability import LMACInterpreter

    return LMACInterpreter.from_hparams(bundle)


@pytest.fixture(scope="session")
def sounds():
    """One second of each class at 16 kHz, [3, samples]."""
    torch.manual_seed(2)
    return example_sounds()
