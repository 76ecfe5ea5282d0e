"""Questions: each form against the formula that a reader would write."""

import math
from itertools import product

import pytest
import torch

from lmac_sb.models.question import RUNNER_UP, Question, as_question
from lmac_sb.utils.errors import LMACError

LOGITS = torch.tensor(
    [
        [2.0, -1.0, 0.5, 0.0],
        [-3.0, 4.0, 1.0, 3.5],
        [0.1, 0.2, 0.3, 0.4],
    ]
)


def softmax(row):
    """Probabilities of one clip, class by class."""
    total = sum(math.exp(z) for z in row)
    return [math.exp(z) / total for z in row]


def sigmoid(z):
    """Of one number."""
    return 1 / (1 + math.exp(-z))


def at_least_one(row, classes):
    """Probability that not all of some independent classes are absent."""
    return 1 - math.prod(1 - sigmoid(row[c]) for c in classes)


def mask(*rows):
    """Sets of classes as a boolean mask."""
    return torch.tensor([[c in row for c in range(4)] for row in rows])


def asked(question, logits=LOGITS, multilabel=False):
    """A question, settled."""
    return as_question(question, multilabel).settle(logits)


def close(found, expected):
    """Whether numbers are the same up to single precision."""
    return found.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


# ------------------------------------------------------------ probabilities


def test_decision():
    question = asked(None)
    assert question.target.tolist() == [0, 1, 3] and question.is_plain
    expected = [max(softmax(row)) for row in LOGITS.tolist()]
    assert close(question.probability(LOGITS), expected)
    answers, chosen = question.answers(LOGITS)
    assert answers is LOGITS and torch.equal(chosen, question.decision)


def test_one_class():
    question = asked(torch.tensor([2, 0, 1]))
    rows = LOGITS.tolist()
    expected = [softmax(row)[c] for row, c in zip(rows, (2, 0, 1))]
    assert close(question.probability(LOGITS), expected)


def test_one_class_of_a_detector():
    question = asked(torch.tensor([2, 0, 1]), multilabel=True)
    rows = LOGITS.tolist()
    expected = [sigmoid(row[c]) for row, c in zip(rows, (2, 0, 1))]
    assert close(question.probability(LOGITS), expected)
    assert not question.is_plain
    # The answer that is asked for comes first.
    assert question.answers(LOGITS)[1].tolist() == [0, 0, 0]


def test_several_classes():
    sets = ({0, 1}, {2}, {1, 2, 3})
    question = asked(Question(mask(*sets)))
    expected = [
        sum(softmax(row)[c] for c in chosen)
        for row, chosen in zip(LOGITS.tolist(), sets)
    ]
    assert close(question.probability(LOGITS), expected)
    assert question.decision.tolist() == [0, 2, 1]


def test_one_of_several_events():
    """Independent classes: one minus the product of their absences."""
    sets = ({0, 1}, {2}, {0, 1, 2, 3})
    question = asked(Question(mask(*sets)), multilabel=True)
    expected = [
        at_least_one(row, chosen) for row, chosen in zip(LOGITS.tolist(), sets)
    ]
    assert close(question.probability(LOGITS), expected)


@pytest.mark.parametrize("multilabel", [False, True])
def test_one_class_against_another(multilabel):
    """Log-odds of two classes are the difference of their logits."""
    target, against = torch.tensor([1, 0, 3]), torch.tensor([0, 3, 2])
    question = asked(Question(target, against), multilabel=multilabel)
    expected = [
        row[a] - row[b]
        for row, a, b in zip(LOGITS.tolist(), (1, 0, 3), (0, 3, 2))
    ]
    assert close(question.log_odds(LOGITS), expected)
    assert close(question.probability(LOGITS), map_list(sigmoid, expected))


def map_list(function, values):
    """A function of each."""
    return [function(value) for value in values]


def test_several_against_several():
    target, against = ({0, 1}, {3}, {2, 3}), ({2}, {0, 1}, {0})
    question = asked(Question(mask(*target), mask(*against)))
    expected = []
    for row, a, b in zip(LOGITS.tolist(), target, against):
        p = softmax(row)
        one, other = sum(p[c] for c in a), sum(p[c] for c in b)
        expected.append(one / (one + other))
    assert close(question.probability(LOGITS), expected)


def test_several_events_against_several():
    """The odds of the one side over those of the other."""
    target, against = ({0, 1}, {3}, {2, 3}), ({2}, {0, 1}, {0})
    question = asked(Question(mask(*target), mask(*against)), multilabel=True)
    expected = []
    for row, a, b in zip(LOGITS.tolist(), target, against):
        p, q = at_least_one(row, a), at_least_one(row, b)
        odds = p / (1 - p) / (q / (1 - q))
        expected.append(odds / (1 + odds))
    assert close(question.probability(LOGITS), expected)


@pytest.mark.parametrize("multilabel", [False, True])
def test_runner_up(multilabel):
    question = asked(Question(against=RUNNER_UP), multilabel=multilabel)
    assert question.target.tolist() == [0, 1, 3]
    assert question.against.tolist() == [2, 3, 2]
    expected = [2.0 - 0.5, 4.0 - 3.5, 0.4 - 0.3]
    assert close(question.log_odds(LOGITS), expected)


def test_runner_up_of_what_is_not_the_decision():
    """It is the most probable class beside those that are asked for."""
    question = asked(Question(torch.tensor([1, 0, 0]), RUNNER_UP))
    assert question.against.tolist() == [0, 1, 3]
    several = asked(Question(mask({0, 2}, {1, 3}, {3}), RUNNER_UP))
    assert several.against.tolist() == [3, 2, 2]


def test_score():
    """The log-odds grow with the score, from silence to the whole sound."""

    def score(outputs):
        """Twice the first output."""
        return 2 * outputs[:, 0]

    silence = torch.tensor([[-1.0], [0.0]])
    sound = torch.tensor([[3.0], [-2.0]])
    question = Question(score=score).from_silence(silence).settle(sound)
    assert close(question.log_odds(silence), [-3.0, -3.0])
    assert close(question.log_odds(sound), [3.0, 3.0])
    half = torch.tensor([[1.0], [-1.0]])
    assert close(question.probability(half), [0.5, 0.5])
    assert question.decision.tolist() == [0, 0] and not question.is_plain


# --------------------------------------------------------- extreme outputs


@pytest.mark.parametrize("z", [-300.0, -90.0, -20.0, 20.0, 90.0, 300.0])
def test_extreme_logits_of_a_detector(z):
    """Neither rounded away, nor without a gradient."""
    logits = torch.tensor([[z, z, 0.0]], requires_grad=True)
    chosen = torch.tensor([[True, True, False]])
    other = torch.tensor([2])
    question = Question(chosen, other, multilabel=True)
    odds = question.log_odds(logits)
    # log(expm1(2 softplus(z))): two rare events, or twice a sure one.
    expected = z + math.log(2) if z < 0 else 2 * z
    assert close(odds, [expected])
    (gradient,) = torch.autograd.grad(odds.sum(), logits)
    each = 0.5 if z < 0 else 1.0
    assert gradient[0].tolist() == pytest.approx([each, each, -1.0], abs=1e-4)


def test_continuous_where_the_formula_changes():
    """The log-odds of rare events, on both sides of the switch."""
    logits = torch.linspace(-15, -13, 400).double()[:, None].repeat(1, 2)
    question = Question(torch.ones(400, 2, dtype=torch.bool), multilabel=True)
    exact = [
        math.log(math.expm1(2 * math.log1p(math.exp(z))))
        for z in logits[:, 0].tolist()
    ]
    found = question.log_odds(logits).tolist()
    assert found == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize(
    "multilabel, against", list(product([False, True], [None, "tensor"]))
)
def test_gradients(multilabel, against):
    """Against differences of the log-odds, in double precision."""
    target = mask({0, 1}, {2}, {0, 3})
    other = mask({2}, {1, 3}, {1}) if against else None
    question = Question(target, other, multilabel=multilabel)
    logits = LOGITS.double().requires_grad_()
    assert torch.autograd.gradcheck(question.log_odds, logits)


def test_gradient_of_a_score():
    question = Question(
        score=lambda x: x.square().sum(1),
        low=torch.tensor([0.0]),
        high=torch.tensor([4.0]),
    )
    outputs = torch.tensor([[1.0, 1.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(question.log_odds(outputs).sum(), outputs)
    # 3 (2 s / 4 - 1), so 1.5 ds.
    assert gradient.tolist() == [[3.0, 3.0]]


# ------------------------------------------------------- batches of clips


def settled():
    """One question of each form."""
    score = Question(score=lambda x: x[:, 0])
    return {
        "class": asked(torch.tensor([2, 0, 1])),
        "detector": asked(torch.tensor([2, 0, 1]), multilabel=True),
        "several": asked(Question(mask({0, 1}, {2}, {1, 2, 3}))),
        "against": asked(
            Question(torch.tensor([1, 0, 3]), torch.tensor([0, 3, 2]))
        ),
        "runner-up": asked(Question(against=RUNNER_UP)),
        "score": asked(score.from_silence(LOGITS - 1)),
    }


@pytest.mark.parametrize("name", list(settled()))
def test_rows(name):
    """Of some clips the same as of those clips alone, in any order."""
    question = settled()[name]
    whole = question.probability(LOGITS)
    for rows in ([0], [2, 0], slice(1, 3), torch.tensor([1])):
        found = question[rows].probability(LOGITS[rows])
        assert torch.equal(found, whole[rows])
        assert torch.equal(question[rows].decision, question.decision[rows])
    parts = [question[[i]] for i in range(3)]
    assert torch.equal(Question.join(parts).probability(LOGITS), whole)


@pytest.mark.parametrize("name", list(settled()))
def test_settled_once_is_settled(name):
    """What was found on the whole sound does not change with its parts."""
    question = settled()[name]
    again = question.settle(LOGITS)
    assert torch.equal(
        again.probability(-LOGITS), question.probability(-LOGITS)
    )


def test_each_leaves_the_rest():
    question = Question(torch.tensor([1]), RUNNER_UP, multilabel=True)
    other = question.each(lambda value: value + 1)
    assert other.target.tolist() == [2] and question.target.tolist() == [1]
    assert other.against == RUNNER_UP and other.multilabel


# ----------------------------------------------------------------- errors


def test_not_both_score_and_classes():
    with pytest.raises(LMACError, match="function together with classes"):
        Question(torch.tensor([0]), score=lambda x: x[:, 0])


def test_unknown_word():
    with pytest.raises(LMACError, match="against: found 'next', expected"):
        Question(against="next")


@pytest.mark.parametrize("target", [None, torch.tensor([1, 1, 0])])
def test_against_itself(target):
    against = torch.tensor([0, 1, 2])
    with pytest.raises(LMACError, match="against: class . is the one that is"):
        asked(Question(target, against))


def test_all_classes_leave_nothing():
    everything = torch.ones(3, 4, dtype=torch.bool)
    with pytest.raises(LMACError, match="target: all classes are asked for"):
        asked(Question(everything))
    with pytest.raises(LMACError, match="there is no other class"):
        asked(Question(everything, RUNNER_UP))


def test_one_class_has_no_runner_up():
    with pytest.raises(LMACError, match="there is no other class"):
        asked(Question(against=RUNNER_UP), LOGITS[:, :1], multilabel=True)


@pytest.mark.parametrize(
    "score, message",
    [
        (lambda x: 1.0, "returned a float, expected a tensor"),
        (lambda x: x, "returned shape .* for 3 clips"),
        (lambda x: x.sum(), "returned shape .* for 3 clips"),
        (lambda x: x[:, 0] / 0, "returned NaN or infinity"),
        (lambda x: x[:, 7], "fails for outputs of shape .*IndexError"),
    ],
)
def test_what_is_no_score(score, message):
    with pytest.raises(LMACError, match=f"target: the function {message}"):
        Question(score=score).from_silence(LOGITS)


def test_a_score_for_each_clip_may_have_an_axis():
    question = Question(score=lambda x: x[:, :1]).from_silence(LOGITS)
    assert torch.equal(question.low, LOGITS[:, 0])


def test_score_of_silence():
    question = Question(score=lambda x: x[:, 0]).from_silence(LOGITS)
    louder = LOGITS + torch.tensor([[1.0], [0.0], [1.0]])
    with pytest.raises(LMACError, match="score of clip 1 is -3, the same as"):
        question.settle(louder)
