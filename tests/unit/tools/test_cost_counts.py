"""Tests of the cost of an explanation, in counts of operations."""

import copy
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from speechbrain.lobes.models.Cnn14 import Cnn14
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from lmac_sb.methods.trivial import TRIVIAL_MASKS
from lmac_sb.models.encoders import ConvEmbedding
from lmac_sb.models.features import SpectralFeatures
from lmac_sb.models.frozen import FrozenClassifier

RECIPE = Path(__file__).resolve().parents[3] / "recipes/ESC50/interpret"

# Masks in the test: L-MAC's, the same cut at 0.5, and trivial ones.
N_MASKS = 2 + len(TRIVIAL_MASKS)


@pytest.fixture(scope="module")
def cnn14():
    """The parts of the shipped recipe for CNN14, with random weights."""
    text = resolve_references(
        (RECIPE / "hparams" / "lmac_cnn14.yaml").read_text(encoding="utf-8"),
        {"data_folder": "none", "classifier_folder": "none"},
    ).read()
    return load_hyperpyyaml(text)


def flops(function, *args):
    """Floating point operations of a call, and its result."""
    with FlopCounterMode(display=False) as counter:
        result = function(*args)
    return counter.get_total_flops(), result


@pytest.fixture(scope="module")
def work(cnn14):
    """FLOPs of each part of a training step on one clip of 2 s."""
    explainer, wavs = cnn14["explainer"], torch.randn(1, 32000) / 10
    parts = {}
    features = explainer.features
    with torch.no_grad():
        mel = features.mel(features.magnitude(features.stft(wavs)))
        parts["classifier"], _ = flops(explainer.classifier, mel)
    analysis = explainer.analyze(wavs)
    with torch.no_grad():
        parts["decoder"], _ = flops(explainer.mask, analysis)

    def step():
        explanation = explainer(wavs, sounds=False)
        losses, _ = cnn14["lmac_loss"](
            explanation.mask,
            explanation.logits_in,
            explanation.logits_out,
            explanation.decision,
        )
        losses.mean().backward()

    parts["step"], _ = flops(step)
    return parts


def test_the_classifier_is_counted(work):
    """CNN14 takes 20.5 GFLOP for 5 s."""
    assert work["classifier"] == pytest.approx(20.5e9 * 2 / 5, rel=0.03)


def test_decoder_against_the_classifier(work):
    """The decoder's work; SpeechBrain's takes 9.4 times the classifier's."""
    assert 0.05 < work["decoder"] / work["classifier"] <= 0.15


def test_training_step_against_the_classifier(work):
    """A step's work: three classifications, two gradients, the decoder."""
    assert 5 < work["step"] / work["classifier"] <= 6


def test_decoder_is_small(cnn14, tmp_path):
    """The decoder's size; SpeechBrain's has 236.7 M parameters."""
    decoder = cnn14["decoder"]
    assert sum(p.numel() for p in decoder.parameters()) <= 3e6
    torch.save(decoder.state_dict(), tmp_path / "decoder.ckpt")
    assert (tmp_path / "decoder.ckpt").stat().st_size <= 12e6


# ------------------------------------------------------ passes and transforms


@pytest.fixture(scope="module")
def run(recipe, tiny, tmp_path_factory):
    """Clips seen by each part in each stage of a real run, step by step."""
    module = recipe.script("train_lmac")
    seen = defaultdict(lambda: defaultdict(list))
    now = []

    def count(patch, owner, name):
        original = getattr(owner, name)

        def counted(self, x, *args, **kwargs):
            if now:
                seen[now[0]][name].append(len(x))
            return original(self, x, *args, **kwargs)

        patch.setattr(owner, name, counted)

    def start(self, stage, epoch=None):
        now[:] = [stage.name]
        start.original(self, stage, epoch)

    def measure(*args):
        now[:] = ["USUAL"]
        measure.original(*args)

    start.original = module.LMACBrain.on_stage_start
    measure.original = module.measure_familiarity
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.LMACBrain, "on_stage_start", start)
        patch.setattr(module, "measure_familiarity", measure)
        count(patch, SpectralFeatures, "stft")
        count(patch, SpectralFeatures, "istft")
        count(patch, ConvEmbedding, "forward")
        done = recipe.main(
            "train_lmac",
            "lmac.yaml",
            output_folder=tmp_path_factory.mktemp("counts") / "run",
            **{**tiny, "number_of_epochs": 1, "save_clips": 0},
        )
        assert done.code == 0, done.err
    return seen


def test_training_passes(run):
    """A step makes two passes: the batch, then both sides together."""
    train = run["TRAIN"]
    batches = train["stft"]
    assert sorted(batches) == [6, 8, 8, 8]  # 30 clips
    assert train["forward"] == [n for size in batches for n in (size, 2 * size)]
    assert train["istft"] == []


def test_validation_passes(run):
    """Validation adds one STFT for the known event."""
    valid = run["VALID"]
    assert valid["forward"] == [8, 16, 2, 4]
    assert valid["stft"] == [8, 8, 2, 2]
    assert valid["istft"] == []


def test_evaluation_passes(run):
    """Each clip and its event are transformed once, each sound once.

    Both sounds of a mask take one inverse STFT, as they add up to the clip.
    Silence is classified once a batch.
    """
    test = run["TEST"]
    n_batches = 2
    assert sum(test["stft"]) == 10 * (1 + 1 + 2 * N_MASKS)
    assert sum(test["istft"]) == 10 * N_MASKS
    # The decision, both sides of the mask for the loss, and of each method
    # both sides and both sounds.
    assert sum(test["forward"]) == 10 * (1 + 2 + 4 * N_MASKS) + n_batches


def test_what_is_usual_takes_one_pass(run):
    """Of each clip of training and validation, after the test."""
    n_clips = sum(run["USUAL"]["stft"])
    assert n_clips == 40
    assert sum(run["USUAL"]["forward"]) == n_clips
    assert not run["USUAL"]["istft"]


# -------------------------------------------------------------------- memory


def kept_bytes(classifier, mel):
    """Memory that a pass keeps for the gradient to its input."""
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {p.data_ptr() for p in classifier.parameters()}
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = classifier(mel.requires_grad_())[0]
    return sum(n for place, n in kept.items() if place not in weights), logits


def test_frozen_classifier_keeps_little():
    """The adapter keeps half the memory of its modules."""
    embedding = Cnn14(80, 2048).eval()
    linear = torch.nn.Linear(2048, 50)
    layers = ["conv_block6", "conv_block5"]
    plain = FrozenClassifier(copy.deepcopy(embedding), linear, layers)
    kinds = {n: type(module) for n, module in embedding.named_modules()}
    for name, module in plain.embedding_model.named_modules():
        module.__class__ = kinds[name]
    mel = torch.rand(2, 64, 80)
    more, expected = kept_bytes(plain, mel)
    less, found = kept_bytes(FrozenClassifier(embedding, linear, layers), mel)
    torch.testing.assert_close(found, expected)
    assert less < 0.6 * more


def test_copy_of_a_frozen_model():
    """A copy uses its own statistics, and can be trained."""
    embedding = ConvEmbedding(40, [4, 8], dropout=0)
    plain = copy.deepcopy(embedding)
    FrozenClassifier(embedding, torch.nn.Linear(8, 2), ["blocks.1"])
    other, mel = copy.deepcopy(embedding), torch.rand(3, 16, 40)
    before = embedding(mel)
    for name, value in other.named_buffers():
        if name.endswith("running_var"):
            value.mul_(4)
    assert torch.equal(embedding(mel), before)
    assert not torch.allclose(other(mel), before)
    embedding.train()
    torch.testing.assert_close(embedding(mel), plain(mel))
    state, expected = embedding.state_dict(), plain.state_dict()
    torch.testing.assert_close(state, expected)
