"""Statistics of methods at equal budgets against known answers."""

from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, ttest_ind, ttest_rel, wilcoxon
from test_evidence import write_runs

from ecc.evidence import statistics, tables
from ecc.evidence.statistics import bootstrap, contrast, interval


def covered(of, budgets: int, seeds: int, spread: float, draws: int = 1000) -> float:
    """How often it has the truth; the last budget's seeds spread `spread` times as far."""
    rng = np.random.default_rng(1)
    deviations = np.geomspace(1, spread, budgets)[:, None]
    cells = 0.3 + 0.05 * deviations * rng.normal(size=(draws, budgets, seeds))
    found = [of(cell) for cell in cells]
    return float(np.mean([one.low <= 0.3 <= one.high for one in found]))


@pytest.mark.parametrize(("budgets", "seeds"), [(1, 2), (1, 3), (2, 3), (8, 2), (8, 3)])
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_an_interval_covers_the_truth_as_often_as_it_says(budgets, seeds, spread):
    assert 0.93 <= covered(interval, budgets, seeds, spread) <= 0.99


@pytest.mark.parametrize(("budgets", "seeds"), [(4, 2), (4, 3), (8, 2), (8, 3)])
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_a_bootstrap_over_budgets_covers_the_truth_as_well(budgets, seeds, spread):
    assert 0.92 <= covered(bootstrap, budgets, seeds, spread, 300) <= 0.995


def test_a_contrast_has_the_degrees_of_freedom_of_welch():
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=3), rng.normal(scale=9, size=5)
    known = ttest_ind(one, other, equal_var=False)
    of = contrast([one, other], [1, -1])
    assert of.freedom == pytest.approx(known.df)
    assert of.mean / of.error == pytest.approx(known.statistic)
    less = ttest_ind(one, other, equal_var=False, alternative="less")
    assert of.below(0.0) == pytest.approx(less.pvalue)
    by_scipy = ttest_ind(one, other, equal_var=False).confidence_interval()
    assert astuple(interval([one, other], [1, -1]))[1:] == pytest.approx(
        (by_scipy.low, by_scipy.high)
    )
    alike = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert contrast(alike).freedom == pytest.approx(4)


def test_the_mean_of_an_interval_is_exact_and_weights_make_contrasts():
    assert interval([[1.0, 3.0], [5.0, 7.0]]).mean == 4.0
    apart = interval([[1.0, 3.0], [5.0, 7.0]], [-1.0, 1.0])
    assert apart.mean == 4.0
    assert apart.low < 4.0 < apart.high


def test_the_same_values_have_the_same_interval():
    cells = [[0.1, 0.4, 0.2], [0.7, 0.5, 0.9]]
    assert bootstrap(cells) == bootstrap(cells)


@pytest.mark.parametrize("cells", [[[0.5], [0.7]], [[0.5, 0.5], [0.7, 0.7]]])
def test_without_a_spread_there_is_a_mean_and_no_interval(cells):
    for one in (interval(cells), bootstrap(cells)):
        assert one.mean == pytest.approx(0.6)
        assert np.isnan([one.low, one.high]).all()
    assert np.isnan(contrast(cells).below(0.0))


@pytest.fixture(scope="module")
def accuracies(tmp_path_factory):
    return tables.accuracy_at_budget(write_runs(tmp_path_factory.mktemp("runs")))


def test_differences_are_those_of_the_means(accuracies):
    found = statistics.differences(accuracies)
    compared = tables.comparison(accuracies)
    keys = ["experiment", "platform", "budget_fraction", "stage", "method"]
    both = found.merge(compared, on=keys, suffixes=("", "_of_means"))
    assert len(both) == len(found) == 3 * 2 * 4 * 2 * 2
    np.testing.assert_allclose(both["minus_ecc"], both["minus_ecc_of_means"], atol=2e-8)
    assert (found["low"] <= found["minus_ecc"]).all()
    assert (found["minus_ecc"] <= found["high"]).all()


def made(values: dict[str, list[list[float]]], budgets=(0.5, 0.6, 0.9)) -> pd.DataFrame:
    """accuracy_at_budget of methods: a list a budget, with the seeds' values."""
    rows = [
        {
            "experiment": "mobilenet",
            "dataset": "fractals",
            "platform": "jetson_tx2",
            "limits": "none",
            "method": method,
            "budget_fraction": budget,
            "budget_j": budget,
            "seed": seed,
            "score": "accuracy",
            "accuracy": value,
            "accuracy_before_finetuning": value / 2,
            "dense_accuracy": 0.95,
        }
        for method, cells in values.items()
        for budget, cell in zip(budgets, cells, strict=True)
        for seed, value in enumerate(cell)
    ]
    return pd.DataFrame(rows)


AT_BUDGETS = [[0.5, 0.52], [0.6, 0.62], [0.9, 0.91]]


def test_ranks_areas_and_tests_have_their_known_answers():
    ecc = AT_BUDGETS
    other = [[0.4, 0.45], [0.61, 0.63], [0.85, 0.8]]
    last = [[0.1, 0.12], [0.2, 0.21], [0.3, 0.33]]
    found = statistics.ranking(made({"ecc": ecc, "netadapt": other, "uniform": last}))
    after = found[found["stage"] == "after_finetuning"].set_index("method")
    assert after["mean_rank"].to_dict() == pytest.approx(
        {"ecc": 4 / 3, "netadapt": 5 / 3, "uniform": 3.0}
    )
    by_hand = (0.1 * (0.51 + 0.61) / 2 + 0.3 * (0.61 + 0.905) / 2) / 0.4
    assert after.loc["ecc", "area"] == pytest.approx(by_hand)
    paired = np.ravel(other) - np.ravel(ecc)
    assert after.loc["netadapt", "minus_ecc"] == pytest.approx(paired.mean())
    assert after.loc["netadapt", "p_wilcoxon"] == pytest.approx(wilcoxon(paired).pvalue)
    assert np.isnan(after.loc["ecc", "p_wilcoxon"])
    assert (found["p_corrected"].dropna() >= found["p_wilcoxon"].dropna()).all()
    assert after["p_friedman"].nunique() == 1
    assert after["p_friedman"].iloc[0] < 0.05
    of_stages = found.groupby("stage")["p_friedman"].first()
    corrected = found.groupby("stage")["p_friedman_corrected"].unique()
    assert (corrected.str.len() == 1).all()
    np.testing.assert_allclose(corrected.str[0].astype(float), false_discovery_control(of_stages))


def test_two_methods_have_no_test_of_friedman():
    found = statistics.ranking(made({"ecc": AT_BUDGETS, "netadapt": AT_BUDGETS[::-1]}))
    assert found[["p_friedman", "p_friedman_corrected"]].isna().all(axis=None)


def test_a_difference_has_a_paired_test_corrected_over_the_table():
    ecc, other = AT_BUDGETS, [[0.4, 0.45], [0.61, 0.64], [0.85, 0.8]]
    found = statistics.differences(made({"ecc": ecc, "netadapt": other}))
    after = found[found["stage"] == "after_finetuning"].sort_values("budget_fraction")
    by_scipy = [ttest_rel(a, b).pvalue for a, b in zip(other, ecc, strict=True)]
    np.testing.assert_allclose(after["p_paired"], by_scipy, rtol=1e-6)
    np.testing.assert_allclose(
        found["p_corrected"], false_discovery_control(found["p_paired"]), rtol=1e-6
    )


def test_a_method_that_is_ecc_does_not_differ_from_it():
    found = statistics.ranking(made({"ecc": AT_BUDGETS, "netadapt": AT_BUDGETS}))
    same = found[found["method"] == "netadapt"]
    assert (same["minus_ecc"] == 0).all()
    assert (same["p_wilcoxon"] == 1).all()
    assert (found["mean_rank"] == 1.5).all()


def test_without_ecc_there_is_a_ranking_and_no_difference():
    values = made({"uniform": [[0.5], [0.6], [0.9]], "netadapt": [[0.4], [0.7], [0.8]]})
    assert statistics.differences(values).empty
    found = statistics.ranking(values)
    assert found["minus_ecc"].isna().all()
    assert len(found) == 4
