"""The evaluation's real scripts with their real yaml, on tiny data."""

import csv
import json
import re
import shutil

import matplotlib.pyplot as plt
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
    """The summary has three forms, and the figures have their names."""
    rows = [
        row
        for row in read(evaluated / "results.csv")
        if (row["setting"], row["method"], row["keep"])
        == ("clean", "saliency", "own")
    ]
    mean = sum(float(row["AD"]) for row in rows) / len(rows)
    (summary,) = [
        row
        for row in read(evaluated / "summary.csv")
        if [row[k] for k in ("setting", "method", "keep", "subset", "metric")]
        == ["clean", "saliency", "own", "all", "AD"]
    ]
    assert float(summary["mean"]) == pytest.approx(mean, abs=1e-6)
    assert int(summary["n"]) == len(rows) == 3
    for name in ("summary.md", "summary.tex"):
        lines = (evaluated / name).read_text(encoding="utf-8").splitlines()
        assert any("saliency" in x and f"{mean:.2f}" in x for x in lines), name
    seconds = read(evaluated / "seconds.csv")
    assert {row["method"] for row in seconds} >= {"lmac", "saliency"}
    assert all(float(row["seconds"]) > 0 for row in seconds)
    origin = json.loads((evaluated / "provenance.json").read_text())
    assert (origin["seed"], origin["split"]) == (1234, "test")
    for name in ("curves", "snr"):
        assert plt.imread(evaluated / f"{name}.png").std() > 0, name
    svg = (evaluated / "curves.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {name} -->" in svg for name in ("saliency", "loudest"))
    svg = (evaluated / "steps_clean.svg").read_text(encoding="utf-8")
    assert "<!-- lmac -->" in svg


def test_several_processes_write_the_same(
    recipe, tiny, lmac_run, evaluated, tmp_path, helpers
):
    """To the byte, each figure; without a GPU, no option is needed."""
    folder = tmp_path / "run"
    done = recipe.process(
        "eval",
        "eval.yaml",
        helpers.two_processes,
        **options(tiny, lmac_run, folder),
    )
    assert done.code == 0, done.out + done.err[:6000]
    for name in ("results.csv", "summary.csv", "curves.svg"):
        assert (folder / name).read_bytes() == (evaluated / name).read_bytes()
    tables = [
        {path.name: path.read_bytes() for path in (x / "rows").rglob("*.parq*")}
        for x in (folder, evaluated)
    ]
    assert tables[0] == tables[1] and tables[0]


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
    """The rows of lmac equal those of the training script."""
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
    """A second run writes the same, with and without kept rows."""
    name = "results.csv"
    before = (evaluated / name).read_bytes()
    (evaluated / name).unlink()
    again = options(tiny, lmac_run, evaluated)
    assert recipe.main("eval", "eval.yaml", **again).code == 0
    assert (evaluated / name).read_bytes() == before
    anew = options(tiny, lmac_run, tmp_path / "new")
    assert recipe.main("eval", "eval.yaml", **anew).code == 0
    assert (tmp_path / "new" / name).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shares": "[0.3]"}, "shares [0.1, 0.5], now it is [0.3]"),
        ({"methods": "[lmac, ones]"}, "methods ['lmac', 'lmac+1', "),
        ({"settings": "[clean]"}, "settings ['clean', 'white 5 dB'], now"),
        ({"n_clips": 2}, "n_clips 3, now it is 2"),
        ({"split": "valid"}, "split test, now it is valid"),
        ({"seed": 7}, "seed 1234, now it is 7"),
        ({"optimised_steps": 3}, "optimised_steps 150, now it is 3"),
        ({"test_fold_nums": "[3]"}, "test_fold_nums [5], now it is [3]"),
        ({"wham_folder": "."}, "another wham_folder (none), now it is 0"),
        ({"speech_folder": "."}, "another speech_folder (none), now it is 0"),
        ({"interpreters": "{again: RUN}"}, "another interpreters (lmac: "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_grid_needs_another_folder(
    recipe, tiny, lmac_run, evaluated, helpers, change, told
):
    """The message names key and values, and no file changes."""
    before = helpers.digest(evaluated)
    change = {
        k: str(v).replace("RUN", str(lmac_run)) for k, v in change.items()
    }
    other = options(tiny, lmac_run, evaluated, **change)
    done = recipe.main("eval", "eval.yaml", **other)
    assert done.code != 0
    assert f"output_folder: the run in {evaluated} has {told}" in done.err
    assert helpers.digest(evaluated) == before


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"methods": "[lmac, grad]"}, "methods: unknown 'grad'"),
        ({"settings": "[clan]"}, "clan"),
        (
            {"split": "tests"},
            "split is 'tests', expected one of train, valid, test",
        ),
        ({"n_clips": 0}, "n_clips is 0, expected a whole number of at least 1"),
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
    """A run whose classifier has other weights is refused."""
    import torch

    from lmac_sb.inference.export import export_run

    model = export_run(lmac_run, tmp_path / "model")
    from safetensors.torch import load_file, save_file

    from lmac_sb.utils.checksums import SUMS, write_sums

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
    """A run without a refiner cannot refine, which fails the command."""
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
    assert re.search(r"1 of \d+ rows failed", done.err)


def test_sanity_checks(recipe, tiny, lmac_run, tmp_path):
    chosen = options(tiny, lmac_run, tmp_path / "run", n_clips=2)
    for key in ("methods", "settings", "shares"):
        del chosen[key]
    done = recipe.main(
        "sanity",
        "sanity.yaml",
        **chosen,
        randomisation_methods="[lmac, gradcam]",
        swap_methods="[lmac, saliency]",
        roar_methods="[loudest, random, ideal]",
        roar_shares="[0.5]",
        roar_fill="[silence, noise]",
        roar_epochs=1,
        channels="[4, 4, 8]",
        emb_dim=8,
    )
    assert done.code == 0, done.err
    rows = read(tmp_path / "run" / "randomisation.csv")
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    assert stages[0] == "classifier"
    assert len(rows) == 2 * 2 * len(stages)
    # Other weights give other masks, also for GradCAM, whose latents stay the
    # same if only the last layer is drawn again.
    for stage in stages:
        for method in ("lmac", "gradcam"):
            found = [
                float(row[key])
                for row in rows
                for key in ("correlation", "SSIM")
                if (row["stage"], row["method"]) == (stage, method)
            ]
            assert -1 <= min(found) < 0.9 and max(found) <= 1, (stage, method)
    rows = read(tmp_path / "run" / "roar.csv")
    trained = {(row["fill"], row["method"]) for row in rows}
    assert len(trained) == 2 * 3 and len(rows) == 10 * len(trained)
    assert {row["accuracy"] for row in rows} <= {"0.0", "100.0"}
    text = (tmp_path / "run" / "roar.txt").read_text(encoding="utf-8")
    assert re.search(r"ideal, share 0.5: .*, noise .*less than random", text)
    # The two clips are of different classes: each is added to the other.
    rows = read(tmp_path / "run" / "swap.csv")
    assert len(rows) == 2 * 2 * 2
    for row in rows:
        assert -1 <= float(row["correlation"]) <= 1
        for key in ("event_mass", "other_mass", "Fid-In"):
            assert 0 <= float(row[key]) <= 1
    text = (tmp_path / "run" / "swap.txt").read_text(encoding="utf-8")
    assert re.search(r"\| saliency \| .* ± ", text)
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
    """The folder of another experiment is refused, and stays as it is."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "experiment.json").write_text('{"seed": 1}')
    (folder / "kept.csv").write_text("")
    chosen = options(tiny, lmac_run, folder)
    for key in ("methods", "settings", "shares"):
        del chosen[key]
    done = recipe.main(script, yaml, **chosen)
    assert done.code != 0
    assert f"output_folder: the run in {folder} has " in done.err
    assert "seed 1, now it is 1234" in done.err
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["experiment.json", "kept.csv"]


def test_unknown_check(recipe, tiny, lmac_run, tmp_path):
    done = recipe.main(
        "sanity",
        "sanity.yaml",
        interpreter=lmac_run,
        output_folder=tmp_path / "run",
        checks="[rear]",
    )
    assert done.code != 0
    assert "in which each item is one of randomisation, roar" in done.err
