"""The evaluation's real scripts with their real yaml, on tiny data."""

import csv
import json
import shutil

import pytest

SMALL = {
    "methods": "[lmac, lmac+1, saliency, loudest, ones, ideal]",
    "settings": "[clean, white 5 dB]",
    "shares": "[0.1, 0.5]",
    "n_clips": 3,
}


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def options(tiny, lmac_run, folder, **more):
    """Overrides for eval.py on the data of a tiny run."""
    keys = ("data_folder", "scenes_folder", "n_classes")
    folds = [f"{split}_fold_nums" for split in ("train", "valid", "test")]
    chosen = {k: tiny[k] for k in (*keys, *folds) if k in tiny}
    return {
        **chosen,
        "interpreter": lmac_run,
        "output_folder": folder,
        **SMALL,
        **more,
    }


@pytest.fixture(scope="module")
def evaluated(recipe, tiny, lmac_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval") / "run"
    done = recipe.main("eval", "eval.yaml", **options(tiny, lmac_run, folder))
    assert done.code == 0, done.out + done.err
    return folder


def test_what_is_written(evaluated):
    for name in (
        "results.csv",
        "seconds.csv",
        "summary.csv",
        "summary.md",
        "summary.tex",
        "provenance.json",
        "curves.png",
        "curves.svg",
        "snr.svg",
        "steps_clean.svg",
    ):
        assert (evaluated / name).stat().st_size > 0, name


def test_rows(evaluated):
    rows = read(evaluated / "results.csv")
    # 4 methods in four keeps, 2 of fixed area; 3 clips in 2 settings
    assert len(rows) == (4 * 4 + 2) * 3 * 2
    assert {row["keep"] for row in rows} == {
        "own",
        "area of lmac",
        "0.1",
        "0.5",
    }
    for row in rows:
        assert row["error"] == ""
        assert 0 <= float(row["p"]) <= 1
        if row["method"] == "ideal":
            assert float(row["event_mass"]) == pytest.approx(1)


def test_lmac_as_in_training(evaluated, lmac_run, helpers):
    """The row that the training script wrote for the same clip."""
    before = {
        row["id"]: row
        for row in helpers.read_rows(lmac_run)
        if row["method"] == "lmac"
    }
    rows = read(evaluated / "results.csv")
    seen = 0
    for row in rows:
        where = row["setting"], row["method"], row["keep"]
        if where == ("clean", "lmac", "own"):
            seen += 1
            for name in ("AD", "FF", "area", "event_mass"):
                assert float(row[name]) == pytest.approx(
                    before[row["id"]][name], abs=5e-3
                )
    assert seen == 3


def test_again_writes_the_same(recipe, tiny, lmac_run, evaluated, tmp_path):
    """From the kept rows, and from nothing."""
    name = "results.csv"
    before = (evaluated / name).read_bytes()
    (evaluated / name).unlink()
    again = options(tiny, lmac_run, evaluated)
    assert recipe.main("eval", "eval.yaml", **again).code == 0
    assert (evaluated / name).read_bytes() == before
    anew = options(tiny, lmac_run, tmp_path / "new")
    assert recipe.main("eval", "eval.yaml", **anew).code == 0
    assert (tmp_path / "new" / name).read_bytes() == before


def test_another_grid_needs_another_folder(recipe, tiny, lmac_run, evaluated):
    other = options(tiny, lmac_run, evaluated, shares="[0.3]")
    done = recipe.main("eval", "eval.yaml", **other)
    assert done.code != 0
    assert "another shares" in done.err


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"methods": "[lmac, grad]"}, "methods: unknown 'grad'"),
        ({"settings": "[clan]"}, "clan"),
        ({"split": "tests"}, "split: 'tests' is none of"),
        ({"n_clips": 0}, "n_clips: 0"),
        ({"interpreter": "/no/such"}, "/no/such"),
        ({"settings": "[noise 0 dB]"}, "wham_folder"),
    ],
)
def test_bad_settings(recipe, tiny, lmac_run, tmp_path, change, text):
    bad = options(tiny, lmac_run, tmp_path / "run", **change)
    done = recipe.main("eval", "eval.yaml", **bad)
    assert done.code != 0
    assert text in done.err
    assert done.err.count("error:") == 1


def test_another_classifier_is_refused(recipe, tiny, lmac_run, tmp_path):
    """A copy of the run whose classifier has other weights."""
    import torch

    from lmac_sb.inference.export import export_run

    model = export_run(lmac_run, tmp_path / "model")
    from safetensors.torch import load_file, save_file

    from lmac_sb.inference.bundle import SUMS, write_sums

    path = model / "classifier.safetensors"
    weights = load_file(path)
    name = next(k for k in weights if weights[k].is_floating_point())
    weights[name] = weights[name] + torch.ones(1)
    save_file(weights, path)
    (model / SUMS).unlink()
    write_sums(model)
    bad = options(
        tiny, lmac_run, tmp_path / "run", interpreters=f"{{other: {model}}}"
    )
    done = recipe.main("eval", "eval.yaml", **bad)
    assert done.code != 0
    assert str(model) in done.err and str(lmac_run) in done.err
    assert "another classifier" in done.err


def test_a_failing_method_fails_the_command(recipe, tiny, lmac_run, tmp_path):
    """A run from before there was a refiner cannot take steps."""
    old = tmp_path / "old"
    shutil.copytree(lmac_run, old)
    path = old / "hyperparams.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if "refiner: *" not in line]
    assert len(kept) == len(lines) - 1
    path.write_text("\n".join(kept), encoding="utf-8")
    bad = options(
        tiny,
        old,
        tmp_path / "run",
        methods="[lmac, lmac+1]",
        settings="[clean]",
        n_clips=1,
    )
    done = recipe.main("eval", "eval.yaml", **bad)
    assert done.code != 0
    rows = read(tmp_path / "run" / "results.csv")
    failed = [row for row in rows if row["error"]]
    assert [row["method"] for row in failed] == ["lmac+1"]
    assert "no refiner" in failed[0]["error"]
    assert "1 rows failed" in done.err


def test_sanity_checks(recipe, tiny, lmac_run, tmp_path):
    chosen = options(tiny, lmac_run, tmp_path / "run", n_clips=2)
    for key in ("methods", "settings", "shares"):
        del chosen[key]
    done = recipe.main(
        "sanity",
        "sanity.yaml",
        **chosen,
        randomisation_methods="[lmac, gradcam]",
        roar_methods="[loudest, random]",
        roar_shares="[0.5]",
        roar_epochs=1,
        channels="[4, 4, 8]",
        emb_dim=8,
    )
    assert done.code == 0, done.err
    rows = read(tmp_path / "run" / "randomisation.csv")
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    assert stages[0] == "classifier"
    assert len(rows) == 2 * 2 * len(stages)
    # GradCAM of the same latents changes with the head alone.
    assert all(-1 <= float(r["SSIM"]) <= 1 for r in rows if r["SSIM"] != "nan")
    rows = read(tmp_path / "run" / "roar.csv")
    assert {row["method"] for row in rows} == {"loudest", "random"}
    assert {row["accuracy"] for row in rows} <= {"0.0", "100.0"}
    for name in ("roar.svg", "randomisation.png"):
        assert (tmp_path / "run" / name).is_file()
    json.loads((tmp_path / "run" / "provenance.json").read_text())


@pytest.mark.parametrize(
    ("script", "yaml"),
    [("sanity", "sanity.yaml"), ("make_listening_test", "listening.yaml")],
)
def test_the_folder_of_another_experiment(
    recipe, tiny, lmac_run, tmp_path, script, yaml
):
    """Is refused, and left as it is."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "experiment.json").write_text('{"seed": 1}')
    chosen = options(tiny, lmac_run, folder)
    for key in ("methods", "settings", "shares"):
        del chosen[key]
    done = recipe.main(script, yaml, **chosen)
    assert done.code != 0
    assert f"output_folder: {folder} holds an experiment with another" in (
        done.err
    )
    assert [path.name for path in folder.iterdir()] == ["experiment.json"]


def test_unknown_check(recipe, tiny, lmac_run, tmp_path):
    done = recipe.main(
        "sanity",
        "sanity.yaml",
        interpreter=lmac_run,
        output_folder=tmp_path / "run",
        checks="[rear]",
    )
    assert done.code != 0
    assert "checks: 'rear' is none of randomisation, roar" in done.err
