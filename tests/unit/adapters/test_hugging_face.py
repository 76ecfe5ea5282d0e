"""Audio classifiers of transformers as listeners, family by family."""

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings

import pytest
import soundfile as sf
import torch
from small_models import FAMILIES, save_model, small_model

from lmac_sb.adapters.hugging_face import (
    from_hugging_face,
    is_hugging_face,
    load_hugging_face,
    own_call,
)
from lmac_sb.utils.errors import LMACError

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory):
    """Folder of a small classifier; tests that change it copy it."""
    folder = tmp_path_factory.mktemp("wav2vec2")
    return save_model(folder, *small_model("wav2vec2"))


@pytest.fixture
def folder(wav2vec2, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(wav2vec2, tmp_path / "model")


def edit(folder, name="config.json", **changes):
    """Change keys of a json file."""
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_owner(family, tmp_path):
    save_model(tmp_path, *small_model(family))
    listener = load_hugging_face(tmp_path)
    model = transformers.AutoModelForAudioClassification.from_pretrained(
        tmp_path
    ).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    assert listener.sample_rate == extractor.sampling_rate
    wavs = 0.1 * torch.randn(3, 6400)
    wavs[1] *= torch.linspace(0, 5, 6400)
    x = wavs.clone().requires_grad_()
    logits = listener(x)
    for row, wav in enumerate(wavs):
        inputs = extractor(
            wav.numpy(), sampling_rate=16000, return_tensors="pt"
        )
        with torch.no_grad():
            right = model(**inputs).logits[0]
        torch.testing.assert_close(logits[row], right, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(listener.own_call(wav)[0], right)
    # They depend on the sound, and the gradient is that of the whole path.
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    (gradient,) = torch.autograd.grad(logits[0, 0], x)
    assert torch.isfinite(gradient).all() and gradient[0].abs().max() > 0
    assert (gradient[1:] == 0).all()
    assert not any(p.requires_grad for p in listener.parameters())


@pytest.mark.parametrize("family", ["ast", "wav2vec2 layer", "whisper"])
def test_real_clips(family, real_data):
    listener = from_hugging_face(*small_model(family))
    files = sorted((real_data / "fsdd" / "recordings").glob("*.flac"))
    for file in files[:: len(files) // 5]:
        wav = torch.from_numpy(sf.read(file, dtype="float32")[0])
        torch.testing.assert_close(
            listener(wav[None]), listener.own_call(wav), atol=1e-4, rtol=1e-4
        )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_shortest_and_longest_sound(family):
    listener = from_hugging_face(*small_model(family))
    shortest = 0.1 * torch.randn(1, listener.min_samples)
    torch.testing.assert_close(
        listener(shortest), listener.own_call(shortest[0]), atol=1e-4, rtol=0
    )
    if listener.min_samples > 1:
        with pytest.raises(LMACError, match="expected at least"):
            listener(shortest[:, 1:])
        # The owner's own call fails there too, or says nothing: the logits
        # of wav2vec2-bert are 0, as its features are NaN.
        try:
            own = listener.own_call(shortest[0, 1:])
        except Exception:
            own = torch.tensor(torch.nan)
        assert not own.isfinite().all() or (own == 0).all()
    # Longer than the fixed windows: cut as the extractor cuts it.
    long = 0.1 * torch.randn(1, 20000)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        logits = listener(long)
    torch.testing.assert_close(
        logits, listener.own_call(long[0]), atol=1e-4, rtol=1e-4
    )
    cut = family in ("ast", "whisper")
    assert (listener.n_samples is not None) == cut
    assert any("hears the first" in str(w.message) for w in said) == cut


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_nothing_is_random_or_trained():
    model, extractor = small_model(
        "wav2vec2", hidden_dropout=0.9, layerdrop=0.9, mask_time_prob=0.9
    )
    model.gradient_checkpointing_enable()
    listener = from_hugging_face(model.train(), extractor)
    assert not model.training and not listener.train().model.training
    assert not any(
        getattr(m, "gradient_checkpointing", False) for m in model.modules()
    )
    wav = torch.randn(1, 4000)
    assert torch.equal(listener(wav), listener(wav))


def test_copies():
    listener = from_hugging_face(*small_model("ast"))
    wav = 0.1 * torch.randn(1, 6000)
    for other in (
        copy.deepcopy(listener),
        pickle.loads(pickle.dumps(listener)),
    ):
        assert torch.equal(other(wav), listener(wav))
        assert torch.equal(other.own_call(wav[0]), listener.own_call(wav[0]))


def test_rate():
    model, _ = small_model("wav2vec2")
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000)
    assert from_hugging_face(model, extractor).sample_rate == 8000
    with pytest.raises(LMACError, match="found 16000 Hz, expected 8000 Hz"):
        own_call(model, extractor, torch.rand(800), 16000)


def test_labels(folder):
    names = {
        11: "k",
        0: "a",
        2: "c",
        1: "b",
        **{i: f"x{i}" for i in range(3, 11)},
    }
    model, extractor = small_model("wav2vec2", num_labels=12)
    assert from_hugging_face(model, extractor).labels[:2] == [
        "LABEL_0",
        "LABEL_1",
    ]
    expected = [names[i] for i in range(12)]
    model.config.id2label = names
    save_model(folder, model, extractor)
    assert load_hugging_face(folder).labels == expected
    # As they come from json.
    table = {str(i): name for i, name in names.items()}
    object.__setattr__(model.config, "id2label", table)
    assert from_hugging_face(model, extractor).labels == expected
    given = from_hugging_face(model, extractor, labels=range(12))
    assert given.labels == [str(i) for i in range(12)]
    with pytest.raises(LMACError, match="^labels: found 2 names, expected 12"):
        from_hugging_face(model, extractor, labels=["a", "b"])
    object.__setattr__(model.config, "id2label", {0: "a", 1: "b"})
    with pytest.raises(LMACError, match="^config.id2label: found 2 names"):
        from_hugging_face(model, extractor)


def test_numbers_of_labels_with_a_gap():
    model, extractor = small_model("wav2vec2")
    object.__setattr__(model.config, "id2label", {0: "a", 1: "b", 3: "c"})
    with pytest.raises(LMACError, match=r"found names for \[0, 1, 3\], exp"):
        from_hugging_face(model, extractor)


def test_several_classes_at_once():
    problem = "multi_label_classification"
    model, extractor = small_model("ast", problem_type=problem)
    assert from_hugging_face(model, extractor).multilabel is True
    one = from_hugging_face(model, extractor, multilabel=False)
    assert one.multilabel is False
    plain = from_hugging_face(*small_model("ast"))
    assert plain.multilabel is False
    # One class, present or not.
    single = small_model("ast", problem_type=problem, num_labels=1)
    assert len(from_hugging_face(*single).labels) == 1


@pytest.mark.parametrize(
    "settings", [{"num_labels": 1}, {"problem_type": "regression"}]
)
def test_regression(settings):
    pair = small_model("wav2vec2", **settings)
    with pytest.raises(LMACError, match="found a regression .*scores=True"):
        from_hugging_face(*pair)
    listener = from_hugging_face(*pair, scores=True)
    assert listener(torch.randn(2, 4000)).shape[0] == 2


def test_frames(folder):
    pair = small_model("wav2vec2", "Wav2Vec2ForAudioFrameClassification")
    listener = load_hugging_face(save_model(folder, *pair))
    assert type(listener.model.model).__name__.endswith("FrameClassification")
    wav = torch.randn(1, 4000)
    logits = listener.frames(wav)
    # 35 samples a frame, 20 from frame to frame.
    assert logits.shape == (1, (4000 - 35) // 20 + 1, 3)
    torch.testing.assert_close(logits, listener.own_call(wav[0]))


def test_embeddings(folder):
    pair = small_model(
        "wav2vec2",
        "Wav2Vec2ForXVector",
        tdnn_dim=(8, 8, 8, 8, 16),
        tdnn_kernel=(3, 2, 1, 1, 1),
        tdnn_dilation=(1, 1, 1, 1, 1),
        xvector_output_dim=10,
    )
    listener = load_hugging_face(save_model(folder, *pair))
    wav = torch.randn(2, 4000)
    with torch.no_grad():
        right = pair[0](wav).embeddings
    torch.testing.assert_close(listener(wav), right, atol=1e-4, rtol=1e-4)
    assert listener.labels is None


def test_pipeline_and_processor():
    model, extractor = small_model("wav2vec2 layer")
    pipeline = transformers.pipeline(
        "audio-classification", model=model, feature_extractor=extractor
    )
    listener = from_hugging_face(pipeline)
    wav = torch.randn(4000)
    scores = {
        entry["label"]: entry["score"]
        for entry in pipeline(wav.numpy(), top_k=3)
    }
    probabilities = listener(wav[None]).softmax(1)[0]
    for label, probability in zip(listener.labels, probabilities):
        assert abs(scores[label] - float(probability)) < 1e-4

    class Processor:
        feature_extractor = extractor

    other = from_hugging_face(model, Processor())
    assert torch.equal(other(wav[None]), listener(wav[None]))


def test_front_end_of_ones_own():
    model, extractor = small_model("wav2vec2")
    listener = from_hugging_face(model, extractor, lambda wavs: wavs)
    wav = torch.randn(1, 4000)
    assert torch.equal(listener(wav), from_hugging_face(model, extractor)(wav))
    with pytest.raises(LMACError, match="front end: .* differs by up to"):
        from_hugging_face(model, extractor, lambda wavs: wavs + 1)


def test_extractor_that_does_not_fit():
    whisper, _ = small_model("whisper")
    extractor = transformers.WhisperFeatureExtractor(20, chunk_length=2)
    with pytest.raises(LMACError, match="WhisperForAudio.*fails on the outp"):
        from_hugging_face(whisper, extractor)


def test_other_kinds_of_objects():
    model, extractor = small_model("wav2vec2")
    assert is_hugging_face(model) and not is_hugging_face(extractor)
    with pytest.raises(LMACError, match="^model: found Linear, expected"):
        from_hugging_face(torch.nn.Linear(3, 3), extractor)
    with pytest.raises(
        LMACError, match=r"^feature_extractor: found NoneType.*x: model\(x\)"
    ):
        from_hugging_face(model)
    with pytest.raises(LMACError, match="Wav2Vec2Model: found no 'logits'"):
        from_hugging_face(model.wav2vec2, extractor)
    # What it calls its feature extractor is a part of the network.
    with pytest.raises(LMACError, match="^feature_extractor: found NoneType"):
        from_hugging_face(model.wav2vec2)


def test_half_precision(folder):
    model, extractor = small_model("wav2vec2")
    listener = load_hugging_face(save_model(folder, model.half(), extractor))
    assert listener.model.model.dtype == torch.float32
    wav = torch.randn(1, 4000)
    torch.testing.assert_close(listener(wav), listener.own_call(wav[0]))


def test_pickled_weights(folder):
    path = folder / "model.safetensors"
    right = load_hugging_face(folder)
    weights = right.model.model.state_dict()
    path.unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    wav = torch.randn(1, 4000)
    assert torch.equal(load_hugging_face(folder)(wav), right(wav))


class Trap:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


def test_pickle_with_code(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(LMACError, match="model.safetensors: cannot be loaded"):
        load_hugging_face(folder)
    assert not (folder / "trapped").exists()


CODE = """
import os
os.mkdir("trapped")
from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification
class OwnConfig(Wav2Vec2Config):
    model_type = "own-kind"
class Own(Wav2Vec2ForSequenceClassification):
    config_class = OwnConfig
"""


def test_code_beside_the_weights(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (folder / "own.py").write_text(CODE)
    code = {
        "AutoConfig": "own.OwnConfig",
        "AutoModelForAudioClassification": "own.Own",
    }
    edit(folder, auto_map=code, model_type="own-kind", architectures=["Own"])
    with pytest.raises(LMACError, match="names code of its own.*trusted=True"):
        load_hugging_face(folder)
    assert not (tmp_path / "trapped").exists()
    listener = load_hugging_face(folder, trusted=True)
    assert (tmp_path / "trapped").exists()
    assert type(listener.model.model).__name__ == "Own"


@pytest.mark.parametrize("named", ["flash_attention_2", "someone/kernels"])
def test_attention_that_needs_code_or_a_gpu(folder, named):
    edit(folder, attn_implementation=named)
    listener = load_hugging_face(folder)
    # Releases before 5 do not read it at all.
    used = listener.model.model.config._attn_implementation
    assert used in ("eager", "sdpa")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "config.json: no such file, expected"),
        ("preprocessor_config.json", r"preprocessor_config.json: no such fil"),
        ("model.safetensors", r"model.safetensors: no such file \(or model.s"),
    ],
)
def test_missing_file(folder, name, message):
    (folder / name).unlink()
    with pytest.raises(LMACError, match=message):
        load_hugging_face(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "model.safetensors"]
)
def test_broken_file(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(LMACError, match=name) as error:
        load_hugging_face(folder)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(
    transformers.__version__.startswith("4"), reason="a file of release 5"
)
def test_processor_config(folder):
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    content = {
        "processor_class": "Wav2Vec2Processor",
        "feature_extractor": {**settings, "sampling_rate": 12000},
    }
    (folder / "processor_config.json").write_text(json.dumps(content))
    assert load_hugging_face(folder).sample_rate == 12000


@pytest.mark.parametrize("kind", ["Wav2Vec2Model", "Wav2Vec2ForCTC"])
def test_head_without_weights(folder, kind):
    save_model(folder, *small_model("wav2vec2", kind))
    with pytest.raises(LMACError) as error:
        load_hugging_face(folder)
    text = str(error.value)
    assert f"the weights of {kind} hold no" in text
    assert "for Wav2Vec2ForSequenceClassification, expected a trained" in text


def test_another_number_of_labels(folder):
    edit(folder, id2label={i: str(i) for i in range(5)})
    with pytest.raises(LMACError) as error:
        load_hugging_face(folder)
    text = str(error.value)
    assert "found 'classifier.bias' of shape [3] in the weights" in text
    assert "expected [5] by config.json (where id2label" in text


def test_an_unknown_extractor_is_told_in_few_words(folder):
    edit(folder, "preprocessor_config.json", feature_extractor_type="Mine")
    with pytest.raises(LMACError, match="preprocessor_config.json") as error:
        load_hugging_face(folder)
    assert len(str(error.value)) < 600


def test_model_of_texts(folder):
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    with pytest.raises(
        LMACError, match="found BertForSequenceClassification, expected an au"
    ):
        load_hugging_face(folder)


def test_weights_that_are_not_finite(folder):
    model, extractor = small_model("wav2vec2")
    model.classifier.bias.data[0] = torch.nan
    save_model(folder, model, extractor)
    with pytest.raises(LMACError, match="'classifier.bias' holds NaN"):
        load_hugging_face(folder)


def test_quantised_weights(folder):
    edit(folder, quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(LMACError, match="quantised weights"):
        load_hugging_face(folder)


def test_no_folder(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x")
    with pytest.raises(LMACError, match="a file, expected a folder written"):
        load_hugging_face(file)
    with pytest.raises(LMACError, match="no such folder, expected a folder"):
        load_hugging_face(tmp_path / "nowhere")
    with pytest.raises(LMACError, match="names another revision than"):
        load_hugging_face("a/b@c", revision="d")


# The hub's client waits, in all half a minute, between its tries.
HUB = """
import time
time.sleep = lambda seconds: None
from lmac_sb.adapters.hugging_face import load_hugging_face
from lmac_sb.utils.errors import exit_on_user_error
exit_on_user_error(lambda: load_hugging_face("nobody/nothing@v1"))()
"""


@pytest.mark.parametrize(
    "settings",
    [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}],
)
def test_hub_that_does_not_answer(settings, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HUB],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "HF_HOME": str(tmp_path),
            **settings,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: nobody/nothing: not a local folder, and co")
    assert "cannot be fetched from a hub" in last
    assert "Traceback" not in done.stderr


def test_without_transformers(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(LMACError, match=r'pip install "lmac-sb\[huggingf'):
        load_hugging_face(folder)
