"""The small classifier of digits that tables of explanations use."""

import pytest
from digits import WORDS, accuracy, read_digits, train_digits

from lmac_sb.adapters.hugging_face import load_hugging_face

pytest.importorskip("transformers")


@pytest.mark.slow
def test_learns_in_half_a_minute(tmp_path, real_data):
    right = train_digits(tmp_path, real_data, epochs=5)
    # Of ten digits; the twelve epochs of the default reach .8.
    assert right > 0.3
    listener = load_hugging_face(tmp_path)
    assert listener.labels == WORDS
    wavs, digits = read_digits(real_data, "test")
    model, extractor = listener.own_call.args
    assert accuracy(model, extractor, wavs, digits) == right
