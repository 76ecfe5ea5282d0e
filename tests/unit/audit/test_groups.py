"""Groups are found where there are some, and none where there are none."""

import numpy as np
import pandas as pd
import pytest

from lmac_sb.audit.describe import BANDS, TIMES, band_edges
from lmac_sb.audit.groups import MOST_CLIPS, find_groups, in_words

EDGES = band_edges(16000)


def clips(n, band, time, name="clip", seed=0):
    """Rows whose kept energy lies around a band and a time."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        bands = rng.gamma(0.05, size=16)
        bands[band] += rng.uniform(2, 6)
        times = rng.gamma(0.05, size=16)
        times[time] += rng.uniform(2, 6)
        rows.append(
            {
                "id": f"{name}/{i:05}",
                **dict(zip(BANDS, bands / bands.sum())),
                **dict(zip(TIMES, times / times.sum())),
                "seconds": 4.0,
                "kept_s": float(rng.uniform(0.2, 0.6)),
                "flatness": float(rng.uniform(0.05, 0.3)),
                "level_db": float(rng.normal(0, 3)),
                "modulation_hz": float(rng.uniform(1, 3)),
                "modulation_depth": float(rng.uniform(0, 0.3)),
            }
        )
    return rows


def cloud(n, seed):
    """Rows that spread evenly around one profile."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        weights = rng.dirichlet(np.full(16, 4.0))
        times = rng.dirichlet(np.full(16, 4.0))
        rows.append(
            {
                "id": f"{i:05}",
                **dict(zip(BANDS, weights)),
                **dict(zip(TIMES, times)),
                "seconds": 4.0,
                "kept_s": float(rng.uniform(2, 4)),
                "flatness": float(rng.uniform(0.1, 0.3)),
                "level_db": float(rng.normal(0, 3)),
                "modulation_hz": float(rng.uniform(1, 3)),
                "modulation_depth": float(rng.uniform(0, 0.3)),
            }
        )
    return pd.DataFrame(rows)


def test_two_groups_are_found_whatever_the_order_of_the_rows():
    rows = clips(40, 1, 0, "low") + clips(20, 14, 15, "high", seed=1)
    groups, _, n = find_groups(pd.DataFrame(rows), EDGES)
    assert [len(group.ids) for group in groups] == [40, 20]
    assert n == 60
    assert {x.split("/")[0] for x in groups[0].ids} == {"low"}
    assert "120 Hz to" in groups[0].text and "at the start" in groups[0].text
    assert "kHz" in groups[1].text and "at the end" in groups[1].text
    again, _, _ = find_groups(pd.DataFrame(rows[::-1]), EDGES)
    assert [group.ids for group in again] == [group.ids for group in groups]


def test_no_groups_where_there_are_none():
    counts = [len(find_groups(cloud(80, seed), EDGES)[0]) for seed in range(12)]
    assert counts.count(1) >= 11, counts


@pytest.mark.parametrize("n", [1, 2, 11])
def test_few_clips_are_one_group(n):
    ((group,), _, found) = find_groups(pd.DataFrame(clips(n, 3, 2)), EDGES)
    assert found == len(group.ids) == n


def test_no_clips_and_clips_without_anything_kept():
    frame = pd.DataFrame(clips(3, 3, 2))
    frame.loc[:, BANDS] = np.nan
    assert find_groups(frame, EDGES) == ([], [], 0)
    assert find_groups(frame[:0], EDGES) == ([], [], 0)


def test_the_medoid_comes_first_and_the_odd_one_out_is_named():
    rows = clips(40, 3, 2) + clips(1, 15, 15, "odd", seed=5)
    groups, outliers, _ = find_groups(pd.DataFrame(rows), EDGES)
    assert outliers[0] == "odd/00000"
    assert groups[0].ids[-1] == "odd/00000" or len(groups) == 1


def test_of_too_many_clips_a_seeded_draw_is_grouped(monkeypatch):
    monkeypatch.setattr("lmac_sb.audit.groups.MOST_CLIPS", 50)
    frame = pd.DataFrame(clips(80, 3, 2))
    one, _, n = find_groups(frame, EDGES, seed=1)
    other, _, _ = find_groups(frame, EDGES, seed=2)
    assert n == 50 and MOST_CLIPS == 5000
    assert one[0].ids == find_groups(frame, EDGES, seed=1)[0][0].ids
    assert sorted(one[0].ids) != sorted(other[0].ids)


def test_identical_clips_are_one_group():
    row = clips(1, 3, 2)[0]
    frame = pd.DataFrame([{**row, "id": str(i)} for i in range(30)])
    groups, outliers, _ = find_groups(frame, EDGES)
    assert len(groups) == 1 and outliers == []


@pytest.mark.parametrize(
    ("band", "time", "more", "words"),
    [
        (0, 0, {"kept_s": 0.2}, "short (0.2 s), below 120 Hz, at the start"),
        (15, 15, {"kept_s": 3.9}, "nearly all the time, above 6.7 kHz, at"),
        (8, 8, {"flatness": 0.01}, "2 kHz, in the middle, of few tones"),
        (8, 8, {"flatness": 0.5}, "noise-like"),
        (8, 8, {"modulation_depth": 0.9, "kept_s": 2}, "pulsed at about 2 Hz"),
        (
            8,
            8,
            {"modulation_depth": 0.9, "kept_s": 2, "modulation_hz": 0.5},
            "2 kHz, in the middle",
        ),
    ],
)
def test_sentences(band, time, more, words):
    row = {**clips(1, 3, 2)[0], **dict.fromkeys(BANDS + TIMES, 0.0)}
    row |= {BANDS[band]: 1.0, TIMES[time]: 1.0, "modulation_hz": 2.0, **more}
    assert words in in_words(pd.DataFrame([row]), EDGES)
