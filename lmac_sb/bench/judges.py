"""The second opinion: another classifier of the same data.

A linear layer on YAMNet's embedding where YAMNet knows the classes and is not
what is explained; else the small CNN, trained from another seed (that of
`classifier_multilabel.yaml` where clips have several classes).
"""

from tempfile import TemporaryDirectory

import torch

from lmac_sb.bench.classifiers import CLASSIFIERS, RATE, trained_run
from lmac_sb.bench.trained import left_alone
from lmac_sb.data.rates import resample
from lmac_sb.evaluation.models import load_second_classifier
from lmac_sb.training.experiment import frontend
from lmac_sb.training.hparams import load_hparams
from lmac_sb.utils.recipe import find_yaml

__all__ = ["judge_of", "load_judge"]

CNN = "cnn, another seed"
LINEAR = "yamnet_linear"
_APART = 1000  # from the seed of what is explained
_YAML, _SEVERAL_YAML = "classifier_conv", "classifier_multilabel"
_LEAST = 1e-7  # of a probability with a finite logit


def judge_of(data, classifier):
    """Name of the judge.

    Arguments
    ---------
    data : lmac_sb.bench.data.Data
        On which it judges.
    classifier : lmac_sb.bench.classifiers.Classifier
        What is explained.

    Returns
    -------
    str

    Example
    -------
    >>> from lmac_sb.bench.data import DATA
    >>> judge_of(DATA["scenes"], CLASSIFIERS["cnn"])
    'cnn, another seed'
    """
    linear = CLASSIFIERS[LINEAR]
    if classifier.family == linear.family or linear.misfit(data) is not None:
        return CNN
    return LINEAR


def load_judge(name, setup, explained):
    """A judge in the words of the explained classifier.

    Arguments
    ---------
    name : str
        From `judge_of`.
    setup : lmac_sb.bench.classifiers.Setup
        Its data, and where all that is trained on it lies.
    explained : lmac_sb.LMACInterpreter
        What is explained.

    Returns
    -------
    callable
        Waveforms [batch, samples] to logits [batch, classes of `explained`],
        of probabilities where those are decided one by one.
    """
    prepared = setup.prepared
    if name == LINEAR:
        own = setup._replace(folder=setup.folder / LINEAR)
        # Its interpreters share the classifier.
        judge, *_ = CLASSIFIERS[LINEAR].load(own).values()
        classify = judge.explainer.classify_sounds
    else:
        classify = _load_cnn(setup)
    means = prepared.data.means or {}
    known = explained.classes
    places = [
        known.index(x if x in known else means.get(x)) for x in prepared.classes
    ]
    multilabel = explained.explainer.classifier.multilabel

    @torch.no_grad()
    def asked(wavs):
        """Logits of the explained classifier's classes."""
        logits = classify(resample(wavs, explained.sample_rate, RATE))
        if multilabel and not prepared.data.several:
            logits = logits.softmax(1).logit(_LEAST)
        found = logits.new_full((len(wavs), len(known)), logits.min())
        found[:, places] = logits
        return found

    return asked


def _load_cnn(setup):
    """The small CNN of another seed."""
    prepared = setup.prepared
    keys, seed = prepared.data.classifier_keys, setup.seeds[0] + _APART
    apart = setup._replace(folder=setup.folder / "judge")
    several = prepared.data.several
    yaml = _SEVERAL_YAML if several else _YAML
    folder = trained_run(apart, "classifier", yaml, seed, keys)
    n_classes = len(prepared.classes)
    # The file makes the folders of a run, which nobody needs here.
    with left_alone(), TemporaryDirectory() as unused:
        hparams = load_hparams(
            [
                str(find_yaml(yaml)),
                f"--n_classes={n_classes}",
                f"--output_folder={unused}",
            ]
        )
    names = ("features", "embedding_model", "classifier")
    return load_second_classifier(
        folder / "model",
        {name: hparams[name] for name in names},
        {**frontend(hparams), "multilabel": several},
        prepared.classes,
        folder / "cache",
    )
