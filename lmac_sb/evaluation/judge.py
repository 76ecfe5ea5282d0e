"""The columns of the table: how a classifier decides on a masked sound."""

import hashlib
from dataclasses import replace

import torch

from lmac_sb.metrics.registry import GUARDS, METRICS, evaluate
from lmac_sb.metrics.shape import mask_area
from lmac_sb.models.question import as_question

__all__ = ["Judge", "white_noise"]

NOISE_DB = 30.0  # of the guard "noisy", below the sound


class Judge:
    """Scores masks by the decisions of the classifier, and of others.

    Arguments
    ---------
    explainer : lmac_sb.lmac.explainer.Explainer
        Of the explained classifier.
    other : callable
        A second classifier: waveforms [batch, samples] to logits; or None.
    guards : list of str
        Which of `lmac_sb.metrics.registry.GUARDS` are computed.

    Example
    -------
    >>> from lmac_sb.methods.registry import make_case
    >>> case = make_case(explainer, wavs, [1.0, 1.0], [{"id": x} for x in "ab"])
    >>> everything = torch.ones_like(case.analysis.magnitude)
    >>> columns = Judge(explainer)(case, everything)
    >>> columns["Fid-In"], columns["area"]
    (tensor([1., 1.]), tensor([1., 1.]))
    """

    def __init__(self, explainer, other=None, guards=GUARDS):
        self.explainer = explainer
        self.other = other
        self.guards = guards

    @torch.no_grad()
    def __call__(self, case, mask, full=True):
        """Columns of the table for one mask a clip.

        Arguments
        ---------
        case : lmac_sb.methods.registry.Case
            What was explained.
        mask : torch.Tensor
            [batch, time, freq].
        full : bool
            Whether to score the mask's shape, place and sounds too; otherwise
            only the classifier's decisions on both sides.

        Returns
        -------
        dict
            Name to torch.Tensor [batch].
        """
        explainer = self.explainer
        found = explainer.complete(
            case.analysis, mask, case.target, sounds=full
        )
        asked = found.asked()
        columns = {
            "p": asked.p_before,
            "p_in": asked.p_inside,
            "p_out": asked.p_outside,
        }
        if not full:
            values = evaluate(replace(asked, mask=None))
            return {**values, "area": mask_area(mask), **columns}
        values = evaluate(
            asked,
            case.event,
            case.frames,
            case.clean,
            case.others,
            explainer.linear_mask(case.analysis.magnitude, mask),
        )
        columns = {**values, **columns}
        for guard, logits in self._judged_otherwise(case, found).items():
            whole, inside, outside = logits
            other = replace(
                found,
                logits=whole,
                logits_in=inside,
                logits_out=outside,
                mask=None,
            )
            for name, value in evaluate(other.asked()).items():
                if METRICS[name].repeated:
                    columns[f"{guard} {name}"] = value
        return columns

    def _judged_otherwise(self, case, found):
        """Logits on the whole, in and out, by guard."""
        sounds = torch.cat((found.waveform, found.residual))
        names = [f"noisy {clip}" for clip in (*case.ids, *case.ids)]
        half_hop = self.explainer.features.hop_samples // 2
        shifted = torch.nn.functional.pad(sounds, (half_hop, 0))
        versions = {
            "heard": lambda: sounds,
            "noisy": lambda: sounds + white_noise(sounds, names, NOISE_DB),
            "shifted": lambda: shifted[:, : sounds.shape[1]],
        }
        judged = {
            guard: (found.logits, *self._classify(version()).chunk(2))
            for guard, version in versions.items()
            if guard in self.guards
        }
        if self.other is not None:
            everything = torch.cat((case.wavs, sounds))
            judged["other"] = self.other(everything).chunk(3)
        return judged

    def _classify(self, wavs):
        """Logits of waveforms."""
        return self.explainer.classify_sounds(wavs)

    @torch.no_grad()
    def silence(self, case):
        """Probability of the class on silence of the clip's length, [batch]."""
        silence = torch.zeros_like(case.analysis.magnitude[:1])
        logits = self.explainer.classify(silence, case.analysis[:1])
        multilabel = self.explainer.classifier.multilabel
        question = as_question(case.target, multilabel)
        return question.probability(logits.expand(len(case), -1))


def white_noise(sounds, names, below_db):
    """White noise with so much less power than each sound.

    Arguments
    ---------
    sounds : torch.Tensor
        [batch, samples].
    names : list of str
        Seeds, one a sound.
    below_db : float
        Level of the sound over the noise, in dB.

    Returns
    -------
    torch.Tensor
        [batch, samples].

    Example
    -------
    >>> sounds = torch.ones(1, 10000)
    >>> noise = white_noise(sounds, ["a"], 20.0)
    >>> round(noise.pow(2).mean().item(), 3)
    0.01
    """
    noise = []
    for name in names:
        digest = hashlib.sha256(name.encode()).digest()
        generator = torch.Generator()
        generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        noise.append(torch.randn(sounds.shape[1], generator=generator))
    power = sounds.pow(2).mean(1, keepdim=True) * 10 ** (-below_db / 10)
    return torch.stack(noise).to(sounds.device) * power.sqrt()
