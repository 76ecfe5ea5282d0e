"""Tests of the table that tells when the sound of a clip is heard."""

import pytest

from lmac_sb.data.regions import read_regions
from lmac_sb.utils.errors import LMACError


def read(folder, *lines):
    """Regions of a folder with these lines."""
    (folder / "meta").mkdir()
    text = "\n".join(["filename,onset,offset", *lines])
    path = folder / "meta" / "active_regions.csv"
    path.write_text(text, encoding="utf-8")
    return read_regions(folder)


def test_regions(tmp_path):
    """Of one clip there may be several."""
    found = read(tmp_path, "a.wav,0,0.5", "b.ogg,1.25,3", "a.wav,1,2")
    assert found == {"a": [(0.0, 0.5), (1.0, 2.0)], "b": [(1.25, 3.0)]}


@pytest.mark.parametrize(
    "line, message",
    [
        ("b.wav,one,2", "expected onset and offset in seconds"),
        ("b.wav,2,1", "onset 2 and offset 1, expected 0 <= onset < offset"),
        ("b.wav,1,1", "onset 1 and offset 1"),
        ("b.wav,nan,1", "onset nan and offset 1"),
        ("b.wav,0,inf", "onset 0 and offset inf"),
        ("b.wav,-1,1", "onset -1 and offset 1"),
    ],
)
def test_what_is_no_region(tmp_path, line, message):
    """The message names the line."""
    with pytest.raises(LMACError) as error:
        read(tmp_path, "a.wav,0,0.5", line)
    assert message in str(error.value)
    assert "active_regions.csv, line 3: " in str(error.value)
