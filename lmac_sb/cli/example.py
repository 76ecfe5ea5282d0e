"""``lmac try``: explain a sound that comes with the package."""

from pathlib import Path

import click

from lmac_sb.cli.explain import DEFAULT_MODEL, explain
from lmac_sb.cli.report import report
from lmac_sb.cli.said import command_line
from lmac_sb.cli.usage import PLACE, Command
from lmac_sb.utils.errors import LMACError

__all__ = ["example"]

HELP = """\
Explain a sound that comes with the package.

A siren wails while a clock ticks loudly. It is explained as YAMNet hears it,
and a page is made to look at and listen to. It takes seconds; YAMNet's weights
are needed (see lmac models)."""


@click.command("try", cls=Command, help=HELP)
@click.option(
    "--out",
    metavar="DIR",
    default="lmac_try",
    type=PLACE,
    help="folder for the sound and its explanation (default: lmac_try)",
)
def example(out):
    """Explain the example by the commands that a user would give next.

    Arguments
    ---------
    out : str
        Folder for the sound and its explanation.

    Returns
    -------
    int
        Exit code.
    """
    import soundfile as sf

    from lmac_sb.adapters.named import NAMED
    from lmac_sb.data.example import siren_and_clock
    from lmac_sb.utils.io import write_in_one_step

    if not NAMED[DEFAULT_MODEL].is_here:
        raise LMACError(
            f"{DEFAULT_MODEL}: its weights are not installed, expected them: "
            f"{NAMED[DEFAULT_MODEL].install}"
        )
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    sound, explained = out / "siren_and_clock.wav", out / "explained"
    wav = siren_and_clock(16000).numpy()
    write_in_one_step(
        sound, lambda file: sf.write(file, wav, 16000, format="WAV"), True
    )
    print(f"the sound, a siren and a clock: {sound}")
    for command, words in (
        (explain, [sound, "--model", DEFAULT_MODEL, "--out", explained]),
        (report, [explained]),
    ):
        words = [str(word) for word in words]
        print(f"$ {command_line(command.name, *words)}", flush=True)
        status = command.main(words, command.name, standalone_mode=False)
        if status:
            return status
    print("then, with a sound of yours:")
    for words in (
        ("explain", "SOUND", "--model", DEFAULT_MODEL, "--out", "explained"),
        ("report", "explained"),
    ):
        print(f"  {command_line(*words)}")
    return 0
