"""The user's labels as classes of the model, and the table that helps."""

from types import SimpleNamespace

import pytest

from lmac_sb.audit.labels import Labels, read_classes_map
from lmac_sb.audit.run import _label_notes
from lmac_sb.utils.errors import LMACError

CLASSES = ["Dog", "cow", "cat", "hen", "4"]


class Model(SimpleNamespace):
    """As much of an interpreter as labels need."""

    classes, class_ids, families = CLASSES, None, None

    def class_number(self, name):
        from lmac_sb.inference.questions import class_number

        return class_number(name, self.classes, ids=self.class_ids)


def written(folder, text):
    path = folder / "map.csv"
    path.write_text(text)
    return path


def mapped(folder, rows):
    return read_classes_map(written(folder, f"label,class\n{rows}"))


@pytest.mark.parametrize(
    "header", ["Label,Class", "LABEL;CLASS", "class,Label"]
)
def test_headers_in_any_case(tmp_path, header):
    row = "dog,hund" if header.startswith("class") else "hund,dog"
    row = row.replace(",", ";") if ";" in header else row
    found = read_classes_map(written(tmp_path, f"{header}\n{row}\n"))
    assert found == {"hund": "dog"}


def test_an_exact_header_comes_first(tmp_path):
    path = written(tmp_path, "Label,label,class\nx,hund,dog\n")
    assert read_classes_map(path) == {"hund": "dog"}


def test_labels_match_the_map_in_any_case(tmp_path):
    labels = Labels(Model(), mapped(tmp_path, "Hund,dog\ncafé,cow\n"))
    assert [labels.name(x) for x in ("hund", "HUND", "cafe\u0301")] == [
        *("Dog", "Dog", "cow")
    ]
    # The same label first, and none where several may be meant.
    labels = Labels(Model(), mapped(tmp_path, "Hund,dog\nhund,cow\n"))
    assert [labels.name(x) for x in ("Hund", "hund", "HUND")] == [
        *("Dog", "cow", None)
    ]


def test_numbers_of_classes(tmp_path):
    labels = Labels(Model(), mapped(tmp_path, "a,0\nb,3\nc,4\n"))
    assert [labels.name(x) for x in "abc"] == ["Dog", "hen", "4"]
    # Those of the user's labels are others than the model's.
    assert labels.name("0") is None


@pytest.mark.parametrize(
    "rows, message",
    [
        ("Hund,\n", "map.csv, line 2: has no class, expected a label and a cl"),
        (
            "a,cow\n,cow\n",
            "map.csv, line 3: has no label, expected a label and",
        ),
        (
            "a,cow\nHund,dgo\n",
            "map.csv, line 3: 'dgo' is no class; .*there are",
        ),
        ("Hund,9\n", "map.csv, line 2: '9' is no class; .*0 to 4"),
        ("a,cow\na,cow\n", "map.csv: line 3: the label 'a' is there twice"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, rows, message):
    with pytest.raises(LMACError, match=message) as found:
        Labels(Model(), mapped(tmp_path, rows))
    assert "target" not in str(found.value)


def test_a_map_without_a_table():
    with pytest.raises(LMACError, match="classes map, label 'Hund': 'dgo' is"):
        Labels(Model(), {"Hund": "dgo"})


def test_rows_that_fit_no_label_are_noted(tmp_path):
    labels = Labels(Model(), mapped(tmp_path, "Hund,dog\nkuh,cow\nHuhn,hen\n"))
    corpus = SimpleNamespace(classes=["cat", "hund"])
    (note,) = _label_notes(corpus, labels)
    assert note.startswith("2 of 3 rows of the classes map fit no label: 'kuh'")
    corpus = SimpleNamespace(classes=["cat", "Hund", "KUH", "huhn"])
    assert _label_notes(corpus, labels) == []
