"""The command ``lmac``: explain sounds, show and share the results."""

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from pathlib import Path

import lmac_sb
from lmac_sb.utils.errors import LMACError, exit_on_user_error

__all__ = ["main"]

# The heavy modules are imported by the commands that need them, so that
# --help and a mistyped option answer at once.

EXAMPLES = """\
examples:
  lmac explain *.wav --model results/bundle --out explained
  lmac report explained
  lmac export results/lmac/1234 results/bundle
  lmac cache /fast/disk/cache --prune
  lmac doctor
"""

_NAME_BYTES = 150  # of an output folder's name


@exit_on_user_error
def main(argv=None):
    """Run the command line.

    Arguments
    ---------
    argv : list of str
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit code: 0, or 1 if something could not be done.

    Example
    -------
    >>> main(["--version"])
    Traceback (most recent call last):
    ...
    SystemExit: 0
    """
    options = _parser().parse_args(argv)
    try:
        return options.run(options)
    except BrokenPipeError:
        # Who reads the output has had enough, such as `head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser():
    """The commands and their options."""
    parser = argparse.ArgumentParser(
        prog="lmac",
        description="Hear and see why a sound classifier decided.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"lmac {lmac_sb.__version__}"
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )

    explain = commands.add_parser(
        "explain",
        help="explain the decisions on sound files",
        description="Explain the decision of a model on each file: what it "
        "rests on and the rest as sounds, a picture and figures, in one "
        "folder a file. Files that cannot be used are listed at the end; the "
        "exit code is then 1.",
    )
    explain.add_argument("files", nargs="+", metavar="FILE", help="sound file")
    explain.add_argument(
        "--model",
        required=True,
        metavar="FOLDER",
        help="folder written by `lmac export`, or a hub id (name/repository)",
    )
    explain.add_argument(
        "--out", required=True, metavar="DIR", help="where the results go"
    )
    explain.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="make the mask 0 or 1 at this value in (0, 1]; default: as it is",
    )
    explain.add_argument(
        "--target",
        metavar="CLASS",
        help="class to explain, by name or number; default: the decision",
    )
    explain.add_argument(
        "--refine",
        type=int,
        metavar="K",
        help="improve each mask by up to K gradient steps, for 4 K + 2 passes "
        "of the classifier besides the usual 3; the decoder's own "
        "explanation goes to `unrefined` in the clip's folder, and the report "
        "compares both; default: as the model has it, mostly 0",
    )
    explain.add_argument(
        "--format",
        choices=["wav", "flac"],
        default="wav",
        help="of the written sounds (default: wav)",
    )
    explain.add_argument(
        "--json", action="store_true", help="print the results as JSON"
    )
    explain.add_argument(
        "--trust",
        action="store_true",
        help="let the model's yaml run any code: only if you know its maker",
    )
    explain.set_defaults(run=_explain)

    report = commands.add_parser(
        "report",
        help="make a page of a folder of explanations",
        description="Write one HTML page, which needs no network, for what "
        "`lmac explain --out DIR` wrote.",
    )
    report.add_argument("folder", metavar="DIR", help="folder of explanations")
    report.add_argument(
        "--beside",
        action="store_true",
        help="leave the sounds where they are, beside the page, not inside it",
    )
    report.set_defaults(run=_report)

    export = commands.add_parser(
        "export",
        help="make a folder that anyone can load out of a run",
        description="Write model, class names, checksums and a model card of "
        "a finished run of train_lmac.py.",
    )
    export.add_argument("run_folder", metavar="RUN", help="the run's folder")
    export.add_argument("out_folder", metavar="OUT", help="new folder")
    export.add_argument(
        "--license",
        default="apache-2.0",
        metavar="ID",
        help="licence of the model, for its card (default: apache-2.0)",
    )
    export.add_argument(
        "--push",
        metavar="REPOSITORY",
        help="upload it to the Hugging Face hub as name/repository",
    )
    export.set_defaults(run=_export)

    cache = commands.add_parser(
        "cache",
        help="say what is in an audio cache, tidy it up",
        description="Count the clips in the folder of an audio cache by the "
        "version of the preprocessing and of its libraries.",
    )
    cache.add_argument(
        "folder", metavar="FOLDER", help="what was given as audio_cache"
    )
    cache.add_argument(
        "--prune",
        action="store_true",
        help="delete clips of other versions, which this installation does "
        "not read, and what killed processes left unfinished an hour ago or "
        "earlier",
    )
    cache.set_defaults(run=_cache)

    doctor = commands.add_parser(
        "doctor",
        help="check this installation",
        description="Print versions, device and audio formats, and explain a "
        "generated sound with a tiny model.",
    )
    doctor.set_defaults(run=_doctor)
    return parser


def _explain(options):
    """Explain files one by one."""
    from tqdm import tqdm

    from lmac_sb.inference.interpreter import LMACInterpreter

    if options.threshold is not None and not 0 < options.threshold <= 1:
        raise LMACError(f"--threshold: {options.threshold} is not in (0, 1]")
    if options.refine is not None and options.refine < 0:
        raise LMACError(
            f"--refine: {options.refine}, expected a whole number from 0"
        )
    interpreter = LMACInterpreter.from_hparams(
        options.model, trusted=options.trust
    )
    target = options.target
    if target not in interpreter.classes and (target or "").isdecimal():
        target = int(target)
    if target is not None:
        # Before the first file, as it is wrong for all of them.
        interpreter.class_number(target)
    if options.refine is not None:
        interpreter.explainer.check_refinement(options.refine)
    out = Path(options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LMACError(f"--out: {out} cannot be made ({error})") from error
    done, failed = [], []
    bar = tqdm(options.files, unit="file", disable=None)
    for file in bar:
        try:
            explanation = interpreter.explain_file(
                file, target, options.threshold, options.refine, unrefined=True
            )
            folder = _own_folder(out, file)
            explanation.save(folder, options.format)
        except (LMACError, OSError) as error:
            failed.append({"file": file, "error": str(error)})
            continue
        result = _result(file, folder, explanation)
        done.append(result)
        if not options.json:
            bar.write(_line(result), file=sys.stdout)
    if options.json:
        # Escaped, so that any terminal and any file name will do.
        print(json.dumps({"results": done, "errors": failed}, indent=1))
    elif failed:
        print(f"{len(failed)} of {len(options.files)} files failed:")
        for row in failed:
            print(f"  {_printable(row['error'])}")
    return 1 if failed else 0


def _result(file, folder, explanation):
    """What is told of one file."""
    return {
        "file": file,
        "folder": str(folder),
        "class": explanation.labels[0],
        "p": float(explanation.p_before[0]),
        "p_inside": float(explanation.p_inside[0]),
        "p_outside": float(explanation.p_outside[0]),
        "top": [list(pair) for pair in explanation.top()[0]],
        "refine_steps": explanation.refine_steps,
        "windows": explanation.windows[0],
    }


def _line(result):
    """One line for a person."""
    return _printable(
        f"{result['file']}: {result['class']}, p {result['p']:.3f}, inside "
        f"{result['p_inside']:.3f}, outside {result['p_outside']:.3f} -> "
        f"{result['folder']}"
    )


def _printable(text):
    """Text without control characters, and as the terminal can show it."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _own_folder(out, file):
    """Folder below `out` that is this file's own, whatever its name."""
    # Letters of any language stay; what has a meaning in paths goes.
    stem = re.sub(r"[^\w .+-]", "_", Path(file).stem).strip(" .")
    stem = stem.encode()[:_NAME_BYTES].decode(errors="ignore") or "clip"
    taken = {path.name.casefold() for path in out.iterdir()}
    name, number = stem, 1
    while name.casefold() in taken and not _is_of(out / name, file):
        number += 1
        name = f"{stem}_{number}"
    return out / name


def _is_of(folder, file):
    """Whether a folder holds an earlier explanation of the same file."""
    try:
        text = (folder / "explanation.json").read_text(encoding="utf-8")
        return json.loads(text)["file"] == str(file)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _report(options):
    """Write the page."""
    from lmac_sb.pages.report import write_report

    page = write_report(options.folder, embed=not options.beside)
    print(f"report: {page}")
    return 0


def _export(options):
    """Export a run, and upload it if asked to."""
    from lmac_sb.inference.export import export_run, push

    folder = export_run(
        options.run_folder, options.out_folder, options.license, options.push
    )
    print(f"exported: {folder}")
    if options.push:
        print(f"pushed: {push(folder, options.push)}")
    return 0


def _cache(options):
    """Say what is in an audio cache, and what was deleted."""
    from lmac_sb.data.cache import cache_version, count_cache, prune_cache

    deleted = prune_cache(options.folder) if options.prune else {}
    found = count_cache(options.folder)
    used = cache_version()
    print(_amount(f"{used} (in use here)", *found.pop(used, (0, 0))))
    for version in sorted(found):
        print(_amount(version, *found[version]))
    for version in sorted(deleted):
        print(f"deleted: {_amount(version, *deleted[version])}")
    if options.prune and not deleted:
        print("nothing to delete")
    return 0


def _amount(version, n_clips, n_bytes):
    """Clips and bytes of a version, for a person."""
    noun = "clip" if n_clips == 1 else "clips"
    return f"{version}: {n_clips} {noun}, {n_bytes / 1e6:.1f} MB"


def _doctor(options):
    """Versions, device, audio, and a self-test."""
    print(
        f"lmac-sb      {lmac_sb.__version__} ({Path(lmac_sb.__file__).parent})"
    )
    print(f"python       {platform.python_version()}, {platform.platform()}")
    healthy = True
    for name, check in (
        ("packages", _check_packages),
        ("device", _check_device),
        ("audio", _check_audio),
        ("self-test", _check_explainer),
    ):
        try:
            answer = check()
        except Exception as error:
            # Whatever is broken here is what the user wants to know.
            answer = f"FAILED: {type(error).__name__}: {error}"
            healthy = False
        print(f"{name:12} {answer}")
    print("all is well" if healthy else "something is wrong, see FAILED above")
    return 0 if healthy else 1


def _check_packages():
    """Versions of what does the work."""
    from importlib.metadata import version

    names = ("torch", "torchaudio", "speechbrain", "soundfile", "safetensors")
    return ", ".join(f"{name} {version(name)}" for name in names)


def _check_device():
    """What torch computes on."""
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return f"cpu, {torch.get_num_threads()} threads"


def _check_audio():
    """Write and read a sound in each format."""
    import numpy as np
    import soundfile as sf

    from lmac_sb.data.audio import read_audio

    with tempfile.TemporaryDirectory() as folder:
        for kind in ("wav", "flac", "ogg"):
            path = os.path.join(folder, f"x.{kind}")
            sf.write(path, np.zeros((8000, 2)), 8000)
            if len(read_audio(path, 16000)) != 16000:
                raise LMACError(f"{kind}: another length than was written")
    return f"libsndfile {sf.__libsndfile_version__}: wav, flac, ogg"


def _check_explainer():
    """Explain noise with an untrained model; the parts must add up to it."""
    import torch

    from lmac_sb.explain.explainer import Explainer
    from lmac_sb.models.decoder import MaskDecoder
    from lmac_sb.models.encoders import ConvEmbedding
    from lmac_sb.models.features import SpectralFeatures
    from lmac_sb.models.frozen import FrozenClassifier

    classifier = FrozenClassifier(
        ConvEmbedding(40, [4, 8]), torch.nn.Linear(8, 2), ["blocks.1"], 2
    )
    explainer = Explainer(
        SpectralFeatures(n_mels=40),
        classifier,
        MaskDecoder([8, 8], n_mels=40, width=4),
        "linear",
    )
    wavs = torch.rand(1, 16000) - 0.5
    found = explainer(wavs)
    error = float((found.waveform + found.residual - wavs).abs().max())
    if not error < 1e-4:
        raise LMACError(f"interpretation and residual are off by {error:.1e}")
    return f"interpretation + residual = input to {error:.0e}"
