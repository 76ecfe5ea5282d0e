"""Dry runs, which find out how a classifier is called and what it returns."""

import contextlib
import dataclasses

import torch
from torch.nn.parameter import is_lazy

from lmac_sb.listener.calling import FORMS, Form, as_needed
from lmac_sb.listener.outputs import (
    by_frames,
    class_axis_of,
    find_output,
    without_ones,
)
from lmac_sb.listener.scales import (
    LastActivation,
    at_least_single,
    guess_scale,
    is_scaled_activation,
)
from lmac_sb.utils.errors import LMACError

__all__ = ["DryRun", "Found"]

# Lengths of input that classifiers are made for, in seconds and in samples:
# powers of two, and those of YAMNet, SampleCNN and networks against spoofing.
SECONDS = (0.1, 0.2, 0.25, 0.5, 0.96, 0.975, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
SECONDS += (9, 10, 10.24, 12, 15, 20, 30)
LENGTHS = {2**power for power in range(8, 19)} | {15600, 59049, 64600}


@dataclasses.dataclass(frozen=True)
class Found:
    """What a dry run found out about a classifier.

    Arguments
    ---------
    form : Form
        The shape in which it takes sounds.
    n_samples : int
        Length of the clip that it was found with.
    n_outputs : int
        Classes in its outputs.
    class_axis : int
        Axis of the classes in outputs of three axes.
    one_class : bool
        Whether outputs of two axes are frames of one class.
    scale : str
        What its scores are, see `lmac_sb.listener.scales.to_logits`.
    activations : int
        Number of its sigmoids and softmaxes, if the last is left out.
    changes : bool
        Whether it changes in place what its gradient needs.

    Example
    -------
    >>> print(Found().form)
    [batch, samples]
    """

    form: Form = Form()
    n_samples: int = None
    n_outputs: int = None
    class_axis: int = None
    one_class: bool = False
    scale: str = "logits"
    activations: int = None
    changes: bool = False


class DryRun:
    """Calls of a classifier from which its `Found` is learnt.

    Two sounds are made of the clip: a quiet one that ends in silence, and a
    loud one. Whatever is taken over a batch differs between them, such as the
    loudest bin, below which decibels are cut.

    Arguments
    ---------
    listener : Listener
        The classifier; its labels and whether it has several are set, where
        its outputs tell them.
    wavs : torch.Tensor
        Waveforms, [batch, samples]; the first is used.
    advise : bool
        Whether other lengths are tried if this one cannot be called.

    Example
    -------
    >>> from lmac_sb.listener.listener import Listener
    >>> listener = Listener(torch.nn.Linear(8, 3), sample_rate=16000)
    >>> DryRun(listener, torch.rand(1, 8)).found().n_outputs
    3
    """

    def __init__(self, listener, wavs, advise=True):
        self.listener, self.advise = listener, advise
        self.n_samples = wavs.shape[1]
        clip = wavs[:1].detach().float()
        peak = clip.abs().amax()
        noise = torch.rand(clip.shape, generator=_seeded()).to(clip) - 0.5
        clip = clip / peak if 0 < peak < float("inf") else 2 * noise
        quiet = 0.1 * clip
        quiet[:, 3 * clip.shape[1] // 4 :] = 0
        clips = torch.cat((quiet, clip)).to(wavs.dtype)
        others = torch.cat((noise, 0 * noise)).to(wavs.dtype)
        if listener.windows is not None:
            windows = listener.windows
            # The loudest window, with its silence.
            count = windows.count(clip.shape[1])
            chosen = windows.cut(clip).square().sum(1).argmax().item()
            clips = windows.cut(clips)[[chosen, count + chosen]]
            clips[0] = 0.1 * clips[1]
            clips[0, 3 * clips.shape[1] // 4 :] = 0
            others = windows.cut(others)[[chosen, count + chosen]]
        self.clips, self.others = clips, others
        self.n_labels = len(listener.labels) if listener.labels else None

    def found(self):
        """What the dry runs tell."""
        self._check_values()
        form, scores = self._form()
        found = Found(form=form, n_samples=self.n_samples)
        found = self._axes(found, scores)
        found = self._classes(found, scores)
        return self._scale(found, scores)

    def _check_values(self):
        """Refuse weights that were never given values."""
        for module in self.listener.called():
            tensors = (*module.parameters(), *module.buffers())
            if any(tensor.is_meta for tensor in tensors):
                raise LMACError(
                    f"model: found weights of {type(module).__name__} on the "
                    "device 'meta', which holds no values; expected loaded "
                    "ones: to_empty(device='cpu'), then load_state_dict"
                )
            for part in module.modules():
                if any(map(is_lazy, part._parameters.values())):
                    raise LMACError(
                        f"model: found weights of {type(part).__name__} that "
                        "were never given values, expected loaded ones: call "
                        "the model on a sound, then load_state_dict"
                    )

    def _returned(self, rows, form):
        """What the model returns for rows."""
        listener = self.listener
        with as_needed(listener.called(), rows):
            return listener._model(listener._front(rows, form))

    def _read(self, returned, form):
        """The tensor of scores in what was returned, with all of its axes."""
        scores = find_output(returned, self.listener.output, self.n_labels)
        return at_least_single(scores[None] if form.flat else scores)

    def _raw(self, rows, form):
        """The tensor of scores for rows."""
        return self._read(self._returned(rows, form), form)

    def _form(self):
        """First form that works, and scores of the first clip."""
        failures, differs = [], False
        for form in self._forms():
            one, returned = self.clips[:1], []
            second = self.clips[1:] if form.one_by_one else self.clips
            try:
                returned = [self._returned(x, form) for x in (one, one, second)]
                alone, again, second = (self._read(x, form) for x in returned)
            except Exception as error:  # whatever a model raises
                # A front end of ours that gets a later form only says that
                # this is another one than it takes.
                if isinstance(error, LMACError) and (returned or not failures):
                    raise
                failures.append((form, error))
                continue
            self._check_random(alone, again)
            if form.one_by_one or self._agree(alone, second):
                return form, alone if form.one_by_one else second
            differs = True
        if differs:
            raise LMACError(
                "one_by_one: found False, but clips of a batch change each "
                "other's outputs, or are not returned one for each"
            )
        raise self._cannot_call(failures)

    def _forms(self):
        """Forms to try."""
        alone = self.listener.one_by_one
        for form in FORMS:
            if alone in (None, form.one_by_one):
                yield form
                if self.listener.front_end is not None and not form.flat:
                    yield form._replace(feature_axis=True)

    def _check_random(self, alone, again):
        """Refuse a model that answers twice to one sound differently."""
        if alone.shape == again.shape and _near(alone, again):
            return
        change = "in shape"
        if alone.shape == again.shape:
            change = f"by {(alone - again).abs().max():.3g}"
        raise LMACError(
            f"model: two calls on the same sound differ {change}, expected "
            "the same outputs; switch off dropout, noise and random crops, "
            "and reset states that are kept between calls"
        )

    def _agree(self, alone, both):
        """Whether a batch of two gives the first clip's scores, and others'."""
        if alone.dim() == both.dim() - 1:  # squeezed for a single clip
            alone = alone[None]
        if both.dim() == 0 or both.shape[0] != 2 * max(len(alone), 1):
            return False
        if alone.shape[1:] != both.shape[1:]:
            return False
        if self.listener.one_by_one is False:
            return True
        return _near(alone, both[: len(alone)])

    def _cannot_call(self, failures):
        """The error if no form works."""
        n_samples, rate = self.clips.shape[1], self.listener.sample_rate
        form, error = failures[0]
        length, works = self._fitting_length([form for form, _ in failures])
        error = dict(failures).get(works, error)
        text = " ".join(str(error).split())[:300]
        text = f"{type(error).__name__}: {text}"
        if length is None:
            plain = [f for f, _ in failures if not f.feature_axis]
            tried = ", ".join(map(str, plain))
            if len(plain) < len(failures):
                tried += ", features with and without an axis for the channel"
            return LMACError(
                f"model: cannot be called with {n_samples} samples as "
                f"{form}: {text} (tried: {tried}); what it takes otherwise a "
                "function can give it, such as lambda wavs: "
                "model(input_values=wavs)"
            )
        return LMACError(
            f"model: found a clip of {n_samples} samples, expected a length "
            f"that it takes, such as {length}: signal_length_s="
            f"{length / rate:g} pads and cuts sounds to it, windows=Windows("
            f"{length}) cuts them into windows; now it fails with {text}"
        )

    def _fitting_length(self, forms):
        """A length near the clip's that can be called, and its form."""
        n_samples, rate = self.clips.shape[1], self.listener.sample_rate
        if self.listener.windows is not None or not self.advise:
            return None, None
        lengths = {round(seconds * rate) for seconds in SECONDS} | LENGTHS
        # Longer ones first: a clip may just be too short.
        lengths = sorted(
            lengths, key=lambda n: (n < n_samples, abs(n - n_samples))
        )
        for form in forms[:2] + [form for form in forms if form.flat]:
            for length in lengths:
                noise = torch.rand(2, length, generator=_seeded()) - 0.5
                noise = noise.to(self.clips)
                with contextlib.suppress(Exception):
                    # Both, as the clip is: a batch may be what does not fit.
                    self._raw(noise[:1], form)
                    self._raw(noise[1:] if form.one_by_one else noise, form)
                    return length, form
        return None, None

    def _axes(self, found, scores):
        """Which axes of the scores are classes and frames."""
        shape = without_ones(scores).shape
        if len(shape) == 1 and found.form.one_by_one:
            shape = (1, *shape)
        if len(shape) == 2:
            one = self._is_one_class(found.form, shape)
            return dataclasses.replace(found, one_class=one)
        if len(shape) != 3:
            return found
        axis = self.listener.class_axis
        if axis is None and self.n_labels is not None:
            axis = class_axis_of(shape, self.n_labels)
            if axis is None and self.n_labels == 2:
                axis = class_axis_of(shape, 1)
        if axis is None and self.n_labels in (None, *shape[1:]):
            axis = self._axis_by_length(found.form, shape)
        if axis is None and self.n_labels in (None, *shape[1:]):
            raise LMACError(
                f"class_axis: outputs have shape {list(shape)}, expected to "
                "know which axis are the classes: 2 for [batch, time, "
                "classes], 1 for [batch, classes, time]"
            )
        # Labels of another number than both axes are reported next.
        return dataclasses.replace(found, class_axis=axis or 2)

    def _is_one_class(self, form, shape):
        """Whether scores [batch, n] are frames of one class."""
        if self.n_labels not in (None, 1) or shape[1] == 1:
            return False
        shorter = self._shorter(form)
        if shorter is None:
            return self.n_labels == 1
        return shorter[-1] != shape[1]

    def _axis_by_length(self, form, shape):
        """Axis of the classes: the one that a shorter sound does not change."""
        shorter = self._shorter(form)
        if shorter is not None and len(shorter) >= 3:
            same = [a for a in (1, 2) if shorter[a] == shape[a]]
            if len(same) == 1:
                return same[0]
        # One frame; not one class, which is rare.
        return {(True, False): 2, (False, True): 1}.get(
            (shape[1] == 1, shape[2] == 1)
        )

    def _shorter(self, form):
        """Shape of the scores of half a clip; None if it cannot be heard."""
        rows = self.clips[:1] if form.one_by_one else self.clips
        try:
            scores = self._raw(rows[:, : rows.shape[1] // 2], form)
            return without_ones(scores).shape
        except Exception:  # such as a fixed input length
            return None

    def _classes(self, found, scores):
        """Number of outputs, which has to be that of the labels."""
        n_clips = 1 if found.form.one_by_one else 2
        frames = by_frames(scores, n_clips, found.class_axis, found.one_class)
        n_outputs = frames.shape[2]
        listener = self.listener
        if self.n_labels not in (None, n_outputs) and not (
            n_outputs == 1 and self.n_labels == 2
        ):
            raise LMACError(
                f"labels: found {self.n_labels}, but the model gives "
                f"{n_outputs} outputs, in shape {list(scores.shape)}; expected "
                "one label for each"
            )
        if n_outputs == 1 and self.n_labels != 2:
            listener._learn("multilabel", True)
        elif n_outputs == 1:
            listener._say(
                "labels: 2 for a single output, which is taken as that of "
                f"'{listener.labels[1]}', its absence as "
                f"'{listener.labels[0]}'"
            )
        if listener.labels is None:
            numbers = [str(number) for number in range(n_outputs)]
            listener._learn("labels", numbers)
        return dataclasses.replace(found, n_outputs=n_outputs)

    def _scale(self, found, scores):
        """Whether scores are probabilities, and of what kind."""
        listener = self.listener
        scale = listener.scale
        each = listener.multilabel or found.n_outputs == 1
        if scale == "logits" or (scale == "log_probabilities" and not each):
            return found
        if scale == "log_probabilities":
            return dataclasses.replace(found, scale="log_sigmoid")
        if scale == "probabilities":
            kind = "sigmoid" if each else "softmax"
        else:
            kind = guess_scale(scores.reshape(1, -1), True)
            # All between 0 and 1 so far: worth a closer look.
            kind = kind if kind == "logits" else self._guess(found)
        if kind == "logits":
            self._check_percentages(found, scores)
            return found
        if kind == "sigmoid" and not each:
            listener._learn("multilabel", True)
        return self._before_activation(dataclasses.replace(found, scale=kind))

    def _check_percentages(self, found, scores):
        """Refuse parts of another whole than one."""
        if scores.min() < 0 or scores.max() <= 1:
            return
        whole = self._whole(found)
        if whole is not None:
            raise LMACError(
                f"model: found outputs that sum to {whole:.6g} for each "
                "sound, as percentages do, expected logits or probabilities; "
                f"output=lambda returned: returned / {whole:.6g} makes "
                "probabilities of them, and scale='logits' leaves them"
            )
        graph = self._graph(found)
        if graph is not None and is_scaled_activation(graph):
            raise LMACError(
                "model: found the outputs of a sigmoid times a number, up to "
                f"{scores.max():.6g}, as percentages are, expected logits or "
                "probabilities; output=lambda returned: returned / 100 makes "
                "probabilities of percentages, and scale='logits' leaves them"
            )

    def _whole(self, found):
        """What the outputs of each of four sounds sum to, or None."""
        if found.n_outputs == 1:
            return None
        listener = self.listener
        rows = torch.cat((self.clips, self.others))
        with as_needed(listener.called(), rows):
            sums = listener._scores(rows, found).sum(2)
        whole = float(sums.mean())
        return whole if (sums - whole).abs().max() < 1e-4 * whole else None

    def _graph(self, found):
        """Scores [rows, classes] with autograd's graph, or None."""
        rows = self.clips.clone().requires_grad_()
        with as_needed(self.listener.called(), rows), torch.enable_grad():
            try:
                return self.listener._scores(rows, found).flatten(0, 1)
            except RuntimeError:  # no gradient: reported by the checks
                return None

    def _guess(self, found):
        """Scale by the answers to four sounds."""
        listener = self.listener
        each = listener.multilabel or found.n_outputs == 1
        rows = torch.cat((self.clips, self.others))
        with as_needed(listener.called(), rows):
            scores = listener._scores(rows, found).flatten(0, 1)
        kind = guess_scale(scores, each)
        graph = self._graph(found) if kind == "sigmoid" else None
        return kind if graph is None else guess_scale(graph, each)

    def _before_activation(self, found):
        """Leave out the last sigmoid or softmax, if that gives the logits."""
        listener, rows = self.listener, self.clips
        with as_needed(listener.called(), rows):
            with LastActivation() as counter:
                scores = listener._scores(rows, found)
            inputs = None
            if counter.count:
                # Without it a later step may fail.
                with contextlib.suppress(Exception):
                    with LastActivation(skip=counter.count - 1):
                        inputs = listener._scores(rows, found)
        if inputs is not None and inputs.shape == scores.shape:
            if found.scale == "sigmoid":
                activated = inputs.sigmoid()
            else:
                activated = inputs.softmax(2)
            if not _near(inputs, scores) and _near(activated, scores):
                found = dataclasses.replace(found, activations=counter.count)
        sums = "" if found.scale == "softmax" else " that do not sum to one"
        how = (
            "their logarithms are taken, which have no gradient where a "
            "probability rounds to 0 or 1; a model that returns logits is "
            "explained better"
        )
        if found.activations:
            how = f"its last {found.scale} is left out"
        listener._say(
            f"model: returns probabilities{sums} instead of logits; {how}"
        )
        return found


def _near(one, two):
    """Whether scores are the same but for rounding."""
    if not one.numel():
        return True
    finite = one.isfinite() & two.isfinite()
    if not torch.equal(one.isfinite(), two.isfinite()):
        return False
    one, two = one[finite], two[finite]
    if not one.numel():
        return True
    error = 1e-2 if one.dtype.itemsize < 4 else 1e-4
    return bool((one - two).abs().max() <= error * (1e-3 + one.abs().max()))


def _seeded():
    """Noise that is the same in each run, and leaves others' alone."""
    return torch.Generator().manual_seed(0)
