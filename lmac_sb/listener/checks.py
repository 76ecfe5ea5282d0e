"""What is checked before a classifier's first explanation."""

import dataclasses

import torch

from lmac_sb.listener.calling import as_needed, modules_of
from lmac_sb.listener.outputs import by_frames, find_output
from lmac_sb.listener.scales import at_least_single, guess_scale, to_logits
from lmac_sb.utils.errors import LMACError, is_number

__all__ = ["check_listener", "compare", "find_sample_rate", "where_they_part"]

RATES = ("sample_rate", "sampling_rate", "samplerate")
TOLERANCE = 1e-3  # of the range of the logits
NO_GRADIENT = (
    "remove detach, no_grad, inference_mode, numpy, or use the PyTorch module "
    "that an ONNX or other export was made from; the method 'occlusion' needs "
    "no gradient"
)


def check_listener(listener, wavs, own=None):
    """Refuse a classifier that cannot be explained, before it is.

    All its frames are heard, whatever time is asked for: the sounds to
    explain may be longer than those given here.

    Arguments
    ---------
    listener : Listener
        The classifier.
    wavs : torch.Tensor
        Waveforms to be explained, [batch, samples]; the first is heard.
    own : callable or torch.Tensor
        The user's own call from waveforms [batch, samples] to outputs, or
        what it gave for `wavs`; see `compare`.

    Raises
    ------
    LMACError
        If the classifier is made for another rate, cannot be called, is
        random, gives outputs that are not finite, that cannot be read or
        that do not depend on the sound, has another number of labels, has no
        gradient, or answers differently to the user's own call.

    Example
    -------
    >>> from lmac_sb.listener.listener import Listener
    >>> with torch.no_grad():
    ...     check_listener(
    ...         Listener(lambda wavs: wavs[:, :3].detach(), 16000),
    ...         torch.rand(2, 16000),
    ...     )
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: model: no gradient reaches the sound; remove detach, \
no_grad, inference_mode, numpy, or use the PyTorch module that an ONNX or \
other export was made from; the method 'occlusion' needs no gradient
    """
    with listener.all_times():
        _check_rate(listener, wavs)
        listener.settle(wavs)
        with torch.inference_mode(False):
            # A clone of what inference mode made can have a gradient.
            wavs = wavs.detach().clone()
            with torch.no_grad():
                _check_outputs(listener, wavs[:1])
            _check_gradient(listener, wavs[:1])
        if own is not None:
            compare(listener, own, wavs)


def find_sample_rate(model):
    """Rate that a classifier is made for, as far as its parts tell.

    Arguments
    ---------
    model : torch.nn.Module or callable
        Its modules are looked at: `sample_rate` of torchaudio's and
        SpeechBrain's front ends, `sampling_rate` of a configuration. A
        `Resample` tells what it takes.

    Returns
    -------
    int or None
        Rate in Hz; None if nothing tells it, or several disagree.

    Example
    -------
    >>> import torchaudio
    >>> mel = torchaudio.transforms.MelSpectrogram(22050)
    >>> find_sample_rate(torch.nn.Sequential(mel, torch.nn.Flatten()))
    22050
    >>> find_sample_rate(torch.nn.Linear(2, 2))
    """
    rates = {rate for _, rate in _rated(model)}
    return rates.pop() if len(rates) == 1 else None


def _rated(model):
    """Parts that have a rate, and that rate."""
    found, resampled = [], []
    for top in modules_of(model):
        for part in top.modules():
            holders = [part, _attribute(part, "config")]
            values = [_attribute(h, key) for h in holders for key in RATES]
            found += [(part, int(v)) for v in values if _is_rate(v)]
            old = _attribute(part, "orig_freq")
            new = _attribute(part, "new_freq")
            if _is_rate(old) and _is_rate(new) and old != new:
                resampled.append((part, int(old)))
    return resampled or found


def _attribute(part, name):
    """What a part says, or None; properties of the user's may raise."""
    try:
        return getattr(part, name, None)
    except Exception:
        return None


def _is_rate(value):
    """Whether a value can be a sampling rate in Hz."""
    return is_number(value) and 1000 <= value <= 1e6


def _check_rate(listener, wavs):
    """Refuse parts that are made for another rate."""
    for where in (listener.front_end, listener.model):
        rated = _rated(where)
        if rated and all(rate != listener.sample_rate for _, rate in rated):
            part, rate = rated[0]
            if _is_resampled(listener, wavs, part, rate):
                return
            raise LMACError(
                f"sample_rate: found {listener.sample_rate} Hz, but the "
                f"model's {type(part).__name__} is made for {rate} Hz; "
                "expected the rate of the sounds that it was trained on"
            )
        if rated and where is listener.front_end:
            return


def _is_resampled(listener, wavs, part, rate):
    """Whether the model brings sounds to a part's rate by itself."""
    lengths = []

    def note(module, inputs):
        """Hook that notes the length of what the part gets."""
        lengths.extend(x.shape[-1] for x in inputs if hasattr(x, "shape"))

    hook = part.register_forward_pre_hook(note)
    try:
        listener(wavs[:1])
    except Exception:  # it is called in earnest below
        return False
    finally:
        hook.remove()
    heard = wavs.shape[1]
    if listener.windows is not None:
        heard = listener.windows.size
    expected = heard * rate / listener.sample_rate
    return any(0.98 < length / expected < 1.02 for length in lengths)


def _check_outputs(listener, wavs):
    """Refuse outputs that are not finite, or the same for all sounds."""
    logits = listener(wavs)
    if not logits.isfinite().all():
        raise LMACError(
            f"model: found outputs that are not finite, {_some(logits)}, for "
            f"a sound of peak {wavs.abs().max():.3g}, expected finite logits"
        )
    noise = torch.rand(wavs.shape, generator=torch.Generator().manual_seed(0))
    others = [wavs / 10, 2 * noise.to(wavs) - 1, torch.zeros_like(wavs)]
    if all(torch.equal(listener(other), logits) for other in others):
        raise LMACError(
            f"model: found the same outputs, {_some(logits)}, for the sound, "
            "for noise and for silence, expected outputs that depend on it; "
            "those that are saturated or rounded do not"
        )


def _some(logits):
    """The first outputs, to be shown."""
    values = ", ".join(f"{value:.3g}" for value in logits[0, :3].tolist())
    return values + (", ..." if logits.shape[1] > 3 else "")


def _check_gradient(listener, wavs):
    """Refuse a model through which no gradient reaches the sound."""
    try:
        logits, gradient = _gradient(listener, wavs)
    except RuntimeError as error:
        if not _is_in_place(error):
            raise _no_gradient(error) from error
        listener.found = dataclasses.replace(listener.found, changes=True)
        try:
            logits, gradient = _gradient(listener, wavs)
        except RuntimeError as second:
            raise _no_gradient(second) from second
    if gradient is None:
        hint = _quantised(listener) or NO_GRADIENT
        raise LMACError(f"model: no gradient reaches the sound; {hint}")
    if not gradient.any():
        raise LMACError(
            "model: its gradient is 0 for each sample, expected one that says "
            "what it listens to; rounding, argmax and outputs that are "
            f"saturated have none; outputs: {_some(logits)}"
        )


def _quantised(listener):
    """What to do where layers of whole numbers are in the way, or nothing."""
    for module in listener.called():
        for part in module.modules():
            if ".quantized" in type(part).__module__:
                return (
                    f"its {type(part).__name__} is quantised, which has none; "
                    "use the model from before it was quantised"
                )
    return ""


def _gradient(listener, wavs):
    """Logits, and the gradient of some score of them, or None."""
    wavs = wavs.requires_grad_()
    with torch.enable_grad():
        logits = listener(wavs)
        if not logits.requires_grad:
            return logits, None
        # Of no symmetry, so that a softmax does not cancel it.
        weights = torch.arange(1.0, logits.shape[1] + 1).sqrt().to(logits)
        score = (logits * weights).sum()
        return logits, torch.autograd.grad(score, wavs, allow_unused=True)[0]


def _is_in_place(error):
    """Whether autograd says that something was changed in place."""
    return "inplace operation" in str(error)


def _no_gradient(error):
    """What to do about an error of a call or pass with gradients."""
    text = " ".join(str(error).split())[:200]
    if _is_in_place(error):
        return LMACError(
            "model: changes in place what its gradient needs, expected a new "
            f"tensor, such as x = x + y instead of x += y: {text}"
        )
    if "Inference tensors" in text:
        return LMACError(
            "model: its weights were made in inference_mode, which leaves no "
            f"gradient; build or load it outside: {text}"
        )
    return LMACError(
        f"model: no gradient reaches the sound: {text}; {NO_GRADIENT}"
    )


def compare(listener, own, wavs, own_features=None):
    """Check that a classifier is called as its owner calls it.

    Arguments
    ---------
    listener : Listener
        The classifier.
    own : callable or torch.Tensor
        The user's own call from waveforms [batch, samples], whose output is
        read as the model's is, or such an output. Probabilities are compared
        with probabilities.
    wavs : torch.Tensor
        Waveforms, [batch, samples].
    own_features : callable or torch.Tensor
        The user's own front end, or what it gave for `wavs`; with it a
        difference is traced to where the front ends part.

    Raises
    ------
    LMACError
        If the logits differ by more than a thousandth of their range; the
        message says by how much, and where the features do.

    Example
    -------
    >>> from lmac_sb.listener.listener import Listener
    >>> net, wavs = torch.nn.Linear(8, 3), torch.rand(2, 8)
    >>> compare(Listener(net, 16000), net, wavs)
    """
    with torch.inference_mode(False), torch.no_grad():
        wavs = wavs.detach().clone()
        ours = listener(wavs)
        theirs = _own_logits(listener, own, wavs)
        if ours.shape != theirs.shape:
            raise LMACError(
                f"own: found outputs [clips, classes] of {list(theirs.shape)}, "
                f"expected {list(ours.shape)}, as the model gives here"
            )
        ours, theirs = _comparable(listener, ours, theirs)
        size = (theirs.amax() - theirs.amin()).clamp_min(1e-6)
        error = (ours - theirs).abs().max()
        if error <= TOLERANCE * size:
            return
        reason = ""
        if own_features is not None:
            features = _own_output(listener, own_features, wavs)
            found = where_they_part(listener.features(wavs), features)
            reason = f"; features: {found or 'the same'}"
    raise LMACError(
        f"model: outputs differ from your own call by up to {error:.3g}, "
        f"{error / size:.1%} of their range, expected at most "
        f"{TOLERANCE:.1%}{reason}"
    )


def _own_output(listener, own, wavs):
    """What the user's own call gives, or gave."""
    if not callable(own):
        return own
    with as_needed(listener.called() + modules_of(own), wavs):
        return own(wavs.clone())


def _own_logits(listener, own, wavs):
    """The outputs of the user's call, [clips, classes], as they are."""
    returned = _own_output(listener, own, wavs)
    if not isinstance(returned, torch.Tensor):
        count = listener.found.n_outputs
        try:  # as numpy arrays and lists of numbers can be
            returned = torch.as_tensor(returned)
        except (TypeError, ValueError, RuntimeError):
            returned = find_output(returned, listener.output, count)
    if not returned.is_floating_point():
        raise LMACError(
            f"own: found {returned.dtype}, expected logits or probabilities"
        )
    found = listener.found
    scores = at_least_single(returned)
    if scores.dim() < 2 and scores.numel() == len(wavs) * len(listener.labels):
        scores = scores.reshape(len(wavs), -1)
    scores = by_frames(scores, len(wavs), found.class_axis, found.one_class)
    if scores.shape[1] == 1:
        return scores[:, 0].to(wavs.device)
    # Frames or windows, which are pooled here as the model's are.
    logits = to_logits(scores, found.scale)
    if listener.windows is not None:
        count = len(wavs) * listener.windows.count(wavs.shape[1])
        logits = logits.reshape(count, -1, logits.shape[2])
    return listener.pooled(logits, *wavs.shape).to(wavs.device)


def _comparable(listener, ours, theirs):
    """Both on one scale: probabilities if the user has them, else logits."""
    is_logits = guess_scale(theirs, listener.multilabel) == "logits"
    if not is_logits and guess_scale(ours, listener.multilabel) == "logits":
        each = listener.multilabel
        return ours.sigmoid() if each else ours.softmax(1), theirs
    if not listener.multilabel:
        # A softmax does not see what all classes have in common.
        ours = ours - ours.mean(1, keepdim=True)
        theirs = theirs - theirs.mean(1, keepdim=True)
    return ours, theirs


def where_they_part(ours, own):
    """In what way two front ends differ, as far as their outputs tell.

    Arguments
    ---------
    ours : torch.Tensor
        Features, [..., frames, bands] or [..., bands, frames].
    own : torch.Tensor
        The same, of the user's front end.

    Returns
    -------
    str
        The largest difference and a likely reason; empty if there is none
        above a thousandth of the range.

    Example
    -------
    >>> own = torch.rand(1, 10, 4)
    >>> where_they_part(own - 2, own)
    'all are 2 higher in yours, as if of another scale before a logarithm'
    """
    ours, own = torch.as_tensor(ours).double(), torch.as_tensor(own).double()
    ours, own = ours.cpu().squeeze(), own.cpu().squeeze()
    if ours.shape != own.shape:
        if ours.dim() == own.dim() == 2 and ours.T.shape == own.shape:
            return (
                f"shape {list(ours.shape)} here, {list(own.shape)} in yours: "
                "axes are exchanged"
            )
        return (
            f"shape {list(ours.shape)} here, {list(own.shape)} in yours: "
            "another hop, padding or number of bands"
        )
    size = (own.amax() - own.amin()).clamp_min(1e-12)
    difference = own - ours
    if not difference.abs().max() > TOLERANCE * size:
        return ""
    return _whole(ours, own, difference, size) or _parts(difference, size)


def _whole(ours, own, difference, size):
    """What is the same for all features; empty if nothing is."""
    mean = difference.mean()
    if (difference - mean).abs().max() < TOLERANCE * size:
        return (
            f"all are {abs(mean):.4g} {'higher' if mean > 0 else 'lower'} in "
            "yours, as if of another scale before a logarithm"
        )
    factor = (ours * own).sum() / (ours * ours).sum().clamp_min(1e-30)
    if (own - factor * ours).abs().max() < TOLERANCE * size:
        return (
            f"yours are {factor:.4g} times as large, as of another window, "
            "power or logarithm"
        )
    slope = ((ours - ours.mean()) * (own - own.mean())).sum()
    slope = slope / (ours - ours.mean()).square().sum().clamp_min(1e-30)
    shift = own.mean() - slope * ours.mean()
    if (own - slope * ours - shift).abs().max() < TOLERANCE * size:
        return (
            f"yours are {slope:.4g} times as large plus {shift:.4g}, as of "
            "another normalisation"
        )
    return ""


def _parts(difference, size):
    """Where the largest difference lies, and of what kind it is."""
    largest = difference.abs().amax()
    place = (difference.abs() == largest).nonzero()[0].tolist()
    text = (
        f"largest difference {largest:.4g}, {largest / size:.1%} of the "
        f"range, at {place} of {list(difference.shape)}"
    )
    for axis in range(max(difference.dim() - 2, 0), difference.dim()):
        lines = difference.transpose(axis, -1).flatten(0, -2).abs().amax(0)
        if len(lines) > 8 and lines[4:-4].max() < TOLERANCE * size:
            return f"{text}, only at the edges of axis {axis}: padding"
        spread = difference.transpose(axis, -1).flatten(0, -2)
        inner = (spread - spread.mean(0)).abs().max()
        if len(spread) > 1 and inner < 0.1 * largest:
            return (
                f"{text}, the same along all but axis {axis}: the bands' "
                "scale or normalisation"
            )
    return text
