"""Folders that SpeechBrain loads, and what is said of others."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from encoder_yaml import ENDING as BARE_ENDING
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.inference.classifiers import AudioClassifier, EncoderClassifier
from speechbrain.nnet.pooling import StatisticsPooling
from speechbrain.processing.features import InputNormalization

from lmac_sb.adapters.speechbrain_folder import Normalized, load_speechbrain
from lmac_sb.utils.errors import LMACError

NAMES = ["zebra", "ant", "cow: a b", "dog", "eel"]

# Written as the published folders are: a hub id and joined paths, activations
# by name, options that are none of ours.
ENDING = f"""\
{BARE_ENDING}    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
        classifier: !ref <pretrained_path>/classifier.ckpt
        label_encoder: !ref <pretrained_path>/label_encoder.txt
"""
SENTENCE = """\
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
"""
ECAPA = f"""\
pretrained_path: speechbrain/some-ecapa
n_mels: 20
out_n_neurons: 5
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>
{SENTENCE}
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [16, 16, 16, 16, 48]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 8
    res2net_scale: 4
    se_channels: 8
    lin_neurons: 12
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 12
    out_neurons: !ref <out_n_neurons>
{ENDING}"""
XVECTOR = """\
pretrained_path: speechbrain/some-xvector
sample_rate: 8000
compute_features: !new:speechbrain.lobes.features.MFCC
    sample_rate: !ref <sample_rate>
    deltas: True
    context: False
audio_normalizer: !new:speechbrain.dataio.preprocess.AudioNormalizer
    sample_rate: !ref <sample_rate>
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
embedding_model: !new:speechbrain.lobes.models.Xvector.Xvector
    in_channels: 60
    activation: !name:torch.nn.LeakyReLU
    tdnn_channels: [16, 16, 16, 16, 24]
    lin_neurons: 12
classifier: !new:speechbrain.lobes.models.Xvector.Classifier
    input_shape: [null, null, 12]
    activation: !name:torch.nn.LeakyReLU
    lin_blocks: 1
    lin_neurons: 8
    out_neurons: 5
softmax: !new:speechbrain.nnet.activations.Softmax
    apply_log: True
""" + ENDING.replace(
    "    loadables:\n",
    "    loadables:\n        mean_var_norm: !ref <mean_var_norm>\n",
).replace(
    "    paths:\n",
    "    paths:\n"
    "        mean_var_norm: !ref <pretrained_path>/normalizer.ckpt\n",
)
RESNET = f"""\
pretrained_path: speechbrain/some-resnet
compute_features: !new:speechbrain.lobes.features.Fbank {{n_mels: 16}}
{SENTENCE}
embedding_model: !new:speechbrain.lobes.models.ResNet.ResNet
    input_size: 16
    channels: [4, 4, 8, 8]
    block_sizes: [1, 1, 1, 1]
    lin_neurons: 12
classifier: !new:speechbrain.lobes.models.ResNet.Classifier
    input_size: 12
    out_neurons: 5
{ENDING}"""
CONV = """\
pretrained_path: speechbrain/some-conv
sample_rate: 16000
spec_mag_power: 0.5
use_melspectra: True
compute_stft: !new:speechbrain.processing.features.STFT
    n_fft: 1024
    hop_length: 11.6099
    win_length: 23.2199
    sample_rate: !ref <sample_rate>
compute_fbank: !new:speechbrain.processing.features.Filterbank
    n_mels: 80
    n_fft: 1024
    sample_rate: !ref <sample_rate>
    log_mel: False
embedding_model: !new:speechbrain.lobes.models.PIQ.Conv2dEncoder_v2
    dim: 8
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 8
    out_neurons: 5
    lin_blocks: 1
    lin_neurons: 6
""" + ENDING.replace("compute_features", "compute_stft").replace(
    "mean_var_norm", "compute_fbank"
)
CNN14 = CONV.replace(
    "PIQ.Conv2dEncoder_v2\n    dim: 8",
    "Cnn14.Cnn14\n    mel_bins: 80\n    emb_dim: 8",
).replace("log_mel: False", "log_mel: True")
TEXTS = {
    "ecapa": ECAPA,
    "xvector": XVECTOR,
    "resnet": RESNET,
    "conv": CONV,
    "cnn14": CNN14,
}


def write(folder, text, names=NAMES, seed=0):
    """Write a folder with random weights, and statistics that do something."""
    torch.manual_seed(seed)
    folder.mkdir(exist_ok=True)
    hparams = load_hyperpyyaml(text)
    for name, item in hparams["pretrainer"].loadables.items():
        path = (
            folder
            / str(hparams["pretrainer"].paths.get(name, name)).split("/")[-1]
        )
        if isinstance(item, torch.nn.Module):
            randomize(item)
        if isinstance(item, InputNormalization):
            item(torch.randn(4, 50, 60) * torch.linspace(1, 9, 60) - 20)
            item._save(path)
        elif isinstance(item, CategoricalEncoder):
            item.update_from_iterable(names)
            item.save(path)
        else:
            torch.save(item.state_dict(), path)
    (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
    return folder


def randomize(module):
    """Every weight and statistic differs from what a new model has."""
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif value.is_floating_point() and value.dim() == 1:
            value.add_(0.1 * torch.randn_like(value))


def theirs(folder, interface=EncoderClassifier, savedir=None):
    """The folder as SpeechBrain loads it, from this machine alone."""
    found = interface.from_hparams(
        source=str(folder),
        savedir=savedir and str(savedir),
        overrides={"pretrained_path": str(folder)},
    )
    found.hparams.label_encoder.ignore_len()
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders that tests must not change, made when first asked for."""
    base = tmp_path_factory.mktemp("folders")

    def get(name):
        folder = base / name
        return folder if folder.is_dir() else write(folder, TEXTS[name])

    return get


@pytest.fixture
def copied(folders, tmp_path):
    """The folder of an ECAPA-TDNN, to be changed."""
    return shutil.copytree(folders("ecapa"), tmp_path / "model")


@pytest.fixture(scope="module")
def wavs():
    """Three sounds, of which one is half silent."""
    generator = torch.Generator().manual_seed(3)
    wavs = torch.randn(3, 16000, generator=generator) / 8
    wavs[1, 8000:] = 0
    return wavs * torch.linspace(0.1, 1, 16000)


def change(folder, *pairs):
    """Replace parts of the yaml."""
    path = folder / "hyperparams.yaml"
    text = path.read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return folder


# ----------------------------------------------------------- the same numbers


@pytest.mark.parametrize("name", ["ecapa", "resnet", "conv", "cnn14"])
def test_logits_are_speechbrains_own(name, folders, wavs):
    """So are the labels, and the decisions."""
    listener = load_speechbrain(folders(name))
    is_audio = name in ("conv", "cnn14")
    interface = theirs(
        folders(name), AudioClassifier if is_audio else EncoderClassifier
    )
    expected, _, _, labels = interface.classify_batch(wavs)
    found = listener(wavs)
    assert found.shape == (3, 5)
    assert found.std() > 1e-3
    expected = expected.reshape(found.shape)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    decided = [listener.labels[i] for i in found.argmax(1)]
    assert decided == [label for x in labels for label in as_list(x)]
    assert listener.labels == NAMES
    assert listener.sample_rate == 16000
    # Clips alone give the same: nothing depends on the batch.
    torch.testing.assert_close(listener(wavs[1:2]), found[1:2])


def as_list(value):
    """A list of it, if it is none."""
    return value if isinstance(value, list) else [value]


def test_xvectors_with_global_statistics(folders, wavs, monkeypatch):
    """The noise of the pooling is at its middle, and the rest is equal."""
    listener = load_speechbrain(folders("xvector"))
    interface = theirs(folders("xvector"))
    assert listener.sample_rate == 8000
    statistics = listener.front_end[1].normalizer
    assert statistics.glob_mean.mean() < -10
    noisy = torch.stack([interface.classify_batch(wavs)[0] for _ in range(20)])
    found = listener(wavs)
    assert torch.equal(found, listener(wavs))
    assert (noisy - found).abs().max() <= 3 * (
        noisy - noisy.mean(0)
    ).abs().max()
    monkeypatch.setattr(
        StatisticsPooling,
        "_get_gauss_noise",
        lambda self, shape, device: torch.full(shape, 5e-5),
    )
    expected = interface.classify_batch(wavs)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(3))


def test_statistics_are_not_updated(folders, wavs):
    """Not in training mode either, where SpeechBrain updates them."""
    listener = load_speechbrain(folders("xvector"))
    before = listener.front_end[1].normalizer.glob_mean.clone()
    found = listener(wavs)
    listener.front_end.train()
    assert not listener.front_end[1].training
    listener(wavs)
    assert torch.equal(listener.front_end[1].normalizer.glob_mean, before)
    torch.testing.assert_close(listener(wavs), found)


def test_statistics_move_with_the_listener(folders, wavs):
    listener = load_speechbrain(folders("xvector")).double()
    assert listener.front_end[1].normalizer.glob_std.dtype == torch.float64


def test_embeddings_are_speechbrains_own(folders, wavs):
    """With or without the files of the classifier and its names."""
    listener = load_speechbrain(folders("ecapa"), output="embedding")
    expected = theirs(folders("ecapa")).encode_batch(wavs)[:, 0]
    torch.testing.assert_close(listener(wavs), expected, rtol=0, atol=1e-5)
    assert listener.labels != NAMES


def test_an_embedding_needs_nothing_else(copied, wavs):
    (copied / "classifier.ckpt").unlink()
    (copied / "label_encoder.txt").unlink()
    found = load_speechbrain(copied, output="embedding")(wavs)
    assert found.shape == (3, 12)
    with pytest.raises(LMACError, match="no file 'classifier.ckpt"):
        load_speechbrain(copied)


def test_a_voice_is_compared_through_the_gradient(folders, wavs):
    """The cosine to a reference has a finite gradient in each sample."""
    for name in ("ecapa", "xvector", "conv", "resnet"):
        listener = load_speechbrain(folders(name), output="embedding")
        assert not any(x.requires_grad for x in listener.parameters())
        sound = wavs.clone().requires_grad_()
        reference = listener(wavs.flip(0))
        score = torch.cosine_similarity(listener(sound), reference).sum()
        (gradient,) = torch.autograd.grad(score, sound)
        assert gradient.isfinite().all()
        assert gradient[0].abs().sum() > 0


def test_the_front_end_is_features_and_normaliser(folders, wavs):
    """As the fast path looks for it."""
    listener = load_speechbrain(folders("ecapa"))
    features, normalized = listener.front_end
    assert type(features).__name__ == "Fbank"
    assert isinstance(normalized, Normalized)
    expected = normalized.normalizer(features(wavs), torch.ones(3))
    assert torch.equal(listener.front_end(wavs), expected)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_model_of_ours(model, trusted):
    """What explains is no classifier that is to be explained."""
    with pytest.raises(LMACError, match="has a decoder already, expected a cl"):
        load_speechbrain(model, trusted=trusted)


def test_an_interface_that_speechbrain_loaded(folders, wavs):
    """It stays as it is, and its listener is that of the folder."""
    interface = theirs(folders("ecapa"))
    listener = load_speechbrain(interface)
    expected = load_speechbrain(folders("ecapa"))
    assert torch.equal(listener(wavs), expected(wavs))
    assert listener.labels == NAMES
    assert listener.model.embedding_model is not interface.mods.embedding_model


# ------------------------------------------------------------- forms of folders


def test_a_savedir_of_speechbrain(folders, tmp_path, wavs):
    """It holds links, and the names under an ending of weights."""
    theirs(folders("ecapa"), savedir=tmp_path / "saved")
    assert (tmp_path / "saved" / "label_encoder.ckpt").is_symlink()
    found = load_speechbrain(tmp_path / "saved")
    assert torch.equal(found(wavs), load_speechbrain(folders("ecapa"))(wavs))


@pytest.mark.parametrize(
    "place", [".", "../x", "/content/best_model", "https://x.org/m", "me/a/b"]
)
def test_the_place_of_the_author_does_not_matter(place, copied, wavs):
    """Files lie beside the yaml, but nothing is followed upwards."""
    change(copied, ("speechbrain/some-ecapa", place))
    if ".." in place:
        with pytest.raises(LMACError, match="leads out of the folder"):
            load_speechbrain(copied)
    else:
        assert load_speechbrain(copied)(wavs).shape == (3, 5)


def test_files_in_a_folder_beside_the_yaml(copied, wavs):
    (copied / "sub").mkdir()
    shutil.move(copied / "classifier.ckpt", copied / "sub")
    change(
        copied,
        ("<pretrained_path>/classifier", "<pretrained_path>/sub/classifier"),
    )
    assert load_speechbrain(copied)(wavs).shape == (3, 5)


def test_without_paths(copied, wavs):
    """Files have the names of the loadables, as SpeechBrain expects."""
    text = (copied / "hyperparams.yaml").read_text("utf-8")
    (copied / "hyperparams.yaml").write_text(text.partition("    paths:")[0])
    assert load_speechbrain(copied).labels == NAMES


def test_a_yaml_of_another_name(copied, wavs):
    other = copied / "hparams_inference.yaml"
    (copied / "hyperparams.yaml").rename(other)
    assert load_speechbrain(other)(wavs).shape == (3, 5)
    with pytest.raises(LMACError, match="give one of hparams_inference.yaml"):
        load_speechbrain(copied)


@pytest.mark.parametrize(
    "names",
    [
        {"embedding_model": "encoder", "classifier": "output_mlp"},
        {"compute_features": "fb", "mean_var_norm": "stats"},
        {"embedding_model": "one", "classifier": "two"},
        {"embedding_model": "one"},
    ],
)
def test_other_names(names, copied, folders, wavs):
    """Told by names that others use, by class, or by what is left."""
    change(copied, *((f"{old}: ", f"{new}: ") for old, new in names.items()))
    change(copied, *((f"<{old}>", f"<{new}>") for old, new in names.items()))
    expected = load_speechbrain(folders("ecapa"))(wavs)
    assert torch.equal(load_speechbrain(copied)(wavs), expected)


def test_weights_of_both_in_one_file(copied, folders, wavs):
    """A ModuleList, as the recipes keep it."""
    parts = [
        torch.load(copied / f"{name}.ckpt")
        for name in ("embedding_model", "classifier")
    ]
    both = {f"{i}.{k}": v for i, x in enumerate(parts) for k, v in x.items()}
    torch.save(both, copied / "model.ckpt")
    text = (copied / "hyperparams.yaml").read_text("utf-8")
    text = text.partition("    loadables:")[0] + (
        "    loadables:\n"
        "        model: !ref <model>\n"
        "        label_encoder: !ref <label_encoder>\n"
        "model: !new:torch.nn.ModuleList\n"
        "    - [!ref <embedding_model>, !ref <classifier>]\n"
    )
    (copied / "hyperparams.yaml").write_text(text)
    expected = load_speechbrain(folders("ecapa"))(wavs)
    assert torch.equal(load_speechbrain(copied)(wavs), expected)


def test_from_a_hub(folders, monkeypatch, tmp_path, wavs):
    import huggingface_hub

    asked = []

    def download(repository, local_dir=None):
        asked.append((repository, local_dir))
        if repository == "me/gone":
            raise OSError("504\nno answer")
        return str(folders("ecapa"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_speechbrain("me/ecapa")(wavs).shape == (3, 5)
    load_speechbrain("me/ecapa", savedir=tmp_path)
    assert asked == [
        ("me/ecapa", None),
        ("me/ecapa", str(tmp_path / "me--ecapa")),
    ]
    with pytest.raises(LMACError, match="me/gone: not a local folder.*504 no"):
        load_speechbrain("me/gone")


# --------------------------------------------------------------------- errors


def test_no_such_folder(tmp_path):
    with pytest.raises(LMACError, match="nowhere: no such folder"):
        load_speechbrain(tmp_path / "nowhere")
    with pytest.raises(LMACError, match="hyperparams.yaml: no such file"):
        load_speechbrain(tmp_path)
    with pytest.raises(LMACError, match="output: found 'x', expected 'logits'"):
        load_speechbrain(tmp_path, output="x")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n_mels: 20", "n_mels: !apply:os.getpid []", "'!apply:os.getpid'"),
        (
            "!new:speechbrain.lobes.features.Fbank",
            "!new:mine.Fbank",
            "'!new:mine.Fbank' is not allowed.*trusted=True",
        ),
        ("n_mels: 20", "n_mels: !ref <pretrained_path.count>", "reference"),
        (
            "<pretrained_path>/classifier.ckpt",
            "../../classifier.ckpt",
            "leads out of the folder",
        ),
        (
            "!ref <pretrained_path>/classifier.ckpt",
            "[classifier.ckpt]",
            "found .* as its path",
        ),
        (
            "!ref <pretrained_path>/classifier.ckpt",
            "'C:\\\\x\\\\classifier.ckpt'",
            "leads out of the folder",
        ),
        (
            "    paths:",
            "    custom_hooks: {classifier: !name:torch.nn.ReLU}\n    paths:",
            "custom_hooks",
        ),
        ("out_n_neurons: 5", "out_n_neurons: 6", r"shape \[5, 12\], expected"),
        (
            "lin_neurons: 12",
            "lin_neurons: 13",
            "embedding_model.ckpt: '.*shape",
        ),
        ("n_mels: 20", "n_mels: 21", "embedding_model.ckpt: '.*shape"),
        (
            "        classifier: !ref <classifier>\n",
            "",
            "does not load 'classifier'",
        ),
        (
            "    paths:",
            "    conditions: {classifier: False}\n    paths:",
            "does not load 'classifier'",
        ),
        ("norm_type: sentence", "norm_type: global", "no file 'mean_var_norm"),
        ("norm_type: sentence", "norm_type: speaker", "speaker"),
        (
            "n_mels: !ref <n_mels>\n",
            "n_mels: 20\n    sample_rate: 8000\nsample_rate: 16000\n",
            "8000 Hz by compute_features and 16000 Hz by sample_rate",
        ),
        (
            "n_mels: 20\n",
            "n_mels: 20\naudio_normalizer: "
            "!new:speechbrain.dataio.preprocess.AudioNormalizer [44100]\n",
            "44100 Hz by audio_normalizer",
        ),
        ("pretrainer:", "pretrained:", "'pretrainer' is missing"),
        ("\nmodules:", "\nmodulez:", "'modules' is missing"),
    ],
)
def test_one_message(old, new, message, copied):
    """What is wrong in a yaml is said, with the file."""
    change(copied, (old, new))
    with pytest.raises(LMACError, match=message) as caught:
        load_speechbrain(copied)
    assert str(copied) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_rates_are_settled_by_the_user(copied, wavs):
    change(copied, ("n_mels: 20\n", "n_mels: 20\nsample_rate: 22050\n"))
    with pytest.raises(LMACError, match="say which it hears by sample_rate="):
        load_speechbrain(copied)
    assert load_speechbrain(copied, sample_rate=16000).sample_rate == 16000
    for wrong in (0, -1, 16e3, True, "16000"):
        with pytest.raises(LMACError, match="sample_rate: found"):
            load_speechbrain(copied, sample_rate=wrong)


@pytest.mark.parametrize("names", [NAMES[:4], [*NAMES, "fox"]])
def test_labels_of_another_number(names, tmp_path):
    folder = write(tmp_path / "model", ECAPA, names=names)
    with pytest.raises(
        LMACError, match=f"found {len(names)} names .* for 5 out"
    ):
        load_speechbrain(folder)


def test_labels_that_begin_at_one(copied):
    encoder = CategoricalEncoder(starting_index=1)
    encoder.update_from_iterable(NAMES)
    encoder.save(copied / "label_encoder.txt")
    with pytest.raises(LMACError, match="numbers 1 to 5 for 5 names"):
        load_speechbrain(copied)


def test_a_pickle_is_not_run(copied, tmp_path):
    """Weights and statistics are tensors, whatever the file says."""

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    for name in ("classifier", "embedding_model"):
        torch.save({"weight": Evil()}, copied / f"{name}.ckpt")
        with pytest.raises(LMACError, match="not a file of weights only"):
            load_speechbrain(copied)
    folder = write(tmp_path / "x", XVECTOR)
    torch.save({"count": Evil(), "glob_mean": 1}, folder / "normalizer.ckpt")
    with pytest.raises(LMACError, match="not the statistics of a normaliser"):
        load_speechbrain(folder)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "state",
    [
        {},
        [1],
        {"count": 1, "glob_mean": torch.zeros(60), "glob_std": torch.ones(1)},
        {"count": 1, "glob_mean": torch.zeros(0), "glob_std": torch.zeros(0)},
        {
            "count": 1,
            "glob_mean": torch.full((60,), torch.nan),
            "glob_std": torch.ones(60),
        },
    ],
)
def test_statistics_that_are_none(state, folders, tmp_path):
    folder = shutil.copytree(folders("xvector"), tmp_path / "model")
    torch.save(state, folder / "normalizer.ckpt")
    with pytest.raises(LMACError, match="normalizer.ckpt: "):
        load_speechbrain(folder)


def test_statistics_that_the_pretrainer_forgets(folders, tmp_path, wavs):
    """A file of the module's name is taken; its name in the paths is not."""
    folder = shutil.copytree(folders("xvector"), tmp_path / "model")
    change(folder, ("        mean_var_norm: !ref <mean_var_norm>\n", ""))
    with pytest.raises(LMACError, match="no file 'mean_var_norm.ckpt'"):
        load_speechbrain(folder)
    (folder / "normalizer.ckpt").rename(folder / "mean_var_norm.ckpt")
    expected = load_speechbrain(folders("xvector"))(wavs)
    assert torch.equal(load_speechbrain(folder)(wavs), expected)


def test_statistics_of_another_size(folders, tmp_path):
    folder = shutil.copytree(folders("xvector"), tmp_path / "model")
    state = {"count": 1, "glob_mean": torch.zeros(7), "glob_std": torch.ones(7)}
    torch.save(state, folder / "normalizer.ckpt")
    with pytest.raises(LMACError, match="modules do not fit together"):
        load_speechbrain(folder)


# A folder of another kind, as SpeechBrain publishes them.
RECOGNISER = """\
encoder: !new:speechbrain.nnet.containers.LengthsCapableSequential
    compute_features: !new:speechbrain.lobes.features.Fbank {}
decoder: !new:speechbrain.decoders.seq2seq.S2SRNNBeamSearcher {}
modules:
    encoder: !ref <encoder>
    decoder: !ref <decoder>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer {}
"""
EMOTION = """\
wav2vec2: !new:speechbrain.lobes.models.huggingface_transformers.wav2vec2.X {}
avg_pool: !new:speechbrain.nnet.pooling.StatisticsPooling {}
output_mlp: !new:speechbrain.nnet.linear.Linear {n_neurons: 4, input_size: 7}
modules:
    wav2vec2: !ref <wav2vec2>
    avg_pool: !ref <avg_pool>
    output_mlp: !ref <output_mlp>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer {}
"""
SEPARATOR = """\
one: !new:torch.nn.Linear [2, 2]
modules: {encoder: !ref <one>, masker: !ref <one>}
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer {}
"""


@pytest.mark.parametrize("text", [RECOGNISER, EMOTION, SEPARATOR])
def test_another_interface(text, tmp_path):
    """That is said, and not which of its classes are unknown."""
    (tmp_path / "hyperparams.yaml").write_text(text)
    with pytest.raises(LMACError, match="EncoderClassifier") as caught:
        load_speechbrain(tmp_path)
    assert "is not allowed" not in str(caught.value)


def test_a_folder_for_embeddings_alone(copied, wavs):
    """Without a classifier, as for the comparison of voices."""
    text = (copied / "hyperparams.yaml").read_text("utf-8")
    head = text.partition("classifier: !new")[0]
    lines = [x for x in ENDING.splitlines(True) if "classifier" not in x]
    (copied / "hyperparams.yaml").write_text(head + "".join(lines))
    found = load_speechbrain(copied, output="embedding")(wavs)
    assert found.shape == (3, 12)
    with pytest.raises(LMACError, match="no classifier.*output='embedding'"):
        load_speechbrain(copied)


def test_only_trusted_files_lie_elsewhere(copied, tmp_path, wavs, monkeypatch):
    """As SpeechBrain does: where the yaml says, before what lies beside it."""
    other = write(tmp_path / "other", ECAPA, seed=7)
    change(copied, ("speechbrain/some-ecapa", str(other)))
    expected = theirs(other).classify_batch(wavs)[0]
    warned = []
    monkeypatch.setattr(
        "lmac_sb.adapters.speechbrain_weights.logger",
        SimpleNamespace(warning=lambda *args: warned.append(args)),
    )
    safe = load_speechbrain(copied)(wavs)
    assert len(warned) == 3
    trusted = load_speechbrain(copied, trusted=True)(wavs)
    torch.testing.assert_close(trusted, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(safe, trusted, atol=1e-3)
    for file in copied.glob("*.ckpt"):
        file.unlink()
    with pytest.raises(LMACError, match="with trusted=True only"):
        load_speechbrain(copied)
    assert torch.equal(load_speechbrain(copied, trusted=True)(wavs), trusted)


def test_a_trusted_yaml_includes_what_lies_beside_it(copied, wavs):
    """And calls what it likes."""
    (copied / "more.yaml").write_text("n: !apply:operator.add [12, 8]\n")
    change(copied, ("n_mels: 20", "more: !include:more.yaml\nn_mels: 20"))
    with pytest.raises(LMACError, match="'!include:more.yaml'"):
        load_speechbrain(copied)
    assert load_speechbrain(copied, trusted=True)(wavs).shape == (3, 5)
