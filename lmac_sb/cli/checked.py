"""What is refused before torch is imported, which takes seconds.

The same is checked again where it is used, and more of it: only what can be
seen at once is looked at here.
"""

import os
import sys
from pathlib import Path

from lmac_sb.cli.usage import MODELS
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import check_is_folder, check_readable
from lmac_sb.utils.near import near

__all__ = ["check_explained", "check_model", "missing_sounds"]

_OWN = ("esc10",)  # those of `MODELS` that come with their decoder
_TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".tgz")
# One of these is in the folder of any model.
_MARKS = (
    *("hyperparams.yaml", "config.json", "SHA256SUMS", "experiment.json"),
    "interpreter/classifier.json",
)


def check_model(model, **listened):
    """Refuse a model that is not there, or options that it does not take.

    Arguments
    ---------
    model : str or None
        As the command line names it; None for the default.
    **listened
        Options on how a classifier of others is heard, as they were given.

    Raises
    ------
    LMACError
        If it is a path, and nothing there can be a model, or be read.

    Example
    -------
    >>> check_model("yamnet"), check_model("name/repository")
    (None, None)
    >>> check_model("esc11")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: esc11: no such folder, expected a model; did you mean \
'esc10'?
    """
    if model in _OWN:
        for name, value in listened.items():
            if value is not None:
                raise LMACError(
                    f"{name}: found {shown(value)}, but {model} is made "
                    "already; expected it of a classifier of others"
                )
    # A program may have named more of them; without it torch is not imported.
    named = getattr(sys.modules.get("lmac_sb.adapters.named"), "NAMED", ())
    if model is None or model in {*MODELS, *named} or ":" in model:
        return
    folder = Path(model)
    check_readable(folder, "--model")
    is_path = model.startswith((".", "/", "~")) or model.count("/") != 1
    if folder.is_file():
        raise LMACError(
            f"{model}: found a file, expected a folder; of weights alone, "
            "build their module, load them and pass the module"
        )
    if not folder.exists():
        if is_path:  # and no name of a hub
            hint = near(model, MODELS)
            if not hint and "/" not in model:
                hint = f", or one of {', '.join(MODELS)}"
            raise LMACError(f"{model}: no such folder, expected a model{hint}")
        return
    if not any((folder / mark).is_file() for mark in _MARKS):
        raise LMACError(
            f"{model}: found neither hyperparams.yaml nor config.json, "
            "expected the folder of a SpeechBrain or Hugging Face classifier; "
            "a module of your own is passed as an object"
        )


def check_explained(folder):
    """Refuse what can hold no explanations.

    Arguments
    ---------
    folder : str
        Of `lmac explain` or an audit.

    Raises
    ------
    LMACError
        If there is no such folder, or nothing in it.

    Example
    -------
    >>> check_explained("nowhere")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: nowhere: no such folder of explanations
    """
    check_is_folder(folder, "explanations")
    if not any(Path(folder).iterdir()):
        raise LMACError(
            f"{folder}: holds no explained clips, expected one sub-folder for "
            "each clip"
        )


def missing_sounds(files):
    """Those that are named one by one, if none of them is there.

    Arguments
    ---------
    files : list of str
        What `lmac explain` is given.

    Returns
    -------
    dict
        Each to what is said of it; empty if there is something to explain.

    Example
    -------
    >>> missing_sounds(["gone.wav"]), missing_sounds([str(path), "gone.wav"])
    ({'gone.wav': 'gone.wav: no such audio file'}, {})
    >>> missing_sounds(["gone/"])
    {'gone/': 'gone/: no such file or folder'}
    """
    # Braces stand for several files; a table is opened as a whole.
    if any(_may_be_there(x) or "{" in x or not _is_sound(x) for x in files):
        return {}
    return {
        file: f"{file}: no such "
        + ("audio file" if Path(file).suffix else "file or folder")
        for file in files
    }


def _may_be_there(name):
    """Whether something has a name, as far as this user may look."""
    try:
        os.stat(name)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _is_sound(name):
    """Whether a name is of no table or shard, whose errors are others."""
    ending = Path(name).suffix.lower()
    return ending not in _TABLES and ".tar" not in name.lower()
