"""Layers found by dry runs, and their maps, against what they must be."""

import pytest
import torch
import torchaudio
from small_models import small_model

from lmac_sb.adapters.layered import LayeredClassifier
from lmac_sb.adapters.layers import Layer, find_layers, layer_modules
from lmac_sb.listener.listener import Listener
from lmac_sb.listener.windows import Windows
from lmac_sb.models.encoders import AttentionEmbedding, ConvEmbedding
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.utils.errors import LMACError

RATE = 16000


class OnMel(torch.nn.Module):
    """An encoder of [batch, time, mel] behind torchaudio's [mel, time]."""

    def __init__(self, encoder, size):
        super().__init__()
        self.encoder, self.head = encoder, torch.nn.Linear(size, 5)

    def forward(self, mel):
        return self.head(self.encoder(mel.transpose(1, 2).log1p()))


class Convolutions(torch.nn.Module):
    """Layers of several shapes, in a chosen layout."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        self.first = torch.nn.Conv1d(1, 6, 400, 160)
        self.second = torch.nn.GRU(6, 7, batch_first=layout == "btc")
        self.head = torch.nn.Linear(7, 3)

    def forward(self, wavs):
        h = self.first(wavs[:, None])
        h = h.transpose(1, 2) if self.layout == "btc" else h.permute(2, 0, 1)
        h, _ = self.second(h)
        return self.head(h.mean(1 if self.layout == "btc" else 0))


class Frames(torch.nn.Module):
    """Cuts a clip into frames that lie in the batch axis."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv1d(1, 6, 64, 32)
        self.second = torch.nn.Linear(6, 7)
        self.head = torch.nn.Linear(7, 3)

    def forward(self, wavs):
        frames = wavs.unfold(1, 800, 800)
        h = self.first(frames.reshape(-1, 1, 800)).relu().mean(2)
        h = self.head(self.second(h).relu())
        return h.unflatten(0, (len(wavs), -1)).mean(1)


class Alone(torch.nn.Module):
    """Takes one clip without a batch axis."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv1d(1, 6, 400, 160)
        self.second = torch.nn.Conv1d(6, 7, 4, 2)
        self.head = torch.nn.Linear(7, 3)

    def forward(self, wav):
        if wav.dim() != 1:
            raise ValueError("expected one clip")
        h = self.second(self.first(wav[None, None]).relu())
        return self.head(h.mean(2))[0]


class Patches(torch.nn.Module):
    """Attention among tokens, each a patch, behind one for the class."""

    def __init__(self):
        super().__init__()
        self.patch = torch.nn.Conv2d(1, 8, (16, 8), (16, 8))
        self.token = torch.nn.Parameter(torch.randn(1, 1, 8))
        layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 2)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, mel):
        h = self.patch(mel[:, None]).flatten(2).transpose(1, 2)
        h = torch.cat((self.token.expand(len(h), 1, 8), h), 1)
        return self.head(self.encoder(h)[:, 0])


class Fixed(torch.nn.Module):
    """Takes clips of one length alone."""

    def __init__(self):
        super().__init__()
        self.maps = torch.nn.Sequential(
            torch.nn.Conv2d(1, 6, 3, stride=2),
            torch.nn.ReLU(inplace=True),
            torch.nn.Conv2d(6, 8, 3, stride=2),
        )
        self.head = torch.nn.Linear(8 * 19 * 15, 3)

    def forward(self, mel):
        return self.head(self.maps(mel[:, None]).flatten(1))


def mel():
    return torchaudio.transforms.MelSpectrogram(RATE, 512, n_mels=80)


def heard(model, **options):
    """A listener and a second of noise."""
    listener = Listener(model.eval(), RATE, **options)
    return listener, torch.randn(1, RATE) / 10


def found(model, **options):
    """Names of the layers with their axes."""
    listener, wavs = heard(model, **options)
    layers = find_layers(listener, wavs, longest=63)
    return {layer.name: layer.axes for layer in layers}


def test_maps_of_distinct_sizes():
    model = OnMel(ConvEmbedding(80, [4, 8, 8, 8, 16]), 16)
    listener, wavs = heard(model, front_end=mel())
    layers = find_layers(listener, wavs)
    assert [layer.channels for layer in layers] == [16, 8, 8, 8]
    assert {layer.axes for layer in layers} == {"bctf"}
    _, latents = LayeredClassifier(listener, layers).trace(wavs)
    sizes = [tuple(latent.shape[2:]) for latent in latents]
    assert sizes == [(3, 5), (3, 5), (7, 10), (15, 20), (31, 40)]


@pytest.mark.parametrize("layout", ["btc", "tbc"])
def test_sequences(layout):
    assert found(Convolutions(layout)) == {"second": layout, "first": "bct"}


def test_frames_in_the_batch_axis():
    axes = found(Frames())
    assert axes["second"] == "Tc"
    assert axes["first"] == "Tc."


def test_clips_one_by_one():
    assert found(Alone()) == {"second": "bct", "first": "bct"}


def test_a_fixed_length():
    axes = found(Fixed(), front_end=mel())
    assert set(axes.values()) == {"bcft"}
    assert "maps.2" in axes


def test_no_layer_of_one_cell_of_time():
    net = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, -1)),
        torch.nn.Conv1d(1, 4, 400, 160),
        torch.nn.AdaptiveMaxPool1d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )
    assert found(net) == {"1": "bct"}


def test_a_function():
    net = Patches().eval()
    front = mel()
    listener = Listener(lambda wavs: net(front(wavs)), RATE)
    layers = find_layers(listener, torch.randn(1, RATE) / 10)
    assert layers[0].tokens == "ft"
    # The front end, which has no weights, is not among them.
    known, own = layer_modules(listener), set(net.modules())
    assert {known[layer.name] for layer in layers} < own


def test_tokens_lie_on_the_grid_of_their_patches():
    model = Patches()
    listener, wavs = heard(model, front_end=mel())
    layer, *_ = find_layers(listener, wavs)
    assert (layer.tokens, layer.bands, layer.extra) == ("ft", 5, 1)
    maps = model.patch(mel()(wavs)[:, None])
    tokens = maps.flatten(2).transpose(1, 2)
    tokens = torch.cat((model.token, tokens), 1)
    torch.testing.assert_close(layer.to_map(tokens, 1), maps.transpose(2, 3))


def test_attention_of_the_recipe():
    model = OnMel(AttentionEmbedding(80, 16, 2, 2), 16)
    listener, wavs = heard(model, front_end=mel())
    first, second, *_ = find_layers(listener, wavs)
    assert (first.name, first.tokens, first.bands) == (
        "encoder.last_norm",
        "tf",
        5,
    )
    assert second.axes == "bctf"


@pytest.mark.parametrize("family", ["ast", "wav2vec2", "whisper"])
def test_transformers(family):
    pytest.importorskip("transformers")
    from lmac_sb.adapters.hugging_face import from_hugging_face

    listener = from_hugging_face(*small_model(family))
    wavs = torch.randn(2, 8000) / 10
    layers = find_layers(listener, wavs, longest=32)
    assert layers[0].name.endswith("layers.1")
    frozen = LayeredClassifier(listener, layers)
    logits, latents = frozen.trace(wavs)
    torch.testing.assert_close(logits, listener(wavs))
    # Of what AST and Whisper hear, .64 and 1 s, only half a second is sound.
    expected = {"ast": (4, 2), "wav2vec2": (31, 1), "whisper": (25, 1)}
    n_time, n_freq = latents[0].shape[2:]
    assert (n_time, n_freq) == expected[family]


def test_evidence_is_that_of_a_frozen_classifier():
    """Gradient times activation, computed by the recipe's own adapter."""
    encoder, head = ConvEmbedding(40, [4, 8]).eval(), torch.nn.Linear(8, 3)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = encoder, head

        def forward(self, mels):
            return self.head(self.encoder(mels))

    bands = torch.rand(2, 60, 40)
    slow = FrozenClassifier(encoder, head, ["blocks.1", "blocks.0"])
    logits, expected = slow.trace(bands, torch.tensor([2, 0]))

    class Bands(torch.nn.Module):
        """Bands instead of waveforms, which are their flattened values."""

        def forward(self, wavs):
            return wavs.unflatten(1, (60, 40))

    listener = Listener(Net(), RATE, front_end=Bands())
    wavs = bands.flatten(1)
    listener.settle(wavs)
    layers = [
        Layer("encoder.blocks.1", 8, "bctf"),
        Layer("encoder.blocks.0", 4, "bctf"),
    ]
    frozen = LayeredClassifier(listener, layers)
    found, latents = frozen.trace(wavs, torch.tensor([2, 0]))
    torch.testing.assert_close(found, logits)
    for one, two in zip(latents, expected):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("make", [Alone, Frames])
def test_a_batch_is_traced_as_each_clip_alone(make):
    listener, wavs = heard(make())
    layers = find_layers(listener, wavs)
    frozen = LayeredClassifier(listener, layers)
    clips = torch.randn(3, RATE) / 10
    target = torch.tensor([0, 2, 1])
    _, together = frozen.trace(clips, target)
    for i in range(3):
        _, alone = frozen.trace(clips[i : i + 1], target[i : i + 1])
        for one, two in zip(together, alone):
            torch.testing.assert_close(one[i : i + 1], two)


def test_windows_are_laid_on_the_clip():
    """Each cell of the whole is that of the windows that hold it."""
    model = OnMel(ConvEmbedding(80, [4, 8]), 8)
    windows = Windows(8000, 4000)
    listener = Listener(model.eval(), RATE, front_end=mel(), windows=windows)
    wavs = torch.randn(2, 20000) / 10
    layer, *_ = find_layers(listener, wavs)
    frozen = LayeredClassifier(listener, [layer])
    _, (evidence, latent) = frozen.trace(wavs)
    # 32 frames halved: 15 or 16 cells a window of half a second.
    per_window = latent.shape[2] / (20000 / 8000)
    assert 14 <= per_window <= 16
    assert evidence.shape == latent.shape
    rows = windows.cut(wavs)
    alone = Listener(model, RATE, front_end=mel())
    alone.settle(rows)
    _, (_, maps) = LayeredClassifier(alone, [layer]).trace(rows)
    # The first cells belong to the first window alone.
    torch.testing.assert_close(latent[:, :, :7], maps[[0, 4]][:, :, :7])


@pytest.mark.parametrize("head", [None, "4"])
@pytest.mark.parametrize("relevance", [False, True])
def test_the_traced_embedding_is_that_of_a_pass_of_its_own(head, relevance):
    """Over all windows; the logits, if nobody says which layer is the head."""
    torch.manual_seed(3)
    net = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, -1)),
        torch.nn.Conv1d(1, 6, 400, 160),
        torch.nn.AdaptiveMaxPool1d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(6, 3),
    )
    windows = Windows(8000, 4000)
    listener = Listener(net, RATE, windows=windows, pool="max", head=head)
    wavs = torch.randn(2, RATE)
    layers = find_layers(listener, wavs)
    classifier = LayeredClassifier(listener, layers, relevance=relevance)
    expected = classifier.logits_and_embedding(wavs)
    logits, _ = classifier.trace(wavs)
    embedding = classifier.traced_embedding
    assert embedding.shape == (2, 3 if head is None else 6)
    torch.testing.assert_close((logits, embedding), expected)
    assert not embedding.requires_grad
    assert not any(layer._forward_pre_hooks for layer in net)


def test_gradient_reaches_no_weight_and_no_hook_stays():
    listener, wavs = heard(OnMel(ConvEmbedding(80, [4, 8]), 8), front_end=mel())
    frozen = LayeredClassifier(listener, find_layers(listener, wavs))
    _, latents = frozen.trace(wavs)
    assert not any(latent.requires_grad for latent in latents)
    assert not any(m._forward_hooks for m in listener.modules())


def test_named_layers():
    model = OnMel(ConvEmbedding(80, [4, 8]), 8)
    listener, wavs = heard(model, front_end=mel())
    layers = find_layers(listener, wavs, ["blocks.1", "encoder.blocks.0"])
    names = [layer.name for layer in layers]
    assert names == ["encoder.blocks.1", "encoder.blocks.0"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.7", "names 0 of the model's layers, expected one of model,"),
        ("conv1", "names 2 of the model's layers"),
        ("head", "no axis of time that could be told"),
    ],
)
def test_names_that_cannot_be_read(name, message):
    model = OnMel(ConvEmbedding(80, [4, 8]), 8)
    listener, wavs = heard(model, front_end=mel())
    with pytest.raises(LMACError, match=message):
        find_layers(listener, wavs, [name])


def test_a_layer_that_runs_twice():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Conv1d(1, 4, 400, 160)
            self.second = torch.nn.Conv1d(4, 4, 3, padding=1)
            self.head = torch.nn.Linear(4, 3)

        def forward(self, wavs):
            h = self.first(wavs[:, None])
            return self.head(self.second(self.second(h)).mean(2))

    assert found(Twice()) == {"first": "bct"}
    listener, wavs = heard(Twice())
    with pytest.raises(LMACError, match="runs 2 times for 2 clips, expected"):
        find_layers(listener, wavs, ["second"])


def test_a_model_without_layers():
    listener, wavs = heard(torch.nn.Linear(RATE, 3))
    with pytest.raises(LMACError, match="layers: found none of Linear with"):
        find_layers(listener, wavs)


def test_names_of_a_module_are_the_users():
    model = OnMel(ConvEmbedding(80, [4, 8]), 8)
    known = layer_modules(Listener(model, RATE, front_end=mel()))
    assert known["encoder.blocks.1"] is model.encoder.blocks[1]


class Levels(torch.nn.Module):
    """Convolutions of a window's samples, laid out as 20 x 100 levels."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(1, 3, 5, 5)
        self.second = torch.nn.Conv2d(3, 4, 2, 2)
        self.head = torch.nn.Linear(4, 3)

    def forward(self, wavs):
        h = self.first(wavs.unflatten(1, (1, 20, 100))).relu()
        return self.head(self.second(h).relu().mean((2, 3)))


def patched(**options):
    """Layered classifier of windows that overlap by half, and two clips."""
    torch.manual_seed(0)
    windows = Windows(2000, 1000)
    listener = Listener(
        Levels(), RATE, multilabel=True, windows=windows, pool="max"
    )
    layers = [Layer("second", 4, "bctf"), Layer("first", 3, "bctf")]
    wavs = torch.randn(2, 4000)
    listener.settle(wavs)
    return LayeredClassifier(listener, layers, True, **options), wavs


def test_each_window_has_its_own_evidence():
    """Not the one alone whose answer is the clip's."""
    frozen, wavs = patched()
    target = torch.tensor([2, 1])
    logits, (evidence, *_) = frozen.trace(wavs, target)
    torch.testing.assert_close(logits, frozen.listener(wavs))
    net = frozen.listener.model
    for i, c in enumerate(target):
        windows = [wavs[i : i + 1, s : s + 2000] for s in (0, 1000, 2000)]
        expected = []
        for window in windows:
            h = net.first(window.unflatten(1, (1, 20, 100))).relu()
            h = net.second(h)
            weight = net.head.weight[c].view(1, -1, 1, 1)
            expected.append(weight * h.relu())
        # The ends of the clip belong to the first and to the last alone.
        for side, window in ((0, expected[0]), (-1, expected[-1])):
            found = evidence[i, :, side]
            torch.testing.assert_close(found, window[0, :, side])


def test_relevance_adds_up_to_the_log_odds():
    """For and against, of each layer after which all is linear but ReLU."""
    frozen, wavs = patched(relevance=True)
    with torch.no_grad():
        for name in ("second", "head"):
            getattr(frozen.listener.model, name).bias.zero_()
    wavs = wavs[:, :2000]  # one window
    logits, (_, *maps) = frozen.trace(wavs, torch.tensor([2, 1]))
    assert [m.shape[:2] for m in maps] == [(2, 2), (2, 2)]
    cells = 2 * 10, 4 * 20
    for clip, c in enumerate((2, 1)):
        for found, n_cells in zip(maps, cells):
            split = found.shape[2] * found.shape[3] // n_cells
            shares = found[clip].double().expm1() / (0.2 * n_cells) / split
            total = (shares[0] - shares[1]).sum()
            assert float(total) == pytest.approx(float(logits[clip, c]), 1e-3)
            assert (found >= 0).all()


def test_channels_are_those_of_the_maps():
    for relevance in (False, True):
        frozen, wavs = patched(relevance=relevance)
        _, maps = frozen.trace(wavs)
        assert frozen.channels == [m.shape[1] for m in maps]
        assert not any(m.requires_grad for m in maps)
        modules = frozen.listener.modules()
        assert not any(m._forward_hooks for m in modules)
