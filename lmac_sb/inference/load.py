"""From whatever names a model to an interpreter of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lmac_sb.adapters.named import NAMED, default_name, is_named
from lmac_sb.inference.export import load_interpreter as load_own
from lmac_sb.inference.interpreter import LMACInterpreter
from lmac_sb.inference.reference import is_import_path
from lmac_sb.inference.saved import refuse_options
from lmac_sb.models.source import (
    HPARAMS,
    cached_file,
    is_local,
    not_fetched,
    on_hub,
)
from lmac_sb.training.identity import EXPERIMENT
from lmac_sb.utils.checksums import SUMS
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.given import read_given

__all__ = ["default_model", "is_own", "load_interpreter"]

_MARK = b"lmac_sb."  # names our classes in a yaml


def default_model() -> str:
    """The model that is taken where none is given.

    Returns
    -------
    str
        Its name, which is printed as well, with the reason.

    Example
    -------
    >>> default_model() in ("yamnet", "esc10")
    True
    """
    name, why = default_name()
    print(why, file=sys.stderr)
    return name


def load_interpreter(
    source: Any, trusted: bool = False, **options: Any
) -> LMACInterpreter:
    """Load what is named, whoever made it.

    Arguments
    ---------
    source : str, Path or object
        A folder that `lmac export` or `LMACInterpreter.save` wrote, that of a
        finished run, that of a SpeechBrain or Hugging Face classifier, the
        hub id of one of these, a name such as ``"esc10"``, or
        ``package.module:function``. Anything else
        goes to `LMACInterpreter.from_classifier`; an interpreter is given
        back as it is.
    trusted : bool
        Whether code that comes with it may run.
    **options
        Of `LMACInterpreter.from_classifier`, for classifiers of others; of
        what is made already, `run_opts` alone.

    Returns
    -------
    lmac_sb.LMACInterpreter

    Raises
    ------
    LMACError
        If it cannot be loaded, or has no such option.

    Example
    -------
    >>> load_interpreter(model).classes
    ['cat', 'cow', 'dog']
    """
    if isinstance(source, LMACInterpreter):
        given = sorted(set(options) - {"sound"})
        if given:
            raise LMACError(
                f"{given[0]}: of no use to an interpreter, which is made "
                "already; expected it of from_classifier"
            )
        return source
    ours = is_named(source) and NAMED[source].is_ours
    if ours:
        options.pop("decoder", None)  # it has no other way to explain
    if ours or is_own(source):
        options.pop("sound", None)  # on which those of others are tried
        run_opts = options.pop("run_opts", None)
        refuse_options(options, source)
        if ours:
            return LMACInterpreter.from_pretrained(source, run_opts=run_opts)
        return load_own(source, trusted, run_opts)
    if trusted:
        options["trusted"] = True
    if is_named(source):
        return LMACInterpreter.from_pretrained(source, **options)
    if options.pop("decoder", False):
        raise LMACError(
            f"decoder: found it asked for {shown(source)}, expected a name "
            "such as yamnet; of other classifiers, lmac_sb.fit trains one"
        )
    return LMACInterpreter.from_classifier(source, **options)


def is_own(source: Any) -> bool:
    """Whether a source is a run or a model folder of this package.

    Arguments
    ---------
    source : object
        See `load_interpreter`. What does not exist counts as one, unless it
        is the id of a hub repository that holds another model.

    Returns
    -------
    bool

    Raises
    ------
    LMACError
        If a hub has to be asked, and does not answer.

    Example
    -------
    >>> is_own(model), is_own("my.models:load"), is_own("yamnet")
    (True, False, False)
    """
    if not isinstance(source, (str, Path)) or is_import_path(source):
        return False
    if is_named(source):
        return False
    folder = Path(source)
    if not is_local(on_hub(source)[0]):
        return _is_own_on_hub(str(source))
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    if (folder / EXPERIMENT).is_file():
        return True
    yaml = folder / HPARAMS
    if yaml.is_file():
        return _MARK in read_given(yaml).encode()
    return (folder / SUMS).is_file()


def _is_own_on_hub(source: str) -> bool:
    """The same of a hub repository."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    path = cached_file(source, HPARAMS)
    if path is None and cached_file(source, "config.json") is not None:
        return False
    if path is None:
        repository, revision = on_hub(source)
        try:
            path = hf_hub_download(repository, HPARAMS, revision=revision)
        except EntryNotFoundError:
            return False
        except Exception as error:
            # Each request is tried for long, so no other follows.
            raise not_fetched(source, error) from error
    return _MARK in read_given(path).encode()
