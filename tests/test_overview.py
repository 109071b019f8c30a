"""Figures that the papers do not have, drawn from fabricated runs."""

import numpy as np
import pandas as pd
import pytest
from test_evidence import TITLES, write_runs

from ecc.evidence import overview, style, tables


@pytest.fixture(scope="module")
def accuracies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return tables.accuracy_at_budget(write_runs(folder, experiments=("mobilenet", "erfnet")))


def panel_titles(figure):
    return [one.get_title() for one in figure.axes]


@pytest.mark.parametrize("name", ["measured", "finetuning", "fronts"])
def test_there_is_a_panel_for_each_experiment_and_platform(accuracies, name, tmp_path):
    figure = getattr(overview, name)(accuracies, TITLES)
    assert panel_titles(figure) == [
        f"{network}, emulated {device}"
        for network in ("MobileNet", "ERFNet")
        for device in ("GTX 1080 Ti", "Jetson TX2")
    ]
    (legend,) = figure.legends
    shown = {text.get_text() for text in legend.get_texts()}
    assert {"ECC", "NetAdapt", "uniform width"} <= shown
    style.save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_measured_shows_each_run_by_model_and_by_measurement(accuracies):
    figure = overview.measured(accuracies, TITLES)
    drawn = [line.get_ydata() for line in figure.axes[0].lines]
    points = np.concatenate([ys for ys in drawn if len(ys) > 2])
    assert len(points) == 2 * 4 * 3 * 3
    assert set(np.round(points, 6)) == {-0.01, -0.005}


def test_slopes_begin_before_and_end_after_finetuning(accuracies):
    figure = overview.finetuning(accuracies, TITLES)
    where = (accuracies["experiment"] == "mobilenet") & (accuracies["platform"] == "gtx1080ti")
    ecc = accuracies[where & (accuracies["method"] == "ecc")].groupby("budget_fraction")
    means = ecc[["accuracy_before_finetuning", "accuracy"]].mean().to_numpy()
    slopes = [line.get_ydata() for line in figure.axes[0].lines[:4]]
    np.testing.assert_allclose(slopes, means)


def test_a_front_is_what_nothing_beats(accuracies):
    figure = overview.fronts(accuracies, TITLES)
    front = figure.axes[0].lines[0]
    assert front.get_label() == "Pareto front"
    energies, scores = front.get_xdata(), front.get_ydata()
    assert (np.diff(energies) > 0).all()
    assert (np.diff(scores) > 0).all()
    others = [line for line in figure.axes[0].lines[1:] if len(line.get_xdata())]
    for line in others:
        for energy, score in zip(line.get_xdata(), line.get_ydata(), strict=True):
            assert score <= scores[energies <= energy].max()


def test_convergence_shows_energy_bounds_and_duals():
    steps = 5
    history = pd.DataFrame(
        {
            "iteration": range(steps),
            "energy_j": np.linspace(1.0, 0.5, steps),
            "bound_energy_j": np.linspace(1.0, 0.5, steps),
            "z": range(steps),
            **{f"s_{group}": np.linspace(8, 4, steps) for group in range(2)},
            **{f"y_{group}": np.ones(steps) for group in range(2)},
        }
    )
    figure = overview.convergence(history, {"a": 8, "b": 16}, budget_j=0.5, title="emulated")
    assert figure.get_suptitle() == "emulated"
    energy, bounds, duals, dual = figure.axes
    assert [len(one.lines) for one in (energy, bounds, duals, dual)] == [3, 2, 2, 1]
    assert bounds.lines[1].get_ydata()[-1] == pytest.approx(4 / 16)


def test_residuals_are_drawn_at_their_group_and_width(tmp_path):
    keys = {"platform": "jetson_tx2", "network": "mobilenet", "fit": "adam", "samples": 200}
    table = pd.DataFrame(
        [
            {**keys, "model": model, "group": f"features.{group}", "width_to": (tenth + 1) / 10}
            | {"mean_relative_residual": scale * (group - tenth)}
            for model, scale in (("bilinear_chain", 0.01), ("mlp1", 0.5))
            for group in range(3)
            for tenth in range(1, 10)  # none of the smallest widths
        ]
    )
    figure = overview.residuals(table, TITLES)
    axes, bar = figure.axes
    assert axes.get_title() == "MobileNet, emulated Jetson TX2"
    (mesh,) = axes.collections
    drawn = np.ma.filled(mesh.get_array(), np.nan).reshape(3, 10)
    expected = 0.01 * (np.arange(3)[:, None] - np.arange(10.0))
    expected[:, 0] = np.nan
    np.testing.assert_allclose(drawn, expected)
    assert axes.yaxis_inverted()
    assert bar.get_ylabel() == "modelled less measured energy, of measured"
    style.save(figure, tmp_path / "residuals.png")
