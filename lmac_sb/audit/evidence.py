"""What a decision does when parts of a clip are removed or exchanged.

An explanation tells where a decision may come from; that it does come from
there is shown by a change of the sound. So for each clip:

- the loud event is replaced by what is heard at other times, and then
  everything but the event is removed;
- of the rest, one band, one place, or all is exchanged with that of another
  clip, a *donor*. The event stays. So what is absent shows as well, such as
  what lies above the edge of a codec.

A clip's class here is what the classifier decides, so no labels are needed.
Of donors of other classes it is asked whether the decision leaves the class,
or moves to theirs; a donor of the same class shows what the exchange alone
does. `lmac_sb.audit.alarms` makes tests of it.
"""

import random
from functools import lru_cache

import torch
from torch.nn import functional as F

from lmac_sb.audit.event import find_event, without_event
from lmac_sb.data.audio import MIN_LENGTH_S, fit_length, is_silent
from lmac_sb.metrics.verdict import LOST
from lmac_sb.models.sound import SoundFeatures

__all__ = [
    "EVIDENCE",
    "N_BANDS",
    "N_DONORS",
    "PARTS",
    "PLACES",
    "band_edges",
    "donors_of",
    "evidence",
    "spectrogram",
]

N_BANDS = 16
N_DONORS = 4  # of a clip: one of its class and three of others, if there are
PLACE_SHARE = 0.1  # of a clip, that its start and its end are
PLACES = {"start": (0.0, PLACE_SHARE), "end": (1 - PLACE_SHARE, 1.0)}
PARTS = [*(f"band_{i:02d}" for i in range(N_BANDS)), *PLACES, "all"]

_TRIES = 200  # to draw donors at random
_SEARCHED = 2000  # clips of a corpus of which all are looked at for them
_OFFSET_HZ = 25.0  # the lowest band is what nobody hears
_LEAST_P = 1e-6  # that log-odds are taken of
_BATCH_S = 100.0  # seconds of sound that the classifier hears at once

# Columns of the table of clips with what they are. Each is null where it is
# not known: of silence, of an event as long as the clip, without donors.
EVIDENCE = {
    "heard": "class that the classifier decides for, as all others here",
    "nyquist": "upper end of the highest band, in Hz",
    "event_share": "share of the time that the loud event takes",
    "rest_decision": "class without the loud event",
    "alone_decision": "class of the loud event alone",
    "kept_rest": "share of the kept energy that lies outside of the event",
    **{
        f"kept_{part}": f"share of it in {part} of the rest"
        for part in PARTS[:-1]
    },
    **{
        f"{fall}_{part}": f"fall of the log-odds of the class with "
        f"{part} of the rest of {whose} class, mean"
        for fall, whose in (("drop", "another"), ("same", "its own"))
        for part in PARTS
    },
    **{f"donor_{k}": f"class of donor {k}" for k in range(N_DONORS)},
    **{
        f"{part}_{k}": f"class with {part} of the rest of donor {k}"
        for part in PARTS
        for k in range(N_DONORS)
    },
}


def band_edges(nyquist):
    """Edges of the bands: below hearing, and then equal steps in mel.

    Arguments
    ---------
    nyquist : float
        Half of the sampling rate in Hz.

    Returns
    -------
    list of float
        `N_BANDS` + 1 of them, in Hz.

    Example
    -------
    >>> [round(edge) for edge in band_edges(8000)][:4]
    [0, 25, 156, 310]
    """
    low, high = (_mel(hertz) for hertz in (_OFFSET_HZ, nyquist))
    steps = N_BANDS - 1
    inner = [low + (high - low) * i / steps for i in range(steps + 1)]
    return [0.0, *(700 * (10 ** (mel / 2595) - 1) for mel in inner)]


def _mel(hertz):
    """Pitch of a frequency (HTK's formula)."""
    return 2595 * float(torch.tensor(1 + hertz / 700.0).double().log10())


def donors_of(place, classes, seed=0):
    """Draw the clips whose rest is tried in another clip.

    Arguments
    ---------
    place : int
        Number of the clip.
    classes : list of str
        Label or decision of each clip of the corpus; None where it has none.
    seed : int
        Of the draw, which depends on nothing else.

    Returns
    -------
    list of int
        One clip of the same class, if there is another one, and clips of
        other classes; at most `N_DONORS`. Of clips without class, any.

    Example
    -------
    >>> donors_of(0, ["cat", "cat", "dog"])
    [1, 2]
    """
    rng = random.Random(f"{seed} {place}")
    own = classes[place]
    found = []
    if own is not None:
        found = _draw(rng, classes, 1, lambda i: classes[i] == own, {place})
    other = _draw(
        rng,
        classes,
        N_DONORS - len(found),
        lambda i: own is None or classes[i] != own,
        {place, *found},
    )
    return found + other


def _draw(rng, classes, count, is_wanted, taken):
    """Some clips that are wanted, in few tries even out of a million."""
    found, n = [], len(classes)
    for _ in range(_TRIES):
        if len(found) == count:
            return found
        i = rng.randrange(n)
        if i not in taken and i not in found and is_wanted(i):
            found.append(i)
    # Of a large corpus in which they are rare, those that were met are all.
    places = range(n if n <= _SEARCHED else 0)
    wanted = [i for i in places if i not in {*taken, *found} and is_wanted(i)]
    return found + rng.sample(wanted, min(count - len(found), len(wanted)))


def evidence(interpreter, wav, explanation, donors, region=None):
    """What the decision on one clip rests on, as columns of a table.

    A clip longer than the interpreter's window is looked at where it is
    loudest, for one window.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        The classifier.
    wav : torch.Tensor
        The clip at the interpreter's rate, [samples].
    explanation : lmac_sb.inference.explanation.AudioExplanation
        Of it; None to do without.
    donors : list of torch.Tensor
        Other clips, of any length, [samples] each; see `donors_of`.
    region : tuple of float
        Start and end of the event in seconds, if they are known.

    Returns
    -------
    dict
        A value for each name in `EVIDENCE`; None where it is not known.

    Example
    -------
    >>> wav = interpreter.load_audio(path)
    >>> found = evidence(interpreter, wav, None, [wav.flip(0)])
    >>> found["heard"] in interpreter.classes, list(found) == list(EVIDENCE)
    (True, True)
    """
    return _Clip(interpreter, wav, region).row(explanation, donors)


@lru_cache
def spectrogram(rate):
    """The spectrogram in which parts are exchanged.

    Arguments
    ---------
    rate : int
        Sampling rate in Hz.

    Returns
    -------
    lmac_sb.models.sound.SoundFeatures
        With windows of about 64 ms that overlap by half.
    """
    n_fft = SoundFeatures(rate).n_fft
    return SoundFeatures(rate, n_fft, n_fft // 2)


class _Clip:
    """A clip, its event, and what the classifier makes of changes."""

    def __init__(self, interpreter, wav, region):
        self.interpreter = interpreter
        self.features = spectrogram(interpreter.sample_rate)
        shortest = round(MIN_LENGTH_S * interpreter.sample_rate)
        self.whole = fit_length(wav, max(len(wav), shortest))
        self.first, self.wav = self._loudest_window()
        if region is not None:
            skipped = self.first / interpreter.sample_rate
            region = region[0] - skipped, region[1] - skipped
        self.stft = self._stft(self.wav)
        self.event = find_event(self.wav, self.features, region)
        (self.p,) = self._hear([self.wav])
        self.decision = int(self.p.argmax())

    def _loudest_window(self):
        """First sample, and samples, of what the classifier hears at once."""
        wav, longest = self.whole, self.interpreter.longest
        if len(wav) <= longest:
            return 0, wav
        hop = self.features.hop_samples
        power = F.avg_pool1d(wav.square()[None], hop, hop)[0]
        sums = F.avg_pool1d(power[None], longest // hop, 1)[0]
        first = int(sums.argmax()) * hop
        return first, wav[first : first + longest]

    def row(self, explanation, donors):
        """See `evidence`."""
        found = dict.fromkeys(EVIDENCE)
        if is_silent(self.wav):
            return found
        name = self.interpreter.classes.__getitem__
        found["heard"] = name(self.decision)
        found["nyquist"] = self.features.sample_rate / 2
        found["event_share"] = self.event.share
        rest = without_event(self.wav, self.event, self.features)
        if rest is None:
            return found
        parts = self._parts()
        alone = self.stft * self.event.mask[..., None]
        p = self._hear([rest, *self._inverse(alone[None])])
        found["rest_decision"] = name(self._outcome(p[0]))
        found["alone_decision"] = name(self._outcome(p[1]))
        if explanation is not None:
            found.update(self._kept(explanation, parts))
        found.update(self._exchanged(donors[:N_DONORS], parts))
        return found

    def _parts(self):
        """Bins of the rest by name of the part, 0 or 1, [time, freq] each."""
        n_frames, n_bins = self.event.mask.shape
        rest = 1 - self.event.mask
        nyquist = self.features.sample_rate / 2
        hertz = torch.arange(n_bins) * nyquist / (n_bins - 1)
        edges = band_edges(nyquist)
        edges[-1] += 1.0  # the last bin is on the edge
        found = {}
        for i, (low, high) in enumerate(zip(edges, edges[1:])):
            found[f"band_{i:02d}"] = rest * ((hertz >= low) & (hertz < high))
        times = torch.arange(n_frames) / max(1, n_frames - 1)
        # A window of a longer clip may not begin or end with it.
        is_there = {
            "start": self.first == 0,
            "end": self.first + len(self.wav) == len(self.whole),
        }
        for place, (low, high) in PLACES.items():
            inside = (times >= low) & (times <= high) & is_there[place]
            found[place] = rest * inside[:, None]
        found = {part: where for part, where in found.items() if where.any()}
        return {**found, "all": rest}

    def _exchanged(self, donors, parts):
        """What becomes of the decision with parts of the rest of others."""
        found, falls = {}, {}
        name = self.interpreter.classes.__getitem__
        for k, donor in enumerate(donors):
            p, heard = self._with(donor, parts)
            if p is None:
                continue
            theirs = int(p.argmax())
            found[f"donor_{k}"] = name(theirs)
            for part, after in heard.items():
                found[f"{part}_{k}"] = name(self._outcome(after, p))
                fall = "same" if theirs == self.decision else "drop"
                column = falls.setdefault(f"{fall}_{part}", [])
                column.append(self._odds(self.p) - self._odds(after))
        means = {
            name: sum(values) / len(values) for name, values in falls.items()
        }
        return {**found, **means}

    def _odds(self, p):
        """Log-odds of the clip's class."""
        return float(p[self.decision].double().logit(_LEAST_P))

    def _with(self, donor, parts):
        """Probabilities of a donor, and of the clip with each part of it."""
        donor = self._fit(donor)
        if is_silent(donor):
            return None, {}
        event = find_event(donor, self.features)
        rest = without_event(donor, event, self.features)
        if rest is None:
            return None, {}
        own, other = self.stft, self._stft(rest)
        where = torch.stack(list(parts.values()))[..., None]
        changed = self._inverse(own + (other - own) * where)
        p, *heard = self._hear([donor, *changed])
        return p, dict(zip(parts, heard))

    def _fit(self, donor):
        """A donor of this clip's length and peak, with both of its ends."""
        n, missing = len(self.wav), len(self.wav) - len(donor)
        peak = donor.abs().max()
        if peak > 0:
            donor = donor * (self.wav.abs().max() / peak)
        if missing > 0:  # again and again, and then its end
            donor = donor.repeat(-(-n // len(donor)) + 1)
            return torch.cat([donor[: n // 2], donor[-(n - n // 2) :]])
        half = n // 2
        return torch.cat([donor[:half], donor[len(donor) - (n - half) :]])

    def _outcome(self, p, of_donor=None):
        """Number of the class that is heard after a change.

        Where several classes may be true, it is the clip's as long as that
        keeps half of its probability, and then the donor's, if that has half
        of what it has there.
        """
        if self.interpreter.explainer.classifier.multilabel:
            if p[self.decision] >= LOST * self.p[self.decision]:
                return self.decision
            if of_donor is not None:
                theirs = int(of_donor.argmax())
                if p[theirs] >= LOST * of_donor[theirs]:
                    return theirs
        return int(p.argmax())

    def _kept(self, explanation, parts):
        """Where the explanation keeps energy."""
        kept = explanation.waveform[0][self.first :][: len(self.wav)]
        power = self._stft(fit_length(kept, len(self.wav))).square().sum(-1)
        total = float(power.sum())
        if total == 0:
            return {}
        shares = {
            part: float((power * where).sum()) / total
            for part, where in parts.items()
        }
        shares["rest"] = shares.pop("all")
        return {f"kept_{part}": share for part, share in shares.items()}

    def _stft(self, wav):
        """Spectrogram [time, freq, 2]."""
        return self.features.stft(wav[None])[0]

    def _inverse(self, stft):
        """Sounds [sounds, samples] of spectrograms."""
        return self.features.istft(stft, len(self.wav))

    def _hear(self, wavs):
        """Probabilities of all classes in sounds, [sounds, classes]."""
        interpreter = self.interpreter
        rate = interpreter.sample_rate
        ready = [interpreter.preprocess.process(wav, rate)[0] for wav in wavs]
        most = max(1, round(_BATCH_S * rate / len(ready[0])))
        logits = [
            interpreter.explainer.hear(
                torch.stack(ready[i : i + most]).to(interpreter.device)
            )[0]
            for i in range(0, len(ready), most)
        ]
        return interpreter.probabilities(torch.cat(logits).float().cpu())
