"""What models return: the place of the scores and their axes."""

import collections
import dataclasses
import types

import numpy as np
import pytest
import torch

from lmac_sb.listener.outputs import by_frames, class_axis_of, find_output
from lmac_sb.utils.errors import LMACError

SCORES = torch.arange(6.0).reshape(2, 3)
EMBEDDING = torch.zeros(2, 64)
FRAMES = torch.zeros(2, 100, 3)
Named = collections.namedtuple("Named", ["logits", "hidden_states"])


@dataclasses.dataclass
class Answer:
    """What a model returns."""

    loss: torch.Tensor
    logits: torch.Tensor


@pytest.mark.parametrize(
    "returned",
    [
        SCORES,
        (SCORES,),
        [SCORES],
        {"logits": SCORES, "probs": SCORES.softmax(1)},
        {"clipwise_output": SCORES, "embedding": EMBEDDING},
        {"clipwise_output": SCORES, "framewise_output": FRAMES},
        {"embedding": EMBEDDING, "something": SCORES},
        {"predictions": SCORES, "other": EMBEDDING},
        {"Logits": SCORES, "x": EMBEDDING},
        Named(SCORES, (EMBEDDING,)),
        Answer(torch.tensor(1.0), SCORES),
        types.SimpleNamespace(logits=SCORES, state=EMBEDDING),
        (SCORES, (EMBEDDING, EMBEDDING)),
        (torch.tensor(1.0), SCORES, torch.tensor([1, 2])),
        (SCORES, torch.tensor([0.1, 0.2]), torch.tensor([1, 2]), ["a", "b"]),
    ],
    ids=str,
)
def test_scores_are_found_by_themselves(returned):
    assert find_output(returned) is SCORES


def test_hugging_face_outputs_are_found():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    answer = outputs.SequenceClassifierOutput(
        logits=SCORES, hidden_states=(EMBEDDING,)
    )
    assert find_output(answer) is SCORES
    with pytest.raises(LMACError, match="last_hidden_state: tensor"):
        find_output(outputs.BaseModelOutput(last_hidden_state=FRAMES))


def test_the_number_of_classes_decides_between_tensors():
    assert find_output((EMBEDDING, SCORES), n_classes=3) is SCORES
    assert find_output((EMBEDDING, FRAMES), n_classes=3) is FRAMES
    # The clip goes before its frames.
    assert find_output((FRAMES, SCORES), n_classes=3) is SCORES


@pytest.mark.parametrize(
    "returned",
    [
        (EMBEDDING, SCORES),
        {"a": EMBEDDING, "b": SCORES},
        {"output": EMBEDDING, "pred": SCORES},
    ],
    ids=["tuple", "dict", "two known names"],
)
def test_what_is_not_clear_is_listed(returned):
    with pytest.raises(LMACError) as error:
        find_output(returned)
    for text in ("tensor [2, 64]", "tensor [2, 3]", "choose by output="):
        assert text in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("returned", "output"),
    [
        ((EMBEDDING, SCORES), 1),
        ((EMBEDDING, SCORES), -1),
        ({"a": EMBEDDING, "b": SCORES}, "b"),
        ({"a": EMBEDDING, "b": SCORES}, 1),
        ({"a": EMBEDDING, "b": (EMBEDDING, SCORES)}, lambda out: out["b"][1]),
        (types.SimpleNamespace(a=EMBEDDING, b=SCORES), "b"),
        (Answer(EMBEDDING, SCORES), "logits"),
        ({"a": {"logits": SCORES}}, "a"),
    ],
)
def test_scores_are_chosen(returned, output):
    assert find_output(returned, output) is SCORES


@pytest.mark.parametrize("output", ["c", 2, -3])
def test_a_choice_that_does_not_exist_lists_those_that_do(output):
    with pytest.raises(LMACError, match=r"output: found .*a: tensor \[2, 64"):
        find_output({"a": EMBEDDING, "b": SCORES}, output)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros((2, 3)), r"numpy array \[2, 3\].*no gradient"),
        (0.5, "float.*no gradient"),
        ("dog", "found|returns str"),
        (None, "returns None"),
        (torch.tensor([1, 2]), "int64.*no gradient"),
        (torch.zeros(2, 3, dtype=torch.complex64), "complex64"),
        ({}, "returns nothing"),
        ([], "returns nothing"),
        (["dog"], "0: str"),
    ],
    ids=str,
)
def test_what_is_no_score_is_refused(returned, message):
    with pytest.raises(LMACError, match=message):
        find_output(returned)


def test_axis_of_the_classes():
    assert class_axis_of((2, 100, 5), 5) == 2
    assert class_axis_of((2, 5, 100), 5) == 1
    assert class_axis_of((2, 5, 5), 5) is None
    assert class_axis_of((2, 4, 6), 5) is None


def test_scores_become_frames():
    frames = torch.rand(2, 100, 3)
    assert torch.equal(by_frames(frames, 2, 2), frames)
    assert torch.equal(by_frames(frames.transpose(1, 2), 2, 1), frames)
    assert torch.equal(by_frames(frames[..., None, None], 2, 2), frames)
    assert torch.equal(by_frames(frames[:, None], 2, 2), frames)
    assert torch.equal(by_frames(frames[:, :, None], 2, 2), frames)
    assert torch.equal(
        by_frames(SCORES[:, None, None, :], 2, 2), SCORES[:, None]
    )
    assert torch.equal(by_frames(SCORES, 2), SCORES[:, None])
    assert torch.equal(by_frames(SCORES[:, 0], 2), SCORES[:, :1, None])
    assert torch.equal(by_frames(SCORES[0], 1), SCORES[:1, None])
    assert torch.equal(by_frames(SCORES, 2, one_class=True), SCORES[..., None])
    assert torch.equal(
        by_frames(SCORES[0], 1, one_class=True), SCORES[:1, :, None]
    )
    # Three windows of two clips, those of a clip after each other.
    rows = torch.rand(6, 5)
    windows = by_frames(rows, 2)
    assert torch.equal(windows[1, 2], rows[5])


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 4, 5)])
def test_other_axes_are_refused(shape):
    with pytest.raises(LMACError, match=r"found scores of shape \["):
        by_frames(torch.rand(shape), 2, 2)
