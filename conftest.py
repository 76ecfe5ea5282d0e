"""Names that the examples in docstrings may use: a tiny model and sounds.

`explainer` and `wavs` [2, 16000] for the method; `model` (an exported folder),
`interpreter` and `path` (a sound file of one second) for code that reads
files. The weights are random. Each is made when an example first uses it.
"""

import pytest

# A link: the scripts have no examples, and import each other from there.
collect_ignore = ["lmac_sb/recipe"]

YAML = """\
preprocess: !new:lmac_sb.data.audio.Preprocessor
    sample_rate: 16000
features: !new:lmac_sb.models.features.SpectralFeatures
    n_mels: 40
embedding_model: !new:lmac_sb.models.encoders.ConvEmbedding
    n_mels: 40
    channels: [4, 8, 16]
classifier: !new:torch.nn.Linear [16, 3]
frozen_classifier: !new:lmac_sb.models.frozen.FrozenClassifier
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
    latent_layers: [blocks.2, blocks.1]
    min_frames: 4
decoder: !new:lmac_sb.models.decoder.MaskDecoder
    latent_channels: [16, 16, 8]
    n_mels: 40
    width: 8
refiner: !new:lmac_sb.lmac.refine.Refiner
    loss: !new:lmac_sb.lmac.losses.LMACLoss
        l_in_w: 12
        l_out_w: 8
        reg_w_l1: 4
explainer: !new:lmac_sb.lmac.explainer.Explainer
    features: !ref <features>
    classifier: !ref <frozen_classifier>
    decoder: !ref <decoder>
    mask_domain: linear
    refiner: !ref <refiner>
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


def _write_model(folder):
    """Write an exported folder with random weights."""
    import safetensors.torch
    import torch
    from hyperpyyaml import load_hyperpyyaml

    from lmac_sb.utils.checksums import write_sums

    torch.manual_seed(0)
    hparams = load_hyperpyyaml(YAML)
    for name in ("embedding_model", "classifier", "decoder"):
        safetensors.torch.save_file(
            hparams[name].state_dict(), folder / f"{name}.safetensors"
        )
    hparams["label_encoder"].update_from_iterable(["cat", "cow", "dog"])
    hparams["label_encoder"].save(folder / "label_encoder.txt")
    (folder / "hyperparams.yaml").write_text(YAML, encoding="utf-8")
    write_sums(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Folder of a tiny model in the format of `lmac export`."""
    return _write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def interpreter(model):
    """The tiny model, loaded."""
    from lmac_sb import LMACInterpreter

    return LMACInterpreter.from_hparams(model)


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    """A sound file of one second."""
    import soundfile as sf
    import torch

    path = tmp_path_factory.mktemp("sounds") / "dog.wav"
    generator = torch.Generator().manual_seed(0)
    wav = torch.randn(16000, generator=generator) / 8
    sf.write(path, wav.numpy(), 16000)
    return path


@pytest.fixture(scope="session")
def wavs():
    """Two sounds of one second, [2, 16000]."""
    import torch

    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 16000, generator=generator) / 8


# Names in examples, and the fixtures that provide them.
NAMES = {
    "explainer": lambda get: get("interpreter").explainer,
    **{
        name: lambda get, name=name: get(name)
        for name in ("interpreter", "model", "path", "wavs")
    },
}


@pytest.fixture(autouse=True)
def names_of_examples(request, doctest_namespace):
    """Give each example the names that occur in it."""
    if not isinstance(request.node, pytest.DoctestItem):
        return
    text = "\n".join(e.source for e in request.node.dtest.examples)
    for name, make in NAMES.items():
        if name in text:
            doctest_namespace[name] = make(request.getfixturevalue)
