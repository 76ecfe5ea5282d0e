"""An interpreter in a folder, with somebody's classifier by reference."""

import copy
import json
import shutil
import sys

import numpy as np
import pytest
import soundfile as sf
import torch
from encoder_yaml import ENDING

import lmac_sb
from lmac_sb import LMACInterpreter
from lmac_sb.cli import main
from lmac_sb.inference.fit import make_trainable
from lmac_sb.inference.load import is_own, load_interpreter
from lmac_sb.inference.reference import is_import_path, refer_to
from lmac_sb.listener.windows import Windows
from lmac_sb.models.decoder import MaskDecoder
from lmac_sb.utils.checksums import write_sums
from lmac_sb.utils.errors import LMACError

RATE = 16000
NAMES = ["cat", "cow", "dog"]
MODULE = """
import torch
import torchaudio


def front():
    return torchaudio.transforms.MelSpectrogram(16000, 512, n_mels=40)


def net(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, 40)),
        torch.nn.Conv2d(1, 4, 3, 2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    ).eval()


def make():
    return {"model": net(), "features": front()}


def other():
    return {"model": net(1), "features": front()}


class Named(torch.nn.Module):
    sample_rate = 16000
    labels = ("cat", "cow", "dog")

    def __init__(self):
        super().__init__()
        self.front, self.net = front(), net()

    def forward(self, wavs):
        return self.net(self.front(wavs))


class Unnamed(Named):
    @property
    def labels(self):
        raise RuntimeError("no names here")


def interpreter():
    from lmac_sb import LMACInterpreter

    names = ["a", "b", "c"]
    return LMACInterpreter.from_classifier(net(), 16000, names, front())


def ours():
    from lmac_sb import LMACInterpreter

    return LMACInterpreter.from_pretrained("esc10")


def fails():
    raise RuntimeError("no weights here")


def leaves():
    raise SystemExit("usage: users_own.py FILE")


class Place:
    ready = net()
"""


@pytest.fixture(scope="module")
def wavs():
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(4, 8000, generator=generator)


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A module of the user's own, which can be imported."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "users_own.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    import users_own

    yield users_own
    sys.path.remove(str(folder))
    sys.modules.pop("users_own")


@pytest.fixture(scope="module")
def steps(module):
    """Steps from nothing, of a module of the user's own."""
    return LMACInterpreter.from_classifier(
        module.net(), RATE, NAMES, module.front()
    )


@pytest.fixture(scope="module")
def trained(steps, wavs):
    return lmac_sb.fit(steps, wavs, epochs=1, width=4)


@pytest.fixture
def saved(trained, tmp_path):
    return trained.save(tmp_path / "saved", model="users_own:make")


@pytest.fixture(scope="module")
def speechbrains(tmp_path_factory):
    """Folder of a SpeechBrain classifier."""
    folder = tmp_path_factory.mktemp("sb") / "model"
    folder.mkdir()
    (folder / "hyperparams.yaml").write_text(
        """
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 40
    sample_rate: 16000
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
embedding_model: !new:speechbrain.lobes.models.Xvector.Xvector
    in_channels: 40
    tdnn_blocks: 2
    tdnn_channels: [8, 8]
    tdnn_kernel_sizes: [5, 1]
    tdnn_dilations: [1, 1]
    lin_neurons: 6
classifier: !new:speechbrain.lobes.models.Xvector.Classifier
    input_shape: [null, null, 6]
    lin_blocks: 0
    out_neurons: 3
"""
        + ENDING
    )
    from hyperpyyaml import load_hyperpyyaml

    torch.manual_seed(0)
    hparams = load_hyperpyyaml((folder / "hyperparams.yaml").read_text())
    for name in ("embedding_model", "classifier"):
        torch.save(hparams[name].state_dict(), folder / f"{name}.ckpt")
    hparams["label_encoder"].update_from_iterable(NAMES)
    hparams["label_encoder"].save(folder / "label_encoder.txt")
    return folder


def test_a_round_trip_gives_the_same_mask(trained, saved, wavs):
    loaded = LMACInterpreter.from_hparams(saved, trusted=True)
    assert loaded.classes == NAMES
    assert loaded.explainer.refine_steps == 0
    one, two = (x.explain_batch(wavs) for x in (trained, loaded))
    assert torch.equal(one.mask, two.mask)
    assert torch.equal(one.logits, two.logits)
    # Further steps start there and are the same too.
    one, two = (
        x.explain_batch(wavs[:1], refine_steps=2) for x in (trained, loaded)
    )
    assert torch.equal(one.mask, two.mask)


def test_depthwise_convolutions_come_back(trained, module, wavs, tmp_path):
    cheap = copy.deepcopy(trained)
    decoder = cheap.explainer.decoder
    decoder.depthwise = True
    decoder.fine = MaskDecoder([4], width=4, depthwise=True).eval().fine
    folder = cheap.save(tmp_path / "saved", model="users_own:make")
    loaded = LMACInterpreter.from_hparams(folder, trusted=True)
    one, two = (x.explain_batch(wavs) for x in (cheap, loaded))
    assert torch.equal(one.mask, two.mask)


def test_without_a_decoder(steps, tmp_path, wavs):
    folder = steps.save(tmp_path / "steps", model="users_own:make")
    assert not (folder / "decoder.safetensors").exists()
    loaded = LMACInterpreter.from_hparams(folder, trusted=True)
    assert loaded.explainer.refine_steps == 10
    one, two = (
        x.explain_batch(wavs[:1], refine_steps=2) for x in (steps, loaded)
    )
    assert torch.equal(one.mask, two.mask)


def test_what_was_loaded_is_saved_again(saved, tmp_path):
    loaded = LMACInterpreter.from_hparams(saved, trusted=True)
    again = loaded.save(tmp_path / "again")
    for name in ("classifier.json", "hyperparams.yaml", "decoder.safetensors"):
        assert (again / name).read_bytes() == (saved / name).read_bytes()


def test_code_does_not_run_unless_trusted(saved):
    with pytest.raises(LMACError, match="users_own:make runs code, expected"):
        LMACInterpreter.from_hparams(saved)


def test_an_object_alone_cannot_be_saved(trained, tmp_path):
    with pytest.raises(
        LMACError, match=r'expected .*model="package.module:function"'
    ):
        trained.save(tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("users_own:gone", "AttributeError"),
        ("no_module_here:make", "ModuleNotFoundError"),
        ("users_own:fails", "RuntimeError: no weights here"),
        ("users_own:leaves", "SystemExit: usage: users_own.py FILE"),
        ("users_own:other", "is not the classifier of"),
        ("users_own:net", "the function has to return what"),
        ("./nowhere", "no such folder"),
    ],
)
def test_where_the_model_is_not(trained, tmp_path, name, message):
    with pytest.raises(LMACError, match=message):
        trained.save(tmp_path / "x", model=name)
    assert not (tmp_path / "x").exists()


def test_another_function_later(saved, module, monkeypatch):
    monkeypatch.setattr(module, "make", module.other)
    with pytest.raises(LMACError, match="its outputs on one noise differ"):
        LMACInterpreter.from_hparams(saved, trusted=True)


def test_a_model_names_its_classes(module):
    """As it names its rate; what cannot be names is left alone."""
    for name, expected in (
        ("users_own:Named", NAMES),
        ("users_own:Unnamed", ["0", "1", "2"]),
    ):
        found = load_interpreter(name, trusted=True)
        assert (found.classes, found.sample_rate) == (expected, RATE)
    found = LMACInterpreter.from_classifier(module.Named(), labels=list("abc"))
    assert found.classes == list("abc")


def test_a_function_that_returns_an_interpreter(module, wavs, tmp_path, capsys):
    found = load_interpreter("users_own:interpreter", trusted=True)
    assert found.classes == ["a", "b", "c"]
    path = tmp_path / "a.wav"
    sf.write(path, wavs[0].numpy(), RATE)
    words = ["--model", "users_own:interpreter", "--trust", "--refine", "1"]
    assert main(["explain", str(path), "--out", str(tmp_path), *words]) == 0
    with pytest.raises(SystemExit):
        words += ["--pool", "max"]
        main(["explain", str(path), "--out", str(tmp_path), *words])
    said = "error: pool: found 'max', but users_own:interpreter is made already"
    assert said in capsys.readouterr().err
    with pytest.raises(LMACError, match="users_own:ours: has a decoder alr"):
        make_trainable("users_own:ours", trusted=True)


def test_a_module_at_an_import_path(module, wavs):
    bare = LMACInterpreter.from_classifier(
        "users_own:Place.ready", RATE, features=module.front(), trusted=True
    )
    assert bare.explain_batch(wavs[:1], refine_steps=1).mask.shape[0] == 1


def test_a_folder(speechbrains, wavs, tmp_path):
    """Of SpeechBrain's, without any trust."""
    steps = LMACInterpreter.from_classifier(speechbrains)
    trained = lmac_sb.fit(steps, wavs, 1, width=4)
    folder = trained.save(tmp_path / "saved")
    loaded = LMACInterpreter.from_hparams(folder)
    one, two = (x.explain_batch(wavs).mask for x in (trained, loaded))
    assert torch.equal(one, two)
    moved = tmp_path / "moved"
    shutil.copytree(speechbrains, moved)
    loaded = LMACInterpreter.from_hparams(folder, model=moved)
    assert torch.equal(loaded.explain_batch(wavs).mask, two)


@pytest.mark.parametrize("change", ["changed", "gone", "new", "no folder"])
def test_a_changed_folder_is_refused(speechbrains, tmp_path, change):
    model = tmp_path / "model"
    shutil.copytree(speechbrains, model)
    steps = LMACInterpreter.from_classifier(model)
    folder = steps.save(tmp_path / "saved")
    weights = model / "classifier.ckpt"
    message = f"classifier.ckpt (has|is) {change}"
    if change == "changed":
        state = torch.load(weights, weights_only=True)
        torch.save({k: v + 1 for k, v in state.items()}, weights)
    elif change == "gone":
        weights.unlink()
    elif change == "new":
        shutil.copy(weights, model / "classifier.safetensors")
        message = "classifier.safetensors is new"
    else:
        shutil.rmtree(model)
        message = "not in .* any more; say where it is with model="
    with pytest.raises(LMACError, match=message):
        LMACInterpreter.from_hparams(folder)


def test_a_folder_inside_that_of_the_model(speechbrains, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(speechbrains, model)
    steps = LMACInterpreter.from_classifier(model)
    folder = steps.save(model / "lmac")
    assert LMACInterpreter.from_hparams(folder).classes == NAMES


def test_a_commit_of_a_hub(speechbrains, tmp_path, monkeypatch):
    """The commit in the cache is kept, and asked for later."""
    import huggingface_hub

    commit = "c" * 40
    snapshot = tmp_path / "snapshots" / commit
    shutil.copytree(speechbrains, snapshot)
    asked = []

    def in_cache(repository, name, revision=None, **_):
        path = snapshot / name
        return str(path) if path.is_file() else None

    def download(repository, revision=None, **_):
        asked.append((repository, revision))
        return str(snapshot)

    def no_hub(*_, **__):
        raise OSError("offline")

    for name, double in (
        ("try_to_load_from_cache", in_cache),
        ("snapshot_download", download),
        ("file_exists", no_hub),
        ("hf_hub_download", no_hub),
    ):
        monkeypatch.setattr(huggingface_hub, name, double)
    steps = load_interpreter("me/model")
    folder = steps.save(tmp_path / "saved")
    facts = json.loads((folder / "classifier.json").read_text())
    assert facts["model"] == {
        "kind": "hub",
        "id": "me/model",
        "revision": commit,
    }
    assert LMACInterpreter.from_hparams(folder).classes == NAMES
    assert asked == [("me/model", None), ("me/model", commit)]


@pytest.mark.parametrize(
    "name", ["classifier.json", "hyperparams.yaml", "decoder.safetensors"]
)
def test_a_damaged_folder_is_refused(saved, name):
    path = saved / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(LMACError, match=f"{name}: truncated or changed"):
        LMACInterpreter.from_hparams(saved, trusted=True)


def test_a_hostile_yaml_is_refused(saved):
    yaml = saved / "hyperparams.yaml"
    yaml.write_text(yaml.read_text() + "\nx: !apply:os.getcwd []\n")
    write_sums(saved)
    with pytest.raises(LMACError, match="'!apply:os.getcwd' is not allowed"):
        LMACInterpreter.from_hparams(saved, trusted=True)


@pytest.mark.parametrize(
    ("key", "value"), [("model", 3), ("layers", None), ("answers", {})]
)
def test_broken_facts(saved, key, value):
    path = saved / "classifier.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, key: value}))
    write_sums(saved)
    with pytest.raises(LMACError, match=f"key '{key}' is missing or no"):
        LMACInterpreter.from_hparams(saved, trusted=True)


def test_weights_of_another_decoder(saved, trained):
    from lmac_sb.models.weights import write_weights

    write_weights(saved / "decoder.safetensors", torch.nn.Linear(2, 2))
    write_sums(saved)
    with pytest.raises(LMACError, match="decoder.safetensors: holds no"):
        LMACInterpreter.from_hparams(saved, trusted=True)


def test_nothing_is_overwritten(trained, tmp_path, saved):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("a")
    with pytest.raises(LMACError, match="already exists; choose another"):
        trained.save(tmp_path / "mine", model="users_own:make")
    # A saved interpreter may be replaced.
    trained.save(saved, model="users_own:make")


def test_options_come_back(module, tmp_path):
    mine = LMACInterpreter.from_classifier(
        module.net(),
        RATE,
        NAMES,
        module.front(),
        windows=Windows(8000, 4000),
        multilabel=True,
        pool="max",
        steps=3,
    )
    folder = mine.save(tmp_path / "saved", model="users_own:make")
    loaded = LMACInterpreter.from_hparams(folder, trusted=True)
    listener = loaded.hparams.listener
    assert listener.windows == Windows(8000, 4000)
    assert (listener.multilabel, listener.pool) == (True, "max")
    assert loaded.explainer.refine_steps == 3


def test_options_of_numpy(module, tmp_path):
    mine = LMACInterpreter.from_classifier(
        module.net(),
        np.int64(RATE),
        np.array(NAMES),
        module.front(),
        windows=Windows(np.int64(8000), np.int32(4000)),
        steps=np.int64(3),
    )
    folder = mine.save(tmp_path / "saved", model="users_own:make")
    loaded = LMACInterpreter.from_hparams(folder, trusted=True)
    assert loaded.hparams.listener.windows == Windows(8000, 4000)
    assert loaded.explainer.refine_steps == 3 and loaded.classes == NAMES


def test_an_option_that_is_code(speechbrains, tmp_path):
    steps = LMACInterpreter.from_classifier(
        speechbrains, pool=lambda frames: frames.mean(1)
    )
    with pytest.raises(LMACError, match="pool: found a function, which cannot"):
        steps.save(tmp_path / "x")


def test_its_own_interpreter_is_copied(interpreter, tmp_path):
    with pytest.raises(LMACError, match="found one that came with its class"):
        interpreter.save(tmp_path / "x")


def test_the_command_takes_any_folder(
    speechbrains, bundle, saved, wavs, tmp_path, capsys
):
    path = tmp_path / "a.wav"
    sf.write(path, wavs[0].numpy(), RATE)
    out = str(tmp_path / "out")
    for model, more in (
        (speechbrains, ["--refine", "1"]),
        (bundle, []),
        (saved, ["--trust"]),
        ("users_own:make", ["--trust", "--refine", "1"]),
    ):
        code = main(
            ["explain", str(path), "--model", str(model), "--out", out, *more]
        )
        assert code == 0, capsys.readouterr()
    assert (tmp_path / "out" / "a" / "interpretation.wav").is_file()


def test_one_function_takes_them_too(speechbrains, bundle, saved, wavs):
    sound = wavs[0]
    for model, options in (
        (speechbrains, {"steps": 1}),
        (bundle, {}),
        (saved, {"trusted": True}),
    ):
        found = lmac_sb.explain(model, sound, **options)
        assert len(found.labels) == 1
    assert found.refine_steps == 0


def test_whose_it_is(speechbrains, bundle, saved, run_folder, tmp_path):
    for own in (bundle, saved, run_folder, tmp_path / "nowhere"):
        assert is_own(own), own
    for other in (speechbrains, "users_own:make", torch.nn.Linear(2, 2)):
        assert not is_own(other), other


def test_references():
    assert is_import_path("a.b:c.d")
    for other in ("a/b", "a.b", "C:/x", "a:", "name/repo@main", "a b:c"):
        assert not is_import_path(other), other
    with pytest.raises(LMACError, match="found a Linear, which is not saved"):
        refer_to(torch.nn.Linear(2, 2))
    with pytest.raises(LMACError, match="no such folder"):
        refer_to("./nowhere")


def test_a_front_end_comes_back_with_its_folder(tmp_path, wavs):
    """Of an object it has to be given, and cannot be saved itself."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_labels": 3}
    model = transformers.Wav2Vec2ForSequenceClassification(
        transformers.Wav2Vec2Config(
            **small,
            num_hidden_layers=1,
            num_attention_heads=2,
            conv_dim=[8, 8],
            conv_stride=[20, 10],
            conv_kernel=[40, 20],
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
            classifier_proj_size=8,
        )
    ).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor()
    for part in (model, extractor):
        part.save_pretrained(tmp_path / "hf")
    steps = LMACInterpreter.from_classifier(model, features=extractor, steps=1)
    folder = steps.save(tmp_path / "saved", model=tmp_path / "hf")
    loaded = LMACInterpreter.from_hparams(folder)
    found, expected = (x.explain_batch(wavs[:1]) for x in (loaded, steps))
    torch.testing.assert_close(found.mask, expected.mask)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("users_own:fails", "it ran, and raised RuntimeError: no weights here"),
        ("users_own:MODULE", "found 3, expected a function"),
        ("users_own:needs", "missing a required argument: 'seed', expected a"),
    ],
)
def test_what_is_wrong_with_a_function(module, name, message):
    module.MODULE, module.needs = 3, lambda seed: None
    with pytest.raises(LMACError, match=message):
        LMACInterpreter.from_classifier(name, RATE, trusted=True)
