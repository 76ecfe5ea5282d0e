"""Tests of what a decision does when parts of a clip come from another one.

The classifiers are functions whose answer is known: one hears a hum, one an
event, one the start of the clip.
"""

import pytest
import torch

from lmac_sb import LMACInterpreter
from lmac_sb.audit.evidence import (
    EVIDENCE,
    N_BANDS,
    N_DONORS,
    band_edges,
    donors_of,
    evidence,
)

RATE = 16000
N = RATE


def tone(hertz):
    return torch.sin(2 * torch.pi * hertz * torch.arange(N) / RATE)


def clip(event_hz, hum=0.0, click=0.0, n=N):
    """Noise, an event in the middle, and maybe a hum and a click."""
    wav = 0.01 * torch.randn(N) + hum * tone(60)
    wav[6000:10000] += 0.5 * tone(event_hz)[6000:10000]
    wav[:50] += click
    return torch.cat([wav, 0.01 * torch.randn(n - N)]) if n > N else wav[:n]


class Hears(torch.nn.Module):
    """Two classes: whether there is much in a band, and at a time."""

    def __init__(self, low, high, least, time=slice(None), outputs=2):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(4.0))
        self.low, self.high, self.least = low, high, least
        self.time, self.outputs = time, outputs

    def forward(self, wavs):
        """Logits [batch, 2]."""
        wavs = wavs[:, self.time]
        power = torch.fft.rfft(wavs).abs().square() / wavs.shape[1] ** 2
        hertz = torch.linspace(0, RATE / 2, power.shape[1])
        inside = (hertz >= self.low) & (hertz < self.high)
        level = (power[:, inside].sum(1) + 1e-12).log10()
        x = self.gain * (level - self.least)
        return torch.stack([x, -x], 1)


def adopted(model, **options):
    return LMACInterpreter.from_classifier(
        model, RATE, ["yes", "no"], multilabel=False, **options
    )


def moved(found, k=0):
    """Parts of a donor with which the decision is another one."""
    return {
        name[: -len("_0")]
        for name, value in found.items()
        if name.endswith(f"_{k}")
        and not name.startswith("donor")
        and value not in (None, found["heard"])
    }


@pytest.fixture(scope="module")
def hears_hum():
    return adopted(Hears(40, 80, -3.2))


def test_a_hum_is_found_in_its_band(hears_hum):
    donors = [clip(900), clip(900, hum=0.1)]
    found = evidence(hears_hum, clip(1200, hum=0.1), None, donors)
    assert list(found) == list(EVIDENCE)
    assert (found["heard"], found["donor_0"], found["donor_1"]) == (
        *("yes", "no", "yes"),
    )
    assert found["rest_decision"] == "yes"  # it stays without the event
    assert found["alone_decision"] == "no"
    assert moved(found) == {"band_01", "all"}  # 25 to 156 Hz
    assert moved(found, 1) == set()
    assert found["drop_band_01"] > 2 > abs(found["same_band_01"])
    assert abs(found["drop_band_08"]) < 0.5
    assert found["donor_2"] is None and found["band_01_2"] is None


def test_what_is_absent_is_found_too(hears_hum):
    found = evidence(hears_hum, clip(900), None, [clip(1200, hum=0.1)])
    assert found["heard"] == "no"
    assert moved(found) == {"band_01", "all"}


def test_the_event_itself_is_left_alone():
    """Nothing of the rest matters to a classifier of the event."""
    hears_event = adopted(Hears(800, 1000, -3))
    donors = [clip(1500, hum=0.1), clip(300), clip(930)]
    found = evidence(hears_event, clip(900), None, donors)
    assert found["heard"] == found["alone_decision"] == "yes"
    assert found["rest_decision"] == "no"
    assert moved(found) == moved(found, 1) == moved(found, 2) == set()


def test_a_click_at_the_start_is_found_in_its_place():
    at_start = adopted(Hears(0, 8001, -3, slice(0, 800)))
    found = evidence(at_start, clip(900, click=0.5), None, [clip(900)])
    assert found["heard"] == "yes"
    assert {"start", "all"} <= moved(found) and "end" not in moved(found)


@pytest.mark.parametrize("n", [N // 2, N - 7, N + 5000, 3 * N])
def test_donors_of_any_length(hears_hum, n):
    """Both ends of a donor stay at the ends."""
    donor = torch.zeros(n) + clip(1200, hum=0.1).repeat(3)[:n]
    found = evidence(hears_hum, clip(900), None, [donor])
    assert moved(found) == {"band_01", "all"}


def test_silent_clips_and_donors(hears_hum):
    found = evidence(hears_hum, torch.zeros(N), None, [clip(900)])
    assert set(found.values()) == {None}
    found = evidence(hears_hum, clip(900), None, [torch.zeros(N)])
    assert found["heard"] == "no" and found["donor_0"] is None


def test_an_event_as_long_as_the_clip(hears_hum):
    found = evidence(hears_hum, clip(900), None, [clip(900)], (0.0, 1.0))
    assert found["event_share"] == 1.0 and found["rest_decision"] is None
    assert found["donor_0"] is None


def test_a_long_clip_is_looked_at_where_it_is_loud():
    heard = adopted(Hears(40, 80, -3.2), signal_length_s=1.0)
    wav = torch.cat([0.01 * torch.randn(4 * N), clip(900, hum=0.1)])
    assert len(wav) > heard.longest
    found = evidence(heard, wav, None, [clip(900)])
    assert found["heard"] == "yes"
    assert found["start_0"] is None and found["end_0"] is not None


def test_kept_energy(hears_hum):
    wav = clip(900, hum=0.1)
    explanation = hears_hum.explain_batch(wav[None], refine_steps=2)
    explanation.waveform = wav[None]  # a mask that keeps all
    found = evidence(hears_hum, wav, explanation, [])
    bands = [found[f"kept_band_{i:02d}"] for i in range(N_BANDS)]
    assert sum(bands) == pytest.approx(found["kept_rest"], rel=1e-3)
    assert bands[1] == max(bands) and 0 < found["kept_rest"] < 0.5


def test_several_classes_may_be_true():
    """A class stays while it keeps half of its probability."""

    class Both(Hears):
        def forward(self, wavs):
            """Logits of a hum and of a tone, each on its own."""
            hum = super().forward(wavs)[:, 0]
            return torch.stack([hum, torch.full_like(hum, 1.0)], 1)

    both = LMACInterpreter.from_classifier(
        Both(40, 80, -3.2), RATE, ["hum", "other"], multilabel=True
    )
    donors = [clip(900), clip(900, hum=0.1)]
    found = evidence(both, clip(900, hum=0.1), None, donors)
    assert found["heard"] == "hum"
    assert moved(found) == {"band_01", "all"}
    assert found["band_01_0"] == "other"


def test_donors_are_drawn_by_number_and_seed():
    classes = ["a", "b", "a", None, "c", "b", "b"] * 3
    for i, own in enumerate(classes):
        found = donors_of(i, classes)
        assert found == donors_of(i, classes) and i not in found
        assert len(found) == len(set(found)) == N_DONORS
        drawn = [classes[j] for j in found]
        if own is not None:
            assert drawn[0] == own and own not in drawn[1:]
    assert len({tuple(donors_of(0, classes, seed)) for seed in range(9)}) > 1
    assert donors_of(0, ["a"]) == []
    assert donors_of(0, ["a", "b"]) == [1]
    assert sorted(donors_of(0, [None] * 3)) == [1, 2]


def test_donors_of_a_large_corpus_of_one_class():
    """Clips that are not there are not looked for among all of them."""

    class Labels(list):
        n_read = 0

        def __getitem__(self, i):
            self.n_read += 1
            return super().__getitem__(i)

    labels = Labels(["a"] * 10**5)
    assert len(donors_of(5, labels)) == 1
    assert labels.n_read < 1000


def test_bands_cover_all():
    edges = band_edges(8000.0)
    assert len(edges) == N_BANDS + 1
    assert edges[0] == 0 and edges[-1] == pytest.approx(8000)
    assert all(low < high for low, high in zip(edges, edges[1:]))
