"""Two classes of one sound: methods whose answers are known."""

import pytest
import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from lmac_sb.evaluation.swap import add_others, check_swap, of_several
from lmac_sb.methods.registry import Method
from lmac_sb.utils.errors import LMACError

CAT, DOG = 0, 1


def tone(hertz, gain=1.0):
    """A second of a tone."""
    return gain * torch.sin(2 * torch.pi * hertz * torch.arange(16000) / 16000)


def items_of(labels, events=True):
    """Clips of low tones (cat) and of high, soft ones (dog)."""
    items = {}
    for place, label in enumerate(labels):
        event = tone((300, 4000)[label], (1.0, 0.1)[label])
        torch.manual_seed(place)
        items[f"clip {place}"] = {
            "sig": event + 0.001 * torch.randn(16000),
            "class_string": ("cat", "dog")[label],
            "class_string_encoded": torch.tensor([label]),
            **({"event": event} if events else {}),
        }
    return items


def dataset_of(items):
    """A data set as `make_dataset` makes them."""
    keys = ["id", *next(iter(items.values()))]
    dataset = DynamicItemDataset(items, output_keys=keys)
    dataset.n_samples = [len(item["sig"]) for item in items.values()]
    return dataset


def halves(case):
    """The low half of the bins for a cat, and the high half for a dog."""
    mask = torch.zeros_like(case.analysis.magnitude)
    mask[case.target == CAT, :, :100] = 1
    mask[case.target == DOG, :, 100:] = 1
    return mask


def deaf(case):
    """The same for each class: the low half, and half of the rest."""
    mask = torch.full_like(case.analysis.magnitude, 0.5)
    mask[:, :, :100] = 1
    return mask


METHODS = {"halves": Method("mask", halves), "deaf": Method("mask", deaf)}


def options(tmp_path, **more):
    return {"folder": tmp_path / "rows", "batch_size": 2, "seed": 0, **more}


def test_a_method_that_follows_and_one_that_does_not(interpreter, tmp_path):
    dataset = dataset_of(items_of([CAT, DOG, CAT, DOG, DOG]))
    explainer = interpreter.explainer
    rows = check_swap(explainer, METHODS, dataset, options(tmp_path))
    assert len(rows) == 5 * 2 * 2
    hears = []
    for row in rows:
        if row["method"] == "halves":
            # But for leaks at its ends, an event lies in its half.
            assert row["correlation"] == pytest.approx(-1, abs=1e-5)
            assert 0 <= row["other_mass"] < 0.2 * row["event_mass"]
            hears.append(row["Fid-In"])
        else:
            assert row["correlation"] == pytest.approx(1)
    assert sum(hears) > len(hears) / 2
    # Asked about the one or the other, a deaf method has the same mass on
    # each of the two events.
    pairs = {}
    for row in rows:
        if row["method"] == "deaf":
            pairs.setdefault(row["id"], []).append(row)
    assert len(pairs) == 5
    for first, second in pairs.values():
        assert (first["asked"], second["asked"]) == (0, 1)
        assert first["event_mass"] == pytest.approx(second["other_mass"])
        assert first["other_mass"] == pytest.approx(second["event_mass"])
    # It continues, and does not ask again.
    assert (
        check_swap(explainer, {**METHODS}, dataset, options(tmp_path)) == rows
    )


def test_another_seed_is_another_job(interpreter, tmp_path):
    dataset = dataset_of(items_of([CAT, DOG]))
    explainer = interpreter.explainer
    check_swap(explainer, METHODS, dataset, options(tmp_path))
    with pytest.raises(LMACError, match="holds another job: seed"):
        check_swap(explainer, METHODS, dataset, options(tmp_path, seed=1))


def test_without_events_there_is_no_mass(interpreter, tmp_path):
    dataset = dataset_of(items_of([CAT, DOG], events=False))
    rows = check_swap(
        interpreter.explainer, METHODS, dataset, options(tmp_path)
    )
    columns = ["id", "method", "asked", "correlation", "Fid-In"]
    assert all(list(row) == columns for row in rows)


def test_clips_of_one_class_have_no_other(interpreter, tmp_path):
    dataset = dataset_of(items_of([CAT, CAT]))
    with pytest.raises(LMACError, match="no sound of two classes"):
        check_swap(interpreter.explainer, METHODS, dataset, options(tmp_path))


def test_why_no_sound_has_two_classes(interpreter, tmp_path):
    """The message tells what the user can do."""
    with pytest.raises(LMACError, match="all 2 clips are of .* more clips"):
        dataset = dataset_of(items_of([CAT, CAT]))
        check_swap(interpreter.explainer, METHODS, dataset, options(tmp_path))
    dataset = dataset_of(items_of([CAT, DOG]))
    dataset.n_samples = [1, 2]
    with pytest.raises(LMACError, match="no two of 2 clips .* signal_length_s"):
        folder = options(tmp_path / "lengths")
        check_swap(interpreter.explainer, METHODS, dataset, folder)


def test_what_does_not_look_at_the_classifier(interpreter, tmp_path):
    methods = {"loudest": Method("area", None)}
    with pytest.raises(LMACError, match="swap_methods: 'loudest'"):
        check_swap(
            interpreter.explainer,
            methods,
            dataset_of(items_of([CAT, DOG])),
            options(tmp_path),
        )


def test_others_are_as_loud():
    first, second = items_of([CAT, DOG]).values()
    first["id"], second["id"] = "a", "b"
    clips = [(item["sig"][None], [item]) for item in (first, second)]
    sounds = add_others(*clips)
    own, other = sounds.stems[0]
    added = sounds.wavs[0] - first["sig"]
    assert added.norm().item() == pytest.approx(first["sig"].norm().item())
    assert torch.equal(own, first["event"])
    # The event of the other clip is as much louder as the clip is.
    gain = added.norm() / second["sig"].norm()
    assert torch.allclose(other, gain * second["event"], atol=1e-6)
    assert sounds.classes.tolist() == [[CAT, DOG]] and sounds.ids == ["a"]


def test_a_silent_clip_gets_and_gives_nothing():
    (item,) = items_of([CAT]).values()
    item["id"], silent = "a", torch.zeros(1, 16000)
    clip = item["sig"][None]
    assert torch.equal(add_others((clip, [item]), (silent, [item])).wavs, clip)
    assert (add_others((silent, [item]), (clip, [item])).wavs == 0).all()


def test_two_of_several_classes():
    torch.manual_seed(0)
    wavs, stems = torch.rand(3, 8), torch.rand(3, 4, 8)
    labels = torch.tensor([[1.0, 0, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1]])
    items = [
        {"id": str(i), "class_string_encoded": labels[i], "event": stems[i]}
        for i in range(3)
    ]
    drawn = set()
    for seed in range(20):
        sounds = of_several(wavs, items, seed)
        assert sounds.ids == ["0", "2"]
        assert torch.equal(sounds.wavs, wavs[[0, 2]])
        for clip, pair, found in zip((0, 2), sounds.classes, sounds.stems):
            first, second = pair.tolist()
            assert first != second and labels[clip][pair].all()
            assert torch.equal(found, stems[clip][[first, second]])
        drawn.add(tuple(sounds.classes[1].tolist()))
    assert len(drawn) > 6
    assert of_several(wavs[1:2], items[1:2], 0) is None
