"""``lmac cache``: what is in an audio cache."""

from pathlib import Path

import click

from lmac_sb.cli.usage import PLACE, Command
from lmac_sb.utils.errors import LMACError

__all__ = ["cache"]

HELP = """\
Say what is in an audio cache, and tidy it up.

The clips in its folder are counted by the version of the preprocessing and of
its libraries."""


@click.command("cache", cls=Command, help=HELP)
@click.argument("folder", metavar="FOLDER", type=PLACE)
@click.option(
    "--prune",
    is_flag=True,
    help="delete clips of other versions, which this installation does not "
    "read, and what killed processes left unfinished an hour ago or earlier",
)
def cache(folder, prune):
    """Say what is in an audio cache, and what was deleted.

    Arguments
    ---------
    folder : str
        What was given as audio_cache.
    prune : bool
        Whether clips of other versions are deleted.

    Returns
    -------
    int
        Exit code.
    """
    if not Path(folder, "parts").is_dir():
        raise LMACError(
            f"{folder}: is not an audio cache: it has no folder 'parts'"
        )

    from lmac_sb.data.cache import cache_version, count_cache, prune_cache

    deleted = prune_cache(folder) if prune else {}
    found = count_cache(folder)
    used = cache_version()
    print(_amount(f"{used} (in use here)", *found.pop(used, (0, 0))))
    for version in sorted(found):
        print(_amount(version, *found[version]))
    for version in sorted(deleted):
        print(f"deleted: {_amount(version, *deleted[version])}")
    if prune and not deleted:
        print("nothing to delete")
    return 0


def _amount(version, n_clips, n_bytes):
    """Clips and bytes of a version, for a person."""
    noun = "clip" if n_clips == 1 else "clips"
    return f"{version}: {n_clips} {noun}, {n_bytes / 1e6:.1f} MB"
