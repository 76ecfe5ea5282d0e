"""Folders as ``lmac audit`` leaves them, made by hand for tests of its page."""

import json

import numpy as np

BANDS = [round(x) for x in 700 * (10 ** (np.linspace(0, 2840, 17) / 2595) - 1)]
HUM = {"low": 20.0, "high": 250.0}


def profile(edges, name, peak, width=2.0):
    """Means over sixteen parts, with a peak, and intervals."""
    places = np.arange(16)
    mean = np.exp(-((places - peak) ** 2) / width)
    mean /= mean.sum()
    return {
        name: edges,
        "mean": mean.tolist(),
        "low": (mean * 0.8).tolist(),
        "high": (mean * 1.2).tolist(),
    }


def group(name, examples, share=0.5, text="high, short"):
    """A group of alike explanations."""
    return {
        "name": name,
        "n": 16,
        "share": [share, share - 0.1, share + 0.1],
        "text": text,
        "examples": examples,
    }


def one_class(name, examples=(), n=32, n_wrong=2, peak=4, **changes):
    """What an audit says of a class."""
    return {
        "name": name,
        "n": n,
        "n_wrong": n_wrong,
        "labelled": None if n_wrong is None else {"n": n, "n_missed": 1},
        "verdicts": {
            "faithful": [0.75, 0.6, 0.86],
            "unfaithful: the rest decides the same": [0.25, 0.14, 0.4],
        },
        "area": [0.31, 0.28, 0.34],
        "fidelity": {"AI": [40.0, 30.0, 50.0], "FF": [0.5, 0.4, 0.6]},
        "bands": profile(BANDS, "edges_hz", peak),
        "times": profile(np.linspace(0, 1, 17).tolist(), "edges", 8, 20.0),
        "prototypes": list(examples[:2]),
        "outliers": list(examples[2:3]),
        "groups": [
            group("low and long", list(examples[:2])),
            group("high", list(examples[2:3])),
        ],
        **changes,
    }


def alarm(name, examples=(), **changes):
    """An alarm about a hum."""
    return {
        "kind": "band",
        "class": name,
        "where": "20 to 250 Hz",
        "band_hz": [HUM["low"], HUM["high"]],
        "time": None,
        "column": None,
        "effect": [0.62, 0.48, 0.74],
        "effect_of": "probability lost without the band",
        "p": 1e-7,
        "q": 2.1e-5,
        "n": 30,
        "text": f"In 28 of 30 clips that are decided {name}, the decision "
        "falls without 20 to 250 Hz, which lies outside the loud event.",
        "examples": list(examples),
        **changes,
    }


def audit_of(names, examples=None, **changes):
    """A whole ``audit.json``: a hum, a click, a column, and two mistakes.

    Arguments
    ---------
    names : list of str
        Of the classes, at least two.
    examples : dict
        Names of folders to ``id``, ``label`` and ``decision``.
    """
    examples = examples or {}
    heard = list(examples)
    first, second = names[:2]
    click = {
        "kind": "time",
        "where": "the first 5 %",
        "band_hz": None,
        "time": [0, 0.05],
        "text": f"Clips that are decided {second} rest on their start.",
    }
    site = {
        "kind": "column",
        "where": "site = north",
        "band_hz": None,
        "column": "site",
        "effect": [-0.2, -0.3, -0.1],
        "text": "The decision depends on the site.",
    }
    return {
        "made": {
            "model": "esc10",
            "checksum": "0123456789abcdef",
            "lmac_sb": "0.2.0",
            "torch": "2.11.0",
            "date": "2026-11-27",
            "correction": "Benjamini-Hochberg, q at most 0.05",
        },
        "corpus": {
            "name": "scenes",
            "n_clips": 32 * len(names),
            "n_failed": 1,
            "labels": True,
            "columns": ["site"],
        },
        "failed": [{"id": "broken.wav", "error": "broken.wav: truncated"}],
        "classes": [
            one_class(name, heard[i : i + 3], peak=2 + 3 * (i % 5))
            for i, name in enumerate(names)
        ],
        "alarms": [
            alarm(first, heard[:4]),
            alarm(second, heard[1:3], **click),
            alarm(first, heard[2:3], **site),
        ],
        "n_tests": 214,
        "confusions": [
            {
                "label": first,
                "decision": second,
                "n": 5,
                "text": f"What spoke for {second} is mostly low.",
                "groups": [group("low", heard[3:5])],
            }
        ],
        "examples": examples,
        "plots": [{"file": "plots/classes.png", "text": "all classes"}],
        "notes": ["Intervals are of 95 %."],
        **changes,
    }


def write_audit(folder, audit):
    """Write an ``audit.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "audit.json"
    path.write_text(json.dumps(audit), encoding="utf-8")
    return folder
