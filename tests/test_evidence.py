"""Tables and figures from fabricated runs: what they must hold whatever the numbers are."""

import itertools
import json
import os
import random
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.text import Text

from ecc import files
from ecc.errors import UserError
from ecc.evidence import figures, learning, names, plan, style, tables

ROOT = Path(__file__).parents[1]
PUBLISHED = pd.read_csv(ROOT / "resources/published/paper_values.csv")

TITLES = {
    "gtx1080ti": names.platform_title("gtx1080ti"),
    "jetson_tx2": names.platform_title("jetson_tx2"),
}
FULL = {
    "mobilenet": [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024],
    "alexnet": [64, 192, 384, 256, 256, 4096, 4096],
    "erfnet": [64] * 15 + [128] * 24 + [64] * 6 + [16] * 6,
}
DENSE_J = {
    ("mobilenet", "gtx1080ti"): 0.2877,
    ("mobilenet", "jetson_tx2"): 0.0487,
    ("alexnet", "gtx1080ti"): 0.2339,
    ("alexnet", "jetson_tx2"): 0.0498,
    ("erfnet", "gtx1080ti"): 1.9708,
    ("erfnet", "jetson_tx2"): 1.3213,
}


def write_runs(
    folder: Path,
    experiments=("mobilenet", "alexnet", "erfnet"),
    platforms=("gtx1080ti", "jetson_tx2"),
    budgets=(0.4, 0.5, 0.65, 0.8),
    methods=("ecc", "netadapt", "uniform"),
    seeds=(0, 1, 2),
) -> list[Path]:
    """Fabricated metrics.json and energy.json, one a run, in the layout of results/finetuned."""
    rng = np.random.default_rng(0)
    paths = []
    for name, platform, budget, method, seed in product(
        experiments, platforms, budgets, methods, seeds
    ):
        dense_j, rank = DENSE_J[name, platform], methods.index(method)
        drop = (1 - budget) ** 2 * (0.3 + 0.25 * rank)
        widths = [max(1, int(S * budget * rng.uniform(0.6, 1.2))) for S in FULL[name]]
        run = {
            "experiment": name,
            "network": f"{name}_embedded",
            "dataset": "fractals",
            "platform": platform,
            "metric": "energy_j",
            "method": method,
            "budget": f"dense-{budget}",
            "budget_fraction": budget,
            "budget_j": budget * dense_j,
            "seed": seed,
            "dense_energy_j": dense_j,
            "score": "mean IoU" if name == "erfnet" else "accuracy",
            "dense_accuracy": 0.86,
            "accuracy_before_finetuning": max(0.02, 0.86 - 3 * drop + rng.normal(0, 0.02)),
            "accuracy": 0.86 - drop + rng.normal(0, 0.01),
            "iterations": 900,
            "effort": {
                "images_seen": 600 * 64,
                "evaluations": 3,
                "images_evaluated": 300,
                "finetuning_images": 300 * 64,
            },
            "groups": [
                {"name": f"layer.{i}", "width": min(s, S), "full_width": S}
                for i, (s, S) in enumerate(zip(widths, FULL[name], strict=True))
            ],
            "timings": {
                "compression_seconds": 10.0,
                "finetuning_seconds": 5.0,
                "peak_memory_mb": 900.0,
                "peak_gpu_memory_mb": None,
            },
            "hardware": {"processor": "fabricated", "cores": 2},
        }
        path = folder / name / platform / run["budget"] / method / f"seed{seed}" / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(run))
        verified = {
            "modelled_energy_j": 0.99 * budget * dense_j,
            "measured_energy_j": 0.995 * budget * dense_j,
            "within_budget": True,
        }
        path.with_name("energy.json").write_text(json.dumps(verified))
        paths.append(path)
    return paths


def write_models(folder: Path, keys=tuple(DENSE_J), graph=True) -> tuple[list[Path], list[Path]]:
    """Fabricated errors.csv and history.csv, one a platform and network."""
    iterations = np.unique(np.geomspace(1, 10000, 200).astype(int))
    errors, histories = [], []
    models = ["bilinear_chain", *(["bilinear_graph"] if graph else []), "mlp1", "mlp2", "mlp3"]
    for row, (network, platform) in enumerate(keys):
        where = {"platform": platform, "network": network}
        final = {m: 0.02 + 0.01 * i * (row % 3) for i, m in enumerate(models)}
        rows = [
            {**where, "model": m, "fit": "adam", "relative_test_error": final[m]} for m in models
        ]
        rows += [
            {**where, "model": m, "fit": "nnls", "relative_test_error": 0.7 * final[m]}
            for m in models
            if m.startswith("bilinear")
        ]
        frame = pd.DataFrame(rows).assign(train_samples=8000, test_samples=2000)
        history = [
            {**where, "model": m, "fit": "adam", "iteration": i, "relative_test_error": error}
            for m in models
            for i, error in zip(iterations, final[m] + 0.9 * np.exp(-iterations / 400), strict=True)
        ]
        place = folder / platform / network
        place.mkdir(parents=True)
        errors.append(place / "errors.csv")
        histories.append(place / "history.csv")
        frame.to_csv(errors[-1], index=False)
        pd.DataFrame(history).to_csv(histories[-1], index=False)
    return errors, histories


def gather(runs, errors, histories) -> dict[str, pd.DataFrame]:
    return {
        "accuracy_at_budget": tables.accuracy_at_budget(runs),
        "widths": tables.widths(runs),
        "energy_model_errors": tables.energy_model_errors(errors),
        "energy_model_history": tables.energy_model_history(histories),
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    return write_runs(tmp_path_factory.mktemp("finetuned"))


@pytest.fixture(scope="module")
def evidence(runs, tmp_path_factory) -> dict[str, pd.DataFrame]:
    return gather(runs, *write_models(tmp_path_factory.mktemp("energy_models")))


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# Tables


def test_tables_do_not_depend_on_the_order_of_files(runs):
    shuffled = random.Random(0).sample(runs, len(runs))
    for table in (tables.accuracy_at_budget, tables.widths):
        assert table(runs).to_csv() == table(shuffled).to_csv()


def test_columns_and_sorting_are_those_that_others_rely_on(runs):
    frame = tables.accuracy_at_budget(runs)
    columns = """
        experiment network dataset platform method budget_fraction budget_j limits seed
        score dense_energy_j dense_accuracy accuracy_before_finetuning accuracy modelled_energy_j
        measured_energy_j within_budget iterations
    """
    assert list(frame) == columns.split()
    assert len(frame) == len(runs)
    assert frame[tables.RUN].apply(tuple, axis=1).is_monotonic_increasing


def test_groups_stay_in_forward_order(tmp_path):
    (path,) = write_runs(tmp_path, ["mobilenet"], ["jetson_tx2"], [0.5], ["ecc"], [0])
    frame = tables.widths([path])
    assert list(frame["group"]) == [f"layer.{i}" for i in range(14)]
    assert list(frame["full_width"]) == FULL["mobilenet"]


def test_spread_is_that_of_the_seeds(runs):
    frame = tables.accuracy_at_budget(runs)
    spread = tables.comparison(frame)
    assert len(spread) == len(runs) / 3 * 2
    row = spread.iloc[5]
    same = frame.set_index(["experiment", "platform", "budget_fraction", "method"]).loc[
        (row["experiment"], row["platform"], row["budget_fraction"], row["method"])
    ][tables.STAGES[row["stage"]]]
    assert row["seeds"] == 3
    np.testing.assert_allclose(
        row[["mean", "std", "min", "max"]].astype(float),
        [same.mean(), same.std(ddof=1), same.min(), same.max()],
        rtol=1e-7,
    )


def test_difference_to_ecc_is_zero_for_ecc_and_empty_without_it(runs):
    frame = tables.accuracy_at_budget(runs)
    spread = tables.comparison(frame)
    assert (spread.loc[spread["method"] == "ecc", "minus_ecc"] == 0).all()
    assert (spread.loc[spread["method"] == "uniform", "minus_ecc"] < 0).all()
    assert tables.comparison(frame[frame["method"] != "ecc"])["minus_ecc"].isna().all()


def test_one_seed_has_no_deviation(tmp_path):
    paths = write_runs(tmp_path, ["mobilenet"], ["jetson_tx2"], [0.5], ["ecc"], [0])
    assert tables.comparison(tables.accuracy_at_budget(paths))["std"].isna().all()


def test_missing_run_is_named(tmp_path):
    paths = write_runs(tmp_path, ["mobilenet"], ["jetson_tx2"], [0.5])
    where = "mobilenet/jetson_tx2/dense-0.5/netadapt/seed1/metrics.json"
    absent = tmp_path / where
    with pytest.raises(UserError, match=where):
        tables.accuracy_at_budget([path for path in paths if path != absent])
    absent.unlink()
    with pytest.raises(UserError, match=str(absent)):
        tables.accuracy_at_budget(paths)


@pytest.mark.parametrize("harm", ["missing", "changed"])
@pytest.mark.parametrize("table", [tables.accuracy_at_budget, tables.limits])
def test_energies_of_runs_after_the_first_are_checked(tmp_path, table, harm):
    """Of a job's energy.json the first alone is planned with."""
    paths = write_runs(tmp_path, ["erfnet"], ["jetson_tx2"], (0.4, 0.8), ["ecc", "uniform"])
    one, other = (
        path.with_name("energy.json") for path in paths if path.parts[-3:-1] == ("ecc", "seed0")
    )
    for path in paths:
        beside = path.with_name("energy.json")
        beside.write_text(json.dumps({**json.loads(beside.read_text()), "limited": {}}))
        files.seal(beside)
    table(paths)
    for path, advice in (
        (other, f"{re.escape(str(one))}, and run the same"),
        (one, "run the same"),
    ):
        content = path.read_text()
        if harm == "missing":
            path.unlink()
            words = "is missing: " + ("delete " if path == other else "")
        else:
            path.write_text(f"{content} ")
            words = "is not what its job wrote: delete it and "
        with pytest.raises(UserError, match=f"{re.escape(str(path))} {words}{advice}"):
            table(paths)
        path.write_text(content)


def test_run_given_twice_is_named(runs):
    with pytest.raises(UserError, match=str(runs[3])):
        tables.accuracy_at_budget([*runs, runs[3]])


@pytest.mark.parametrize("value", [float("nan"), None])
def test_accuracy_that_is_no_number_is_named(tmp_path, value):
    (path,) = write_runs(tmp_path, ["mobilenet"], ["jetson_tx2"], [0.5], ["ecc"], [0])
    edit(path, accuracy=value)
    with pytest.raises(UserError, match=f"{path}: accuracy"):
        tables.accuracy_at_budget([path])


def test_how_budgets_were_closed_keeps_the_label_of_the_limits(tmp_path):
    (path,) = write_runs(tmp_path, ("alexnet",), ("jetson_tx2",), (0.5,), ("ecc",), (0,))
    run = json.loads(path.read_text())
    label = f"{run['budget']}+parameters-dense-0.4"
    closed = {
        "closed": False,
        "budgets": {
            name: {"metric": m, "budget": b, "rounds": r, "measured": measured, "closed": closed}
            for name, m, b, r, measured, closed in (
                ("jetson_tx2", "energy_j", 0.04, 0, [0.03], True),
                ("jetson_time", "latency_s", 1e-3, 1, [3e-3, 2e-3], False),
            )
        },
        "widths_before": [3, 4],
        "widths": [3, 2],
        "holdout_accuracy_before": 0.5,
        "holdout_accuracy_after": 0.4,
    }
    path.write_text(json.dumps({**run, "budget": label, "closing": closed}))
    frame = tables.closing([path]).set_index("closed_on")
    assert set(frame["limits"]) == {"parameters-dense-0.4"}
    assert set(frame["channels_dropped"]) == {2}
    columns = ["unit", "limit", "rounds", "first_measured", "last_measured", "closed"]
    assert frame.loc["jetson_tx2", columns].tolist() == ["J", 0.04, 0, 0.03, 0.03, True]
    assert frame.loc["jetson_time", columns].tolist() == ["s", 1e-3, 1, 3e-3, 2e-3, False]


def test_equal_terms_are_sums_of_a_run_and_means_or_peaks_over_runs(tmp_path):
    paths = write_runs(
        tmp_path, ("alexnet",), ("jetson_tx2",), (0.5, 0.8), ("ecc", "uniform"), (0,)
    )
    # Images of compression, evaluations, images of these; images of fine-tuning.
    counts = ["images_seen", "evaluations", "images_evaluated", "finetuning_images"]
    times = ["compression_seconds", "finetuning_seconds", "peak_memory_mb", "peak_gpu_memory_mb"]
    for path, method, effort, timings, iterations, accuracy in (
        (paths[0], "ecc", (100, 2, 30, 7), (10.0, 3.0, 500.0, 40.0), 20, 0.75),
        (paths[1], "uniform", (0, 0, 0, 50), (0.5, 6.0, 300.0, None), 9, 0.5),
        (paths[2], "ecc", (300, 5, 50, 9), (20.0, 7.0, 900.0, 10.0), 40, 0.5),
        (paths[3], "uniform", (0, 0, 0, 50), (0.5, 8.0, 200.0, None), 9, 0.25),
    ):
        assert method in path.parts
        effort, timings = (
            dict(zip(*pair, strict=True)) for pair in ((counts, effort), (times, timings))
        )
        edit(path, effort=effort, timings=timings, iterations=iterations, accuracy=accuracy)
    frame = tables.equal_terms(paths).set_index("method")
    assert (frame["runs"] == 2).all()
    assert frame.loc["ecc", tables.EQUAL_TERMS[4:-1]].to_dict() == {
        "iterations": 30.0,
        "images_seen": (107 + 309) / 2,
        "evaluations": 3.5,
        "images_evaluated": 40.0,
        "seconds": (13 + 27) / 2,
        "peak_memory_mb": 900.0,
        "peak_gpu_memory_mb": 40.0,
        "accuracy": 0.625,
    }
    uniform = frame.loc["uniform"]
    assert (uniform["images_seen"], uniform["evaluations"], uniform["seconds"]) == (50, 0, 7.5)
    assert uniform["peak_memory_mb"] == 300
    assert pd.isna(uniform["peak_gpu_memory_mb"])
    assert tables.equal_terms(paths[::-1]).equals(frame.reset_index()[tables.EQUAL_TERMS])


def test_truncated_metrics_are_named(tmp_path):
    (path,) = write_runs(tmp_path, ["mobilenet"], ["jetson_tx2"], [0.5], ["ecc"], [0])
    path.write_text(path.read_text()[:-9])
    with pytest.raises(UserError, match=str(path)):
        tables.widths([path])


def test_errors_of_energy_models_are_gathered_once_each(tmp_path):
    errors, histories = write_models(tmp_path)
    frame = tables.energy_model_errors(errors)
    assert list(frame) == tables.ERRORS
    assert frame.equals(tables.energy_model_errors(errors[::-1]))
    with pytest.raises(UserError, match=str(errors[1])):
        tables.energy_model_errors([*errors, errors[1]])
    text = histories[0].read_text()
    histories[0].write_text(text.rstrip().rsplit(",", 1)[0] + ",\n")
    with pytest.raises(UserError, match=str(histories[0])):
        tables.energy_model_history(histories)


def test_anchors_compare_what_was_published(tmp_path):
    published = tmp_path / "paper_values.csv"
    published.write_text(
        "source,experiment,network,platform,method,quantity,unit,value,note\n"
        "ECC,dense,alexnet,jetson_tx2,dense,energy,J,0.0498,\n"
        "ECC,dense,alexnet,jetson_tx2,dense,top1,fraction,0.566,\n"
    )
    dense = []
    for network in ("alexnet", "alexnet_embedded"):
        dense.append(tmp_path / f"{network}.json")
        values = {"platform": "jetson_tx2", "network": network, "dense_energy_j": 0.0498 * 1.01}
        dense[-1].write_text(json.dumps(values))
    frame = tables.energy_anchors(published, dense)
    assert list(frame) == tables.ANCHORS
    assert list(frame["network"]) == ["alexnet"]
    np.testing.assert_allclose(frame["relative_difference"], 0.01, rtol=1e-6)
    assert list(tables.energy_anchors(published, dense[1:])) == tables.ANCHORS


def test_timings_say_that_they_are_not_reproducible(runs):
    stages = pd.DataFrame({"what": ["fit of bilinear_chain"], "seconds": [1.5]})
    frame = tables.timings(runs, stages)
    assert list(frame) == ["what", "seconds", "peak_memory_mb", "hardware"]
    assert len(frame) == 2 * len(runs) + 1
    assert frame["what"].str.endswith("(wall clock, not reproducible)").all()


def test_table_01_counts_the_networks_of_each_method():
    accuracies = pd.DataFrame({"method": ["ecc", "netadapt", "ecc"]})
    frame = tables.table_01(ROOT / "resources/published/methods.csv", accuracies)
    counts = frame.set_index("method")["networks"]
    assert counts.to_dict() == {"ecc": 2, "netadapt": 1, "amc": 0, "eap": 0, "lcp": 0}


def test_table_2_has_a_row_a_method_and_a_column_a_budget(runs):
    compared = tables.comparison(tables.accuracy_at_budget(runs))
    frame = tables.table_02(compared, PUBLISHED)
    assert list(frame["method"]) == ["amc", "ecc", "netadapt", "uniform"]
    shares = (0.8, 0.65, 0.5, 0.4)
    stated = {
        "gtx1080ti": (1.6519, 1.5238, 1.4451, 1.3843),
        "jetson_tx2": (1.0724, 0.9756, 0.9051, 0.8542),
    }
    columns = [
        column
        for platform, budgets in stated.items()
        for share, budget in zip(shares, budgets, strict=True)
        for column in (
            f"{platform}_{share * DENSE_J['erfnet', platform]:.6g}_J",
            f"paper_{platform}_{budget}_J",
        )
    ]
    assert list(frame) == ["method", *columns]
    of_runs = tables.accuracy_at_budget(runs).query(
        "experiment == 'erfnet' and platform == 'jetson_tx2' and method == 'ecc'"
    )
    means = of_runs.groupby("budget_j")["accuracy"].mean().sort_index(ascending=False)
    by_method = frame.set_index("method")
    ours, paper = columns[8::2], columns[1::2]
    np.testing.assert_allclose(by_method.loc["ecc", ours].astype(float), means, rtol=1e-6)
    ecc = [0.7163, 0.7007, 0.6830, 0.6713, 0.7183, 0.7017, 0.6914, 0.6733]
    assert list(by_method.loc["ecc", paper]) == ecc
    assert by_method.loc["amc", "paper_gtx1080ti_1.6519_J"] == 0.6992
    assert by_method.loc["amc", ours].isna().all()
    assert by_method.loc["uniform", paper].isna().all()


def test_table_2_has_what_of_the_paper_belongs_to_the_run(runs):
    compared = tables.comparison(tables.accuracy_at_budget(runs))
    others = compared[compared["experiment"] != "erfnet"]
    assert list(tables.table_02(others, PUBLISHED)) == ["method"]
    tx2 = compared[(compared["platform"] == "jetson_tx2") & (compared["budget_fraction"] > 0.6)]
    _, *columns = tables.table_02(tx2, PUBLISHED)
    assert [name.rsplit("_", 2)[0] for name in columns] == [
        *["jetson_tx2", "paper_jetson_tx2"] * 2,
        *["paper_jetson_tx2"] * 2,
    ]


def test_segmentation_is_told_by_its_own_measure(evidence):
    told = [axes.get_ylabel() for axes in figures.draw("table_02", evidence, TITLES).axes]
    assert told[0] == "mean IoU after fine-tuning"
    assert figures.draw("figure_04", evidence, TITLES).axes[0].get_ylabel().startswith("accuracy ")


# Figures


@pytest.mark.parametrize("key", plan.FIGURES)
def test_every_figure_says_what_is_emulated_and_has_units(evidence, key):
    figure = figures.draw(key, evidence, TITLES)
    words = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    assert any("emulated" in text for text in words)
    assert all(axes.get_xlabel() for axes in figure.axes)
    if plan.FIGURES[key].kind == "accuracy":
        unit = "(J)" if key == "table_02" else "(mJ)"
        assert all(axes.get_xlabel().endswith(unit) for axes in figure.axes)


@pytest.mark.parametrize("number", [2, 3, 4, 6, 7])
def test_figures_of_one_platform_budget_and_seed(tmp_path, number):
    small = gather(
        write_runs(tmp_path / "runs", ["mobilenet"], ["jetson_tx2"], [0.5], ["ecc"], [0]),
        *write_models(tmp_path / "models", [("mobilenet", "jetson_tx2")], graph=False),
    )
    path = tmp_path / "figure.png"
    style.save(figures.draw(f"figure_{number:02}", small, TITLES), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_figure_without_data_is_refused(evidence):
    runs = evidence["accuracy_at_budget"]
    only = {**evidence, "accuracy_at_budget": runs[runs["experiment"] == "mobilenet"]}
    with pytest.raises(UserError, match="Figure 5"):
        figures.draw("figure_05", only, TITLES)


def test_points_and_bars_are_mean_and_range_over_seeds(evidence):
    figure = figures.draw("figure_04", evidence, TITLES)
    axes = next(one for one in figure.axes if "Jetson" in one.get_title())
    bars = next(c for c in axes.containers if c.get_label() == "ECC")
    runs = evidence["accuracy_at_budget"].query(
        "experiment == 'mobilenet' and platform == 'jetson_tx2' and method == 'ecc'"
    )
    seeds = runs.groupby("budget_j")["accuracy"]
    np.testing.assert_allclose(
        bars[0].get_xdata().astype(float), 1e3 * np.array(sorted(seeds.groups))
    )
    np.testing.assert_allclose(bars[0].get_ydata().astype(float), seeds.mean(), rtol=1e-6)
    ends = np.array([np.asarray(segment, float)[:, 1] for segment in bars[2][0].get_segments()])
    np.testing.assert_allclose(ends, np.stack([seeds.min(), seeds.max()], axis=1), rtol=1e-6)


def test_methods_and_budgets_differ_in_marker_and_line():
    for marks in (style.marks([str(i) for i in range(8)]).values(), style.ramp(8)):
        assert len({mark["marker"] for mark in marks}) == 8
        assert len({str(mark["linestyle"]) for mark in marks}) == 8
    assert list(style.marks(["amc", "ecc", "uniform"])) == ["ecc", "amc", "uniform"]


DRAW = """
import sys, pandas as pd
from ecc.evidence import figures, style
accuracies = pd.read_csv(sys.argv[1])
titles = {name: name for name in accuracies["platform"]}
figure = figures.draw("figure_04", {"accuracy_at_budget": accuracies}, titles)
style.save(figure, sys.argv[2], sys.argv[3])
assert "torch" not in sys.modules
"""


def test_figures_have_the_same_bytes_in_every_process(evidence, tmp_path):
    source = tmp_path / "accuracies.csv"
    evidence["accuracy_at_budget"].to_csv(source, index=False)
    for seed in ("1", "2"):
        subprocess.run(
            [
                sys.executable,
                "-c",
                DRAW,
                source,
                tmp_path / f"{seed}.png",
                tmp_path / f"{seed}.pdf",
            ],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        )
    for suffix in ("png", "pdf"):
        one, two = (tmp_path / f"{seed}.{suffix}" for seed in ("1", "2"))
        assert one.read_bytes() == two.read_bytes()


def of(*numbers):
    return [f"figure_{number:02}" for number in numbers]


def test_available_figures_are_those_that_have_data():
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    energy, experiments = config["energy"], config["experiments"]
    assert plan.available(energy, experiments) == [*of(*range(2, 12)), "table_02"]
    one = [{**experiments[0], "platforms": ["jetson_tx2"]}]
    assert plan.available({**energy, "networks": ["mobilenet"]}, one) == of(2, 3, 4, 6, 7)
    assert plan.available(energy, [{**one[0], "methods": ["uniform"]}]) == of(2, 3, 4, 7, 9, 10)
    solved = [model for model in energy["models"] if model["fit"] == "nnls"]
    assert plan.available({**energy, "models": solved}, [{**one[0], "name": "other"}]) == []


# Captions

CAPTIONS = ROOT / "docs/report"


def searched(method, warm_up, level, decay=1.0):
    """The history of a fabricated search: always the same reward."""
    agent = np.arange(30) - warm_up
    return pd.DataFrame(
        {
            "experiment": "mobilenet",
            "platform": "jetson_tx2",
            "method": method,
            "budget_fraction": 0.5,
            "limits": tables.NO_LIMITS,
            "seed": 0,
            "score": "accuracy",
            "episode": np.arange(30),
            "holdout_accuracy": level,
            "best": level,
            "noise": np.where(agent < 0, np.nan, 0.5 * decay ** np.maximum(agent, 0)),
        }
    )


@pytest.mark.parametrize("decay", [0.9, 1.0])
def test_entries_of_one_method_learn_apart(decay):
    histories = [searched("amc", 10, 0.2, decay), searched("amc_published", 20, 0.6, decay)]
    figure = learning.learning(pd.concat(histories), TITLES)
    titles = [axes.get_title().splitlines() for axes in figure.axes]
    assert [lines[1] for lines in titles] == ["AMC", "AMC, published settings"]
    for axes, level, warm_up in zip(figure.axes, (0.2, 0.6), (10, 20), strict=True):
        smooth, best, switch = axes.lines
        assert smooth.get_ydata() == pytest.approx(level)
        assert best.get_ydata() == pytest.approx(level)
        assert axes.get_ylim()[0] == 0
        assert axes.get_ylim()[1] > 0.6
        # Between the last episode at random and the first of the agent.
        assert switch.get_xdata()[0] == pytest.approx(warm_up - 0.5)


def test_a_search_at_random_only_is_drawn(tmp_path):
    figure = learning.learning(searched("amc", 30, 0.2), TITLES)
    assert len(figure.axes[0].get_title().splitlines()) == 1
    style.save(figure, tmp_path / "learning.png")


def test_every_figure_and_table_has_a_caption():
    named = {caption.stem for caption in CAPTIONS.glob("*.rst")}
    shown = set(plan.FIGURES)
    functions = {"accuracy_at_budget", "widths", "comparison", "timings"}
    functions |= {"energy_model_errors", "energy_model_history", "energy_anchors"}
    functions |= {"closing", "equal_terms", "limits", "learning"}
    functions |= {"repeatability", "drift", "staircase", "eap_pruning", "eap_classes"}
    functions |= {"eap_layers", "eap_networks", "eap_results", "claims", "ranking", "differences"}
    functions |= {"measured", "finetuning", "fronts", "convergence", "residuals"}
    functions |= {"energy_model_residuals", "efficiency", "table_01", "provenance"}
    functions |= {f"evolution_{name}" for name in ("networks", "spread", "fronts", "hypervolume")}
    assert named == shown | functions | {"workflow"}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("ys", [[0.5], [0.1, 0.5, 0.9], [0.5] * 6, [0.0, 0.01, 0.02, 1.0, 1.0]])
def test_names_of_lines_keep_apart_and_inside_in_the_order_of_the_lines(ys, side):
    with style.theme():
        figure, (axes,) = style.panels(["panel"])
        for y in ys:
            axes.plot([1, 2, 3], [y] * 3)
        before = axes.get_xlim()
        ends = [(1 if side == "left" else 3, y, f"line {i}", "C0") for i, y in enumerate(ys)]
        style.label_lines(axes, ends, side)
        figure.draw_without_rendering()
        boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the lines to them
        panel = axes.get_window_extent()
    assert [text.get_text() for text in axes.texts] == [f"line {i}" for i in range(len(ys))]
    for lower, upper in itertools.pairwise(boxes):
        assert lower.y1 <= upper.y0 + 2
    for box in boxes:
        assert panel.x0 <= box.x0 <= box.x1 <= panel.x1
        assert panel.y0 - 2 <= box.y0 <= box.y1 <= panel.y1 + 2
    assert all(before[0] <= tick <= before[1] for tick in axes.get_xticks())
