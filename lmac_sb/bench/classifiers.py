"""Classifiers of the bench, and what explains each of them.

An entry of `CLASSIFIERS` is a `Classifier`, or just its function `load`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, Optional

import torch

from lmac_sb.adapters.named import NAMED
from lmac_sb.adapters.yamnet import N_EMBEDDING, load_yamnet
from lmac_sb.bench.data import Prepared
from lmac_sb.bench.kept import kept
from lmac_sb.bench.trained import train
from lmac_sb.bench.waveform import M5, fit_waveform
from lmac_sb.bench.yamnet import KNOWN, fit_layer, mean_embedding
from lmac_sb.data.audio import Preprocessor
from lmac_sb.data.dataset import make_dataset
from lmac_sb.evaluation.models import load_interpreters
from lmac_sb.inference.interpreter import LMACInterpreter
from lmac_sb.utils.errors import LMACError

__all__ = ["CLASSIFIERS", "Classifier", "Setup", "recipe"]

RATE = 16000


class Setup(NamedTuple):
    """For what a classifier is loaded.

    Arguments
    ---------
    prepared : lmac_sb.bench.data.Prepared
        The data; the test clips are `prepared.ids("test")`.
    folder : pathlib.Path
        Where it keeps what it trains.
    seeds : list of int
        The first is the classifier's and its explainers'; for the others, one
        more explainer is trained each.
    epochs : int
        Of each training; None for what its yaml file says.
    wanted : tuple of str
        Explainers that are used; the others need not be trained.

    Example
    -------
    >>> Setup(None, Path("trained"), [1234]).epochs is None
    True
    """

    prepared: Prepared
    folder: Path
    seeds: list
    epochs: Optional[int] = None
    wanted: tuple = ("lmac",)


class Classifier(NamedTuple):
    """A classifier; one more is one entry of `CLASSIFIERS`.

    Arguments
    ---------
    load : callable
        Of a `Setup`, gives interpreters of one classifier: a dict from the
        method's name (``lmac``, ``l2i``, or one of one's own) to
        `lmac_sb.LMACInterpreter`, or a list of such dicts, one for each seed.
        Trains what is not there yet.
    unfit : callable
        Of `lmac_sb.bench.data.Data`, says why it does not suit it; None if
        it does.
    asked : callable
        Of a `Setup` and an interpreter: a function of a clip's dict that
        gives ``target``, the number of the class to explain, and ``right``,
        whether it is the classifier's answer; or None to leave the clip out.
        By default each clip's decision is explained.
    family : str
        Classifiers of one family are not each other's judges.
    explainers : tuple of str
        Methods that `load` gives, besides ``lmac``, ``l2i`` and
        ``optimised``.
    several : bool
        Whether it is one for data whose clips may have several classes.

    Example
    -------
    >>> Classifier(lambda setup: {}).unfit(None) is None
    True
    """

    load: Callable
    unfit: Callable = lambda data: None
    asked: Optional[Callable] = None
    family: str = ""
    explainers: tuple = ()
    several: bool = False

    def misfit(self, data):
        """Why it cannot be tested on data; None if it can.

        Arguments
        ---------
        data : lmac_sb.bench.data.Data
            The data.

        Returns
        -------
        str or None

        Example
        -------
        >>> from lmac_sb.bench.data import DATA
        >>> CLASSIFIERS["multilabel"].misfit(DATA["scenes"])
        'the clips have one class, a classifier has to decide for one'
        """
        if data.several and not self.several:
            return (
                "the clips have several classes, "
                "a classifier has to decide for each"
            )
        if self.several and not data.several:
            return (
                "the clips have one class, a classifier has to decide for one"
            )
        return self.unfit(data)


def recipe(classifier, epochs=(None, None), **explainers):
    """A classifier that the recipe trains, and explainers of it.

    Arguments
    ---------
    classifier : str
        Its yaml file.
    epochs : tuple of int
        Of the classifier and of ``lmac`` on some hundred clips, where the yaml
        files are for more; data that says how many comes first.
    **explainers
        Method to yaml file. ``lmac`` is trained for each seed.

    Returns
    -------
    callable
        See `Classifier`.
    """

    def load(setup):
        """Train what is missing, and load all."""
        first, second = map(_epochs, epochs)
        data = setup.prepared.data
        keys = {**first, **data.classifier_keys}
        run = trained_run(setup, "classifier", classifier, setup.seeds[0], keys)
        explained = {
            "classifier_folder": (run / "model").resolve(),
            "save_clips": 0,
        }
        found = []
        for seed in setup.seeds:
            runs = {}
            for name, yaml in explainers.items():
                keys = explained
                if name == "lmac":
                    keys = {**explained, **second, **data.explainer_keys}
                elif name not in setup.wanted or seed != setup.seeds[0]:
                    continue
                runs[name] = trained_run(setup, name, yaml, seed, keys)
            found.append(load_interpreters(runs))
        return found

    return load


def trained_run(setup, name, yaml, seed, keys):
    """The run of a classifier or an explainer, which is trained if missing.

    Arguments
    ---------
    setup : Setup
        Its data, and the folder of its runs.
    name : str
        What its folder begins with; it ends in the seed.
    yaml : str
        Its yaml file.
    seed : int
        Of the run.
    keys : dict
        Further keys, as ``lmac train`` takes them.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    LMACError
        See `lmac_sb.bench.trained.train`.
    """
    keys = {
        **keys,
        "n_classes": len(setup.prepared.classes),
        **_epochs(setup.epochs),
    }
    folder = setup.folder / f"{name}-{seed}"
    return train(yaml, folder, setup.prepared, seed, keys)


def _epochs(number):
    """The key of the epochs, where they are given."""
    return {} if number is None else {"number_of_epochs": number}


def _waveform(setup):
    """M5, which hears the sound itself, explained by steps from nothing."""
    prepared = setup.prepared

    def make():
        """Train it."""
        train, valid = (_sounds(prepared, x) for x in ("train", "valid"))
        return fit_waveform(train, valid, setup.seeds[0], setup.epochs)

    n_classes = len(prepared.classes)
    net = kept(setup, "classifier", partial(M5, n_classes), make)
    return _by_steps(net, prepared)


def _yamnet_linear(setup):
    """A linear layer on YAMNet's embedding, by YAMNet's decoder and steps."""
    prepared = setup.prepared

    def make():
        """Train it."""
        listener = load_yamnet()
        wavs, labels = _sounds(prepared, "train")
        inputs = torch.stack([mean_embedding(listener, wav) for wav in wavs])
        return fit_layer(inputs, labels, seed=setup.seeds[0])

    empty = partial(torch.nn.Linear, N_EMBEDDING, len(prepared.classes))
    how = {
        "layer": kept(setup, "classifier", empty, make),
        "labels": prepared.classes,
    }
    return _named(**how)


def _by_steps(net, prepared):
    """Interpreters of a module that hears waveforms."""
    made = LMACInterpreter.from_classifier(
        net.eval(), RATE, labels=prepared.classes
    )
    return {"optimised": made}


def _yamnet(setup):
    """YAMNet and its own classes, by its decoder and by steps."""
    return _named()


def _named(**how):
    """YAMNet's decoder, and steps."""
    load = partial(LMACInterpreter.from_pretrained, "yamnet", **how)
    return {"lmac": load(decoder=True), "optimised": load()}


def _yamnet_asked(setup, interpreter):
    """The class that means the same as the label, where YAMNet gives it."""
    means = setup.prepared.data.means
    explainer, names = interpreter.explainer, interpreter.classes
    rivals = [names.index(means[name]) for name in setup.prepared.classes]

    @torch.no_grad()
    def asked(item):
        """Class of a clip, and whether it is the first of those of the data."""
        target = names.index(means[item["class_string"]])
        logits = explainer.classify_sounds(item["sig"][None])[0]
        if logits[target].sigmoid() <= KNOWN:
            return None
        right = bool(logits[target] >= logits[rivals].max())
        return {"target": target, "right": right}

    return asked


def _yamnet_unfit(data):
    """Why YAMNet says nothing of some data."""
    if data.means is None:
        return "YAMNet has no classes that mean the same"
    if not NAMED["yamnet"].is_here:
        return f"YAMNet is not installed: {NAMED['yamnet'].install}"
    return None


def _sounds(prepared, split):
    """Waveforms and labels of a split, [clips, samples] and [clips]."""
    dataset = make_dataset(
        prepared.manifests / f"{split}.jsonl",
        Preprocessor(RATE, prepared.seconds),
        prepared.encoder(),
    )
    lengths = sorted(set(dataset.n_samples))
    if len(lengths) > 1:
        raise LMACError(
            f"{prepared.name}: found clips of {lengths[0]} to {lengths[-1]} "
            "samples, expected one length; signal_length_s in the keys of the "
            "data cuts and pads them"
        )
    items = [dataset[i] for i in range(len(dataset))]
    labels = [item["class_string_encoded"] for item in items]
    return torch.stack([x["sig"] for x in items]), torch.cat(labels)


# name -> what is known of it
CLASSIFIERS = {
    "cnn": Classifier(recipe("classifier_conv", lmac="lmac", l2i="l2i")),
    "transformer": Classifier(
        recipe(
            "variants/classifier_attention",
            (40, 15),
            lmac="variants/lmac_attention",
        )
    ),
    "conv2d": Classifier(
        recipe("variants/classifier_conv2d", lmac="variants/lmac_conv2d")
    ),
    "multilabel": Classifier(
        recipe("classifier_multilabel", lmac="lmac_multilabel"), several=True
    ),
    "waveform": Classifier(_waveform),
    "yamnet": Classifier(_yamnet, _yamnet_unfit, _yamnet_asked, "yamnet"),
    "yamnet_linear": Classifier(_yamnet_linear, _yamnet_unfit, family="yamnet"),
}
