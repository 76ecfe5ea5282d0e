"""The command `lmac`, for tests."""

from lmac_sb.cli import main


def run(*arguments):
    """Exit code of a command."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code
