"""Statistics of methods at equal budgets against known answers."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon
from test_evidence import write_runs

from ecc.evidence import statistics, tables
from ecc.evidence.statistics import Interval, interval


def test_an_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    cells = rng.normal(0.3, 0.05, size=(300, 8, 3))  # 300 experiments of 8 budgets and 3 seeds
    found = [interval(cell) for cell in cells]
    covered = np.mean([one.low <= 0.3 <= one.high for one in found])
    assert 0.91 <= covered <= 0.98
    # The stretch undoes what resampling three values takes from their variance.
    width = np.mean([one.high - one.low for one in found])
    assert width == pytest.approx(2 * 1.96 * 0.05 / np.sqrt(8 * 3), rel=0.06)


def test_the_mean_of_an_interval_is_exact_and_weights_make_contrasts():
    assert interval([[1.0, 3.0], [5.0, 7.0]]).mean == 4.0
    apart = interval([[1.0, 3.0], [5.0, 7.0]], [-1.0, 1.0])
    assert apart.mean == 4.0
    assert apart.low < 4.0 < apart.high
    assert interval([[2.0, 2.0]]) == Interval(2.0, 2.0, 2.0)


def test_the_same_values_have_the_same_interval():
    cells = [[0.1, 0.4, 0.2], [0.7, 0.5, 0.9]]
    assert interval(cells) == interval(cells)


def test_one_seed_has_a_mean_and_no_interval():
    one = interval([[0.5], [0.7]])
    assert one.mean == pytest.approx(0.6)
    assert np.isnan(one.low)
    assert np.isnan(one.high)


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


def test_ranks_areas_and_tests_have_their_known_answers():
    ecc = [[0.5, 0.52], [0.6, 0.62], [0.9, 0.91]]
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


def test_a_method_that_is_ecc_does_not_differ_from_it():
    ecc = [[0.5, 0.52], [0.6, 0.62], [0.9, 0.91]]
    found = statistics.ranking(made({"ecc": ecc, "netadapt": ecc}))
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
