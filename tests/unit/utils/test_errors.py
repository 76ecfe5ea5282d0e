"""How a script ends that cannot do what was asked for, or is stopped."""

import errno

import pytest

from lmac_sb.utils import errors
from lmac_sb.utils.errors import LMACError, exit_on_user_error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (LMACError("x.wav: empty"), 1, "error: x.wav: empty\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (
            OSError(errno.ENOSPC, "No space left", "x.wav"),
            1,
            f"error: [Errno {errno.ENOSPC}] No space left: 'x.wav'; free some "
            "space, then start again\n",
        ),
    ],
)
@pytest.mark.parametrize("rank", [None, "0", "1"])
def test_one_line(monkeypatch, capsys, error, code, said, rank):
    """Of several processes, all but the first leave it to that."""
    waited = []
    monkeypatch.setattr(errors.time, "sleep", waited.append)
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)

    @exit_on_user_error
    def main():
        """Fail."""
        raise error

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == code
    assert capsys.readouterr() == ("", said)
    assert bool(waited) == (rank == "1")


def test_others_are_no_mistake_of_the_user():
    @exit_on_user_error
    def main():
        """Have a fault."""
        return {}["key"]

    with pytest.raises(KeyError):
        main()
