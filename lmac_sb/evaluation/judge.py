"""What a classifier says of a mask: columns of the table."""

import hashlib
from dataclasses import replace

import torch

from lmac_sb.metrics.registry import METRICS, evaluate
from lmac_sb.metrics.shape import mask_area

__all__ = ["Judge"]

NOISE_DB = 30.0  # of the guard "noisy", below the sound


class Judge:
    """What the classifier, and others, say of masks.

    Arguments
    ---------
    explainer : lmac_sb.explain.explainer.Explainer
        Of the explained classifier.
    other : callable
        A second classifier: waveforms [batch, samples] to logits; or None.

    Example
    -------
    >>> from lmac_sb.methods.registry import make_case
    >>> case = make_case(explainer, wavs, [1.0, 1.0], [{}, {}])
    >>> everything = torch.ones_like(case.analysis.magnitude)
    >>> columns = Judge(explainer)(case, everything, ["a", "b"])
    >>> columns["Fid-In"], columns["area"]
    (tensor([1., 1.]), tensor([1., 1.]))
    """

    def __init__(self, explainer, other=None):
        self.explainer = explainer
        self.other = other

    @torch.no_grad()
    def __call__(self, case, mask, ids, clean=None, frames=None, full=True):
        """Columns of the table for one mask a clip.

        Arguments
        ---------
        case : lmac_sb.methods.registry.Case
            What was explained.
        mask : torch.Tensor
            [batch, time, freq].
        ids : list of str
            Names of the clips, which pick the noise of the guard.
        clean : torch.Tensor
            The clip within the mixture, [batch, samples]; None without a
            mixture.
        frames : torch.Tensor
            Known active frames, boolean, [batch, time], or None.
        full : bool
            Whether to judge the mask's shape, place and sounds too; else
            only what the classifier says of both sides.

        Returns
        -------
        dict
            Name to torch.Tensor [batch].
        """
        found = self.explainer.complete(
            case.analysis, mask, case.target, sounds=full
        )
        columns = dict(
            zip(("p", "p_in", "p_out"), _probabilities(found, case.target))
        )
        if not full:
            found.mask = None
            return {**evaluate(found), "area": mask_area(mask), **columns}
        columns = {**evaluate(found, case.event, frames, clean), **columns}
        for guard, logits in self._guards(case, found, ids).items():
            whole, inside, outside = logits
            values = evaluate(
                replace(
                    found,
                    logits=whole,
                    logits_in=inside,
                    logits_out=outside,
                    mask=None,
                )
            )
            for name, value in values.items():
                if METRICS[name].repeated:
                    columns[f"{guard} {name}"] = value
        return columns

    def _guards(self, case, found, ids):
        """Logits on the whole, in and out, of the sounds judged otherwise."""
        sounds = torch.cat((found.waveform, found.residual))
        half_hop = self.explainer.features.hop_samples // 2
        shifted = torch.nn.functional.pad(sounds, (half_hop, 0))
        versions = {
            "heard": sounds,
            "noisy": sounds + _noise(sounds, [*ids, *ids]),
            "shifted": shifted[:, : sounds.shape[1]],
        }
        judged = {
            guard: (found.logits, *self._classify(version).chunk(2))
            for guard, version in versions.items()
        }
        if self.other is not None:
            everything = torch.cat((case.wavs, sounds))
            judged["other"] = self.other(everything).chunk(3)
        return judged

    def _classify(self, wavs):
        """Logits of waveforms."""
        features = self.explainer.features
        return self.explainer.classify(features.magnitude(features.stft(wavs)))

    @torch.no_grad()
    def silence(self, case):
        """Probability of the class on silence of the clip's length, [batch]."""
        silence = torch.zeros_like(case.analysis.magnitude[:1])
        p = self.explainer.classify(silence).softmax(1)[0]
        return p[case.target]


def _probabilities(found, target):
    """Of the explained class: on the whole, inside, outside; [batch] each."""
    return [
        logits.softmax(1).gather(1, target[:, None])[:, 0]
        for logits in (found.logits, found.logits_in, found.logits_out)
    ]


def _noise(sounds, ids):
    """White noise of `NOISE_DB` less power than each sound."""
    noise = []
    for clip in ids:
        digest = hashlib.sha256(f"noisy {clip}".encode()).digest()
        generator = torch.Generator()
        generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        noise.append(torch.randn(sounds.shape[1], generator=generator))
    power = sounds.pow(2).mean(1, keepdim=True) * 10 ** (-NOISE_DB / 10)
    return torch.stack(noise).to(sounds.device) * power.sqrt()
