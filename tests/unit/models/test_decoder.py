"""Tests of the mask decoders."""

import math
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.lobes.models.Cnn14 import Cnn14, CNN14PSI_stft
from speechbrain.processing.features import Filterbank
from torch.utils.flop_counter import FlopCounterMode

from lmac_sb.models.decoder import (
    PATCH,
    LevelDecoder,
    MaskDecoder,
    _around,
    _double,
    _enlarge,
    _Grow,
    _grow_axis,
    _mel_to_patch,
    _to_patches,
    standard_level,
)
from lmac_sb.models.encoders import ConvEmbedding
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.models.psi import PSIAdapter, as_mask_decoder

RECIPE = Path(__file__).resolve().parents[3] / "recipes/ESC50/interpret"

RATE = 16000


def pooled(n_cells, n_times, ceil=False):
    """Number of cells after halving this many times."""
    for _ in range(n_times):
        n_cells = (n_cells + ceil) // 2
    return n_cells


def cnn_latents(channels, n_frames, n_mels, ceil=False, batch=2):
    """Latents of a CNN14-like classifier, deepest first.

    The last block does not pool, as in CNN14, and evidence comes first.
    """
    depth = len(channels) - 1
    sizes = [
        (pooled(n_frames, k, ceil), pooled(n_mels, k, ceil))
        for k in [depth, depth, *range(depth, 0, -1)]
    ]
    return [
        torch.randn(batch, c, max(t, 1), max(f, 1))
        for c, (t, f) in zip([channels[0], *channels], sizes)
    ]


def in_order(x, last):
    """The same map, with the channels last in memory or not."""
    return x.contiguous(memory_format=torch.channels_last) if last else x


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_doubling_is_the_transposed_convolution(dim, last):
    """Sums of neighbours are the layer, forward and backward."""
    torch.manual_seed(0)
    layer = _double(5, dim - 2)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    pad = (0, 0, 1, 1) if dim == 2 else (1, 1, 0, 0)
    for shape in ((2, 5, 6, 7), (1, 5, 1, 1)):
        x = in_order(torch.randn(shape), last).requires_grad_()
        slow = layer(torch.nn.functional.pad(x, pad, mode="replicate"))
        found = _grow_axis(x, dim, layer)
        torch.testing.assert_close(found, slow)
        weights = torch.randn_like(slow)
        inputs = [x, layer.weight, layer.bias]
        expected = torch.autograd.grad((slow * weights).sum(), inputs)
        gradients = torch.autograd.grad((found * weights).sum(), inputs)
        for one, other in zip(gradients, expected):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 1, 1)])
def test_enlarging_is_bilinear_interpolation(shape):
    """Sums of neighbours are what PyTorch interpolates."""
    x = torch.randn(shape)
    expected = torch.nn.functional.interpolate(
        x, scale_factor=PATCH, mode="bilinear"
    )
    torch.testing.assert_close(_enlarge(x), expected)


def test_the_order_of_memory_changes_nothing(small):
    """Maps with the channels last give the same bands and the same mask."""
    bands = torch.randn(2, 3, 4, 40)
    torch.testing.assert_close(
        _to_patches(in_order(bands, True), small.mel_to_patch),
        bands @ small.mel_to_patch,
    )
    latents = cnn_latents([8, 6, 4], 43, 40)
    level = torch.rand(2, 43, 129)
    found = small(latents, level)
    with torch.no_grad():
        assert torch.equal(small(latents, level), found)
        small.train()
        expected = small(latents, level)
    small.eval()
    torch.testing.assert_close(found.detach(), expected, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module", params=[False, True])
def small(request):
    """Decoder for the latents of a three-block classifier."""
    torch.manual_seed(0)
    return MaskDecoder(
        [8, 8, 6, 4], 40, n_fft=256, width=8, depthwise=request.param
    ).eval()


def local(decoder):
    """Remove the norms, which spread a change everywhere."""
    for module in list(decoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.GroupNorm):
                setattr(module, name, torch.nn.Identity())
    return decoder


def band_hertz(position, n_mels):
    """Centre of a mel band, in Hz; bands may be fractions."""
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    return 700 * (10 ** (top * (position + 1) / (n_mels + 1) / 2595) - 1)


def band_of(hertz, n_mels):
    """Where a frequency lies between the band centres."""
    top = math.log10(1 + RATE / 2 / 700)
    return math.log10(1 + hertz / 700) / top * (n_mels + 1) - 1


@pytest.mark.parametrize("n_frames", [*range(1, 71), 97, 173, 431])
@pytest.mark.parametrize("ceil", [False, True])
@torch.no_grad()
def test_any_number_of_frames(small, n_frames, ceil):
    """The mask has the size of the spectrogram, whatever that is."""
    latents = cnn_latents([8, 6, 4], n_frames, 40, ceil)
    mask = small(latents, torch.rand(2, n_frames, 129))
    assert mask.shape == (2, n_frames, 129)
    assert mask.isfinite().all()


@pytest.mark.parametrize("n_mels", [40, 64, 80, 128])
@pytest.mark.parametrize("n_fft", [512, 1024, 2048])
@torch.no_grad()
def test_any_number_of_bands_and_bins(n_mels, n_fft):
    """No size of a classifier is hard-coded."""
    decoder = MaskDecoder([8, 8, 6, 4], n_mels, n_fft, width=4, n_mix=1)
    latents = cnn_latents([8, 6, 4], 33, n_mels, batch=1)
    n_bins = n_fft // 2 + 1
    mask = decoder(latents, torch.rand(1, 33, n_bins))
    assert mask.shape == (1, 33, n_bins)


@pytest.mark.parametrize(
    "sizes",
    [
        [(1, 1)],
        [(7, 1)],
        [(1, 9)],
        [(3, 2), (3, 2), (50, 1)],
        [(1, 1), (29, 40), (4, 3)],
        [(58, 40)],
        [(115, 1), (2, 2)],
    ],
)
@torch.no_grad()
def test_any_list_of_latents(sizes):
    """Latents of any sizes work."""
    channels = list(range(3, 3 + len(sizes)))
    decoder = MaskDecoder(channels, 40, 256, width=4)
    latents = [torch.randn(2, c, *s) for c, s in zip(channels, sizes)]
    mask = decoder(latents, torch.rand(2, 58, 129))
    assert mask.shape == (2, 58, 129)
    # Each of the latents matters.
    for index in range(len(latents)):
        changed = [h.clone() for h in latents]
        changed[index] = torch.randn_like(changed[index])
        other = decoder(changed, torch.zeros(2, 58, 129))
        same = decoder(latents, torch.zeros(2, 58, 129))
        assert (other - same).abs().max() > 1e-4


@torch.no_grad()
def test_from_a_real_classifier():
    """The decoder accepts latents and evidence of `trace`."""
    frozen = FrozenClassifier(
        ConvEmbedding(40, [4, 8, 16]),
        torch.nn.Linear(16, 3),
        ["blocks.2", "blocks.1", "blocks.0"],
        min_frames=4,
    ).eval()
    decoder = MaskDecoder([16, 16, 8, 4], 40, 256, width=8)
    for n_frames in (4, 5, 7, 43, 87):
        _, latents = frozen.trace(torch.rand(2, n_frames, 40))
        mask = decoder(latents, torch.rand(2, n_frames, 129))
        assert mask.shape == (2, n_frames, 129)


@torch.no_grad()
def test_independent_of_batch_mates(small):
    """A clip gets alone what it gets in a batch."""
    latents = cnn_latents([8, 6, 4], 45, 40, batch=3)
    spectrogram = torch.rand(3, 45, 129)
    spectrogram[1] *= 100
    latents = [h * torch.tensor([1, 50, 1]).view(3, 1, 1, 1) for h in latents]
    together = small(latents, spectrogram)
    for row in range(3):
        one = slice(row, row + 1)
        alone = small([h[one] for h in latents], spectrogram[one])
        assert torch.allclose(alone[0], together[row], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("spectrogram", [True, False])
def test_gradient_reaches_all_parameters(spectrogram):
    """Every parameter gets a gradient."""
    decoder = MaskDecoder([8, 6, 4], 40, 256, width=8, spectrogram=spectrogram)
    sizes = [(8, 5, 5), (6, 11, 10), (4, 22, 20)]
    latents = [torch.randn(2, *size) for size in sizes]
    decoder(latents, torch.rand(2, 180, 129)).square().mean().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_without_spectrogram_the_mask_is_the_latents_alone():
    """As in the paper."""
    latents = cnn_latents([8, 6, 4], 45, 40)
    for wanted in (True, False):
        decoder = MaskDecoder(
            [8, 8, 6, 4], 40, 256, width=8, spectrogram=wanted
        )
        a = decoder(latents, torch.rand(2, 45, 129))
        b = decoder(latents, torch.rand(2, 45, 129))
        assert torch.equal(a, b) != wanted


@torch.no_grad()
def test_depthwise_convolutions_mix_no_channels():
    """They are full ones without the weights from other channels."""
    sizes = {"n_mels": 40, "n_fft": 256, "width": 8}
    cheap = MaskDecoder([8, 8, 6, 4], **sizes, depthwise=True).eval()
    full = MaskDecoder([8, 8, 6, 4], **sizes).eval()
    weights = cheap.state_dict()
    for name in ("fine.0.conv.weight", "fine.1.conv.weight"):
        own = weights[name]
        assert own.shape == (8, 1, 3, 3)
        weights[name] = own * torch.eye(8)[:, :, None, None]
    full.load_state_dict(weights)
    latents, level = cnn_latents([8, 6, 4], 43, 40), torch.rand(2, 43, 129)
    torch.testing.assert_close(
        cheap(latents, level), full(latents, level), rtol=0, atol=1e-5
    )


def test_cost_in_the_setting_of_the_paper():
    """The decoder is small: few parameters, and less work than CNN14."""
    with open(RECIPE / "hparams" / "lmac_cnn14.yaml") as file:
        wanted = ("latent_channels", "decoder_width", "n_mels", "n_fft")
        lines = [x for x in file if x.startswith(wanted)]
    hparams = load_hyperpyyaml("".join(lines))
    with torch.device("meta"), torch.no_grad():
        decoder = MaskDecoder(
            hparams["latent_channels"],
            hparams["n_mels"],
            hparams["n_fft"],
            width=hparams["decoder_width"],
        )
        n_mels = hparams["n_mels"]
        cnn14 = Cnn14(n_mels, 2048, return_reps=True).eval()
        with FlopCounterMode(display=False) as classifier_work:
            _, reps = cnn14(torch.empty(1, 431, n_mels))
        spectrogram = torch.empty(1, 431, hparams["n_fft"] // 2 + 1)
        with FlopCounterMode(display=False) as decoder_work:
            mask = decoder([reps[0], *reps], spectrogram)
    assert mask.shape == spectrogram.shape
    assert sum(p.numel() for p in decoder.parameters()) <= 3e6
    flops = classifier_work.get_total_flops()
    assert flops > 20e9  # 20.5 GFLOP, to check the counter itself
    assert decoder_work.get_total_flops() <= 0.15 * flops


@pytest.mark.parametrize("spectrogram", [True, False])
@torch.no_grad()
def test_constant_input_gives_a_mask_without_pattern(spectrogram):
    """The mask has no pattern that repeats every few frames or bins."""
    for seed in range(3):
        torch.manual_seed(seed)
        decoder = MaskDecoder(
            [8, 8, 6, 4], 40, 512, width=16, spectrogram=spectrogram
        )
        # One number for each channel, over all cells.
        latents = [
            h[:, :, :1, :1].expand_as(h)
            for h in cnn_latents([8, 6, 4], 172, 40, batch=1)
        ]
        mask = decoder(latents, torch.ones(1, 172, 257))[0]
        inner = mask[40:-40, 40:-41]  # multiples of PATCH
        cells = inner.reshape(
            inner.shape[0] // PATCH, PATCH, inner.shape[1] // PATCH, PATCH
        )
        pattern = cells.mean((0, 2)).std()
        # For comparison: the mask of a varied input.
        latents = [torch.randn_like(h) for h in latents]
        varied = decoder(latents, torch.rand(1, 172, 257)).std()
        assert pattern < 0.01 * varied


@torch.no_grad()
def test_no_output_is_reached_by_fewer_taps():
    """With equal weights, no frame or bin is treated differently."""
    decoder = local(MaskDecoder([4, 4, 4, 4], 40, 512, width=2, n_mix=1))
    for layer in (decoder.grow.time, decoder.grow.freq):
        layer.weight.fill_(1.0)
        layer.bias.zero_()
        shape = [1, layer.in_channels, 20, 20]
        inner = layer(torch.ones(shape))[0, 0, 4:-4, 4:-4]
        assert float(inner.min()) == float(inner.max()) > 0


@pytest.mark.parametrize("n_mels", [40, 64, 80, 128])
@pytest.mark.parametrize("n_bins", [257, 513, 1025])
def test_bands_to_bins(n_mels, n_bins):
    """Each patch reads the mel bands around its own frequency."""
    matrix = _mel_to_patch(n_mels, n_bins, RATE, 0.0, RATE / 2)
    assert matrix.shape == (n_mels, math.ceil(n_bins / 4))
    assert matrix.min() >= 0
    assert torch.allclose(matrix.sum(0), torch.ones(matrix.shape[1]))
    bands = torch.arange(n_mels).double()
    lowest, highest = (band_hertz(b, n_mels) for b in (0, n_mels - 1))
    for patch in range(matrix.shape[1]):
        wanted = 0.0
        for place in range(4 * patch, 4 * patch + 4):
            hertz = place * RATE / 2 / (n_bins - 1)
            hertz = min(max(hertz, lowest), highest)
            wanted += band_of(hertz, n_mels) / 4
        read = float(matrix[:, patch].double() @ bands)
        assert read == pytest.approx(wanted, abs=1e-3)
    # No band is left out if patches are finer than bands.
    if (n_mels, n_bins) in ((40, 513), (40, 1025), (80, 1025)):
        assert (matrix.sum(1) > 0).all()


def test_bands_are_where_the_filterbank_has_them():
    """The same scale as SpeechBrain's own bank."""
    bank = Filterbank(
        n_mels=40, log_mel=False, f_max=RATE / 2, n_fft=4096, sample_rate=RATE
    )
    matrix = bank(torch.eye(2049)[None])[0]
    centres = matrix.argmax(0) * RATE / 2 / 2048
    for band in range(40):
        hertz = band_hertz(band, 40)
        assert float(centres[band]) == pytest.approx(hertz, abs=4)


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "place", [(0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.3, 0.9), (0.99, 0.99)]
)
@torch.no_grad()
def test_a_cell_acts_on_its_own_frames_and_bins(layer, place):
    """A change of a latent cell changes the mask around the same place.

    In time and on the mel scale, within one cell.
    """
    n_frames, n_mels, n_bins = 173, 40, 513
    decoder = local(MaskDecoder([4, 4, 4, 4], n_mels, 1024, width=8, n_mix=1))
    # With as many cells a clip as blocks: 43 x 10, 43 x 10, 43 x 10, 86 x 20.
    latents = cnn_latents([4, 4, 4], n_frames, n_mels, batch=1)
    # Constant, since the level of each bin weights the change there.
    spectrogram = torch.ones(1, n_frames, n_bins)
    before = decoder(latents, spectrogram)
    n_times, n_bands = latents[layer].shape[2:]
    time, band = int(place[0] * n_times), int(place[1] * n_bands)
    frames, bands = n_frames // n_times, n_mels // n_bands
    latents[layer][:, :, time, band] += 20
    change = (decoder(latents, spectrogram) - before)[0].abs().double()

    share = change.sum(1) / change.sum()
    centre = float(share @ (torch.arange(n_frames).double() + 0.5))
    low, high = time * frames, (time + 1) * frames
    slack = max(frames, PATCH)  # the decoder works in patches
    assert low - slack <= centre <= high + slack

    # On the mel scale, each bin counts by the number of bands it spans.
    hertz = torch.arange(n_bins).double() * RATE / 2 / (n_bins - 1)
    top = math.log10(1 + RATE / 2 / 700)
    mels = torch.log10(1 + hertz / 700) / top * (n_mels + 1) - 1
    spans = torch.diff(mels, append=mels[-1:] + mels[-1] - mels[-2])
    share = change.sum(0) * spans / (change.sum(0) * spans).sum()
    centre = float(share @ mels)
    # Band b is spread between b - 0.5 and b + 0.5.
    low, high = band * bands - 0.5, (band + 1) * bands - 0.5
    assert low - bands <= centre <= high + bands


def test_each_cell_has_an_effect():
    """The outermost bands and frames affect the mask too."""
    decoder = MaskDecoder([8, 8, 6, 4], 80, 1024, width=8, n_mix=1)
    latents = cnn_latents([8, 6, 4], 45, 80, batch=1)
    latents = [h.requires_grad_() for h in latents]
    spectrogram = torch.rand(1, 45, 513, requires_grad=True)
    mask = local(decoder)(latents, spectrogram)
    mask.backward(torch.randn_like(mask))
    for latent in latents:
        # 22 frames, 2 in each cell of the deepest latent: all matter.
        effect = latent.grad[0].abs().sum(0)
        assert effect.min() > 1e-3 * effect.median()
    assert spectrogram.grad[0].abs().min() > 0


@pytest.mark.parametrize("n_in", [5, 50, 53, 215])
@pytest.mark.parametrize("ratio", [0.5, 0.7, 1, 1.4, 1.5, 2, 3, 5, 6.25, 8])
@pytest.mark.parametrize("dim", [2, 3])
@torch.no_grad()
def test_growing_keeps_places(n_in, ratio, dim):
    """A ramp stays a ramp for any ratio."""
    n_out = int(n_in * ratio)
    ramp = torch.arange(n_in) + 0.5
    if dim == 2:
        x, size = ramp.view(1, 1, -1, 1).repeat(1, 1, 1, 6), (n_out, 6)
    else:
        x, size = ramp.view(1, 1, 1, -1).repeat(1, 1, 6, 1), (6, n_out)
    grown = _Grow(1)(x, size)
    assert grown.shape[2:] == size
    places = grown[0, 0, :, 0] if dim == 2 else grown[0, 0, 0]
    wanted = (torch.arange(n_out) + 0.5) * n_in / n_out
    # One cell for what halving drops, one for the repeated border.
    assert (places - wanted).abs().max() <= max(1, n_in / n_out) + 1e-3


@pytest.mark.parametrize("times", [1, 2, 3])
@torch.no_grad()
def test_growing_undoes_halving_exactly(times):
    """A cell lies over the frames that were pooled into it."""
    for n_frames in range(16, 60):
        frames = torch.arange(n_frames) + 0.5
        cells = frames.view(1, 1, -1, 1)
        for _ in range(times):
            cells = torch.nn.functional.avg_pool2d(cells, (2, 1))
        grown = _Grow(1)(cells, (n_frames, 1))[0, 0, :, 0]
        # Between the centres of the first and last cells, a line stays a line.
        first, last = float(cells.min()), float(cells.max())
        between = (frames >= first + 2**times) & (frames <= last - 2**times)
        assert torch.allclose(grown[between], frames[between], atol=1e-4)


def test_save_and_load(small, tmp_path):
    """State survives a file; the mel map is not part of it."""
    torch.save(small.state_dict(), tmp_path / "decoder.ckpt")
    torch.manual_seed(1)
    fresh = MaskDecoder(
        [8, 8, 6, 4], 40, n_fft=256, width=8, depthwise=small.depthwise
    ).eval()
    latents = cnn_latents([8, 6, 4], 45, 40)
    spectrogram = torch.rand(2, 45, 129)
    expected = small(latents, spectrogram)
    assert not torch.equal(fresh(latents, spectrogram), expected)
    fresh.load_state_dict(torch.load(tmp_path / "decoder.ckpt"))
    assert torch.equal(fresh(latents, spectrogram), expected)
    assert "mel_to_patch" not in small.state_dict()


@pytest.fixture(scope="module")
def psi():
    """SpeechBrain's decoder at a 32nd of its width."""
    torch.manual_seed(0)
    return CNN14PSI_stft(dim=64).eval()


def psi_latents(n_frames):
    """Latents of CNN14 with 80 bands, at a 32nd of its width."""
    return [
        torch.randn(1, 64, pooled(n_frames, 5), 2),
        torch.randn(1, 32, pooled(n_frames, 5), 2),
        torch.randn(1, 16, pooled(n_frames, 4), 5),
        torch.randn(1, 8, pooled(n_frames, 3), 10),
    ]


@torch.no_grad()
def test_psi_adapter_gives_the_published_mask(psi):
    """The adapter gives the mask of the model alone."""
    latents = psi_latents(431)
    own = psi(latents)[:, 0]
    assert own.shape[1] < 431  # the model alone drops the last frames
    mask = as_mask_decoder(psi)(latents, torch.rand(1, 431, 513))
    assert mask.shape == (1, 431, 513)
    assert torch.allclose(mask[:, : own.shape[1]], own, atol=1e-5)
    rest = mask[:, own.shape[1] :]
    assert torch.equal(rest, own[:, -1:].expand_as(rest))


@pytest.mark.parametrize(
    "n_frames",
    [32, 33, 48, 63, 64, 72, 80, 87, 97, 112, 120, 127, 128, 173, 200, 259]
    + [345, 432, 600, 864],
)
@torch.no_grad()
def test_psi_adapter_takes_any_length(psi, n_frames):
    """The adapter works for lengths at which the model alone crashes."""
    latents = psi_latents(n_frames)
    if not 8 <= n_frames % 32 <= 15:
        with pytest.raises(RuntimeError, match="must match the size"):
            psi(latents)
    mask = PSIAdapter(psi)(latents, torch.rand(1, n_frames, 513))
    assert mask.shape == (1, n_frames, 513)
    assert mask.isfinite().all()


def test_psi_adapter_keeps_the_names(psi):
    """Published checkpoints load into the wrapped model."""
    before = {k: v.clone() for k, v in psi.state_dict().items()}
    adapter = PSIAdapter(psi)
    assert list(adapter.psi.state_dict()) == list(before)
    assert list(CNN14PSI_stft(dim=64).state_dict()) == list(before)
    adapter.psi.load_state_dict(before)
    assert as_mask_decoder(psi).psi is psi


def test_other_decoders_stay_themselves(small):
    """Only SpeechBrain's decoder needs the adapter."""
    assert as_mask_decoder(small) is small


# ------------------------------------------------------- the level of a bin


def slow_level(clip):
    """`standard_level` of one clip, value by value."""
    values = [float(value) for row in clip for value in row]
    floor = max(1e-4 * max(values), 1e-7)
    logs = [math.log(max(value, floor)) for value in values]
    mean = sum(logs) / len(logs)
    spread = math.sqrt(sum((x - mean) ** 2 for x in logs) / len(logs))
    if spread <= 1e-6:
        return [0.0] * len(logs)
    return [(x - mean) / spread for x in logs]


def test_level_slowly():
    """Each clip on its own, bins 80 dB below the loudest cut off."""
    magnitude = torch.rand(3, 5, 7).pow(6) * torch.tensor(
        [1.0, 1e-3, 1e3]
    ).view(3, 1, 1)
    magnitude[0, 2] = 0
    found = standard_level(magnitude)
    for clip, level in zip(magnitude, found):
        expected = slow_level(clip)
        assert level.flatten().tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("gain", [1e-2, 0.5, 30.0, 1e4])
def test_no_gain_changes_the_level(gain):
    magnitude = torch.rand(2, 20, 30).pow(4)
    found = standard_level(gain * magnitude)
    assert torch.allclose(found, standard_level(magnitude), atol=1e-4)
    assert torch.allclose(found.mean((1, 2)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(found.square().mean((1, 2)), torch.ones(2))


@pytest.mark.parametrize("value", [0.0, 1e-7, 0.3])
def test_level_where_all_bins_are_the_same(value):
    """Silence has no loud bins: zeros, and no NaN."""
    magnitude = torch.full((2, 4, 5), value)
    magnitude[1] = torch.rand(4, 5)
    found = standard_level(magnitude)
    assert not found[0].any() and found[1].isfinite().all()
    assert found[1].any()


def test_level_decoder():
    """Offset and gain of the standardised level, whatever the latents."""
    magnitude = torch.rand(2, 6, 9).pow(3) + 1e-3
    decoder = LevelDecoder(offset=-1.5, gain=0.5)
    logits = decoder([], magnitude.log1p())
    expected = -1.5 + 0.5 * standard_level(magnitude)
    assert torch.allclose(logits, expected, atol=1e-4)
    assert torch.equal(
        decoder([torch.rand(2, 3, 4, 5)], magnitude.log1p()), logits
    )
    assert not list(decoder.parameters()) and not decoder.state_dict()


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1), (2, 2), (9, 13)])
def test_level_around_a_bin(shape):
    """The mean of those of its eight neighbours that there are, and of it."""
    x = torch.randn(2, *shape)
    expected = torch.nn.functional.avg_pool2d(
        x, 3, 1, padding=1, count_include_pad=False
    )
    torch.testing.assert_close(_around(x), expected)
