"""Turn a command line into hyperparameters, and check them first."""

import atexit
import contextlib
import dataclasses
import gc
import io
import logging
import sys

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml

from lmac_sb.models.weights import check_device
from lmac_sb.training.arguments import read_arguments
from lmac_sb.training.brain import LOG_CONFIG
from lmac_sb.training.keys import check_values
from lmac_sb.training.run_options import KINDS
from lmac_sb.utils.errors import LMACError, let_out
from lmac_sb.utils.io import check_folder
from lmac_sb.utils.user import help_torch

__all__ = ["Hparams", "load_hparams", "on_cpu"]


class Hparams(dict):
    """Hyperparameters; a missing key raises an error that names the file.

    Arguments
    ---------
    values : dict
        Values loaded by hyperpyyaml.
    file : str
        The yaml file, for messages.
    run_opts : RunOptions or dict
        SpeechBrain's run options.
    overrides : str
        Keys that the command line overrides, as yaml.
    resolved : dict
        The file's content as plain values, with overrides applied and
        references resolved; an object is a dict with its tag.

    Example
    -------
    >>> Hparams({"seed": 1}, "x.yaml")["lr"]
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: x.yaml: key 'lr' is missing
    """

    def __init__(self, values, file, run_opts=None, overrides="", resolved=()):
        super().__init__(values)
        self.file = file
        self.run_opts = run_opts if run_opts is not None else {}
        self.overrides = overrides
        self.resolved = dict(resolved)

    @property
    def directory(self):
        """Arguments of `speechbrain.create_experiment_directory`."""
        return {
            "experiment_directory": self["output_folder"],
            "hyperparams_to_save": self.file,
            "overrides": self.overrides,
            "log_config": LOG_CONFIG,
        }

    def __missing__(self, key):
        raise LMACError(f"{self.file}: key '{key}' is missing")


def load_hparams(argv=None, script=None):
    """Load the yaml file and the overrides of a command line.

    Arguments
    ---------
    argv : list of str
        Arguments of a script: a yaml file, then run options and overrides,
        and ``--quiet`` or ``--verbose``. By default the arguments of this
        process.
    script : str
        Path of the script, to refuse a yaml file of another script.

    Returns
    -------
    Hparams
        Content of the file, with the overrides.

    Raises
    ------
    LMACError
        If the file cannot be read or belongs to another script, an option is
        unknown, given twice or has no value, a value is out of range, or the
        device does not exist. Then no object has been made yet.

    Example
    -------
    >>> load_hparams(["lmac.yaml", "--seed=1", "--seed=2"])
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: command line: --seed is given twice
    """
    # Hide a warning about images in TensorBoard, since none are sent.
    logging.getLogger("speechbrain.utils.train_logger").addFilter(
        lambda record: "torchvision" not in record.getMessage()
    )
    help_torch()
    argv = sys.argv[1:] if argv is None else argv
    given = read_arguments(argv, script)
    run_opts = _run_options(given)
    _check_device(run_opts)
    for key in ("output_folder", "save_folder"):
        if isinstance(given.resolved.get(key), str):
            check_folder(given.resolved[key], key)
    if on_cpu(run_opts) and run_opts["distributed_backend"] == "nccl":
        # The usual one is for GPUs alone. A Brain reads what was given alone.
        run_opts = dataclasses.replace(
            run_opts,
            distributed_backend="gloo",
            overridden_args={*run_opts.overridden_args, "distributed_backend"},
        )
    _join_group(run_opts)
    try:
        values = load_hyperpyyaml(given.text, given.overrides)
    except LMACError:
        raise
    except Exception as error:
        let_out(error)
        # A yaml can call anything; hyperpyyaml wraps what that raises.
        cause = error.__cause__ or error
        line = " ".join(str(cause).split())
        raise LMACError(f"{given.file}: {line}") from error
    return Hparams(
        values, given.file, run_opts, given.overrides, given.resolved
    )


def on_cpu(run_opts):
    """Whether a run computes on a CPU.

    Arguments
    ---------
    run_opts : RunOptions or dict
        SpeechBrain's run options.

    Returns
    -------
    bool

    Example
    -------
    >>> on_cpu({"device": "cpu"})
    True
    """
    return run_opts["device"] == "cpu" or not torch.cuda.is_available()


def _run_options(given):
    """SpeechBrain's run options of a command line."""
    complaint, argv = io.StringIO(), [given.file, *given.run_options]
    try:
        with contextlib.redirect_stderr(complaint):
            _, run_opts, _ = sb.parse_arguments(argv)
    except SystemExit as stop:
        reason = complaint.getvalue().strip().splitlines()[-1]
        reason = reason.partition("error: ")[2] or reason
        raise LMACError(f"command line: {reason}") from stop
    limit = run_opts["optimizer_step_limit"]
    with contextlib.suppress(TypeError, ValueError):
        # SpeechBrain leaves it as text.
        run_opts = dataclasses.replace(
            run_opts, optimizer_step_limit=int(limit)
        )
    given = {key: run_opts[key] for key in run_opts.overridden_args}
    check_values(given, "command line", "--", KINDS)
    if run_opts["jit"] or run_opts["jit_module_keys"] is not None:
        raise LMACError(
            "command line: --jit is not supported, since TorchScript cannot "
            "compile these networks; leave it out"
        )
    if run_opts["compile_module_keys"] is not None and not run_opts["compile"]:
        raise LMACError(
            "command line: --compile_module_keys needs --compile too"
        )
    if run_opts["ckpt_interval_minutes"] and run_opts["ckpt_interval_steps"]:
        raise LMACError(
            "command line: --ckpt_interval_minutes and --ckpt_interval_steps "
            "are given, expected one of them"
        )
    return run_opts


def _check_device(run_opts):
    """Refuse a device that does not exist, or a precision that it lacks."""
    if run_opts["data_parallel_backend"]:
        raise LMACError(
            "data_parallel_backend: not supported, expected several processes: "
            "torchrun --nproc_per_node 2 ..."
        )
    name = run_opts["device"]
    device = check_device(name or "cpu")
    if device.type == "mps":
        raise LMACError(
            "device: mps has no floats of 64 bits, which the metrics need; "
            "expected cpu or cuda"
        )
    if device.type == "cuda" or (name is None and torch.cuda.is_available()):
        return
    for key in ("precision", "eval_precision"):
        if run_opts[key] == "fp16":
            raise LMACError(
                f"{key}: fp16 needs a GPU, expected fp32 or bf16 on a CPU"
            )
    if run_opts["auto_mix_prec"]:
        raise LMACError(
            "auto_mix_prec: needs a GPU, expected --precision bf16 on a CPU"
        )


def _join_group(run_opts):
    """Connect the processes of a distributed run, once."""
    if torch.distributed.is_initialized():
        return
    rank = sb.utils.distributed.get_local_rank()
    n_gpus = torch.cuda.device_count()
    needs_gpu = run_opts["distributed_backend"] != "gloo"
    if needs_gpu and rank is not None and rank >= n_gpus:
        raise LMACError(
            f"nproc_per_node: found more processes than GPUs ({n_gpus}), "
            f"expected at most {n_gpus}; without GPUs: --device cpu"
        )
    sb.utils.distributed.ddp_init_group(run_opts)
    # Its threads must end before the Python interpreter does.
    atexit.register(_leave_group)


def _leave_group():
    """Disconnect the processes of a distributed run, if there are several."""
    if torch.distributed.is_initialized():
        # A wrapped module that is still there keeps the group's threads alive.
        gc.collect()
        torch.distributed.destroy_process_group()
