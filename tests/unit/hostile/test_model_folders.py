"""Folders of strangers as models: nothing runs, and little work is made."""

import pytest
from folders import change, file_changes, yaml_changes

from lmac_sb import LMACInterpreter
from lmac_sb.inference.load import load_interpreter

UNUSED = [name for name in yaml_changes() if name.startswith("unused")]
YAMLS = [name for name in yaml_changes() if name not in UNUSED]


@pytest.fixture(autouse=True, scope="module")
def warm(bundle):
    """What is imported on the way counts for no folder."""
    load_interpreter(bundle)


@pytest.mark.parametrize("name", [*YAMLS, *file_changes()])
def test_an_exported_folder(bundle, copied, outcome, name):
    """It is refused in one line."""
    folder = copied(bundle)
    change(folder, name)
    assert outcome(load_interpreter, folder) is not None


@pytest.mark.parametrize("name", UNUSED)
def test_what_nothing_needs_is_not_made(bundle, copied, outcome, name):
    """The folder is as good as without it."""
    folder = copied(bundle)
    change(folder, name)
    assert outcome(LMACInterpreter.from_hparams, folder) is None


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"a": 1}', "[" * 99999])
def test_a_mark_of_a_run_is_no_trust(bundle, copied, outcome, content):
    """Nor are checksums passed over for it."""
    folder = copied(bundle)
    change(folder, "code in use, apply")
    (folder / "experiment.json").write_text(content)
    assert outcome(load_interpreter, folder) is not None
