"""Tests of the tool that reproduces the tables."""

import importlib.util
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
spec = importlib.util.spec_from_file_location(
    "reproduce", ROOT / "tools" / "reproduce.py"
)
reproduce = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reproduce)

HEAD = "setting,method,keep,subset,metric,mean,low,high,n\n"


def summary(path, *lines):
    path.write_text(HEAD + "".join(f"{x}\n" for x in lines), encoding="utf-8")
    return reproduce.read_summary(path)


@pytest.mark.parametrize(
    ("mean", "agrees"),
    [(60, True), (70, True), (71, True), (71.1, False), (48.9, False)],
)
def test_inside_the_interval_and_a_slack(tmp_path, mean, agrees):
    kept = summary(tmp_path / "a", "clean,lmac,own,all,AI,60,50,70,80")
    found = summary(
        tmp_path / "b", f"clean,lmac,own,all,AI,{mean},{mean},{mean},80"
    )
    assert (reproduce.differences(kept, found) == []) == agrees


def test_guards_have_the_slack_of_their_metric(tmp_path):
    line = "clean,lmac,own,all,{},{},1,1,80"
    for metric, far in (("heard AI", 1.9), ("heard FF", 1.009)):
        kept = summary(tmp_path / "a", line.format(metric, 1))
        near = summary(tmp_path / "b", line.format(metric, far))
        assert reproduce.differences(kept, near) == []
        off = summary(tmp_path / "c", line.format(metric, far + 0.2))
        assert len(reproduce.differences(kept, off)) == 1


def test_missing_and_new_rows(tmp_path):
    line = "clean,{},own,all,AI,60,50,70,80"
    kept = summary(tmp_path / "a", line.format("lmac"))
    found = summary(tmp_path / "b", line.format("other"))
    assert reproduce.differences(kept, found) == [
        "clean / lmac / own / all / AI: only kept",
        "clean / other / own / all / AI: only found",
    ]


def test_metrics_that_the_reference_never_had(tmp_path):
    line = "clean,lmac,own,all,{},60,50,70,80"
    kept = summary(tmp_path / "a", line.format("AI"))
    found = summary(tmp_path / "b", line.format("AI"), line.format("new"))
    assert reproduce.differences(kept, found) == []
    assert reproduce.differences(found, kept) == [
        "clean / lmac / own / all / new: only kept"
    ]


def test_undefined_stays_undefined(tmp_path):
    line = "clean,lmac,own,all,time_auc,{},,,0"
    kept = summary(tmp_path / "a", line.format(""))
    assert reproduce.differences(kept, kept) == []
    found = summary(tmp_path / "b", line.format("0.5"))
    assert len(reproduce.differences(kept, found)) == 1


@pytest.mark.parametrize("table", reproduce.TABLES)
def test_commands_name_real_scripts_and_keys(table):
    commands, _ = reproduce.TABLES[table]
    for command in commands:
        script, recipe, *rest = shlex.split(command.format(data="/data"))
        assert (reproduce.RECIPE / script).is_file()
        text = (reproduce.RECIPE / recipe).read_text(encoding="utf-8")
        keys = yaml.load(text, Loader=yaml.BaseLoader)
        for key in rest[::2]:
            assert key.startswith("--") and key[2:] in keys, (command, key)
        for value in rest[1::2]:
            yaml.safe_load(value)


def test_unknown_table():
    with pytest.raises(SystemExit):
        reproduce.main(["nonsense"])


def test_without_data_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("LMAC_SB_DATA", str(tmp_path))
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    assert reproduce.main(["esc10"]) == 0
    assert "skipped" in capsys.readouterr().out


def test_what_is_kept_agrees_with_itself(tmp_path):
    rows = [
        "clean,lmac,own,all,AI,60.123456789,50,70,80",
        "clean,lmac,0.05,all,AI,1,1,1,80",
        "clean,lmac,own,right,AI,1,1,1,80",
        "clean,lmac,curve,all,deletion AUC,,,,0",
    ]
    found = summary(tmp_path / "found.csv", *rows)
    assert {key[2] for key in found} == {"own", "curve"}
    reproduce.keep(tmp_path / "found.csv", tmp_path / "kept" / "a.csv")
    kept = reproduce.read_summary(tmp_path / "kept" / "a.csv")
    assert reproduce.differences(kept, found) == []


@pytest.mark.parametrize("table", reproduce.TABLES)
def test_kept_figures_are_there(table):
    kept = reproduce.read_summary(reproduce.KEPT / f"{table}.csv")
    assert reproduce.differences(kept, kept) == []
    assert len(kept) > 100
