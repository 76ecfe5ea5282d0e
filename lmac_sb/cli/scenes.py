"""``lmac scenes``: make scenes whose explanation is known."""

import os
from pathlib import Path

import click

from lmac_sb.cli.said import command_line, say_next
from lmac_sb.cli.usage import NUMBER, PLACE, WHOLE, Command
from lmac_sb.utils.ending import ends_in_order

__all__ = ["scenes"]

HELP = """\
Make scenes whose explanation is known, to train and test on.

Generated ones, whose events are sweeps, trills and clicks; or with --real
soundscapes: recordings of events and of other sounds, in ambient recordings.

\b
examples:
  lmac scenes scenes
  lmac scenes soundscapes --real --foregrounds ESC-50 --ambients wham_noise \\
      --distractors speech --distractors music
"""
_READ = ("fold", "category")
_GENERATED = {"n_folds"}
_REAL = {
    *("foregrounds", "ambients", "distractors", "folds", "snr_db", "loud_db"),
    *("sample_rate", "skip_bad_clips"),
}
_DATA = "LMAC_SB_DATA"  # names a folder with recordings
# What soundscapes are made of there.
_DEFAULTS = {
    "foregrounds": ("esc10",),
    "ambients": ("noise",),
    "distractors": ("fsdd", "speech"),
}


class _Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "numbers"

    def __init__(self, kind):
        self._kind = kind

    def convert(self, value, param, ctx):
        """The numbers that a text stands for, in brackets or not."""
        words = value.strip("[]").split(",")
        return tuple(self._kind.convert(x.strip(), param, ctx) for x in words)


_WHOLES, _NUMBERS = _Numbers(WHOLE), _Numbers(NUMBER)


def _folders(name, help):
    """An option that names folders of sounds."""
    return click.option(
        name, metavar="FOLDER", type=PLACE, multiple=True, help=help
    )


@click.command("scenes", cls=Command, help=HELP)
@click.argument("out", metavar="OUT", type=PLACE)
@click.option("--real", is_flag=True, help="make soundscapes of recordings")
@_folders("--foregrounds", "clips with labels, as in ESC-50 (may be repeated)")
@_folders("--ambients", "ambient recordings, as in WHAM! (may be repeated)")
@_folders("--distractors", "sounds of other classes (may be repeated)")
@click.option(
    "--clips_per_class",
    metavar="N",
    type=WHOLE,
    help="scenes of each class in each fold (default: 8; real: 25)",
)
@click.option(
    "--n_folds",
    metavar="N",
    type=WHOLE,
    help="of generated ones: number of folds (default: 5)",
)
@click.option(
    "--folds",
    metavar="N,...",
    type=_WHOLES,
    help="of real ones: folds of the foregrounds to use (default: all)",
)
@click.option(
    "--duration_s",
    metavar="S",
    type=NUMBER,
    help="length of a scene in seconds (default: 2; real: 5)",
)
@click.option(
    "--n_events",
    metavar="N,...",
    type=_WHOLES,
    help="possible numbers of events in a scene (default: 1)",
)
@click.option(
    "--snr_db",
    metavar="LOW,HIGH",
    type=_NUMBERS,
    help="of real ones: level of an event over the rest (default: -5,20)",
)
@click.option(
    "--loud_db",
    metavar="LOW,HIGH",
    type=_NUMBERS,
    help="of real ones: level of the loud distractor over the loudest event "
    "(default: 3,12)",
)
@click.option(
    "--sample_rate",
    metavar="HZ",
    type=WHOLE,
    help="of real ones (default: 16000)",
)
@click.option(
    "--skip_bad_clips",
    is_flag=True,
    default=None,
    help="of real ones: leave out sounds that cannot be used, and list them",
)
@click.option(
    "--seed", metavar="N", type=WHOLE, help="of all random draws (default: 0)"
)
@click.pass_context
def scenes(ctx, out, real, **options):
    """Make scenes, and say what to do with them.

    Arguments
    ---------
    ctx : click.Context
        For errors of usage.
    out : str
        Folder for the scenes.
    real : bool
        Whether they are made of recordings.
    **options
        Of `make_scenes` and `make_soundscapes`; None or empty for the
        default.

    Returns
    -------
    int
        Exit code.
    """
    from lmac_sb.data.manifest import labels_of
    from lmac_sb.data.table import read_table

    given = {key: x for key, x in options.items() if x not in (None, ())}
    only = _GENERATED if real else _REAL
    for key in sorted(only & given.keys()):
        how = "without" if real else "with"
        ctx.fail(f"argument --{key}: is only used {how} --real")
    with ends_in_order():
        folder = (_make_real if real else _make_generated)(ctx, out, given)
    rows = [row for _, row in read_table(folder / "meta" / "esc50.csv", _READ)]
    classes = {x for row in rows for x in labels_of(row["category"])}
    folds = sorted({int(row["fold"]) for row in rows})
    print(
        f"scenes: {folder} ({len(rows)} of {len(classes)} classes, in "
        f"{'fold' if len(folds) == 1 else 'the folds'} "
        f"{', '.join(map(str, folds))})"
    )
    if len(folds) > 2:
        several = any("+" in row["category"] for row in rows)
        say_next(_training(folder, len(classes), folds, several))
    return 0


def _make_generated(ctx, out, given):
    """Make scenes of generated sounds."""
    from lmac_sb.data.scenes import make_scenes

    return make_scenes(out, **given)


def _make_real(ctx, out, given):
    """Make soundscapes, of the recordings in LMAC_SB_DATA by default."""
    from lmac_sb.data.soundscapes import make_soundscapes

    places = {role: given.pop(role, ()) for role in _DEFAULTS}
    data = os.environ.get(_DATA)
    for role, names in _DEFAULTS.items():
        if not places[role] and not data:
            ctx.fail(
                f"argument --{role}: is missing, expected a folder; or name "
                f"one with {', '.join(names)} in {_DATA}"
            )
        places[role] = places[role] or [Path(data, name) for name in names]
    return make_soundscapes(out, **places, **given)


def _training(folder, n_classes, folds, several):
    """The command that trains a classifier on the scenes."""
    name = "classifier_multilabel" if several else "classifier_conv"
    words = ["--data_folder", folder, "--n_classes", n_classes]
    *train, valid, test = folds
    for split, nums in (("train", train), ("valid", [valid]), ("test", [test])):
        words += [f"--{split}_fold_nums", str(nums)]
    return command_line("train", name, *words)
