"""Tests of the loss's terms, of its gate and of their gradients."""

import math

import pytest
import torch
from torch.nn import functional as F

from lmac_sb.lmac import losses
from lmac_sb.lmac.losses import Embeddings, Guidance, LMACLoss
from lmac_sb.models.features import SpectralFeatures
from lmac_sb.utils.errors import LMACError

SEEDS = [0, 1, 2]
TIME, FREQ, CLASSES = 6, 5, 4


def inputs(seed=0, clips=4):
    """Random arguments for the whole loss, with guidance."""
    torch.manual_seed(seed)
    clean = torch.randn(clips, TIME, FREQ).abs().pow(3)
    noise = torch.randn(clips, TIME, FREQ).abs()
    whole = clean + noise
    embeddings = torch.randn(3, clips, 7)
    # Every other clip is closer to the clean one than the mixture.
    left = torch.tensor([0.3, 3.0]).repeat(clips)[:clips, None, None]
    return {
        "mask": torch.rand(clips, TIME, FREQ) * 0.9 + 0.05,
        "logits_in": 2 * torch.randn(clips, CLASSES),
        "logits_out": 2 * torch.randn(clips, CLASSES),
        "decision": torch.randint(CLASSES, (clips,)),
        "others": torch.rand(clips, CLASSES) < 0.6,
        "log_masked": torch.log1p(clean + left * noise),
        "log_whole": torch.log1p(whole),
        "log_clean": torch.log1p(clean),
        "e_whole": embeddings[0],
        "e_inside": embeddings[0] + embeddings[1],
        "e_outside": embeddings[2],
    }


def call(loss, mask, logits_in, logits_out, decision, **more):
    """The loss of drawn arguments, with guidance where there is some."""
    more.pop("others", None)
    names = "e_whole", "e_inside", "e_outside"
    found = [more.pop(name, None) for name in names]
    embeddings = Embeddings(*found) if loss.wants_embeddings else None
    guidance = Guidance(**more) if more else None
    return loss(mask, logits_in, logits_out, decision, guidance, embeddings)


def rows(arguments, *places):
    """The arguments for some of the clips."""
    return {name: x[list(places)] for name, x in arguments.items()}


def cells(x):
    """All values of one clip as a list of floats."""
    return [float(v) for row in x for v in row]


def mixture(kind="white", clips=2, snr_db=0.0):
    """Magnitudes of harmonic sounds with and without noise, at 8 kHz."""
    features = SpectralFeatures(
        sample_rate=8000, n_fft=256, win_length=32, hop_length=16, n_mels=20
    )
    time = torch.arange(8000) / 8000
    clean = sum(
        torch.sin(2 * math.pi * 180 * k * time) / k**0.5 for k in range(1, 22)
    )
    clean = clean * ((time * 2) % 1 < 0.6)
    clean = clean / clean.abs().max()
    noise = torch.randn(clips, 8000)
    if kind == "pink":
        spectrum = torch.fft.rfft(noise)
        spectrum = spectrum / torch.arange(1, 4002).sqrt()
        noise = torch.fft.irfft(spectrum, 8000)
    noise = noise * clean.norm() / noise.norm(dim=1, keepdim=True)
    noise = noise * 10 ** (-snr_db / 20)
    clean = clean.expand_as(noise)
    return [
        features.magnitude(features.stft(wav)) for wav in (clean + noise, clean)
    ]


# Second implementation: one clip, plain Python.


def slow_in(logits, c):
    """Cross entropy of one clip."""
    logits = logits.tolist()
    total = sum(math.exp(x) for x in logits)
    return -math.log(math.exp(logits[c]) / total)


def slow_apart(inside, outside, others):
    """Others that are masked in, or not masked out, in one clip."""
    found = []
    for x_in, x_out, other in zip(
        *(x.tolist() for x in (inside, outside, others))
    ):
        if other:
            kept = 1 / (1 + math.exp(-x_out))
            found.append(1 / (1 + math.exp(-x_in)) - math.log(kept))
    return sum(found) / max(len(found), 1)


def slow_tv(mask):
    """Total variation of one clip."""
    total = 0.0
    for t in range(len(mask)):
        for f in range(len(mask[0])):
            if t + 1 < len(mask):
                total += float(mask[t + 1][f] - mask[t][f]) ** 2
            if f + 1 < len(mask[0]):
                total += float(mask[t][f + 1] - mask[t][f]) ** 2
    return total / (2 * len(mask) * len(mask[0]))


def slow_correlation(a, b):
    """Cosine of the angle between two spectrograms."""
    a, b = cells(a), cells(b)
    dot = sum(x * y for x, y in zip(a, b))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def slow_pearson(a, b):
    """Pearson's correlation: cosine after subtracting the means."""
    a, b = cells(a), cells(b)
    a = [x - sum(a) / len(a) for x in a]
    b = [x - sum(b) / len(b) for x in b]
    return slow_correlation([a], [b])


def slow_gain(masked, whole, clean):
    """Share of the missing correlation."""
    before = slow_pearson(whole, clean)
    return (slow_pearson(masked, clean) - before) / (1 - before)


def slow_binary(mask, log_clean, bin_th=0.35):
    """Cross entropy of each bin, by hand."""
    peak = max(cells(log_clean))
    total = 0.0
    for m, x in zip(cells(mask), cells(log_clean)):
        total -= math.log(m if x >= bin_th * peak else 1 - m)
    return total / len(cells(mask))


def slow_squared(a, b):
    """Mean squared difference."""
    pairs = list(zip(cells(a), cells(b)))
    return sum((x - y) ** 2 for x, y in pairs) / len(pairs)


def slow_cosine(a, b):
    """Cosine of the angle between two vectors."""
    return slow_correlation([a], [b])


TERMS = {
    "embedding_kept": (
        losses.embedding_kept,
        lambda a, b: 1 - slow_cosine(a, b),
        "e_inside e_whole",
    ),
    "embedding_left": (
        losses.embedding_left,
        slow_cosine,
        "e_outside e_whole",
    ),
    "masked_in": (losses.masked_in, slow_in, "logits_in decision"),
    "masked_out": (
        losses.masked_out,
        lambda x, c: -slow_in(x, c),
        "logits_out decision",
    ),
    "others_apart": (
        losses.others_apart,
        slow_apart,
        "logits_in logits_out others",
    ),
    "probability": (
        lambda x, c: losses.masked_out(x, c, "probability"),
        lambda x, c: math.exp(-slow_in(x, c)),
        "logits_out decision",
    ),
    "sparsity": (
        losses.sparsity,
        lambda m: sum(cells(m)) / len(cells(m)),
        "mask",
    ),
    "total_variation": (losses.total_variation, slow_tv, "mask"),
    "cross_correlation": (
        losses.cross_correlation,
        slow_correlation,
        "log_masked log_clean",
    ),
    "correlation_gain": (
        losses.correlation_gain,
        slow_gain,
        "log_masked log_whole log_clean",
    ),
    "guidance_binary": (losses.guidance_binary, slow_binary, "mask log_clean"),
    "guidance_squared": (
        losses.guidance_squared,
        slow_squared,
        "log_masked log_clean",
    ),
}
WHOLE = [
    {},
    {"l_out_type": "probability", "l_out_w": 8, "reg_w_tv": 0.3},
    {"g_w": 2, "crosscor_th": 0.9, "reg_w_tv": 0.3},
    {
        "g_w": 2,
        "crosscor_th": 0.0,
        "crosscortype": "gain",
        "guidelosstype": "mse",
    },
    {"e_in_w": 20, "e_out_w": 10},
]


def arguments_of(term, seed=0):
    """Random arguments for a term, in order."""
    drawn = inputs(seed)
    return [drawn[name] for name in TERMS[term][2].split()]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("term", list(TERMS))
def test_terms_slowly(term, seed):
    """The values agree with plain loops."""
    fast, slow, _ = TERMS[term]
    arguments = arguments_of(term, seed)
    expected = [slow(*clip) for clip in zip(*arguments)]
    found = fast(*arguments)
    assert found.shape == (4,)
    assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_slow_terms_cover_all():
    """Every term has a slow version above."""
    offered = set(losses.__all__) - {
        "Embeddings",
        "Guidance",
        "LMACLoss",
    }
    assert offered | {"probability"} == set(TERMS)


@pytest.mark.parametrize("term", list(TERMS))
def test_term_does_not_know_the_batch(term):
    """Value and gradient of a clip do not depend on the batch."""
    fast = TERMS[term][0]

    def run(*places):
        arguments = [x[list(places)] for x in arguments_of(term)]
        arguments[0].requires_grad_()
        values = fast(*arguments)
        values.sum().backward()
        return values[0].item(), arguments[0].grad[0].flatten().tolist()

    value, gradient = run(2)
    for places in ((2, 0), (2, 1, 3), (2, 2, 2, 2, 0, 1, 3)):
        mates_value, mates_gradient = run(*places)
        assert mates_value == pytest.approx(value, abs=1e-6)
        assert mates_gradient == pytest.approx(gradient, abs=1e-6)
    assert any(gradient)


@pytest.mark.parametrize("options", WHOLE)
def test_loss_does_not_know_the_batch(options):
    """The weighted sum, with its gate, does not depend on the batch."""
    loss = LMACLoss(**options)
    drawn = inputs()

    def run(*places):
        arguments = rows(drawn, *places)
        mask = arguments["mask"].requires_grad_()
        totals, terms = call(loss, **arguments)
        totals.sum().backward()
        assert all(term.shape == totals.shape for term in terms.values())
        return totals[0].item(), mask.grad[0].flatten().tolist()

    for clip in range(4):
        value, gradient = run(clip)
        mates = [other for other in range(4) if other != clip]
        for places in ((clip, mates[0]), (clip, *mates, *mates)):
            mates_value, mates_gradient = run(*places)
            assert mates_value == pytest.approx(value, abs=1e-5)
            assert mates_gradient == pytest.approx(gradient, abs=1e-6)


@pytest.mark.parametrize("options", WHOLE)
def test_weighted_sum_slowly(options):
    """The total equals a sum that is written out for each clip."""
    drawn = inputs()
    loss = LMACLoss(**options)
    totals, terms = call(loss, **drawn)
    gates = []
    for i in range(4):
        clip = {name: x[i] for name, x in drawn.items()}
        c = int(clip["decision"])
        out = -slow_in(clip["logits_out"], c)
        if loss.l_out_type == "probability":
            out = math.exp(out)
        total = 4 * slow_in(clip["logits_in"], c)
        total += options.get("l_out_w", 0.2) * out
        near = slow_cosine(clip["e_inside"], clip["e_whole"])
        left = slow_cosine(clip["e_outside"], clip["e_whole"])
        total += options.get("e_in_w", 0) * (1 - near)
        total += options.get("e_out_w", 0) * left
        regular = 0.4 * sum(cells(clip["mask"])) / (TIME * FREQ)
        regular += options.get("reg_w_tv", 0) * slow_tv(clip["mask"])
        triple = [clip[f"log_{n}"] for n in ("masked", "whole", "clean")]
        score = (
            slow_gain(*triple)
            if loss.crosscortype == "gain"
            else slow_correlation(triple[0], triple[2])
        )
        if "g_w" in options and score >= loss.crosscor_th:
            gates.append(1)
            total += options["g_w"] * (
                slow_squared(triple[0], triple[2])
                if loss.guidelosstype == "mse"
                else slow_binary(clip["mask"], triple[2])
            )
        else:
            gates.append(0)
            total += regular
        assert totals[i].item() == pytest.approx(total, rel=1e-4)
    if "g_w" in options:
        assert terms["gated"].tolist() == gates
        # Otherwise one of the two cases would not be tested.
        assert 0 < sum(gates) < 4
    else:
        assert "gated" not in terms


@pytest.mark.parametrize("key", ["e_in_w", "e_out_w"])
def test_embeddings_are_needed(key):
    """A weight that nothing could use is an error, not a silent zero."""
    loss = LMACLoss(**{key: 2})
    assert loss.wants_embeddings
    drawn = [inputs()[name] for name in ("mask", "logits_in", "logits_out")]
    with pytest.raises(LMACError, match=r"e_in_w, e_out_w: .* no embeddings"):
        loss(*drawn, inputs()["decision"])


def half_open():
    """Two clips: the gate is open for the first only."""
    drawn = rows(inputs(), 0, 1)
    log_masked = drawn["log_masked"].clone()
    log_masked[0] = drawn["log_clean"][0]
    # Energy only where the clean clip is quietest.
    flat = drawn["log_clean"][1].flatten()
    log_masked[1] = F.one_hot(flat.argmin(), TIME * FREQ).view(TIME, FREQ)
    return {**drawn, "log_masked": log_masked}


def mask_gradients(drawn, **options):
    """Gradient of the summed loss with respect to the mask, and the terms."""
    mask = drawn["mask"].clone().requires_grad_()
    totals, terms = call(
        LMACLoss(l_in_w=0, l_out_w=0, **options), **{**drawn, "mask": mask}
    )
    totals.sum().backward()
    return mask.grad, terms


@pytest.mark.parametrize("crosscortype", ["dotp", "gain"])
@pytest.mark.parametrize("swap", [False, True])
def test_gate_is_per_clip(crosscortype, swap):
    """The regulariser and the guide never act on the same clip."""
    drawn = rows(half_open(), 1, 0) if swap else half_open()
    opened, shut = (1, 0) if swap else (0, 1)
    options = {"reg_w_l1": 0.4, "reg_w_tv": 0.3}
    gate = {"g_w": 2, "crosscor_th": 0.6, "crosscortype": crosscortype}

    gradient, terms = mask_gradients(drawn, **options, **gate)
    assert terms["gated"][opened] == 1 and terms["gated"][shut] == 0
    plain, _ = mask_gradients(drawn, **options)
    guide, _ = mask_gradients(drawn, reg_w_l1=0, reg_w_tv=0, **gate)

    assert torch.equal(gradient[opened], guide[opened])
    assert torch.equal(gradient[shut], plain[shut])
    assert torch.equal(guide[shut], torch.zeros(TIME, FREQ))
    assert plain[shut].any() and guide[opened].any()


def test_regulariser_alone_is_off_behind_an_open_gate():
    """The L1 term has no gradient for a guided clip."""
    drawn = half_open()
    mask = drawn["mask"].clone().requires_grad_()
    # If the guide does not depend on the mask, only the regulariser acts.
    totals, _ = call(
        LMACLoss(l_in_w=0, l_out_w=0, reg_w_l1=0.4, g_w=2, guidelosstype="mse"),
        **{**drawn, "mask": mask},
    )
    totals.mean().backward()
    assert torch.equal(mask.grad[0], torch.zeros(TIME, FREQ))
    each = 0.4 / (2 * TIME * FREQ)
    assert mask.grad[1].flatten().tolist() == pytest.approx([each] * 30)


def test_gate_has_no_gradient():
    """The correlation opens the gate, but is not optimised."""
    drawn = inputs()
    log_masked = drawn["log_masked"].requires_grad_()
    totals, _ = call(LMACLoss(g_w=2, crosscor_th=-1), **drawn)
    assert not totals.requires_grad
    totals, _ = call(
        LMACLoss(g_w=2, crosscor_th=-1, guidelosstype="mse"), **drawn
    )
    (gradient,) = torch.autograd.grad(totals.sum(), log_masked)
    expected = 2 * 2 * (log_masked - drawn["log_clean"]) / (TIME * FREQ)
    assert torch.allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("eligible", [[0.0, 0.0], [False, False]])
def test_ineligible_clips_are_not_guided(eligible):
    """A clean clip of another class than the decision guides nothing."""
    drawn = half_open()
    loss = LMACLoss(g_w=2)
    assert call(loss, **drawn)[1]["gated"].tolist() == [1, 0]
    totals, terms = call(loss, **drawn, eligible=torch.tensor(eligible))
    assert terms["gated"].tolist() == [0, 0]
    names = ["mask", "logits_in", "logits_out", "decision"]
    plain, _ = call(loss, **{name: drawn[name] for name in names})
    assert torch.equal(totals, plain)


def test_eligibility_opens_nothing():
    """An eligible clip still needs the correlation."""
    drawn = half_open()
    _, terms = call(
        LMACLoss(g_w=2), **drawn, eligible=torch.tensor([True, True])
    )
    assert terms["gated"].tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["white", "pink"])
@pytest.mark.parametrize("value", [0.1, 0.5, 0.9, 1.0])
def test_constant_mask_passes_only_the_plain_gate(kind, value):
    """In a noisy clip (0 dB), a mask without information is not success."""
    whole, clean = mixture(kind)
    log_whole, log_clean = torch.log1p(whole), torch.log1p(clean)
    plain = losses.cross_correlation(value * log_whole, log_clean)
    assert (plain >= 0.6).all()
    gain = losses.correlation_gain(value * log_whole, log_whole, log_clean)
    assert gain.abs().max() < 1e-4

    def gate(crosscortype):
        arguments = inputs(clips=2)
        arguments.update(
            mask=torch.full_like(whole, value),
            log_masked=value * log_whole,
            log_whole=log_whole,
            log_clean=log_clean,
        )
        loss = LMACLoss(g_w=1, crosscortype=crosscortype)
        return call(loss, **arguments)[1]["gated"].tolist()

    assert gate("dotp") == [1, 1]
    assert gate("gain") == [0, 0]


@pytest.mark.parametrize("kind", ["white", "pink"])
def test_gain_tells_masks_apart(kind):
    """The ideal mask has the highest gain, its inverse the lowest."""
    whole, clean = mixture(kind)
    ideal = (clean > (whole - clean).abs()).float()
    log_whole, log_clean = torch.log1p(whole), torch.log1p(clean)

    def gain(mask):
        return losses.correlation_gain(mask * log_whole, log_whole, log_clean)

    assert (gain(ideal) >= 0.6).all()
    assert (gain(1 - ideal) < 0).all()
    assert (gain(torch.rand_like(whole)) < 0).all()
    # Constant linear masks have a small effect on log1p.
    linear = losses.correlation_gain(
        torch.log1p(0.5 * whole), log_whole, log_clean
    )
    assert (linear < 0.2).all()


@pytest.mark.parametrize("value", [0.1, 0.37, 0.9, 0.999])
def test_constant_mask_on_a_clean_clip(value):
    """On a clean clip a constant mask gains nothing."""
    _, clean = mixture()
    log_clean = torch.log1p(clean)
    for noise in (0, 1e-6):
        log_whole = log_clean + noise * torch.rand_like(log_clean)
        gain = losses.correlation_gain(value * log_whole, log_whole, log_clean)
        assert gain.abs().max() < 0.01


def test_silence_has_no_correlation():
    """Silence has a correlation of zero, not NaN."""
    x, zeros = torch.rand(2, TIME, FREQ), torch.zeros(2, TIME, FREQ)
    for pair in ((x, zeros), (zeros, x), (zeros, zeros)):
        assert losses.cross_correlation(*pair).tolist() == [0, 0]
    assert losses.correlation_gain(zeros, x, x).isfinite().all()
    assert losses.correlation_gain(zeros, zeros, x).tolist() == [0, 0]
    assert losses.correlation_gain(x, x, zeros).tolist() == [0, 0]


def test_binary_guidance_by_hand():
    """Loud bins should be 1, the others 0; the threshold itself is loud."""
    log_clean = torch.tensor([[[2.0, 0.7, 0.69, 0.0]]])
    loud = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    mask = torch.tensor([[[0.9, 0.6, 0.2, 0.4]]])
    found = losses.guidance_binary(mask, log_clean, 0.35)
    hand = -sum(map(math.log, (0.9, 0.6, 0.8, 0.6))) / 4
    assert found.item() == pytest.approx(hand)
    assert found.item() == pytest.approx(
        F.binary_cross_entropy(mask, loud).item()
    )
    higher = losses.guidance_binary(mask, log_clean, 0.5)
    hand = -sum(map(math.log, (0.9, 0.4, 0.8, 0.6))) / 4
    assert higher.item() == pytest.approx(hand)


def test_silent_clean_clip_asks_for_an_empty_mask():
    """A silent clean clip has no loud bin."""
    features = SpectralFeatures()
    silence = features.magnitude(features.stft(torch.zeros(1, 1600)))
    assert silence.min() > 0
    for log_clean in (torch.zeros_like(silence), torch.log1p(silence)):
        mask = torch.full_like(silence, 0.1)
        found = losses.guidance_binary(mask, log_clean)
        assert found.item() == pytest.approx(-math.log(0.9), rel=1e-4)


@pytest.mark.parametrize("crosscortype", ["dotp", "gain"])
def test_silent_clean_clip_guides_nothing(crosscortype):
    """A silent clean clip guides nothing, even if masks resemble it."""
    features = SpectralFeatures()
    silence = features.magnitude(features.stft(torch.zeros(1, 1600)))
    noise = features.magnitude(features.stft(torch.randn(1, 1600)))
    log_whole = torch.log1p(noise)
    _, terms = LMACLoss(g_w=1, crosscor_th=0, crosscortype=crosscortype)(
        torch.full_like(noise, 0.5),
        torch.zeros(1, 2),
        torch.zeros(1, 2),
        torch.tensor([0]),
        Guidance(0.5 * log_whole, log_whole, torch.log1p(silence)),
    )
    assert terms["gated"].tolist() == [0]


@pytest.mark.parametrize(
    "key", ["l_in_w", "l_out_w", "reg_w_l1", "reg_w_tv", "g_w"]
)
@pytest.mark.parametrize("weight", [-0.1, math.nan])
def test_bad_weights(key, weight):
    """The key and the weight are named."""
    with pytest.raises(LMACError, match=f"{key}: {weight}"):
        LMACLoss(**{key: weight})


@pytest.mark.parametrize("key", ["l_out_type", "crosscortype", "guidelosstype"])
def test_unknown_types(key):
    """The message names the key, what was found and what is known."""
    with pytest.raises(LMACError, match=f"{key}: 'conv' is none of .*'"):
        LMACLoss(**{key: "conv"})


def test_unknown_form():
    """The term itself refuses an unknown form too."""
    with pytest.raises(LMACError, match="l_out_type: 'conv'"):
        losses.masked_out(torch.zeros(1, 2), torch.tensor([0]), "conv")


@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("options", WHOLE)
def test_gradient_of_saturated_masks(options, fill):
    """Masks of exactly 0 or 1 have a finite loss and gradient."""
    drawn = inputs()
    mask = torch.full((4, TIME, FREQ), fill, requires_grad=True)
    drawn.update(mask=mask, log_masked=mask * drawn["log_whole"])
    totals, _ = call(LMACLoss(**options), **drawn)
    totals.sum().backward()
    assert totals.isfinite().all()
    assert mask.grad.isfinite().all()


@pytest.mark.parametrize("options", WHOLE)
def test_gradient_of_silence(options):
    """A silent input has a finite loss and gradient."""
    drawn = inputs()
    zeros = torch.zeros(4, TIME, FREQ)
    mask = torch.rand(4, TIME, FREQ, requires_grad=True)
    drawn.update(mask=mask, log_masked=mask * zeros)
    drawn.update(log_whole=zeros, log_clean=zeros)
    totals, _ = call(LMACLoss(**options), **drawn)
    totals.sum().backward()
    assert totals.isfinite().all()
    assert mask.grad.isfinite().all()


def test_total_variation_scale():
    """Zero for a constant, and the same however long or wide the mask is."""
    assert losses.total_variation(torch.full((2, 9, 7), 0.3)).tolist() == [0, 0]
    for time, freq in ((4, 4), (40, 4), (4, 40), (100, 60)):
        board = (torch.arange(time)[:, None] + torch.arange(freq)) % 2
        value = losses.total_variation(board.float()[None]).item()
        # All steps are 1; only the two edges lack a neighbour.
        edges = (1 / time + 1 / freq) / 2
        assert value == pytest.approx(1 - edges)


@pytest.mark.parametrize("term", ["sparsity", "guidance_binary"])
def test_scale_does_not_grow_with_the_grid(term):
    """A mask repeated in time and frequency has the same loss."""
    arguments = arguments_of(term)
    small = TERMS[term][0](*arguments)
    large = TERMS[term][0](*(x.repeat(1, 3, 2) for x in arguments))
    assert torch.allclose(small, large, atol=1e-5)


@pytest.mark.parametrize("options", WHOLE)
def test_autocast(options):
    """Half precision changes the loss only by rounding."""
    drawn = inputs()
    expected, _ = call(LMACLoss(**options), **drawn)
    drawn["mask"].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        totals, _ = call(LMACLoss(**options), **drawn)
        half = {
            name: x.bfloat16() if x.is_floating_point() else x
            for name, x in drawn.items()
        }
        rounded, _ = call(LMACLoss(**options), **half)
    totals.sum().backward()
    assert torch.allclose(totals, expected, rtol=0.01)
    assert drawn["mask"].grad.isfinite().all()
    assert torch.allclose(rounded.float(), expected, rtol=0.05, atol=0.05)
