"""The grid of the evaluation on a tiny model."""

import math
from copy import copy
from types import SimpleNamespace

import pytest
import torch

from lmac_sb.evaluation.comparison import Comparison
from lmac_sb.evaluation.contamination import Clean, WhiteNoise
from lmac_sb.evaluation.judge import NOISE_DB, Judge
from lmac_sb.evaluation.runner import Grid
from lmac_sb.lmac.masking import MASK_DOMAINS, apply_mask, top_share
from lmac_sb.methods.registry import (
    Case,
    Method,
    make_case,
    make_methods,
    min_max,
)
from lmac_sb.metrics.registry import METRICS, evaluate
from lmac_sb.metrics.summary import check_unique
from lmac_sb.utils.errors import LMACError

NAMES = ["lmac", "saliency", "loudest", "ones"]


class Clips:
    """A data set with what the grid needs."""

    def __init__(self, sounds, classes):
        self.data_ids = [f"clip{i}" for i in range(len(sounds))]
        self.n_samples = [len(sound) for sound in sounds]
        self.items = [
            {"id": clip, "sig": sound, "class_string": classes[0]}
            for clip, sound in zip(self.data_ids, sounds)
        ]

    def __getitem__(self, place):
        return self.items[place]


@pytest.fixture(scope="module")
def clips(interpreter, sounds):
    return Clips(sounds, interpreter.classes)


@pytest.fixture(scope="module")
def make_grid(interpreter):
    def make(folder, methods=None, settings=None, **options):
        if methods is None:
            methods = make_methods(NAMES, {"lmac": interpreter.explainer})
        comparison = Comparison(
            Judge(interpreter.explainer, options.pop("other", None)),
            methods,
            interpreter.classes,
            options.pop("shares", [0.1, 0.5]),
        )
        settings = [Clean()] if settings is None else settings
        return Grid(comparison, settings, folder, **options)

    return make


@pytest.fixture(scope="module")
def rows(make_grid, clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    settings = [Clean(), WhiteNoise(snr_db=5)]
    return make_grid(folder, settings=settings).run(clips, 2)[0]


def find(rows, **wanted):
    """The rows with these values, by clip."""
    return {
        row["id"]: row
        for row in rows
        if all(row[key] == value for key, value in wanted.items())
    }


def same(a, b, atol=1e-5):
    """Whether two rows hold the same."""
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, float):
            assert value == pytest.approx(b[key], abs=atol, nan_ok=True), key
        else:
            assert value == b[key], key
    return True


def test_one_row_for_each_cell(rows):
    check_unique(rows, ["id", "setting", "method", "keep"])
    keeps = {
        name: [
            row["keep"]
            for row in rows
            if (row["id"], row["setting"], row["method"])
            == ("clip0", "white 5 dB", name)
        ]
        for name in NAMES
    }
    every = ["own", "area of lmac", "0.1", "0.5"]
    assert keeps == {
        "lmac": every,
        "saliency": every,
        "loudest": every,
        "ones": ["own"],
    }


def test_rows_agree_with_the_explainer(rows, interpreter, sounds):
    """The rows equal values computed clip by clip with the explainer."""
    explainer = interpreter.explainer
    for i in range(3):
        found = explainer(sounds[i : i + 1])
        row = find(rows, setting="clean", method="lmac", keep="own")[f"clip{i}"]
        for name, value in evaluate(found).items():
            assert row[name] == pytest.approx(float(value), abs=2e-3), name
        c = found.decision
        assert row["decision"] == interpreter.classes[int(c)]
        assert row["right"] == int(int(c) == 0)
        for key, logits in (
            ("p", found.logits),
            ("p_in", found.logits_in),
            ("p_out", found.logits_out),
        ):
            expected = float(logits.softmax(1)[0, c])
            assert row[key] == pytest.approx(expected, abs=1e-5)
        heard = SimpleNamespace(
            waveform=None,
            mask=None,
            decision=c,
            logits=found.logits,
            logits_in=explainer.analyze(found.waveform).logits,
            logits_out=explainer.analyze(found.residual).logits,
        )
        for name in ("AI", "AD", "AG", "FF", "Fid-In"):
            expected = float(evaluate(heard)[name])
            assert row[f"heard {name}"] == pytest.approx(expected, abs=2e-3)


def test_equal_area(rows):
    own = find(rows, setting="clean", method="lmac", keep="own")
    n_bins = 87 * 513
    for method in ("lmac", "saliency", "loudest"):
        part = find(rows, setting="clean", method=method, keep="area of lmac")
        for clip, row in part.items():
            assert abs(row["area"] - own[clip]["area"]) <= 0.5001 / n_bins
        for row in find(rows, method=method, keep="0.1").values():
            assert row["area"] == pytest.approx(0.1, abs=1e-5)


def test_shares_are_the_top_of_the_scores(rows, interpreter, sounds):
    explainer = interpreter.explainer
    analysis = explainer.analyze(sounds[:1])
    target = analysis.logits.argmax(1)
    case = Case(explainer, sounds[:1], analysis, target, ["a"])
    scores = make_methods(["saliency"], {})["saliency"].function(case)
    for keep, mask in (
        ("own", min_max(scores)),
        ("0.5", top_share(scores, 0.5)),
    ):
        found = evaluate(explainer.complete(analysis, mask, sounds=False))
        row = find(rows, setting="clean", method="saliency", keep=keep)["clip0"]
        for name in ("AD", "FF", "area"):
            assert row[name] == pytest.approx(float(found[name]), abs=2e-3)


def test_ones_lose_nothing(rows):
    for row in find(rows, method="ones", setting="clean").values():
        assert row["AD"] == pytest.approx(0, abs=1e-3)
        assert row["area"] == 1
        assert "warning" not in row


def test_mixtures_tell_the_quality_of_the_sound(rows):
    assert all("SI-SDR" not in r for r in find(rows, setting="clean").values())
    for row in find(
        rows, setting="white 5 dB", method="ones", keep="own"
    ).values():
        # All of the mixture has the SI-SDR of its SNR.
        assert row["SI-SDR"] == pytest.approx(5, abs=0.3)


def test_batches_do_not_matter(rows, make_grid, clips, tmp_path):
    settings = [Clean(), WhiteNoise(snr_db=5)]
    again, _ = make_grid(tmp_path, settings=settings).run(clips, 3)
    assert len(again) == len(rows)
    for a, b in zip(rows, again):
        same(a, b, atol=5e-3)


def test_goes_on_where_it_stopped(make_grid, clips, tmp_path):
    whole, _ = make_grid(tmp_path / "whole").run(clips, 1)
    calls = []

    def stop(case):
        calls.append(len(case.wavs))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return torch.ones_like(case.analysis.magnitude)

    broken = make_grid(tmp_path / "part")
    broken.comparison.methods = {
        **broken.comparison.methods,
        "ones": Method("fixed", stop),
    }
    with pytest.raises(KeyboardInterrupt):
        broken.run(clips, 1)
    assert len(list((tmp_path / "part" / "rows").glob("*.parquet"))) == 2
    assert list((tmp_path / "part").rglob("*.part")) == []
    again, _ = broken.run(clips, 1)
    assert len(calls) == 4  # only the third clip is computed again
    for a, b in zip(whole, again):
        same(a, b)


def test_a_method_that_fails_on_a_clip(make_grid, clips, tmp_path, sounds):
    def picky(case):
        bad = (case.wavs == sounds[1]).all(1).any()
        if bad:
            raise RuntimeError("no such\nluck")
        return torch.rand(
            case.analysis.magnitude.shape,
            generator=torch.Generator().manual_seed(0),
        )

    def nan(case):
        mask = torch.zeros_like(case.analysis.magnitude)
        mask[(case.wavs == sounds[2]).all(1)] = math.nan
        return mask

    grid = make_grid(tmp_path)
    grid.comparison.methods = {
        **grid.comparison.methods,
        "picky": Method("mask", picky),
        "nan": Method("mask", nan),
    }
    rows, _ = grid.run(clips, 3)
    assert {
        (row["method"], row["id"], row["error"])
        for row in rows
        if row.get("error")
    } == {
        ("picky", "clip1", "no such luck"),
        ("nan", "clip2", "NaN in the mask"),
    }
    kept = find(rows, method="picky", keep="own")
    assert "AD" not in kept["clip1"] and "AD" in kept["clip0"]
    # A constant mask is reported.
    assert find(rows, method="nan", keep="own")["clip0"]["warning"]


def test_wrong_shape_is_an_error(make_grid, clips, tmp_path):
    grid = make_grid(tmp_path)
    grid.comparison.methods["x"] = Method(
        "mask", lambda case: torch.ones(3, 2, 2)
    )
    rows, _ = grid.run(clips, 3)
    errors = [row["error"] for row in rows if row["method"] == "x"]
    assert len(errors) == 3
    assert "mask of shape (3, 2, 2), expected (1, 87, 513)" in errors[0]


def test_known_regions(make_grid, clips, tmp_path):
    grid = make_grid(tmp_path, regions={"clip1": [(0.0, 0.5)]})
    rows, _ = grid.run(clips, 3)
    part = find(rows, method="ones", keep="own")
    assert "time_mass" not in part["clip0"]
    assert part["clip1"]["time_mass"] == pytest.approx(0.5, abs=0.02)
    for name, metric in METRICS.items():
        if metric.needs in ("kept frames", "kept known"):
            assert name not in part["clip0"]
            assert 0 < part["clip1"][name] <= 1


def test_a_clip_with_several_regions(make_grid, clips, tmp_path):
    """It sounds in all of them, not in the last alone."""
    regions = {"clip1": [(0.0, 0.25), (0.2, 0.3), (0.8, 1.0)]}
    rows, _ = make_grid(tmp_path, regions=regions).run(clips, 3)
    row = find(rows, method="ones", keep="own")["clip1"]
    assert row["time_mass"] == pytest.approx(0.5, abs=0.03)


def test_stems_tell_more_than_regions(make_grid, interpreter, sounds, tmp_path):
    """Where the event is known, onset and offset are not read."""
    clips = Clips(sounds, interpreter.classes)
    for item in clips.items:
        item["event"] = torch.zeros_like(item["sig"])
        item["event"][:8000] = item["sig"][:8000]
    methods = make_methods(["lmac", "ideal"], {"lmac": interpreter.explainer})
    known, both = (
        make_grid(tmp_path / name, methods, regions=regions).run(clips, 3)[0]
        for name, regions in (("known", {}), ("both", {"clip1": [(0.9, 1.0)]}))
    )
    assert list(known) == list(both)
    for row in find(known, method="ideal", keep="own").values():
        for name, metric in METRICS.items():
            if metric.needs in ("kept event", "kept frames", "kept known"):
                assert row[name] == pytest.approx(1, nan_ok=True), name
    assert find(known, method="ideal")["clip1"]["pointing"] == 1


def test_kept_is_what_is_heard(clips, interpreter):
    """A mask on log magnitudes counts by what it lets through."""
    explainer = copy(interpreter.explainer)
    judged = {}
    for domain in MASK_DOMAINS:
        explainer.mask_domain = domain
        case = make_case(explainer, clips[1]["sig"][None], [1.0], [clips[1]])
        case.event = (case.analysis.magnitude > 1).float()
        half = torch.full_like(case.event, 0.5)
        judged[domain] = Judge(explainer)(case, half)
        kept = apply_mask(case.analysis.magnitude, half, domain)
        for name in ("event_mass", "event_auc"):
            expected = METRICS[name].function(kept, case.event)
            found = judged[domain][f"kept_{name}"]
            assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    assert (
        judged["log1p"]["kept_event_mass"] < judged["linear"]["kept_event_mass"]
    )


def test_events_follow_the_gain_of_the_mixture(
    make_grid, interpreter, sounds, tmp_path
):
    clips = Clips(sounds, interpreter.classes)
    for item in clips.items:
        item["event"] = item["sig"]  # nothing but the event
    names = ["lmac", "ideal"]
    methods = make_methods(names, {"lmac": interpreter.explainer})
    settings = [Clean(), WhiteNoise(snr_db=60)]
    rows, _ = make_grid(tmp_path, methods, settings).run(clips, 3)
    for row in find(rows, method="ideal", keep="own").values():
        assert row["event_mass"] == pytest.approx(1)
        if row["id"] != "clip2":  # if there is only noise, no rest is left
            assert row["event_auc"] == pytest.approx(1)
    for clip in ("clip0", "clip1", "clip2"):
        clean, mixed = (
            find(rows, setting=s, method="ideal")[clip]["area"]
            for s in ("clean", "white 60 dB")
        )
        # Bins in which the clip is louder than noise at -60 dB.
        assert 0 < mixed <= clean + 1e-6


def test_a_second_opinion(make_grid, interpreter, clips, tmp_path):
    """A second judge that equals the first gives the same values."""
    features = interpreter.explainer.features

    def other(wavs):
        magnitude = features.magnitude(features.stft(wavs))
        with torch.no_grad():
            return interpreter.explainer.classify(magnitude)

    rows, _ = make_grid(tmp_path, other=other).run(clips, 3)
    for row in find(rows, method="lmac", keep="own").values():
        for name in ("AI", "AD", "AG", "FF", "Fid-In"):
            assert row[f"other {name}"] == pytest.approx(
                row[f"heard {name}"], abs=2e-3
            )


def test_noise_of_the_guard(interpreter, sounds):
    from lmac_sb.evaluation.judge import white_noise

    ids = ["a", "b", "c"]
    noise = white_noise(sounds, ids, NOISE_DB)
    ratio = sounds.pow(2).mean(1) / noise.pow(2).mean(1)
    assert torch.allclose(10 * ratio.log10(), torch.tensor(NOISE_DB), atol=0.3)
    alone = white_noise(sounds[1:2], ids[1:2], NOISE_DB)
    assert torch.equal(noise[1:2], alone)
    silence = white_noise(torch.zeros(1, 100), ["a"], NOISE_DB)
    assert (silence == 0).all()


def test_silence(interpreter, sounds):
    explainer = interpreter.explainer
    analysis = explainer.analyze(sounds)
    target = torch.tensor([0, 1, 2])
    case = Case(explainer, sounds, analysis, target, list("abc"))
    found = Judge(explainer).silence(case)
    silent = explainer.classify(torch.zeros_like(analysis.magnitude))
    expected = silent.softmax(1).gather(1, target[:, None])[:, 0]
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("share", [0, 1.5, -0.1])
def test_bad_shares(make_grid, tmp_path, share):
    with pytest.raises(LMACError, match=f"shares: {share} is not in"):
        make_grid(tmp_path, shares=[share])


def test_the_first_method_gives_the_area(make_grid, tmp_path):
    with pytest.raises(LMACError, match="'loudest' comes first"):
        make_grid(tmp_path, make_methods(["loudest", "ones"], {}))


def test_whoever_does_it_and_in_whatever_order(make_grid, clips, tmp_path):
    """Tables are the same bytes; a method's rows are those of all rows."""
    methods = make_methods(["ones", "loudest"], {})
    folders = []
    for order in ((0, 1, 2), (2, 0, 1)):
        folder = tmp_path / f"from {order[0]}"
        grid = make_grid(folder, methods, settings=[Clean(), WhiteNoise(5)])
        with_order = Ordered(clips, order)
        rows, _ = grid.run(with_order, 2)
        assert list(rows) == sorted(
            rows,
            key=lambda row: (
                row["setting"] != "clean",
                row["method"] != "ones",
                grid.comparison.keeps().index(row["keep"]),
                row["id"],
            ),
        )
        assert len(rows) == len(list(rows))
        folders.append(list(rows))
    for one, two in zip(*folders):
        same(one, two)


class Ordered:
    """The same clips in another order."""

    def __init__(self, clips, order):
        self.clips, self.order = clips, order
        self.data_ids = [clips.data_ids[i] for i in order]
        self.n_samples = [clips.n_samples[i] for i in order]

    def __getitem__(self, place):
        return self.clips[self.order[place]]


def test_clips_of_several_lengths(make_grid, interpreter, sounds, tmp_path):
    """They share a chunk, but not a batch."""
    unequal = [sounds[0], sounds[1][:9000], sounds[2], sounds[0][:9000]]
    clips = Clips(unequal, interpreter.classes)
    methods = make_methods(["ones", "random"], {})
    rows, _ = make_grid(tmp_path / "all", methods).run(clips, 3)
    one, _ = make_grid(tmp_path / "each", methods).run(clips, 1)
    assert len(rows) == 4 * (1 + 4)
    for a, b in zip(rows, one):
        same(a, b, atol=5e-3)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"\0" * len(content),
    ],
)
def test_spoilt_rows_are_computed_again(
    make_grid, clips, tmp_path, spoil, caplog
):
    """With a line that names the file, and to the same rows."""
    methods = make_methods(["ones"], {})
    whole = list(make_grid(tmp_path, methods).run(clips, 2)[0])
    path, other = sorted((tmp_path / "rows").glob("*.parquet"))
    before = path.read_bytes()
    path.write_bytes(spoil(before))
    again = list(make_grid(tmp_path, methods).run(clips, 2)[0])
    assert again == whole and path.read_bytes() == before
    assert caplog.text.count("made again") == 1 and str(path) in caplog.text
    # Nor is one batch taken for another one.
    caplog.clear()
    other.write_bytes(before)
    assert list(make_grid(tmp_path, methods).run(clips, 2)[0]) == whole
    assert str(other) in caplog.text


def test_a_changed_figure_is_an_error(make_grid, clips, tmp_path):
    """That names the file; nothing is made of it."""
    methods = make_methods(["ones"], {})
    make_grid(tmp_path, methods).run(clips, 3)
    (path,) = (tmp_path / "rows").glob("*.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)
    rows, _ = make_grid(tmp_path, methods).run(clips, 3)
    with pytest.raises(LMACError, match="part-00000"):
        list(rows)


def test_other_methods_are_other_rows(make_grid, clips, tmp_path):
    make_grid(tmp_path, make_methods(["ones"], {})).run(clips, 2)
    with pytest.raises(LMACError, match="holds another job: methods"):
        make_grid(tmp_path, make_methods(["ones", "random"], {})).run(clips, 2)
