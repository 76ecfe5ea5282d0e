"""Tests of the pretrained interface: loading, and explaining any sound."""

import json
import math
import pickle
import shutil
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import safetensors.torch
import soundfile as sf
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.interfaces import Pretrained

from lmac_sb import LMACInterpreter
from lmac_sb.data.audio import read_audio
from lmac_sb.utils.checksums import write_sums
from lmac_sb.utils.errors import LMACError

RATE = 16000
STEP = 1 / 32768  # of 16 bits


@pytest.fixture
def copy(bundle, tmp_path):
    """A copy of the exported folder that a test may change."""
    folder = tmp_path / "copy"
    shutil.copytree(bundle, folder)
    return folder


def edit(folder, old, new, name="hyperparams.yaml"):
    """Change a file of the folder, with fresh sums."""
    path = folder / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    write_sums(folder)


def edit_weights(folder, change, name="decoder"):
    """Change the weights of one module, with fresh sums."""
    path = folder / f"{name}.safetensors"
    state = safetensors.torch.load_file(path)
    change(state)
    safetensors.torch.save_file(state, path)
    write_sums(folder)


def write(path, wav, rate=RATE, **more):
    """Write a sound [samples] or [samples, channels]."""
    sf.write(path, np.asarray(wav), rate, **more)
    return path


# ------------------------------------------------------------------- loading


def test_it_is_speechbrains_interface(interpreter, bundle):
    assert isinstance(interpreter, Pretrained)
    assert interpreter.classes == ["cat", "dog", "Käfer"]
    assert not list(bundle.glob("*.ckpt"))
    assert not any(p.requires_grad for p in interpreter.parameters())


def test_loading_leaves_the_folder_alone(bundle, tmp_path, monkeypatch):
    """Loading writes nothing to the folder or the working folder."""
    monkeypatch.chdir(tmp_path)
    before = sorted(bundle.rglob("*"))
    LMACInterpreter.from_hparams(str(bundle))
    assert sorted(bundle.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dev": "cpu"},
            "run_opts: found {'dev': 'cpu'}, expected run opt",
        ),
        ("cuda", "run_opts: found 'cuda', expected run options"),
        ({"device": "gpu"}, "device: 'gpu' is unknown"),
        ({"device": 1.5}, "device: 1.5 is unknown"),
        ({"device": "cuda:99"}, "device: cuda:99 does not exist, found"),
    ],
)
def test_run_options_that_are_none(bundle, options, message):
    with pytest.raises(LMACError, match=f"^{message}"):
        LMACInterpreter.from_hparams(bundle, run_opts=options)


def test_a_device_of_torch(bundle):
    found = LMACInterpreter.from_hparams(
        bundle, run_opts={"device": torch.device("cpu", 0)}
    )
    assert found.device == "cpu:0"


def test_sounds_follow_the_model_to_a_device(interpreter):
    functional = LMACInterpreter.from_classifier(
        lambda wavs: wavs.abs().unflatten(1, (4, -1)).mean(2), 16000
    )
    for found in (deepcopy(interpreter), functional):
        assert found.double().device == "cpu"
        assert found.to("meta").device == "meta"


@pytest.mark.parametrize("nothing", [None, 3, "", b"", ["a.wav"]])
def test_what_is_no_path(interpreter, sounds, nothing, tmp_path, monkeypatch):
    """Of an empty name, a folder would be the one that the user is in."""
    monkeypatch.chdir(tmp_path)
    explanation = interpreter.explain_batch(sounds[:1])
    for key, call in (
        ("source", LMACInterpreter.from_hparams),
        ("path", interpreter.explain_file),
        ("folder", explanation.save),
        ("folder", interpreter.save),
    ):
        with pytest.raises(LMACError, match=f"^{key}: found .*, expected a pa"):
            call(nothing)
    assert not any(tmp_path.iterdir())


def test_a_folder_whose_name_is_bytes(interpreter, sounds, tmp_path):
    folder = tmp_path / "why"
    saved = interpreter.explain_batch(sounds[:1]).save(bytes(folder))
    assert saved == [folder] and (folder / "explanation.json").is_file()


def test_savedir(copy, sounds, tmp_path, interpreter):
    """The copy is independent, and belongs to one model."""
    savedir = tmp_path / "saved"
    LMACInterpreter.from_hparams(copy, savedir)
    edit_weights(copy, lambda s: s[next(iter(s))].mul_(2))
    with pytest.raises(LMACError, match="does not hold the model"):
        LMACInterpreter.from_hparams(copy, savedir)
    shutil.rmtree(copy)
    found = LMACInterpreter.from_hparams(savedir).explain_batch(sounds)
    assert torch.equal(found.mask, interpreter.explain_batch(sounds).mask)


def test_hub_ids_are_not_trusted(copy, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name: str(copy)
    )
    assert LMACInterpreter.from_hparams("me/model").classes[0] == "cat"
    edit(copy, "mask_domain: linear", "mask_domain: !apply:os.getcwd []")
    with pytest.raises(LMACError, match="'!apply:os.getcwd' is not allowed"):
        LMACInterpreter.from_hparams("me/model")


@pytest.mark.parametrize("key", ["preprocess", "explainer", "label_encoder"])
def test_what_is_missing_is_listed(bundle, key):
    """Missing modules and keys are listed in the message."""
    with open(bundle / "hyperparams.yaml", encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file)
    modules = hparams["modules"]
    (modules if key in modules else hparams).pop(key)
    with pytest.raises(LMACError, match=f"{key} missing"):
        LMACInterpreter(modules, hparams)


@pytest.mark.parametrize("name", ["decoder", "classifier", "embedding_model"])
@pytest.mark.parametrize(
    "fault", ["renamed", "missing", "extra", "shape", "nan"]
)
def test_weights_load_strictly(copy, name, fault):
    """Weights that do not fit are an error, not a warning."""

    def change(state):
        key = "weight" if name == "classifier" else sorted(state)[0]
        if fault == "renamed":
            state["other"] = state.pop(key)
        elif fault == "missing":
            del state[key]
        elif fault == "extra":
            state["other"] = torch.ones(1)
        elif fault == "shape":
            state[key] = torch.ones(7, 7)
        else:
            state[key] = state[key].float() * torch.nan

    edit_weights(copy, change, name)
    with pytest.raises(LMACError, match=rf"copy/{name}.safetensors: .*'"):
        LMACInterpreter.from_hparams(copy)


@pytest.mark.parametrize(
    "name",
    ["decoder.safetensors", "label_encoder.txt", "hyperparams.yaml"],
)
def test_a_missing_file(copy, name):
    """The message names the missing file, and no link is left."""
    (copy / name).unlink()
    with pytest.raises(
        LMACError,
        match=f"copy/SHA256SUMS: names '{name}', which does not exist",
    ):
        LMACInterpreter.from_hparams(copy)
    write_sums(copy)
    with pytest.raises(LMACError, match=f"copy.*{name}"):
        LMACInterpreter.from_hparams(copy)
    assert not any(path.is_symlink() for path in copy.rglob("*"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no classes"),
        ("'cat' => 0\n'dog' => 1\n", "2 classes.*3 outputs"),
        ("'cat' => 0\n'dog' => 1\n'x' => 3\n", "3 classes.*3 outputs"),
        ("cat 0\n", "not a label encoder"),
        ("__import__('os') => 0\n", "not a label encoder"),
    ],
)
def test_label_encoder(copy, text, message):
    """An empty label encoder is refused."""
    end = "================\n'starting_index' => 0\n"
    (copy / "label_encoder.txt").write_text(text + end)
    write_sums(copy)
    with pytest.raises(LMACError, match=message):
        LMACInterpreter.from_hparams(copy)


@pytest.mark.parametrize("name", ["device", "precision", "compile", "debug"])
def test_names_of_run_options(copy, name):
    """Names of run options in the yaml are refused."""
    edit(copy, "preprocess:", f"{name}: 1\npreprocess:")
    with pytest.raises(LMACError, match=f"'{name}' is the name of a run opt"):
        LMACInterpreter.from_hparams(copy)


LOADABLES = "    loadables:"
DECODER = "        decoder: !ref"
MODULE = "    explainer: !ref <explainer>"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("modules:", "module:", "key 'modules' is missing"),
        ("pretrainer: !new:", "p: !new:", "key 'pretrainer' is missing"),
        (LOADABLES, f"    paths: {{decoder: /etc/x}}\n{LOADABLES}", "paths"),
        (LOADABLES, f"    collect_in: ../x\n{LOADABLES}", "collect_in"),
        (LOADABLES, f"    conditions: {{decoder: no}}\n{LOADABLES}", "condit"),
        (f"{DECODER} <decoder>\n", "", "load explainer.decoder"),
        (DECODER, "        ../decoder: !ref", "no file"),
        (DECODER, "        /etc/decoder: !ref", "no file"),
        ("        label_encoder: !ref <label_encoder>\n", "", "label_encoder"),
        ("in_features: 8", "in_features: 9", "classifier.safetensors"),
        ("in_features: 8", "in_feature: 8", "hyperparams.yaml"),
        ("min_frames: 32", "min_frames: none", "do not fit together"),
        ("mask_domain: linear", "mask_domain: log", "mask_domain"),
        ("sample_rate: 16000\n    si", "sample_rate: 8000\n    si", "preproc"),
        (MODULE, "    explainer: 3", "modules.explainer: is an int"),
    ],
)
def test_a_malformed_yaml(copy, old, new, message, tmp_path):
    edit(copy, old, new)
    with pytest.raises(LMACError, match=message) as caught:
        LMACInterpreter.from_hparams(copy)
    assert "copy" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


class Hostile:
    """A pickle that makes a folder when it is read."""

    def __reduce__(self):
        """Make a folder when it is unpickled."""
        import os

        return os.mkdir, ("OWNED",)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_pickle_with_code(copy, trusted, tmp_path, monkeypatch):
    """A pickle with code is refused, trusted or not."""
    monkeypatch.chdir(tmp_path)
    (copy / "decoder.safetensors").unlink()
    (copy / "decoder.ckpt").write_bytes(pickle.dumps(Hostile()))
    write_sums(copy)
    with pytest.raises(LMACError, match="decoder.ckpt: not a file of weights"):
        LMACInterpreter.from_hparams(copy, trusted=trusted)
    torch.save({"x": Hostile()}, copy / "decoder.ckpt")
    write_sums(copy)
    with pytest.raises(LMACError, match="decoder.ckpt: not a file of weights"):
        LMACInterpreter.from_hparams(copy, trusted=trusted)
    assert not (tmp_path / "OWNED").exists()


def test_pickles_of_tensors_load(copy, interpreter, sounds):
    """Pickles of tensors load, one <key>.ckpt for each entry."""
    for name in ("decoder", "classifier", "embedding_model"):
        path = copy / f"{name}.safetensors"
        state = safetensors.torch.load_file(path)
        torch.save(state, copy / f"{name}.ckpt")
        path.unlink()
    (copy / "label_encoder.txt").rename(copy / "label_encoder.ckpt")
    write_sums(copy)
    found = LMACInterpreter.from_hparams(copy).explain_batch(sounds)
    assert torch.equal(found.mask, interpreter.explain_batch(sounds).mask)


def test_a_yaml_with_code(copy, tmp_path, monkeypatch):
    """Code in a yaml runs only if the user trusts the folder."""
    monkeypatch.chdir(tmp_path)
    edit(copy, "preprocess:", "x: !apply:os.mkdir [OWNED]\npreprocess:")
    with pytest.raises(LMACError, match="line 4: '!apply:os.mkdir'"):
        LMACInterpreter.from_hparams(copy)
    assert not (tmp_path / "OWNED").exists()
    LMACInterpreter.from_hparams(copy, trusted=True)
    assert (tmp_path / "OWNED").exists()


def test_a_changed_file_is_refused(copy):
    """A changed file is refused before anything is loaded."""
    for path in sorted(copy.rglob("*")):
        if not path.is_file() or path.name == "SHA256SUMS":
            continue
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        with pytest.raises(
            LMACError, match=f"{path.name}: truncated or changed"
        ):
            LMACInterpreter.from_hparams(copy)
        path.write_bytes(content)


def test_it_stays_in_evaluation_mode(copy, sounds):
    """The model stays in evaluation mode."""
    interpreter = LMACInterpreter.from_hparams(copy)
    interpreter.explainer.decoder.add_module("x", torch.nn.BatchNorm1d(2))
    before = interpreter.explain_batch(sounds)
    interpreter.train()
    assert not any(module.training for module in interpreter.modules())
    after = interpreter.explain_batch(sounds)
    assert torch.equal(before.logits, after.logits)
    assert torch.equal(before.mask, after.mask)


def test_gradients_reach_the_input(interpreter, sounds):
    """Other attribution methods can be used through a frozen interface."""
    features = interpreter.explainer.features
    wavs = sounds.clone().requires_grad_()
    mel = features.mel(features.magnitude(features.stft(wavs)))
    interpreter.explainer.classifier(mel)[0].sum().backward()
    assert wavs.grad.abs().sum() > 0


# --------------------------------------------------------------- short sounds


def test_a_file_as_in_training(interpreter, sounds, tmp_path):
    """A file is explained as in training, at its own level."""
    path = write(tmp_path / "x.wav", 0.25 * sounds[1])
    found = interpreter.explain_file(path)
    ready = interpreter.preprocess(path)[0][None]
    expected = interpreter.explainer(ready)
    peak = read_audio(path, RATE).abs().max()
    assert torch.allclose(found.logits, expected.logits, atol=1e-5)
    assert torch.allclose(found.mask, expected.mask, atol=1e-6)
    assert torch.allclose(found.waveform, peak * expected.waveform, atol=1e-6)
    assert torch.allclose(found.residual, peak * expected.residual, atol=1e-6)
    assert torch.allclose(found.magnitude, peak * expected.magnitude, atol=1e-4)
    assert found.files == [str(path)]
    assert found.sample_rate == RATE


def test_what_it_says(interpreter, sounds):
    """The explanation has labels, probabilities and fidelity."""
    found = interpreter.explain_batch(sounds)
    assert found.labels == ["cat", "dog", "Käfer"]
    for i in range(3):
        for p, logits in (
            (found.p_before, found.logits),
            (found.p_inside, found.logits_in),
            (found.p_outside, found.logits_out),
        ):
            e = [2.718281828459045 ** float(x) for x in logits[i]]
            assert float(p[i]) == pytest.approx(e[i] / sum(e), abs=1e-5)
        (best, p), *others = found.top(2)[i]
        assert (best, p) == (found.labels[i], pytest.approx(found.p_before[i]))
        assert len(others) == 1
        assert others[0][1] <= p
    assert "'Käfer': p = 1.000" in repr(found)
    assert found.metrics[0]["area"] == pytest.approx(
        float(found.mask[0].mean())
    )


def test_piq_interface(interpreter, sounds, tmp_path):
    path = write(tmp_path / "x.wav", sounds[1])
    waveform, label, rate = interpreter.interpret_file(path)
    assert waveform.shape == (1, RATE)
    assert (label, rate) == ("dog", RATE)
    found = interpreter(sounds[1:2])
    assert torch.allclose(found.waveform, waveform, atol=1e-3)


def test_no_clip_depends_on_another(interpreter, sounds):
    """The result is the same alone, in a batch, or padded."""
    short = sounds.clone()
    short[1, 9000:] = 7  # padding must not matter
    batch = interpreter.explain_batch(
        short, torch.tensor([1.0, 9000 / RATE, 1.0])
    )
    for i, n in ((0, RATE), (1, 9000), (2, RATE)):
        alone = interpreter.explain_batch(sounds[i : i + 1, :n])
        frames = alone.mask.shape[1]
        assert torch.allclose(
            batch.waveform[i, :n], alone.waveform[0], atol=1e-5
        )
        assert torch.allclose(batch.mask[i, :frames], alone.mask[0], atol=1e-5)
        assert torch.allclose(batch.logits[i], alone.logits[0], atol=1e-4)
        assert batch.metrics[i] == pytest.approx(alone.metrics[0], abs=1e-2)
        assert not batch.waveform[i, n:].any()
    assert batch.n_samples == [RATE, 9000, RATE]


@pytest.mark.parametrize("target", ["Käfer", 2, ["Käfer"], torch.tensor([2])])
def test_another_class(interpreter, sounds, target):
    """The requested class is explained."""
    found = interpreter.explain_batch(sounds[:1], target=target)
    assert found.labels == ["Käfer"]
    assert found.top(1)[0][0][0] == "cat"
    assert found.p_before[0] < 0.1
    own = interpreter.explain_batch(sounds[:1])
    assert not torch.allclose(found.mask, own.mask, atol=1e-4)


def test_one_target_a_clip(interpreter, sounds):
    found = interpreter.explain_batch(sounds, target=["dog", 0, "dog"])
    assert found.labels == ["dog", "cat", "dog"]


@pytest.mark.parametrize("target", ["cow", 3, -1, ["cat", "cow"]])
def test_no_such_class(interpreter, sounds, target):
    with pytest.raises(LMACError, match="target: .*"):
        interpreter.explain_batch(sounds[:1], target=target)


def test_threshold(interpreter, sounds):
    found = interpreter.explain_batch(sounds, threshold=0.5)
    assert set(found.mask.unique().tolist()) <= {0.0, 1.0}
    soft = interpreter.explain_batch(sounds).mask
    assert torch.equal(found.mask, (soft >= 0.5).float())
    with pytest.raises(LMACError, match="threshold: 0 is not in"):
        interpreter.explain_batch(sounds, threshold=0)


def test_silence(interpreter):
    found = interpreter.explain_batch(torch.zeros(1, 8000))
    assert not found.waveform.any()
    assert found.logits.isfinite().all()


def test_bad_batches(interpreter):
    for wavs, lengths, message in [
        (torch.zeros(8000), None, r"shape \(8000,\)"),
        (torch.zeros(0, 8000), None, "at least one sample"),
        (torch.zeros(1, 100), None, "clip 0 is 0.0063 s long"),
        (torch.full((2, 8000), torch.nan), None, "NaN .* in clip 0"),
        (torch.zeros(2, 8000), torch.tensor([1.0]), "lengths: "),
        (torch.zeros(1, 8000), torch.tensor([1.5]), "lengths: "),
    ]:
        with pytest.raises(LMACError, match=message):
            interpreter.explain_batch(wavs, lengths)


# ---------------------------------------------------------------- bad files


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 192000])
@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "DOUBLE"]
)
def test_any_format(interpreter, sounds, rate, subtype, tmp_path):
    """The result has the file's duration at the model's rate."""
    time = torch.arange(rate) / rate
    tone = 0.5 * torch.sin(2 * torch.pi * 300 * time)
    stereo = np.stack([tone.numpy(), tone.numpy()], axis=1)
    path = write(tmp_path / "x.wav", stereo, rate, subtype=subtype)
    found = interpreter.explain_file(path)
    assert found.waveform.shape == found.residual.shape == (1, RATE)
    assert found.labels == ["cat"]
    assert found.wavs.abs().max() == pytest.approx(0.5, abs=0.02)


def test_many_channels(interpreter, tmp_path):
    """Stereo is mixed down at any sampling rate."""
    rng = np.random.default_rng(0)
    sound = rng.uniform(-1, 1, (RATE, 32))
    path = write(tmp_path / "x.wav", sound)
    found = interpreter.explain_file(path)
    assert found.waveform.shape == (1, RATE)
    mono = torch.from_numpy(sound.mean(1)).float()
    assert torch.allclose(found.wavs[0], mono, atol=2 * STEP)


@pytest.mark.parametrize(
    "name",
    ["a b.wav", 'it\'s "q".wav', "Käfer ü.wav", "-x.wav", "$(ls);&.wav"],
)
def test_any_name(interpreter, sounds, name, tmp_path):
    path = write(tmp_path / name, sounds[0, :4000])
    assert interpreter.explain_file(path).files == [str(path)]


def test_files_that_cannot_be_used(interpreter, tmp_path):
    """The message names the file and what is wrong."""
    (tmp_path / "text.wav").write_text("hello")
    (tmp_path / "empty.wav").touch()
    write(tmp_path / "none.wav", np.zeros(0))
    write(tmp_path / "short.wav", np.zeros(160))
    sound = np.zeros(8000)
    sound[10] = np.nan
    write(tmp_path / "nan.wav", sound, subtype="FLOAT")
    sound[10] = np.inf
    write(tmp_path / "inf.wav", sound, subtype="DOUBLE")
    write(tmp_path / "cut.wav", np.zeros(8000))
    content = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(content[:9000])
    for name, message in [
        ("text.wav", "cannot be read as audio"),
        ("empty.wav", "cannot be read as audio"),
        ("none.wav", "holds no samples"),
        ("short.wav", "0.0100 s long, expected at least 0.1 s"),
        ("nan.wav", "holds NaN or infinite"),
        ("inf.wav", "holds NaN or infinite"),
        ("cut.wav", "truncated"),
        ("gone.wav", "no such audio file"),
        (".", "is a folder"),
    ]:
        with pytest.raises(LMACError, match=message) as caught:
            interpreter.explain_file(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


# --------------------------------------------------------------- long sounds


@pytest.fixture(scope="module")
def one_second(bundle, tmp_path_factory):
    """A model that was trained on clips of one second."""
    folder = tmp_path_factory.mktemp("one") / "model"
    shutil.copytree(bundle, folder)
    edit(folder, "signal_length_s: null", "signal_length_s: 1")
    return LMACInterpreter.from_hparams(folder)


@pytest.fixture(scope="module")
def long_wav(sounds):
    """Each class for about two seconds, at different levels."""
    parts = [
        level * sounds[i].repeat(2)
        for i, level in ((0, 0.8), (2, 0.1), (1, 0.5))
    ]
    return torch.cat(parts)[:-1234]


def windows_of(interpreter, wav):
    """Start and explanation of each window as a separate clip."""
    hop = interpreter.explainer.features.hop_samples
    stride = interpreter.window - interpreter.overlap
    rest = len(wav) - interpreter.window
    n_steps = math.ceil(rest / stride)
    found = []
    for i in range(n_steps + 1):
        start = math.ceil(i * rest / n_steps / hop) * hop
        piece = wav[start : start + interpreter.window]
        found.append((start, interpreter.explain_batch(piece[None])))
    return found


@pytest.mark.parametrize("more", [1, 16, 185, 186, 2000, 12000, 12001, 40000])
def test_windows_are_whole(one_second, long_wav, more):
    """None is a short rest, and what each keeps adds up to the sound."""
    wav = long_wav[: RATE + more]
    found = one_second.explain_batch(wav[None])
    lengths = [RATE * (x["end"] - x["start"]) for x in found.windows[0]]
    assert len(lengths) > 1
    assert min(lengths) > one_second.window - 186
    starts = [x["start"] for x in found.windows[0]]
    assert starts[0] == 0 and found.windows[0][-1]["end"] * RATE == (
        pytest.approx(len(wav))
    )
    whole = found.waveform[0] + found.residual[0]
    assert torch.allclose(whole, wav, atol=1e-4)


def test_short_of_the_training_length(one_second, interpreter, sounds):
    """A short file is padded; the results have its length."""
    found = one_second.explain_batch(sounds[:, :7000])
    assert found.waveform.shape == (3, 7000)
    assert found.mask.shape[1] == 7000 // 186 + 1
    padded = torch.nn.functional.pad(sounds[:, :7000], (0, 9000))
    expected = one_second.explain_batch(padded)
    assert torch.allclose(found.logits, expected.logits, atol=1e-4)
    assert torch.allclose(
        found.waveform, expected.waveform[:, :7000], atol=1e-5
    )


def test_windows_are_clips(one_second, long_wav):
    """Each window has the decision that it has as a clip."""
    found = one_second.explain_batch(long_wav[None])
    expected = windows_of(one_second, long_wav)
    assert len(found.windows[0]) == len(expected) == 8
    labels = set()
    for window, (start, clip) in zip(found.windows[0], expected):
        assert window["start"] == pytest.approx(start / RATE)
        assert window["end"] == pytest.approx(
            (start + clip.n_samples[0]) / RATE
        )
        assert window["decision"] == clip.labels[0]
        assert window["p"] == pytest.approx(float(clip.p_before[0]), abs=1e-4)
        assert window["p_in"] == pytest.approx(
            float(clip.p_inside[0]), abs=1e-4
        )
        assert window["verdict"] == clip.verdicts[0]
        labels.add(window["decision"])
    assert len(labels) > 1


def test_a_silent_part_of_a_long_file(one_second, sounds, tmp_path):
    """Its windows are called silent, the file is not; and all of silence."""
    tone, nothing = sounds[0], torch.zeros(5 * RATE)
    found = one_second.explain_batch(torch.cat([tone, nothing])[None])
    verdicts = [window["verdict"] for window in found.windows[0]]
    assert "silent" not in verdicts[:1]
    assert verdicts[2:] == ["silent"] * (len(verdicts) - 2)
    assert found.verdicts[0] != "silent"
    content = json.loads(
        (found.save(tmp_path)[0] / "explanation.json").read_text("utf-8")
    )
    assert content["verdict"] == found.verdicts[0]
    assert [w["verdict"] for w in content["windows"]] == verdicts
    assert one_second.explain_batch(nothing[None]).verdicts == ["silent"]


def test_the_verdict_of_both_masks(interpreter, sounds):
    """The decoder that nobody trained, and steps that improve on it."""
    found = interpreter.explain_batch(
        sounds[:1], refine_steps=5, unrefined=True
    )
    assert found.verdicts == ["faithful"]
    assert found.unrefined.verdicts == ["unfaithful: the rest decides the same"]
    assert found[0].unrefined.verdicts == found.unrefined.verdicts


def test_cross_fade(one_second, long_wav):
    """Windows are cross-faded as in a slow implementation."""
    found = one_second.explain_batch(long_wav[None])
    expected = torch.zeros(len(long_wav))
    residual = torch.zeros(len(long_wav))
    weights = torch.zeros(len(long_wav))
    mask = torch.zeros(found.mask.shape[1:])
    clips = windows_of(one_second, long_wav)
    shares = []
    for number, (start, clip) in enumerate(clips):
        share = 0.0

        def weight(n, number=number):
            """Weight of this window at its sample n."""
            w = 1.0
            if number > 0 and n < one_second.overlap:
                w = n / one_second.overlap
            if number < len(clips) - 1:
                after = n - (clips[number + 1][0] - clips[number][0])
                if after > 0:
                    w = max(0.0, 1 - after / one_second.overlap)
            return w

        for n in range(clip.n_samples[0]):
            w = weight(n)
            weights[start + n] += w
            share += w
        fade = torch.tensor([weight(n) for n in range(clip.n_samples[0])])
        stop = start + clip.n_samples[0]
        expected[start:stop] += fade * clip.waveform[0]
        residual[start:stop] += fade * clip.residual[0]
        for frame in range(clip.mask.shape[1]):
            row = start // 186 + frame
            mask[row] += weight(186 * frame) * clip.mask[0, frame]
        shares.append(share / len(long_wav))
    assert torch.allclose(weights, torch.ones(len(long_wav)), atol=1e-5)
    assert torch.allclose(found.waveform[0], expected, atol=1e-5)
    assert torch.allclose(found.residual[0], residual, atol=1e-5)
    assert torch.allclose(found.mask[0].float(), mask, atol=2e-3)
    assert sum(shares) == pytest.approx(1)
    # The summary holds means weighted by duration.
    for name in ("logits", "logits_in", "logits_out"):
        p = sum(
            share * getattr(clip, name)[0].softmax(0)
            for share, (_, clip) in zip(shares, clips)
        )
        assert torch.allclose(getattr(found, name)[0].softmax(0), p, atol=1e-4)
    area = sum(
        share * clip.metrics[0]["area"]
        for share, (_, clip) in zip(shares, clips)
    )
    assert found.metrics[0]["area"] == pytest.approx(area, abs=1e-4)
    p = found.probabilities[0]
    assert found.labels == [one_second.classes[int(p.argmax())]]


def test_nothing_is_lost(one_second, long_wav):
    """Both parts add up to the input, across windows too."""
    found = one_second.explain_batch(long_wav[None])
    assert torch.allclose(
        found.waveform[0] + found.residual[0], long_wav, atol=1e-4
    )
    assert torch.equal(found.wavs[0], long_wav)


@pytest.mark.parametrize("extra", [0, 1, 185, 186, 3000, 4000, 12000, 12001])
def test_any_length(one_second, long_wav, extra):
    """No length leaves a gap or an empty window."""
    wav = long_wav[: one_second.window + extra]
    found = one_second.explain_batch(wav[None])
    assert found.waveform.shape[1] == len(wav)
    assert found.mask.shape[1] == len(wav) // 186 + 1
    assert torch.allclose(found.waveform[0] + found.residual[0], wav, atol=1e-4)
    end = max(window["end"] for window in found.windows[0])
    assert end == pytest.approx(len(wav) / RATE)


def test_target_and_threshold_in_windows(one_second, long_wav):
    found = one_second.explain_batch(
        long_wav[None], target="dog", threshold=0.5
    )
    assert found.labels == ["dog"]
    assert {w["decision"] for w in found.windows[0]} == {"dog"}
    # Binary, except where two windows are cross-faded.
    share = ((found.mask == 0) | (found.mask == 1)).float().mean()
    assert share > 0.6


def test_long_and_short_in_one_batch(one_second, long_wav):
    wavs = torch.stack([long_wav, long_wav])
    lengths = torch.tensor([1.0, 9000 / len(long_wav)])
    found = one_second.explain_batch(wavs, lengths)
    alone = one_second.explain_batch(long_wav[None, :9000])
    assert torch.allclose(
        found.waveform[1, :9000], alone.waveform[0], atol=1e-5
    )
    assert found.magnitude is None
    assert [len(windows) for windows in found.windows] == [8, 1]


# --------------------------------------------------------- saving and showing


def test_save(interpreter, sounds, tmp_path):
    """One clip is saved in the folder, several in sub-folders."""
    path = write(tmp_path / "x.wav", sounds[0])
    found = interpreter.explain_file(path, threshold=0.5)
    assert found.save(tmp_path / "one", "flac") == [tmp_path / "one"]
    sound, rate = sf.read(tmp_path / "one" / "interpretation.flac")
    assert rate == RATE
    content = json.loads((tmp_path / "one" / "explanation.json").read_text())
    expected = content["gain"] * found.waveform[0].numpy()
    assert np.allclose(sound, expected, atol=2 * STEP)
    assert content["file"] == path.name
    assert content["threshold"] == 0.5
    assert content["decision"] == found.labels[0] == "cat"
    assert content["p_in"][0] == pytest.approx(float(found.p_inside[0]))
    assert "windows" not in content

    batch = interpreter.explain_batch(sounds, torch.tensor([1.0, 0.5, 1.0]))
    folders = batch.save(tmp_path / "many", truth=["cat", "dog", "cat"])
    assert [folder.name for folder in folders] == ["clip_0", "clip_1", "clip_2"]
    assert sf.info(folders[1] / "original.wav").frames == RATE // 2
    content = json.loads((folders[2] / "explanation.json").read_text("utf-8"))
    assert (content["label"], content["decision"]) == ("cat", "Käfer")
    # The metrics of the clip alone, without its padding.
    alone = interpreter.explain_batch(sounds[1:2, : RATE // 2])
    content = json.loads((folders[1] / "explanation.json").read_text("utf-8"))
    assert content["metrics"]["COMP"] == pytest.approx(
        alone.metrics[0]["COMP"], abs=1e-3
    )


def test_save_windows(one_second, long_wav, tmp_path):
    found = one_second.explain_batch(long_wav[None])
    (folder,) = found.save(tmp_path / "long")
    content = json.loads((folder / "explanation.json").read_text("utf-8"))
    assert content["windows"] == found.windows[0]
    assert content["metrics"]["area"] == pytest.approx(found.metrics[0]["area"])


@pytest.mark.parametrize("peak", [1e-9, 1e-5])
def test_parts_of_a_very_quiet_clip(interpreter, sounds, peak):
    """They add up to the clip, also below the least peak that is scaled."""
    wav = peak * sounds[1] / sounds[1].abs().max()
    found = interpreter.explain_batch(wav[None])
    whole = found.waveform + found.residual
    assert (whole - wav).abs().max() < 1e-4 * peak


# ----------------------------------------------------------------- refinement


def test_refined_files_and_batches(interpreter, sounds, tmp_path):
    """Files and batches are refined as by the explainer."""
    path = write(tmp_path / "x.wav", sounds[1])
    found = interpreter.explain_file(path, refine_steps=2)
    ready = interpreter.preprocess(path)[0][None]
    expected = interpreter.explainer(ready, refine_steps=2)
    assert found.refine_steps == 2
    assert torch.allclose(found.mask, expected.mask, atol=1e-4)
    assert torch.allclose(found.logits_in, expected.logits_in, atol=1e-3)
    plain = interpreter.explain_file(path)
    assert plain.refine_steps == 0
    assert plain.unrefined is None
    assert (found.mask - plain.mask).abs().max() > 0.1
    assert torch.equal(found.logits, plain.logits)
    # Clips of several lengths and classes; each is explained as alone. Where
    # nothing sounds, rounding decides which way a step goes.
    sounds = sounds + 0.01 * torch.randn_like(sounds)
    lengths = torch.tensor([1.0, 0.5, 1.0])
    batch = interpreter.explain_batch(
        sounds, lengths, ["dog", "cat", "dog"], refine_steps=2
    )
    for i, n_samples in enumerate((RATE, RATE // 2, RATE)):
        alone = interpreter.explain_batch(
            sounds[i : i + 1, :n_samples],
            target=["dog", "cat", "dog"][i],
            refine_steps=2,
        )
        assert batch.labels[i] == alone.labels[0]
        n_frames = alone.mask.shape[1]
        assert torch.allclose(
            batch.mask[i, :n_frames], alone.mask[0], atol=1e-3
        )


def test_refined_windows(one_second, long_wav):
    """Each window is refined, and counts as such in the metrics."""
    found = one_second.explain_batch(long_wav[None], refine_steps=2)
    plain = one_second.explain_batch(long_wav[None])
    assert len(found.windows[0]) == len(plain.windows[0]) > 1
    changed = 0
    for a, b in zip(found.windows[0], plain.windows[0]):
        assert (a["decision"], a["p"]) == (b["decision"], b["p"])
        changed += a["p_in"] != b["p_in"]
    assert changed == len(plain.windows[0])
    assert found.metrics[0]["area"] != plain.metrics[0]["area"]
    assert found.mask.isfinite().all()


def test_both_masks_of_long_files(one_second, long_wav):
    """Long files keep both masks, from one pass."""
    plain = one_second.explain_batch(long_wav[None])
    refined = one_second.explain_batch(long_wav[None], refine_steps=2)
    both = one_second.explain_batch(
        long_wav[None], refine_steps=2, unrefined=True
    )
    assert refined.unrefined is None
    for found, expected in ((both, refined), (both.unrefined, plain)):
        assert torch.equal(found.mask, expected.mask)
        assert torch.equal(found.waveform, expected.waveform)
        assert torch.equal(found.logits_in, expected.logits_in)
        assert found.windows == expected.windows
        assert found.metrics == expected.metrics
        assert found.refine_steps == expected.refine_steps


@pytest.mark.parametrize("steps", [-1, 1.5, True, "2"])
def test_no_number_of_steps(interpreter, sounds, steps, tmp_path, monkeypatch):
    """An invalid number of steps is refused at once."""
    path = write(tmp_path / "x.wav", sounds[0])
    monkeypatch.setattr(interpreter, "_explain", None)
    for explain in (
        lambda: interpreter.explain_file(path, refine_steps=steps),
        lambda: interpreter.explain_batch(sounds, refine_steps=steps),
    ):
        with pytest.raises(LMACError, match="refine_steps: .* whole number"):
            explain()


def test_a_model_without_refiner(copy, sounds):
    """An exported folder of an earlier version loads and explains."""
    path = copy / "hyperparams.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [x for x in lines if "refiner: !ref" not in x]
    lines = [x for x in lines if "refine_steps" not in x]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_sums(copy)
    old = LMACInterpreter.from_hparams(copy)
    assert old.explain_batch(sounds).refine_steps == 0
    with pytest.raises(LMACError, match="refine_steps: 1, but this model has"):
        old.explain_batch(sounds, refine_steps=1)


def test_steps_of_the_model(copy, sounds, interpreter):
    """The yaml of a model sets its number of steps."""
    edit(copy, "refine_steps: 0", "refine_steps: 1")
    refining = LMACInterpreter.from_hparams(copy)
    found = refining.explain_batch(sounds)
    assert found.refine_steps == 1
    expected = interpreter.explain_batch(sounds, refine_steps=1)
    assert torch.equal(found.mask, expected.mask)
    assert refining.explain_batch(sounds, refine_steps=0).refine_steps == 0


def test_save_both_masks(interpreter, sounds, tmp_path):
    """Both masks are saved; a later call removes the second."""
    found = interpreter.explain_batch(sounds[:2], refine_steps=1)
    found.unrefined = interpreter.explain_batch(sounds[:2])
    folders = found.save(tmp_path, "flac", ["cat", "dog"])
    assert folders == [tmp_path / "clip_0", tmp_path / "clip_1"]
    for i, folder in enumerate(folders):
        for path, part in (
            (folder, found),
            (folder / "unrefined", found.unrefined),
        ):
            text = (path / "explanation.json").read_text("utf-8")
            content = json.loads(text)
            assert content["refine_steps"] == part.refine_steps
            assert content["label"] == ["cat", "dog"][i]
            c = int(part.decision[i])
            p_in = pytest.approx(float(part.p_inside[i]), abs=1e-6)
            assert content["p_in"][c] == p_in
            sound, _ = sf.read(path / "interpretation.flac")
            expected = content["gain"] * part.waveform[i].numpy()
            assert np.allclose(sound, expected, atol=2 * STEP)
    found.unrefined.save(tmp_path)
    assert not (folders[0] / "unrefined").exists()


def test_plot(interpreter, sounds, tmp_path):
    found = interpreter.explain_batch(sounds)
    figure = found.plot(2)
    assert "Käfer" in figure.get_suptitle()
    titles = [axis.get_title() for axis in figure.axes]
    assert f"interpretation, p = {float(found.p_inside[2]):.3f}" in titles


def test_plot_says_decision_of_a_decision_only(interpreter, sounds):
    decided = interpreter.explain_batch(sounds[:1])
    assert decided.plot().get_suptitle().startswith("decision: ")
    other = (int(decided.decision[0]) + 1) % len(decided.classes)
    asked = interpreter.explain_batch(sounds[:1], target=other)
    assert asked.plot().get_suptitle().startswith("explained: ")


def test_notebook(interpreter, sounds):
    """A notebook shows a picture and three players for each clip."""
    found = interpreter.explain_batch(sounds[:2])
    found.classes = ["<script>x</script>", 'a"b', "c"]
    page = found._repr_html_()
    assert page.count("<img ") == 2
    assert page.count("<audio ") == 6
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "&quot;b" in page


def test_notebook_of_a_long_sound(interpreter, sounds, monkeypatch):
    monkeypatch.setattr("lmac_sb.inference.explanation._PLAYED_S", 0.5)
    page = interpreter.explain_batch(sounds[:1])._repr_html_()
    assert page.count("<audio ") == 0
    assert page.count("too long to play here") == 3


MEASURE = """
import sys, threading, time
import torch
torch.set_num_threads(1)
from lmac_sb import LMACInterpreter
def private():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
peak = 0
def watch():
    global peak
    while True:
        peak = max(peak, private())
        time.sleep(0.001)  # short peaks count too, on a busy machine
interpreter = LMACInterpreter.from_hparams(sys.argv[1])
threading.Thread(target=watch, daemon=True).start()
peaks = []
for file in sys.argv[2:4]:
    peak = 0
    explanation = interpreter.explain_file(file)
    explanation.save(sys.argv[4] + "/out")
    peaks.append(peak)
print(peaks[1] - peaks[0], len(explanation.windows[0]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_bounded_memory(bundle, sounds, tmp_path):
    """Ten minutes take hardly more memory than one."""
    rate = 8000
    rng = np.random.default_rng(0)
    for name, seconds in (("short", 60), ("long", 600)):
        sound = 0.1 * rng.standard_normal(rate * seconds)
        write(tmp_path / f"{name}.wav", sound, rate)
    done = subprocess.run(
        [
            *(sys.executable, "-c", MEASURE, bundle),
            *(tmp_path / "short.wav", tmp_path / "long.wav", tmp_path),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    growth, n_windows = map(float, done.stdout.split())
    assert n_windows == 80
    # Mask and spectrogram alone would be 2 x 100 MB, the sounds 3 x 37 MB.
    assert growth < 100


# ---------------------------------------------------------- batches of clips


def test_clips_of_a_batch(interpreter, sounds):
    """Names, windows and metrics go with their clip, whatever is picked."""
    lengths = torch.tensor([1.0, 0.6, 0.8])
    batch = interpreter.explain_batch(sounds[:3], lengths, refine_steps=0)
    picked = batch[[2, 0]]
    assert picked.n_samples == [batch.n_samples[2], batch.n_samples[0]]
    assert picked.labels == [batch.labels[2], batch.labels[0]]
    assert picked.windows == [batch.windows[2], batch.windows[0]]
    assert picked.metrics == [batch.metrics[2], batch.metrics[0]]
    assert torch.equal(picked.wavs, batch.wavs[[2, 0]])
    again = type(batch).join([batch[i] for i in range(3)])
    assert again.metrics == batch.metrics
    assert again.n_samples == batch.n_samples
    assert torch.equal(again.mask, batch.mask)
    assert torch.equal(again.wavs, batch.wavs)


def test_both_masks_of_a_clip_of_a_batch(interpreter, sounds):
    both = interpreter.explain_batch(sounds[:2], refine_steps=1, unrefined=True)
    one = both[1]
    assert one.unrefined.labels == both.unrefined.labels[1:]
    assert one.unrefined.metrics == both.unrefined.metrics[1:]
    assert (one.refine_steps, one.unrefined.refine_steps) == (1, 0)


def test_the_input_is_cut_and_scaled_too(interpreter, sounds):
    """It is one of the sounds."""
    whole = interpreter.explain_batch(sounds[:2])
    n_samples = whole.n_samples[0] // 2
    short = whole.fit(n_samples, 40)
    assert short.n_samples == [n_samples] * 2
    assert torch.equal(short.wavs, whole.wavs[:, :n_samples])
    assert torch.equal(short.residual, whole.residual[:, :n_samples])
    loud = whole.scale(torch.tensor([2.0, 1.0]))
    assert torch.equal(loud.wavs[0], 2 * whole.wavs[0])
    assert torch.equal(loud.waveform[0], 2 * whole.waveform[0])
