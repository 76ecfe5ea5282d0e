"""Settings of the evaluation: what is mixed into the clips, and how loud.

A setting makes the classifier's input from a clip: the clip as it is, or
mixed with noise, white noise, speech or a second clip of the same data. The
second sound depends only on a hash of the seed, the kind of setting and the
clip's id. Order, batches, workers, processes and the global random state do
not matter. The level is not part of the hash: a clip gets the same second
sound at every level, so a table over SNRs compares levels, not draws.

A level has one of two forms:
    SNR: the mean power of the clip over that of the second sound, over the
    whole clip, in dB.

    The paper's: both sounds at unit norm, then ``0.8 x + 0.2 n`` for
    mixtures and speech and ``x + 0.5 n`` for white noise. The mixture is then
    scaled to its peak, so only the ratio of the weights counts: these are
    SNRs of ``20 log10(0.8 / 0.2) = 12.04`` dB and
    ``20 log10(1 / 0.5) = 6.02`` dB. (The paper's WHAM! noise has the weights
    1 and 1, which is ``noise 0 dB``.)

The published recipe differs in four ways. It divides by the largest sample,
not by the largest absolute one, which keeps all samples within one. It mixes
a clip with any other clip, as ``any-class mixture paper`` does here, and draws
it twice in each run. It takes speech from the start of a recording, and pads
it at the end.
"""

import contextlib
import hashlib
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

from lmac_sb.data.audio import MIN_LENGTH_S, read_audio
from lmac_sb.data.noise import MAX_DRAWS, MIN_NOISE_RMS, SUFFIXES, NoiseMixer
from lmac_sb.data.places import place_of
from lmac_sb.utils.errors import LMACError, is_number

__all__ = [
    "KINDS",
    "Clean",
    "Kind",
    "Mixture",
    "Noise",
    "Sources",
    "Speech",
    "WhiteNoise",
    "make_settings",
]

MAX_SNR_DB = 100.0  # beyond it, float32 loses one of the two sounds
MIXTURES = {  # kinds by `classes`
    "other": "mixture",
    "same": "same-class mixture",
    "any": "any-class mixture",
}
# The weights of the paper's forms, as SNRs.
PAPER_WHITE_DB = 20 * math.log10(1 / 0.5)
PAPER_SPEECH_DB = 20 * math.log10(0.8 / 0.2)
# ESC-50 names its clips by fold, recording, take of the recording, and class.
_TAKE = re.compile(r"\d+-(?P<recording>[^-]+)-[A-Z]+-\d+(\+\d+)*")
_LEVEL_KEYS = {"dB": "snr_db", "paper": "paper"}
_SPEC = re.compile(r"(?P<kind>.+) (?:(?P<snr>[-+]?\d+(\.\d*)?) ?db|paper)")


class _Setting:
    """Turns a clip into a mixture, in which the clip has a gain."""

    def __call__(self, wav, clip_id):
        """Mix one clip.

        Arguments
        ---------
        wav : torch.Tensor
            The preprocessed clip, on the CPU, [samples].
        clip_id : str
            Id of the clip, which determines the second sound.

        Returns
        -------
        mixture : torch.Tensor
            Sum of both sounds with a peak of one, [samples]. A silent clip
            stays as it is, since no gain gives it the requested ratio.
        clean : torch.Tensor
            The clip with its gain in the mixture, [samples].
        gain : float
            What the clip was multiplied by: `clean` is `gain * wav`.

        Raises
        ------
        LMACError
            If the clip or the second sound cannot be used.
        """
        if wav.dim() != 1 or len(wav) == 0 or not wav.is_floating_point():
            raise LMACError(
                f"clip {clip_id}: found {wav.dtype} of shape "
                f"{list(wav.shape)}, expected floats [samples], not empty"
            )
        if not torch.isfinite(wav).all():
            raise LMACError(f"clip {clip_id}: holds NaN or infinite values")
        if not wav.any():
            return wav.clone(), wav.clone(), 1.0
        with _one_thread():
            return self._mix(wav, str(clip_id))


class Clean(_Setting):
    """The clip as it is.

    Example
    -------
    >>> mixture, clean, gain = Clean()(torch.tensor([0.5, -1.0]), "clip-1")
    >>> mixture, clean, gain
    (tensor([ 0.5000, -1.0000]), tensor([ 0.5000, -1.0000]), 1.0)
    """

    name = "clean"

    def _mix(self, wav, clip_id):
        """The clip as both mixture and clean part."""
        return wav.clone(), wav.clone(), 1.0


class Noise(_Setting):
    """Background noise in the layout of WHAM!, see `NoiseMixer`.

    A long recording is cut at a random place, a short one is repeated.

    Arguments
    ---------
    folder : str or path
        Folder that holds the parts as sub-folders.
    part : str
        The sub-folder to draw from: `tr`, `cv` or `tt`.
    sample_rate : int
        Rate of the clips in Hz.
    snr_db : float
        Ratio of the clip's mean power to the noise's in dB.
    seed : int
        Seed of the draws.

    Raises
    ------
    LMACError
        If the folder or part is missing or empty, one of its recordings is
        not audio or shorter than 0.1 s, or an argument is wrong.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "tt").mkdir()
    >>> noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    >>> sf.write(folder / "tt" / "n.wav", noise, 8000)
    >>> setting = Noise(folder, "tt", 8000, snr_db=10)
    >>> mixture, clean, _ = setting(torch.randn(8000), "clip-1")
    >>> setting.name, mixture.shape
    ('noise 10 dB', torch.Size([8000]))
    """

    def __init__(self, folder, part, sample_rate, snr_db, seed=0):
        snr_db, level = _check_level(snr_db)
        self.name = f"noise {level}"
        self.mixer = NoiseMixer(folder, part, sample_rate, snr_db, seed)
        for path in self.mixer.files:
            try:
                seconds = sf.info(os.fsencode(path)).duration
            except (OSError, RuntimeError) as error:
                raise LMACError(
                    f"{path}: noise cannot be read ({error})"
                ) from error
            _check_duration(path, seconds)

    def _mix(self, wav, clip_id):
        """Mix as training and validation do."""
        return self.mixer(wav, clip_id)


class _Contamination(_Setting):
    """Adds a second sound that the method `_draw` draws."""

    def __init__(self, kind, snr_db, paper, seed):
        if (snr_db is None) == (not paper):
            raise LMACError(
                f"{kind}: found snr_db={snr_db!r} and paper={paper!r}, "
                "expected either an SNR in dB or paper=True"
            )
        if paper:
            self.snr_db, level = self.paper_snr_db, "paper"
        else:
            self.snr_db, level = _check_level(snr_db)
        self.kind = kind
        self.name = f"{kind} {level}"
        self.seed = seed

    def _mix(self, wav, clip_id):
        """Draw the second sound, and add it at the level of the setting."""
        key = json.dumps([self.seed, self.kind, clip_id])
        digest = hashlib.sha256(key.encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest, "big"))
        sound = self._draw(len(wav), clip_id, rng).to(wav)
        wanted = _power(wav) / 10 ** (self.snr_db / 10)
        mixture = wav + math.sqrt(wanted / _power(sound)) * sound
        peak = mixture.abs().max().clamp_min(1e-8)
        return mixture / peak, wav / peak, 1 / peak.item()


class WhiteNoise(_Contamination):
    """White Gaussian noise.

    Arguments
    ---------
    snr_db : float or None
        Ratio of the clip's mean power to the noise's in dB.
    paper : bool
        Whether to mix in the paper's form instead.
    seed : int
        Seed of the draws.

    Raises
    ------
    LMACError
        If an argument is wrong.

    Example
    -------
    >>> mixture, clean, _ = WhiteNoise(snr_db=0)(torch.ones(8000), "clip-1")
    >>> round((clean.norm() / (mixture - clean).norm()).item(), 4)
    1.0
    >>> WhiteNoise(paper=True).name
    'white paper'
    """

    paper_snr_db = PAPER_WHITE_DB

    def __init__(self, snr_db=None, paper=False, seed=0):
        super().__init__("white", snr_db, paper, seed)

    def _draw(self, n_samples, clip_id, rng):
        """White noise, [n_samples]."""
        return torch.from_numpy(rng.standard_normal(n_samples))


class Speech(_Contamination):
    """Speech from a folder of recordings.

    A long recording is cut at a random place, a short one is put at a random
    place in silence.

    Arguments
    ---------
    folder : str or path
        Folder with wav, flac or Ogg files at any depth, such as LJSpeech.
    sample_rate : int
        Rate of the clips in Hz; speech at another rate is resampled.
    snr_db : float or None
        Ratio of the clip's mean power to the speech's in dB.
    paper : bool
        Whether to mix in the paper's form instead.
    seed : int
        Seed of the draws.

    Raises
    ------
    LMACError
        If the folder is missing or empty, or an argument is wrong.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> sound = np.random.default_rng(0).normal(0, 0.1, 4000)
    >>> sf.write(folder / "s.wav", sound, 8000)
    >>> setting = Speech(folder, 8000, paper=True)
    >>> mixture, clean, _ = setting(torch.randn(8000), "clip-1")
    >>> round((clean.norm() / (mixture - clean).norm()).item(), 4)
    4.0
    """

    paper_snr_db = PAPER_SPEECH_DB

    def __init__(self, folder, sample_rate, snr_db=None, paper=False, seed=0):
        super().__init__("speech", snr_db, paper, seed)
        self.sample_rate = sample_rate
        files = {
            path.relative_to(folder).as_posix(): str(path)
            for path in Path(folder).rglob("*")
            if path.suffix.lower() in SUFFIXES and path.is_file()
        }
        if not files:
            raise LMACError(
                f"{folder}: no speech found, expected a folder with "
                f"{', '.join(SUFFIXES)} files, at any depth"
            )
        # Sorted, so that the file system's order does not matter.
        self.files = [files[name] for name in sorted(files)]

    def _draw(self, n_samples, clip_id, rng):
        """An excerpt of one of the files, [n_samples]."""
        return _draw_excerpt(
            self.files, n_samples, self.sample_rate, clip_id, rng
        )


class Mixture(_Contamination):
    """A second clip of the same data.

    It is never the clip itself. If clips are named as in ESC-50, it is not
    another take of the same recording either. A long second clip is cut at a
    random place, a short one is put at a random place in silence.

    Arguments
    ---------
    entries : dict
        Clip ids to entries of a manifest, of which `wav` and `class_string`
        are used, and `labels`, a list, where a clip has several classes.
        Second clips are drawn from all of them, so give the whole split even
        if only some of its clips are evaluated.
    sample_rate : int
        Rate of the clips in Hz; those at another rate are resampled.
    classes : str
        Class of the second clip: `other`, `same` or `any`. Of several
        classes, `other` has none in common with the clip, `same` at least
        one.
    snr_db : float or None
        Ratio of the clip's mean power to the second clip's in dB.
    paper : bool
        Whether to mix in the paper's form instead.
    seed : int
        Seed of the draws.

    Raises
    ------
    LMACError
        If there is a clip without a second one, or an argument is wrong.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> sound = np.random.default_rng(0).normal(0, 0.1, 4000)
    >>> sf.write(folder / "a.wav", sound, 8000)
    >>> wav = str(folder / "a.wav")
    >>> entries = {
    ...     name: {"wav": wav, "class_string": name} for name in ("cat", "dog")
    ... }
    >>> setting = Mixture(entries, 8000, snr_db=-5)
    >>> setting.name, setting.candidates("cat")
    ('mixture -5 dB', ['dog'])
    >>> mixture, clean, _ = setting(torch.randn(8000), "cat")
    >>> Mixture(entries, 8000, classes="same", snr_db=0)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: same-class mixture: clip cat (class 'cat') ...
    """

    paper_snr_db = PAPER_SPEECH_DB

    def __init__(
        self,
        entries,
        sample_rate,
        classes="other",
        snr_db=None,
        paper=False,
        seed=0,
    ):
        if classes not in MIXTURES:
            known = ", ".join(MIXTURES)
            raise LMACError(
                f"classes: found {classes!r}, expected one of {known}"
            )
        super().__init__(MIXTURES[classes], snr_db, paper, seed)
        self.sample_rate = sample_rate
        self.classes = classes
        # Sorted, so that the order of the manifest does not matter.
        self.clips = dict(sorted(_read_entries(entries).items()))
        for clip_id in self.clips:
            self.candidates(clip_id)

    def candidates(self, clip_id):
        """Sorted ids of the clips from which the second one is drawn."""
        if clip_id not in self.clips:
            raise LMACError(
                f"{self.kind}: clip {clip_id} is not among the "
                f"{len(self.clips)} clips of the split"
            )
        _, labels, recording = self.clips[clip_id]
        found = [
            other_id
            for other_id, (_, other_labels, other) in self.clips.items()
            if other != recording
            and (
                self.classes == "any"
                or bool(other_labels & labels) == (self.classes == "same")
            )
        ]
        if not found:
            raise LMACError(
                f"{self.kind}: clip {clip_id} (class "
                f"{'+'.join(sorted(labels))!r}) needs a clip "
                f"of {self.classes} class and of another recording, found "
                f"none among the {len(self.clips)} clips of the split"
            )
        return found

    def _draw(self, n_samples, clip_id, rng):
        """An excerpt of another clip, [n_samples]."""
        files = [self.clips[other][0] for other in self.candidates(clip_id)]
        return _draw_excerpt(files, n_samples, self.sample_rate, clip_id, rng)


@dataclass(frozen=True)
class Sources:
    """Where settings take their second sounds from.

    Arguments
    ---------
    entries : dict
        Manifest of the whole evaluated split.
    sample_rate : int
        Rate of the clips in Hz.
    folders : dict
        Key of the yaml file to a folder, or None.
    part : str
        Part of the noise: `tr`, `cv` or `tt`.

    Example
    -------
    >>> sources = Sources({}, 8000, {"speech_folder": None}, "tt")
    >>> sources.folder("speech_folder", "speech", "speech 0 dB")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: speech_folder: found None, but the setting 'speech...
    """

    entries: dict
    sample_rate: int
    folders: dict
    part: str

    def folder(self, key, content, spec):
        """The folder of a key; the error says which setting needs it."""
        folder = self.folders.get(key)
        if folder is None or not os.path.isdir(folder):
            found = None if folder is None else f"no folder at {folder}"
            raise LMACError(
                f"{key}: found {found}, but the setting {spec!r} needs a "
                f"folder of {content}"
            )
        return folder


@dataclass(frozen=True)
class Kind:
    """A kind of setting; a new one is one entry of `KINDS`.

    Arguments
    ---------
    make : callable
        `Sources`, the folder (None without one), and ``snr_db`` or ``paper``
        and ``seed`` by name, to a setting.
    levels : tuple of str
        Forms of its level: ``dB``, ``paper``; none for one without a level.
    folder : str
        Key of the yaml file with the folder that it needs, if any.
    content : str
        What that folder holds, for messages.

    Example
    -------
    >>> KINDS["noise"].levels, KINDS["noise"].folder
    (('dB',), 'wham_folder')
    """

    make: object
    levels: tuple = ("dB", "paper")
    folder: str = None
    content: str = None


def _mixture(classes):
    """The kind of a mixture with clips of these classes."""
    return Kind(
        lambda sources, _, **how: Mixture(
            sources.entries, sources.sample_rate, classes, **how
        )
    )


KINDS = {
    "clean": Kind(lambda sources, _, seed: Clean(), levels=()),
    "noise": Kind(
        lambda sources, folder, **how: Noise(
            folder, sources.part, sources.sample_rate, **how
        ),
        levels=("dB",),
        folder="wham_folder",
        content="noise in the layout of WHAM! (tr/, cv/, tt/)",
    ),
    "white": Kind(lambda sources, _, **how: WhiteNoise(**how)),
    "speech": Kind(
        lambda sources, folder, **how: Speech(
            folder, sources.sample_rate, **how
        ),
        folder="speech_folder",
        content="speech recordings, such as LJSpeech",
    ),
    **{kind: _mixture(classes) for classes, kind in MIXTURES.items()},
}


def make_settings(specs, entries, sample_rate, seed=0, folders=None, part="tt"):
    """Settings by name, as written in a yaml file.

    ::

        settings:
            - clean
            - noise 10 dB
            - white paper # or any SNR, as for the others
            - speech 0 dB
            - mixture paper # with a clip of another class
            - same-class mixture 0 dB
            - any-class mixture -5 dB

    Arguments
    ---------
    specs : list of str or str
        One or more names.
    entries : dict
        Manifest of the whole evaluated split, for mixtures.
    sample_rate : int
        Rate of the clips in Hz.
    seed : int
        Seed of all draws.
    folders : dict
        Path or None for ``wham_folder`` (noise in the layout of WHAM!, for
        `noise`) and ``speech_folder`` (recordings, for `speech`).
    part : str
        Part of the noise: `tr`, `cv` or `tt`.

    Returns
    -------
    list
        The settings in order. Each has a `name`, which labels its table row,
        and is called as `mixture, clean, gain = setting(wav, clip_id)`.

    Raises
    ------
    LMACError
        If a name is unknown or given twice, or a folder is missing.

    Example
    -------
    >>> specs = ["clean", "white 5.0 dB", "white paper"]
    >>> [setting.name for setting in make_settings(specs, {}, 8000)]
    ['clean', 'white 5 dB', 'white paper']
    >>> make_settings(["noise 0 dB"], {}, 8000)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: wham_folder: found None, but the setting 'noise...
    """
    specs = [specs] if isinstance(specs, str) else specs
    if not isinstance(specs, (list, tuple)) or not specs:
        raise LMACError(
            f"settings: found {specs!r}, expected a list of {_known()}"
        )
    sources = Sources(entries, sample_rate, folders or {}, part)
    settings = []
    for spec in specs:
        name, level = _parse(spec)
        kind, folder = KINDS[name], None
        if kind.folder:
            folder = sources.folder(kind.folder, kind.content, spec)
        try:
            setting = kind.make(sources, folder, **level, seed=seed)
        except LMACError as error:
            raise LMACError(f"settings: {spec!r}: {error}") from error
        if setting.name in [other.name for other in settings]:
            raise LMACError(f"settings: found {setting.name!r} twice")
        settings.append(setting)
    return settings


def _known():
    """The names that `make_settings` understands."""
    names = []
    for name, kind in KINDS.items():
        forms = {"dB": f"{name} <SNR> dB", "paper": f"{name} paper"}
        names += [forms[level] for level in kind.levels] or [name]
    return ", ".join(names)


def _parse(spec):
    """Kind of setting in a name, and its level as keyword arguments."""
    text = " ".join(spec.split()).lower() if isinstance(spec, str) else ""
    if text in KINDS and not KINDS[text].levels:
        return text, {}
    match = _SPEC.fullmatch(text)
    if match and match["kind"] in KINDS:
        level, value = "paper", True
        if match["snr"] is not None:
            level, value = "dB", float(match["snr"])
        if level in KINDS[match["kind"]].levels:
            return match["kind"], {_LEVEL_KEYS[level]: value}
    raise LMACError(f"settings: found {spec!r}, expected one of {_known()}")


def _check_level(snr_db):
    """An SNR as a float, and as part of a name."""
    # Not so for NaN.
    if not is_number(snr_db) or not abs(snr_db) <= MAX_SNR_DB:
        raise LMACError(
            f"snr_db: found {snr_db!r}, expected a number from "
            f"-{MAX_SNR_DB:g} to {MAX_SNR_DB:g} dB"
        )
    snr_db = float(snr_db) + 0.0  # -0.0 becomes 0.0
    return snr_db, f"{snr_db:.12g} dB"


def _check_duration(path, seconds):
    """Refuse a recording that is too short."""
    if seconds < MIN_LENGTH_S:
        raise LMACError(
            f"{path}: {seconds:.4f} s long, expected at least {MIN_LENGTH_S} s"
        )


@contextlib.contextmanager
def _one_thread():
    """Use one thread, as a loader's workers do: more change the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _power(wav):
    """Mean power of a signal [samples] as a float."""
    return wav.double().square().mean().item()


def _draw_excerpt(files, n_samples, sample_rate, clip_id, rng):
    """An excerpt of a random file, [n_samples], never silent."""
    drawn = set()
    for _ in range(MAX_DRAWS):
        path = files[int(rng.integers(len(files)))]
        sound = read_audio(path, sample_rate)
        _check_duration(path, len(sound) / sample_rate)
        spare = len(sound) - n_samples
        place = int(rng.integers(abs(spare) + 1))
        if spare < 0:
            sound = torch.nn.functional.pad(sound, (place, -spare - place))
        else:
            sound = sound[place : place + n_samples]
        if math.sqrt(_power(sound)) >= MIN_NOISE_RMS:
            return sound
        drawn.add(path)
    raise LMACError(
        f"{', '.join(sorted(drawn))}: {MAX_DRAWS} excerpts drawn for clip "
        f"{clip_id} are all silent, expected an RMS of at least "
        f"{MIN_NOISE_RMS}"
    )


def _read_entries(entries):
    """Clip ids to file, classes and recording."""
    if not entries:
        raise LMACError("mixture: found a manifest without clips, expected two")
    clips = {}
    for clip_id, entry in entries.items():
        missing = sorted({"wav", "class_string"} - set(entry))
        if missing:
            raise LMACError(
                f"clip {clip_id}: its entry in the manifest has no "
                f"{' and no '.join(missing)}, which mixtures need"
            )
        take = _TAKE.fullmatch(clip_id)
        recording = take["recording"] if take else clip_id
        wav = place_of(entry["wav"])
        labels = frozenset(entry.get("labels", [entry["class_string"]]))
        clips[clip_id] = wav, labels, recording
    return clips
