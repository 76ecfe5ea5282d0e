"""The sounds that are made here: sound, and the same each time."""

import pytest
import soundfile as sf
import torch

from lmac_sb import LMACError
from lmac_sb.data.example import EXAMPLES, write_example


@pytest.mark.parametrize("name", EXAMPLES)
def test_they_are_always_the_same(name):
    make = EXAMPLES[name].make
    torch.manual_seed(7)
    sound = make(16000)
    torch.manual_seed(8)
    assert torch.equal(sound, make(16000))
    assert sound.isfinite().all() and 4 <= len(sound) / 16000 <= 5
    assert sound.std() > 0.01


@pytest.mark.parametrize("name", ["baby_in_rain", "helicopter"])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_any_rate_without_clipping(name, rate):
    sound = EXAMPLES[name].make(rate, 3.0)
    assert len(sound) == 3 * rate and sound.abs().max() < 1


def test_a_file(tmp_path):
    path, what = write_example(tmp_path / "new", "helicopter")
    samples, rate = sf.read(path)
    assert (path.name, what) == ("helicopter.wav", "a helicopter")
    assert (len(samples), rate) == (80000, 16000)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "f").touch()
    for name, why in (("f", "File exists"), ("f/x", "Not a directory")):
        with pytest.raises(LMACError) as caught:
            write_example(tmp_path / name)
        assert str(caught.value) == (
            f"{tmp_path / name}: cannot be made or written to ({why})"
        )


@pytest.mark.parametrize(
    ("model", "name"),
    [("yamnet", "siren_and_clock"), ("esc10", "baby_in_rain"), (None, "baby")],
)
def test_what_a_model_knows(model, name, tmp_path):
    assert write_example(tmp_path, model=model)[0].stem.startswith(name)


def test_no_such_sound(tmp_path):
    with pytest.raises(LMACError, match="found 'bark', expected one of baby"):
        write_example(tmp_path, "bark")
    assert not list(tmp_path.iterdir())
