"""Any classifier of sounds, called in one way."""

import collections.abc
import contextlib
import copy
import inspect
import logging

import torch

from lmac_sb.listener.calling import (
    FirstCalls,
    as_needed,
    copies_for_gradient,
    modules_of,
    place_of,
)
from lmac_sb.listener.dry_run import DryRun
from lmac_sb.listener.outputs import by_frames, find_output
from lmac_sb.listener.pooling import POOLS, check_time, frames_at, pool_frames
from lmac_sb.listener.scales import (
    LastActivation,
    at_least_single,
    to_logits,
)
from lmac_sb.listener.windows import Windows
from lmac_sb.utils.errors import LMACError, is_number, kind_of, shown

__all__ = ["Listener", "check_callable"]

logger = logging.getLogger(__name__)

SCALES = ("logits", "probabilities", "log_probabilities")


class Listener(torch.nn.Module):
    """A classifier from waveforms to logits, whatever it is inside.

    The first call, or `settle`, finds out by dry runs how the classifier is
    called and what it returns: the axes of its input, whether clips of a
    batch change each other (then it gets them one by one), the place of its
    scores and their axes, whether they are probabilities. Options say what
    cannot be found. The classifier runs in evaluation mode, without gradients
    of its weights, and is left as it was. Gradients reach the waveforms.

    Arguments
    ---------
    model : torch.nn.Module or callable
        Called with what `front_end` returns.
    sample_rate : int
        Rate in Hz of the waveforms that it hears.
    labels : list of str
        Names of its classes; by default their numbers. Two names for a
        single output are those of its absence and presence.
    multilabel : bool
        Whether each class is decided on its own, by a sigmoid. A single
        output, or probabilities that do not sum to one, are so in any case.
    front_end : torch.nn.Module or callable
        From waveforms [batch, samples] to the model's input; by default the
        model gets the waveforms.
    output : str or int or callable
        Which part of what the model returns holds its scores: a name, an
        index or a function that gets all and gives them; see
        `lmac_sb.listener.outputs.find_output`.
    scale : str
        ``"logits"``, ``"probabilities"`` or ``"log_probabilities"``; by
        default the answers to several sounds tell it.
    class_axis : int
        2 if outputs of three axes are [batch, time, classes], 1 if [batch,
        classes, time]; by default the number of labels or the length of the
        sound tells it.
    pool : str or callable
        How frames or windows become a clip: ``"mean"`` of probabilities,
        ``"max"``, ``"mean_logits"`` or a function; see
        `lmac_sb.listener.pooling.pool_frames`.
    at : float or tuple of float
        Only these frames or windows: a time in seconds or a range (start,
        end), over which they are pooled. Frames are spread evenly over the
        clip. It may be changed at any time.
    windows : Windows
        How a clip is cut into windows that the model gets in the batch axis.
    one_by_one : bool
        Whether the model gets each clip alone; by default a dry run tells.
    head : str
        Name of the model's last layer, as in ``named_modules``, which turns
        embeddings [..., dimensions] into scores; see `logits_and_embedding`.
    families : lmac_sb.listener.families.Families
        Which classes contain which, where some do.
    absences : list of int
        Classes that say that something is missing, such as silence: what is
        there explains none of them, so the next class is explained instead
        unless one is asked for.

    Raises
    ------
    LMACError
        If an option is not one of these; in a call, if the classifier cannot
        be called or its outputs cannot be read.

    Example
    -------
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Conv1d(1, 3, 400, 160), torch.nn.Sigmoid()
    ... )
    >>> listener = Listener(net, 16000, labels=["cat", "cow", "dog"], at=0.5)
    >>> listener(torch.rand(2, 16000)).shape
    torch.Size([2, 3])
    >>> listener.found.class_axis, listener.found.scale, listener.multilabel
    (1, 'sigmoid', True)
    """

    def __init__(
        self,
        model,
        sample_rate,
        labels=None,
        multilabel=False,
        front_end=None,
        *,
        output=None,
        scale=None,
        class_axis=None,
        pool="mean",
        at=None,
        windows=None,
        one_by_one=None,
        head=None,
        families=None,
        absences=(),
    ):
        super().__init__()
        self.model = model
        self.sample_rate = sample_rate
        self.labels = _names(labels)
        self.multilabel = multilabel
        self.front_end = front_end
        self.output = output
        self.scale = scale
        self.class_axis = class_axis
        self.pool = pool
        self.at = at
        self.windows = windows
        self.one_by_one = one_by_one
        self.head = head
        self.families = families
        self.absences = list(absences)
        self.found = None
        self._before = {}  # of what a dry run sets: old and new values
        self._said = set()
        self._unseen = []  # modules that run, though nobody sees them
        self._changing = []  # buffers that a call changes
        self._check_options()

    def _check_options(self):
        """Refuse what no call could use."""
        check_callable("model", self.model)
        if self.front_end is not None:
            check_callable("front_end", self.front_end)
        rate = self.sample_rate
        if not is_number(rate) or rate != rate // 1 or rate < 1:
            raise LMACError(
                f"sample_rate: found {shown(rate)}, expected a whole number "
                "of Hz"
            )
        self.sample_rate = int(rate)
        for name, allowed in (
            ("scale", (None, *SCALES)),
            ("class_axis", (None, 1, 2)),
            ("one_by_one", (None, True, False)),
        ):
            if getattr(self, name) not in allowed:
                raise LMACError(
                    f"{name}: found {shown(getattr(self, name))}, expected "
                    f"one of {', '.join(map(repr, allowed))}"
                )
        if not callable(self.pool) and self.pool not in POOLS:
            raise LMACError(
                f"pool: found {shown(self.pool)}, expected one of "
                f"{', '.join(map(repr, POOLS))} or a function from logits "
                "[batch, frames, classes] to [batch, classes]"
            )
        if self.at is not None:
            check_time(self.at)
        is_module = isinstance(self.model, torch.nn.Module)
        layers = dict(self.model.named_modules()) if is_module else {}
        if self.head is not None and self.head not in layers:
            raise LMACError(
                f"head: found {shown(self.head)}, expected the name of one of "
                "the model's layers"
            )
        if self.windows is not None and not isinstance(self.windows, Windows):
            raise LMACError(
                f"windows: found {shown(self.windows)}, expected "
                "Windows(size, hop)"
            )
        self._check_classes()

    def _check_classes(self):
        """Refuse what is said of other classes than the labels."""
        if self.families is not None and (
            self.labels is None or len(self.families) != len(self.labels)
        ):
            n_labels = len(self.labels or [])
            raise LMACError(
                f"families: found {len(self.families)} classes, expected the "
                f"{n_labels} of the labels"
            )
        for number in self.absences:
            if number not in range(len(self.labels or [])):
                raise LMACError(
                    f"absences: found {shown(number)}, expected numbers of "
                    "labels"
                )

    def with_options(self, **options):
        """The same classifier, listened to in another way.

        Arguments
        ---------
        **options
            Options of the constructor; those that are not given stay.

        Returns
        -------
        Listener
            Another one, around the same model.

        Raises
        ------
        LMACError
            If an option is not one of the constructor's.
        """
        known = set(inspect.signature(Listener).parameters)
        unknown = sorted(set(options) - known)
        if unknown:
            raise LMACError(
                f"{unknown[0]}: no such option, expected one of "
                f"{', '.join(sorted(known))}"
            )
        other = copy.copy(self)
        other._modules = dict(self._modules)
        if "labels" in options:
            options["labels"] = _names(options["labels"])
        for name, (old, new) in self._before.items():
            if getattr(self, name) is new:
                options.setdefault(name, old)
        other._before = {}
        for name, value in options.items():
            setattr(other, name, value)
        other.found = None
        other._check_options()
        return other

    def train(self, mode=True):
        """Leave the classifier alone: each call puts it in evaluation mode."""
        return self

    def eval(self):
        """Put the classifier in evaluation mode for good, if asked to."""
        super().train(False)
        return self

    def forward(self, wavs):
        """Logits of a clip.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, [batch, samples].

        Returns
        -------
        torch.Tensor
            [batch, classes], at least of single precision.
        """
        return self.pooled(self._heard(wavs), *wavs.shape).to(wavs.device)

    def frames(self, wavs):
        """Logits of each frame or window, before they are pooled.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, [batch, samples].

        Returns
        -------
        torch.Tensor
            [batch, frames, classes], with one frame if the model gives one
            answer to a clip; `at` and `pool` do not matter.
        """
        logits = self._heard(wavs)
        logits = logits.reshape(len(wavs), -1, logits.shape[2])
        return logits.to(wavs.device)

    def logits_and_embedding(self, wavs):
        """Logits of a clip, and what the head reads of it.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, [batch, samples].

        Returns
        -------
        logits : torch.Tensor
            [batch, classes], as from `forward`.
        embedding : torch.Tensor
            The largest of all frames and windows in each dimension, [batch,
            dimensions]; the logits, if no `head` is named or a time is asked
            for.
        """
        if self.head is None or self.at is not None:
            logits = self(wavs)
            return logits, logits
        self.settle(wavs)  # or the dry runs would be kept as well
        with self.watching_head() as kept:
            logits = self(wavs)
        return logits, self.embedding_of(kept, len(wavs)).to(logits)

    @contextlib.contextmanager
    def watching_head(self):
        """Within `with`, what the head reads is kept.

        Returns
        -------
        context manager
            Of a list, to which each call of the head adds; empty, if no
            `head` is named or a time is asked for.
        """
        kept, hook = [], None
        if self.head is not None and self.at is None:
            head = self.model.get_submodule(self.head)
            hook = head.register_forward_pre_hook(
                lambda module, inputs: kept.append(inputs[0])
            )
        try:
            yield kept
        finally:
            if hook is not None:
                hook.remove()

    @contextlib.contextmanager
    def all_times(self):
        """Within `with`, all frames are heard, whatever time is asked for.

        Returns
        -------
        context manager
            For sounds that are not those to explain, and may be shorter.

        Example
        -------
        >>> net = torch.nn.Conv1d(1, 3, 400, 160)
        >>> listener, wavs = Listener(net, 16000, at=2.5), torch.rand(1, 16000)
        >>> with listener.all_times():
        ...     listener(wavs).shape
        torch.Size([1, 3])
        """
        at, self.at = self.at, None
        try:
            yield
        finally:
            self.at = at

    def embedding_of(self, kept, n_clips):
        """What the head has read of each clip.

        Arguments
        ---------
        kept : list of torch.Tensor
            From `watching_head`, of one pass; at least one.
        n_clips : int
            How many there were.

        Returns
        -------
        torch.Tensor
            The largest of all frames and windows in each dimension, [batch,
            dimensions].

        Raises
        ------
        LMACError
            If the head does not read as many rows of each clip.
        """
        # Of each call the rows are clips, windows or frames, in order.
        rows = [part.reshape(-1, part.shape[-1]) for part in kept]
        count = sum(map(len, rows))
        if not count or count % n_clips:
            raise LMACError(
                f"head: '{self.head}' gets {count} rows for {n_clips} clips, "
                "expected as many for each, with the dimensions as last axis"
            )
        return torch.cat(rows).unflatten(0, (n_clips, -1)).amax(1)

    def _heard(self, wavs):
        """Logits [batch * windows, frames, classes]."""
        self.settle(wavs)
        if wavs.requires_grad and torch.is_grad_enabled():
            wavs = wavs.clone()
            wavs.register_hook(self._finite)
        rows = wavs if self.windows is None else self.windows.cut(wavs)
        with self.naming_length(wavs.shape[1]):
            if rows.requires_grad and self._few_decide():
                return _OfFew.apply(rows, self._of_rows)
            return self._of_rows(rows)

    @contextlib.contextmanager
    def naming_length(self, n_samples, within=1):
        """Context of a call, whose errors name the length that is taken.

        Arguments
        ---------
        n_samples : int
            Length of the clips.
        within : int
            By how many samples that may be wrong, if it is not known.

        Returns
        -------
        context manager
            Raises an LMACError if the call fails for clips of another length
            than the one that `settle` has heard.
        """
        heard = self.found.n_samples
        try:
            yield
        except Exception as error:  # whatever a model raises
            if abs(n_samples - heard) < within or isinstance(
                error, (LMACError, MemoryError, torch.OutOfMemoryError)
            ):
                raise
            about = "" if within == 1 else "about "
            raise LMACError(
                f"model: found a clip of {about}{n_samples} samples, expected "
                f"{heard}, which it took before; signal_length_s="
                f"{heard / self.sample_rate:g} pads and cuts sounds to it: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error

    def _of_rows(self, rows):
        """Logits [rows, frames, classes] of windows, or of whole clips."""
        return self._logits(rows, self._scores, self.found)

    def _few_decide(self):
        """Whether a gradient reaches few windows, and nobody looks inside.

        That of a class's largest logit reaches one window. Who listens at a
        layer may want the gradients of all.
        """
        return (
            self.windows is not None
            and self.pool == "max"
            and self.multilabel
            and torch.is_grad_enabled()
            and not any(map(_is_watched, self.modules()))
        )

    def features(self, wavs):
        """What the model is called with: the front end's output.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, [batch, samples].

        Returns
        -------
        torch.Tensor
            [batch, ...], or [batch * windows, ...].
        """
        self.settle(wavs)
        rows = wavs if self.windows is None else self.windows.cut(wavs)
        form = self.found.form
        with as_needed(self.called(), wavs, self._changing):
            if not form.one_by_one:
                return self._front(rows, form)
            parts = [self._front(row[None], form) for row in rows]
        return torch.stack(parts) if form.flat else torch.cat(parts)

    def classify(self, features, n_samples):
        """Logits of a clip from what the model is called with.

        Arguments
        ---------
        features : torch.Tensor
            As from `features`, [batch, ...] or [batch * windows, ...].
        n_samples : int
            Length of the clips that they were computed from.

        Returns
        -------
        torch.Tensor
            [batch, classes], as from `forward`.

        Raises
        ------
        LMACError
            If no sound was heard before, from which `settle` learns.
        """
        if self.found is None:
            raise LMACError(
                "classify: called before settle, expected a sound first"
            )
        count = self.windows.count(n_samples) if self.windows else 1
        logits = self._logits(features, self._scores_of_features, self.found)
        batch = len(features) // count
        return self.pooled(logits, batch, n_samples).to(features.device)

    def pooled(self, logits, batch, n_samples):
        """Logits of clips from those of their windows and frames.

        Arguments
        ---------
        logits : torch.Tensor
            [batch * windows, frames, classes].
        batch : int
            Number of clips.
        n_samples : int
            Their length.

        Returns
        -------
        torch.Tensor
            [batch, classes], by `pool` over the frames of `at`.
        """
        n_frames = logits.shape[1]
        logits = logits.reshape(batch, -1, logits.shape[2])
        if self.at is not None:
            starts, ends = self._times(n_samples, n_frames)
            duration = n_samples / self.sample_rate
            chosen = frames_at(self.at, starts, ends, duration)
            logits = logits[:, chosen.to(logits.device)]
        pooled = pool_frames(logits, self.pool, self.multilabel)
        if self.labels and len(self.labels) == 2 and pooled.shape[1] == 1:
            pooled = torch.cat((torch.zeros_like(pooled), pooled), 1)
        return pooled

    def notes(self, n_samples):
        """What of a clip is heard otherwise than it is.

        Arguments
        ---------
        n_samples : int
            Its length.

        Returns
        -------
        list of str
            Sentences for people; empty for most clips.

        Example
        -------
        >>> net = torch.nn.Linear(8000, 3)
        >>> Listener(net, 16000, windows=Windows(8000)).notes(4000)
        ['0.25 s long: filled up with silence to 0.5 s, a window of the \
classifier']
        """
        if self.windows is None:
            return []
        size = self.windows.size
        if n_samples + 2 * self.windows.padding < size:
            return [
                f"{n_samples / self.sample_rate:.3g} s long: filled up with "
                f"silence to {size / self.sample_rate:.3g} s, a window of the "
                "classifier"
            ]
        end = int(self.windows.starts(n_samples)[-1]) + size
        if end >= n_samples:
            return []
        unheard = (n_samples - end) / self.sample_rate
        return [f"the last {unheard:.2g} s are heard by no window"]

    def settle(self, wavs, advise=True):
        """Find out by dry runs how the classifier is called, once.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, [batch, samples]; the first clip is used, so it should
            be as long as those to come.
        advise : bool
            Whether an error names a length that can be called, which takes
            calls of many lengths.

        Raises
        ------
        LMACError
            If the classifier cannot be called, is random, or its outputs
            cannot be read.
        """
        if not isinstance(wavs, torch.Tensor) or wavs.dim() != 2:
            found = list(wavs.shape) if hasattr(wavs, "shape") else wavs
            raise LMACError(
                f"wavs: found {shown(found)}, expected a tensor [batch, "
                "samples]"
            )
        if not wavs.is_floating_point() or not wavs.numel():
            raise LMACError(
                f"wavs: found {wavs.dtype} of shape {list(wavs.shape)}, "
                "expected floating-point samples"
            )
        if self.found is not None:
            return
        self._unseen = []  # or those of an earlier try would be seen
        first = FirstCalls(self.called())
        self._unseen = first.modules
        with torch.inference_mode(False), torch.no_grad(), first:
            found = DryRun(self, wavs, advise).found()
        self.found, self._changing = found, first.changing
        if first.has_trained:
            self._say(
                "model: in training mode; it is explained in evaluation "
                "mode, and left as it was"
            )

    def called(self):
        """Modules that a call runs, as far as they can be seen."""
        seen = modules_of(self.front_end) + modules_of(self.model)
        return seen + self._unseen

    def _finite(self, gradient):
        """Gradient without what is not finite, as of a root at silence."""
        if gradient is None or gradient.isfinite().all():
            return gradient
        self._say(
            "model: its gradient is not finite at some samples, as that of a "
            "square root or logarithm is in digital silence; it is taken as "
            "0 there"
        )
        return gradient.nan_to_num(0.0, 0.0, 0.0)

    def _learn(self, name, value):
        """Set an option to what a dry run found."""
        self._before[name] = (getattr(self, name), value)
        setattr(self, name, value)

    def _say(self, text):
        """Log a warning, once."""
        if text not in self._said:
            self._said.add(text)
            logger.warning(text)

    def _front(self, rows, form):
        """The model's input from waveforms [rows, samples]."""
        # A clone: what a model changes in place is not the user's sound.
        waves = form.waves(rows.clone())
        front = modules_of(self.front_end)
        front = front or modules_of(self.model) or self._unseen
        waves = waves.to(**place_of(front))
        if self.front_end is None:
            return waves
        return form.features(self.front_end(waves))

    def _model(self, features):
        """What the model returns for its input."""
        if isinstance(features, torch.Tensor):
            place = place_of(modules_of(self.model) or self._unseen)
            if not features.is_floating_point():
                # Complex and whole numbers would become others.
                place.pop("dtype", None)
            features = features.to(**place)
        return self.model(features)

    def _read(self, returned, n_clips, found):
        """Scores [clips, frames, classes] in what the model returned."""
        n_labels = len(self.labels) if self.labels else None
        scores = find_output(returned, self.output, n_labels)
        if found.form.flat:
            scores = scores[None]
        return by_frames(scores, n_clips, found.class_axis, found.one_class)

    def _scores(self, rows, found):
        """Scores [rows, frames, classes] of waveforms."""
        if not found.form.one_by_one:
            features = self._front(rows, found.form)
            return self._read(self._model(features), len(rows), found)
        parts = [self._front(row[None], found.form) for row in rows]
        return torch.cat([self._read(self._model(p), 1, found) for p in parts])

    def _scores_of_features(self, features, found):
        """Scores [rows, frames, classes] of what `features` gave."""
        if not found.form.one_by_one:
            # A clone, as of waveforms.
            returned = self._model(features.clone())
            return self._read(returned, len(features), found)
        parts = features if found.form.flat else features.split(1)
        parts = [self._model(part.clone()) for part in parts]
        return torch.cat([self._read(part, 1, found) for part in parts])

    def _logits(self, rows, scores_of, found):
        """Logits [rows, frames, classes] by one of the two above."""
        with contextlib.ExitStack() as stack:
            called = as_needed(self.called(), rows, self._changing)
            stack.enter_context(called)
            if found.changes:
                stack.enter_context(copies_for_gradient(self.called()))
            if found.activations:
                with LastActivation(skip=found.activations - 1) as counter:
                    scores = scores_of(rows, found)
                if counter.count == found.activations:
                    return at_least_single(scores)
                # Not the one that the dry run found to be the last step.
            scores = scores_of(rows, found)
        return to_logits(at_least_single(scores), found.scale)

    def _times(self, n_samples, n_frames):
        """Starts and ends in seconds of all frames, or of all windows'."""
        starts, size = torch.zeros(1), n_samples
        if self.windows is not None:
            starts, size = self.windows.starts(n_samples), self.windows.size
        starts = starts.double()[:, None]
        steps = torch.arange(n_frames + 1).double() * size / n_frames
        first = (starts + steps[:-1]).flatten() / self.sample_rate
        last = (starts + steps[1:]).flatten() / self.sample_rate
        return first, last


def _names(labels):
    """Labels as a list, from a list or a dict of index to name."""
    if labels is None:
        return None
    if isinstance(labels, collections.abc.Mapping):
        try:
            keys = sorted(labels, key=int)
        except (TypeError, ValueError):
            keys = None
        if keys is None or [int(key) for key in keys] != list(range(len(keys))):
            raise LMACError(
                f"labels: found {shown(labels)}, expected names by the "
                "numbers from 0"
            )
        labels = [labels[key] for key in keys]
    # A set has no order by which a name belongs to an output.
    if isinstance(labels, (str, set, frozenset)) or not isinstance(
        labels, collections.abc.Iterable
    ):
        raise LMACError(
            f"labels: found {shown(labels)}, expected a list of names"
        )
    labels = [str(label) for label in labels]
    if not labels:
        raise LMACError("labels: found none, expected one for each output")
    return labels


def check_callable(name, value):
    """Refuse what is no model, saying what to do with it.

    Arguments
    ---------
    name : str
        What it is called in the message.
    value : object
        A module or function.

    Raises
    ------
    LMACError
        If it cannot be called.

    Example
    -------
    >>> check_callable("model", None)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: model: found None, expected a torch.nn.Module or a ...
    """
    if callable(value) and not isinstance(value, type):
        return
    hint = "a torch.nn.Module or a function of waveforms"
    if isinstance(value, type):
        hint = f"an object of it: {value.__name__}(...)"
    elif isinstance(value, collections.abc.Mapping):
        hint = "a module: build it, then load_state_dict these weights"
    elif hasattr(value, "run") and hasattr(value, "get_inputs"):
        hint = "a PyTorch module: an ONNX session gives no gradient"
    raise LMACError(f"{name}: found {_kind(value)}, expected {hint}")


def _kind(value):
    """A value that is no model, in a few words."""
    if isinstance(value, (str, bytes)):
        return shown(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return kind_of(value)


class _OfFew(torch.autograd.Function):
    """Logits of rows, of which backward only those with a gradient are run.

    Without it all rows' maps would be kept, and zeros be sent back through
    most of them. The few run forward once more.
    """

    @staticmethod
    def forward(ctx, rows, logits_of):
        """Logits [rows, ...], each of one row alone."""
        ctx.save_for_backward(rows)
        ctx.logits_of = logits_of
        return logits_of(rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        """Gradient of the rows; exact zeros where there is none."""
        (rows,) = ctx.saved_tensors
        found = torch.zeros_like(rows)
        places = (gradient.flatten(1) != 0).any(1).nonzero()[:, 0]
        if len(places):
            with torch.enable_grad():
                part = rows[places].detach().requires_grad_()
                logits = ctx.logits_of(part)
            (found[places],) = torch.autograd.grad(
                logits, part, gradient[places]
            )
        return found, None


def _is_watched(module):
    """Whether somebody gets what goes into a module, or comes out."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
