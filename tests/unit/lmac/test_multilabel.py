"""Tests of clips of several classes, each decided on its own."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from torch.nn import functional as F

from lmac_sb import LMACInterpreter
from lmac_sb.data.audio import Preprocessor
from lmac_sb.data.dataset import MultilabelEncoder, check_labels, make_dataset
from lmac_sb.data.manifest import to_lines
from lmac_sb.data.scenes import CLASSES, make_scenes
from lmac_sb.evaluation.comparison import Comparison
from lmac_sb.evaluation.contamination import Clean, Mixture
from lmac_sb.evaluation.judge import Judge
from lmac_sb.evaluation.runner import Grid
from lmac_sb.inference.export import export_run, load_interpreter
from lmac_sb.lmac.explainer import Explainer
from lmac_sb.lmac.losses import LMACLoss, masked_in, masked_out
from lmac_sb.lmac.masking import ideal_mask
from lmac_sb.lmac.refine import Refiner
from lmac_sb.methods.decided import each_class
from lmac_sb.methods.registry import make_case, make_methods
from lmac_sb.metrics.registry import evaluate
from lmac_sb.models.decoder import MaskDecoder
from lmac_sb.models.encoders import ConvEmbedding
from lmac_sb.models.features import SpectralFeatures
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.models.question import as_question
from lmac_sb.utils.errors import LMACError

# ------------------------------------------------------------------- scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes of two or three events."""
    folder = tmp_path_factory.mktemp("several") / "scenes"
    return make_scenes(folder, clips_per_class=2, n_folds=2, n_events=(2, 3))


@pytest.fixture(scope="module")
def table(scenes):
    """Rows of the csv of the scenes."""
    return pd.read_csv(scenes / "meta" / "esc50.csv", dtype=str)


def test_scenes_have_two_or_three_events(scenes, table):
    assert len(table) == 40
    counts = set()
    for row in table.itertuples():
        names, targets = row.category.split("+"), row.target.split("+")
        assert names == [CLASSES[int(target)] for target in targets]
        assert len(set(names)) == len(names)
        counts.add(len(names))
        assert row.filename.endswith(f"-A-{row.target}.wav")
        audio, rate = sf.read(scenes / "audio" / row.filename)
        stems, stem_rate = sf.read(scenes / "stems" / row.filename)
        assert rate == stem_rate == 16000
        assert stems.shape == (len(audio), len(names))
        # Each event sounds, and nothing is clipped.
        assert (np.abs(stems).max(0) > 0.2).all()
        assert np.abs(audio).max() < 0.97
        # The rest is the background and the distractors.
        rest = audio - stems.sum(1)
        assert (rest**2).sum() < (audio**2).sum()
    assert counts == {2, 3}
    first = table.category.str.split("+").str[0]
    assert (first.value_counts() == 4).all()


def test_no_event_is_heard_twice(scenes, table):
    """Each scene has sounds of its own, so no fold repeats another's."""
    events = [
        stem[stem != 0].tobytes()
        for name in table.filename
        for stem in sf.read(scenes / "stems" / name)[0].T
    ]
    assert len(set(events)) == len(events)


def test_scenes_of_one_event_are_what_they_were(tmp_path):
    """Scenes of one event are those of version 1."""
    folder = make_scenes(tmp_path / "one", clips_per_class=2, n_folds=1)
    info = json.loads((folder / "scenes.json").read_text())
    assert info["sha256"].startswith("9d88a6816c4cbb58f1d493503de985ee")
    # A folder of an older release lacks the number of events.
    del info["settings"]["n_events"]
    (folder / "scenes.json").write_text(json.dumps(info))
    make_scenes(folder, clips_per_class=2, n_folds=1)
    message = r"n_events=\[1\], expected n_events=\[2\]"
    with pytest.raises(LMACError, match=message):
        make_scenes(folder, clips_per_class=2, n_folds=1, n_events=[2])


@pytest.mark.parametrize("bad", [2, [], [0], [11], [2.0]])
def test_bad_numbers_of_events(tmp_path, bad):
    with pytest.raises(LMACError, match="n_events: found"):
        make_scenes(tmp_path / "x", n_events=bad)
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------- data


def write_clip(folder, channels):
    """Write a clip of one second, and its stem with some channels."""
    rng = np.random.default_rng(0)
    stems = 0.2 * rng.standard_normal((16000, channels))
    sf.write(folder / "a.wav", stems.sum(1), 16000, subtype="FLOAT")
    sf.write(folder / "stem.wav", stems, 16000, subtype="FLOAT")
    entry = {
        "wav": str(folder / "a.wav"),
        "stem": str(folder / "stem.wav"),
        "class_string": "dog+cat",
        "num_samples": 16000,
        "sample_rate": 16000,
    }
    for split in ("train", "valid", "test"):
        (folder / f"{split}.jsonl").write_text(to_lines({"a": entry}))
    return stems


@pytest.fixture
def encoder():
    """Classes cat, cow, dog."""
    encoder = MultilabelEncoder()
    encoder.update_from_iterable(["dog+cat", "cow"])
    encoder.expect_len(3)
    return encoder


def test_labels_and_events_by_class(tmp_path, encoder):
    assert encoder.ind2lab == {0: "cat", 1: "cow", 2: "dog"}
    stems = write_clip(tmp_path, 2)
    dataset = make_dataset(
        tmp_path / "test.jsonl", Preprocessor(16000), encoder, events=True
    )
    item = dataset[0]
    assert item["class_string_encoded"].tolist() == [1, 0, 1]
    # At the gain that the preprocessing gave the clip.
    gain = item["sig"].abs().max() / np.abs(stems.sum(1)).max()
    expected = np.stack([stems[:, 1], 0 * stems[:, 0], stems[:, 0]]) * float(
        gain
    )
    np.testing.assert_allclose(item["event"], expected, atol=1e-6)


def test_a_stem_without_a_channel_for_each_class(tmp_path, encoder):
    write_clip(tmp_path, 3)
    dataset = make_dataset(
        tmp_path / "test.jsonl", Preprocessor(16000), encoder, events=True
    )
    with pytest.raises(LMACError, match="3 channels, expected 2, one for"):
        dataset[0]


def test_unknown_classes_are_refused(tmp_path, encoder):
    write_clip(tmp_path, 2)
    check_labels(tmp_path, encoder, "model")
    other = MultilabelEncoder()
    other.update_from_iterable(["dog+cow"])
    with pytest.raises(LMACError, match="knows cow, dog, but the data has cat"):
        check_labels(tmp_path, other, "model")


# --------------------------------------------------------------- classifier


def make_explainer(multilabel=True, refiner=None):
    """A small random classifier of three classes, and a decoder."""
    torch.manual_seed(3)
    embedding = ConvEmbedding(40, [4, 8, 8])
    return Explainer(
        SpectralFeatures(n_mels=40),
        FrozenClassifier(
            embedding,
            torch.nn.Linear(8, 3),
            ["blocks.2", "blocks.1"],
            min_frames=4,
            multilabel=multilabel,
        ),
        MaskDecoder([8, 8, 8], n_mels=40, width=8),
        refiner=refiner,
    )


def test_question():
    """The two answers are the class, with its sigmoid, and its absence."""
    logits = torch.tensor([[2.0, -1.0, 0.0], [0.5, 3.0, -4.0]])
    target = torch.tensor([1, 0])
    answers, chosen = as_question(target, multilabel=True).answers(logits)
    assert chosen.tolist() == [0, 0]
    torch.testing.assert_close(
        answers.softmax(1)[:, 0], torch.tensor([-1.0, 0.5]).sigmoid()
    )
    answers, chosen = as_question(target).answers(logits)
    assert answers is logits and chosen is target


def test_losses_are_those_of_the_one_class():
    """The terms are the binary cross entropy and the sigmoid."""
    logits = torch.randn(6, 5) * 3
    target = torch.randint(5, (6,))
    own = logits.gather(1, target[:, None])[:, 0]
    answers, chosen = as_question(target, multilabel=True).answers(logits)
    bce = F.binary_cross_entropy_with_logits(
        own, torch.ones(6), reduction="none"
    )
    torch.testing.assert_close(masked_in(answers, chosen), bce)
    torch.testing.assert_close(
        masked_out(answers, chosen, "probability"), own.sigmoid()
    )


def test_evidence_is_for_the_logit_of_the_class():
    """The evidence does not depend on other classes."""
    classifier = make_explainer().classifier
    mel = torch.rand(2, 20, 40)
    target = torch.tensor([2, 0])
    _, (evidence, *latents) = classifier.trace(mel, target)
    deepest = latents[0].detach().requires_grad_()
    pooled = deepest.mean(3)
    embedding = pooled.amax(2) + pooled.mean(2)
    own = classifier.classifier(embedding).gather(1, target[:, None])
    (gradient,) = torch.autograd.grad(own.sum(), deepest)
    expected = gradient * deepest * deepest[0, 0].numel()
    torch.testing.assert_close(evidence, expected.detach())
    single = make_explainer(multilabel=False).classifier
    assert not torch.allclose(single.trace(mel, target)[1][0], evidence)


# ---------------------------------------------------------------- explainer


def test_metrics_are_those_of_the_one_class():
    """The metrics use the sigmoid of the class."""
    explainer = make_explainer()
    target = torch.tensor([2, 0, 1])
    with torch.no_grad():
        explanation = explainer(torch.rand(3, 8000) - 0.5, target=target)
    index = target[:, None]
    p, p_in, p_out = (
        logits.sigmoid().gather(1, index)[:, 0]
        for logits in (
            explanation.logits,
            explanation.logits_in,
            explanation.logits_out,
        )
    )
    found = evaluate(explanation.asked())
    close = torch.testing.assert_close
    close(found["AD"], 100 * (p - p_in).clamp(min=0) / p)
    close(found["FF"], p - p_out)
    close(found["AI"], 100 * (p_in > p + 1e-6).float())
    close(found["Fid-In"], (p_in >= 0.5).float())
    gain = torch.where(p_in > p + 1e-6, p_in - p, 0 * p)
    close(found["AG"], 100 * gain / (1 - p))
    logit = explanation.logits - explanation.logits_out
    close(found["FF-logit"], logit.gather(1, index)[:, 0])


def test_even_odds_are_a_decision():
    """A logit of zero counts as decided."""
    explainer = make_explainer()
    with torch.no_grad():
        explainer.classifier.classifier.weight.zero_()
        explainer.classifier.classifier.bias.zero_()
        explanation = explainer(torch.rand(1, 8000), target=torch.tensor([1]))
    assert evaluate(explanation.asked())["Fid-In"] == 1


def test_question_of_one_class_among_all_is_the_explanation():
    explainer = make_explainer(multilabel=False)
    with torch.no_grad():
        explanation = explainer(torch.rand(2, 8000))
    asked = explanation.asked()
    assert vars(asked).keys() == vars(explanation).keys()
    for name, value in vars(asked).items():
        assert value is getattr(explanation, name), name


def test_refinement_is_on_the_objective_of_the_one_class():
    loss = LMACLoss(l_in_w=12, l_out_w=8, l_out_type="probability", reg_w_l1=4)
    explainer = make_explainer(refiner=Refiner(loss))
    wavs, target = torch.rand(2, 8000) - 0.5, torch.tensor([1, 2])
    analysis = explainer.analyze(wavs, target)
    with torch.no_grad():
        mask = explainer.mask(analysis, target)

    def objective(mask):
        """The objective, computed with sigmoids."""
        sides = []
        for part in (mask, 1 - mask):
            inside = explainer.let_through(analysis.magnitude, part)
            logits = explainer.classify(inside)
            sides.append(logits.gather(1, target[:, None])[:, 0])
        total = 12 * F.softplus(-sides[0]) + 8 * sides[1].sigmoid()
        return (total + 4 * mask.mean((1, 2))).detach()

    refined = explainer.refine(analysis, mask, 3, target)
    assert (objective(refined) < objective(mask)).all()


def decided_items():
    """Three clips of classes 0 to 2, their sounds and their events."""
    torch.manual_seed(5)
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    events = torch.zeros(3, 3, 8000)
    for c in range(3):
        # One after the other, so that each bin belongs to one of them.
        part = slice(2500 * c, 2500 * c + 2000)
        events[:, c, part] = 0.5 * torch.randn(3, 2000)
    events *= labels[:, :, None]
    wavs = events.sum(1) + 1e-3 * torch.randn(3, 8000)
    items = [
        {"id": name, "class_string_encoded": label, "event": event}
        for name, label, event in zip("abc", labels, events)
    ]
    return wavs, items


def test_a_row_for_each_class_that_is_decided():
    """Its event is that of its class; those of the others are others."""
    explainer = make_explainer()
    wavs, items = decided_items()
    logits = torch.tensor([[1.0, 2.0, 0.0], [-1.0, -2.0, -3.0], [-1, 5.0, -1]])
    places, rows = each_class(logits, items)
    target = torch.tensor([row["target"] for row in rows])
    assert places == [0, 0, 0, 2] and target.tolist() == [0, 1, 2, 1]
    assert [row["id"] for row in rows] == ["a-0", "a-1", "a-2", "c-1"]
    assert [row["right"] for row in rows] == [True, False, True, True]
    case = make_case(explainer, wavs[places], [1.0] * 4, rows)
    assert case.target.tolist() == [0, 1, 2, 1]
    stft = explainer.features.stft
    for i, (place, c) in enumerate(zip(places, target.tolist())):
        ideals = [
            ideal_mask(stft(event[None]), stft(wavs[place][None]))[0]
            for event in items[place]["event"]
        ]
        assert torch.equal(case.event[i], ideals.pop(c))
        assert torch.equal(case.others[i], torch.stack(ideals).amax(0))
    assert not case.event[1].any() and case.others[1].any()
    # The evidence is for the class of the row, not for the most probable one.
    first = [explainer.analyze(wavs[:1], target[i : i + 1]) for i in (0, 2)]
    for i, analysis in zip((0, 2), first):
        torch.testing.assert_close(
            case.analysis.latents[0][i], analysis.latents[0][0]
        )


class Several:
    """A data set of clips of several classes, as the grid takes it."""

    several = True

    def __init__(self, wavs, items):
        self.data_ids = [item["id"] for item in items]
        self.n_samples = [wavs.shape[1]] * len(items)
        self.items = [
            {**item, "sig": wav, "class_string": "cat"}
            for item, wav in zip(items, wavs)
        ]

    def __getitem__(self, place):
        return self.items[place]


def make_grid(explainer, folder):
    """A grid of some methods on clips as they are."""
    names = ["lmac", "saliency", "ideal"]
    methods = make_methods(names, {"lmac": explainer})
    comparison = Comparison(Judge(explainer), methods, ["cat", "cow", "dog"])
    return Grid(comparison, [Clean()], folder)


def test_grid_of_several_classes(tmp_path):
    """A clip without a decision has no row, and a batch may be without any."""
    explainer = make_explainer()
    wavs, items = decided_items()
    with torch.no_grad():
        head = explainer.classifier.classifier
        logits = explainer.classify_sounds(wavs)
        # The decisions of the second clip are less certain than the others'.
        order = logits.amax(1)
        head.bias -= order.sort().values[:2].mean()
        logits = explainer.classify_sounds(wavs)
    expected = {
        f"{items[i]['id']}-{c}" for i, c in (logits >= 0).nonzero().tolist()
    }
    silent = [i for i in range(3) if not (logits[i] >= 0).any()]
    assert expected and silent
    rows, seconds = make_grid(explainer, tmp_path).run(Several(wavs, items), 1)
    for method in ("lmac", "saliency", "ideal"):
        part = rows.of("clean", method)
        assert {row["id"] for row in part} == expected
        assert all("error" not in row for row in part)
    assert len(rows) == 3 * len(expected) and len(seconds) == 3
    p = logits.sigmoid()
    for row in rows.of("clean", "lmac"):
        clip, c = row["id"].split("-")
        place = "abc".index(clip)
        assert row["p"] == pytest.approx(float(p[place, int(c)]), abs=1e-5)
        assert row["decision"] == ["cat", "cow", "dog"][int(c)]


def test_grid_without_a_decision(tmp_path):
    explainer = make_explainer()
    with torch.no_grad():
        explainer.classifier.classifier.bias -= 1000
    grid = make_grid(explainer, tmp_path)
    with pytest.raises(LMACError, match="decides for no class in any of 3"):
        grid.run(Several(*decided_items()), 2)


def test_mixtures_of_several_classes():
    """Another class means that none is in common."""
    entries = {
        name: {"wav": f"{name}.wav", "class_string": labels, "labels": found}
        for name, labels, found in (
            ("a", "cat+cow", ["cat", "cow"]),
            ("b", "dog", ["dog"]),
            ("c", "cow+dog", ["cow", "dog"]),
            ("d", "cat", ["cat"]),
        )
    }
    other = Mixture(entries, 8000, snr_db=0)
    same = Mixture(entries, 8000, "same", snr_db=0)
    assert other.candidates("a") == ["b"]
    assert same.candidates("a") == ["c", "d"]
    assert other.candidates("d") == ["b", "c"]
    with pytest.raises(LMACError, match=r"clip c \(class 'cow\+dog'\)"):
        del entries["d"]
        Mixture(entries, 8000, snr_db=0)


# ------------------------------------------------- where one class is needed


def test_interpreter_of_a_detector():
    """Each class is explained by its own sigmoid, and so are all figures."""
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(["cat", "cow", "dog"])
    interpreter = LMACInterpreter(
        {"explainer": make_explainer()},
        {"preprocess": Preprocessor(16000), "label_encoder": encoder},
    )
    wavs = torch.rand(2, 8000) - 0.5
    found = interpreter.explain_batch(wavs, target=["cow", "dog"])
    assert found.labels == ["cow", "dog"]
    for side, logits in (
        (found.p_before, found.logits),
        (found.p_inside, found.logits_in),
        (found.p_outside, found.logits_out),
    ):
        each = logits.gather(1, torch.tensor([[1], [2]]))[:, 0].sigmoid()
        assert torch.allclose(side, each)
    assert torch.allclose(found.probabilities, found.logits.sigmoid())
    either = interpreter.explain_batch(wavs[:1], target={"cow", "dog"})
    absent = (1 - found.probabilities[0, 1:]).prod()
    assert float(either.p_before) == pytest.approx(float(1 - absent), abs=1e-5)
    assert either.labels == ["cow or dog"]


def test_export(make_run, tmp_path):
    """What is exported decides each class on its own, as the run does."""
    size = {"channels": [4, 4, 8, 8, 8, 8], "emb_dim": 8}
    run = make_run(
        tmp_path / "run",
        "lmac_multilabel.yaml",
        **size,
        latent_channels=[8, 8, 8, 8, 8],
    )
    loaded = [
        load_interpreter(run),
        load_interpreter(export_run(run, tmp_path / "out")),
    ]
    wavs = torch.rand(2, 16000) - 0.5
    found = [model.explain_batch(wavs, target="dog") for model in loaded]
    for model, explained in zip(loaded, found):
        assert isinstance(model.hparams.label_encoder, MultilabelEncoder)
        assert torch.equal(explained.probabilities, explained.logits.sigmoid())
    assert torch.equal(found[0].mask, found[1].mask)
