"""Claims: which are listed, how tables decide them, and what a run without data says."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from test_statistics import made

from ecc.errors import UserError
from ecc.evidence import claims, eap
from ecc.evidence.claims import FAILS, HOLDS, OPEN
from ecc.evidence.statistics import Interval, interval

ROOT = Path(__file__).parents[1]
PAPER = "configs/paper.yaml"
SOURCE = ROOT / "resources/claims.yaml"
PUBLISHED = pd.read_csv(ROOT / "resources/published/paper_values.csv")


def verdict(rule, **frames):
    claim = {"id": "one", "source": "ECC", "claim": "it is so", "holds": "it is", "rule": rule}
    return claims.decide([claim], frames, PUBLISHED).iloc[0]


def runs(ecc, other, method="netadapt"):
    return made({"ecc": ecc, method: other})


AHEAD = [[0.80, 0.82], [0.84, 0.86], [0.90, 0.91]]
BEHIND = [[0.60, 0.63], [0.70, 0.71], [0.85, 0.87]]
OVER = {"kind": "runs", "over": "netadapt", "plus": {"experiment": "mobilenet"}}


def test_every_published_value_belongs_to_a_claim():
    covered = pd.Series(False, index=PUBLISHED.index)
    for claim in claims.read(SOURCE):
        query = {"source": "ECC", **claim.get("published", {"experiment": "none"})}
        per = query.pop("per", {}).get("method")
        for method in {query.get("method"), query.pop("minus", None), per} - {None} or {None}:
            rows = query if method is None else {**query, "method": method}
            found = PUBLISHED
            for column, value in rows.items():
                found = found[found[column] == value]
            covered[found.index] = True
    assert PUBLISHED[~covered].empty


def test_bounds_around_a_published_value_are_fifteen_percent_of_it():
    around = [one for one in claims.read(SOURCE) if one["holds"].startswith("within 15 %")]
    assert {one["id"] for one in around} == {
        f"eap_dense_{name}{of}"
        for name in ("alexnet", "googlenet")
        for of in ("", "_weights", "_macs")
    }
    for one in around:
        value = claims.stated(one["published"], PUBLISHED)
        bounds = one["rule"]["at_least"], one["rule"]["at_most"]
        assert bounds == pytest.approx((0.85 * value, 1.15 * value), rel=2e-3)


def test_claims_have_names_of_their_own_and_known_methods():
    listed = claims.read(SOURCE)
    assert len({claim["id"] for claim in listed}) == len(listed) >= 50
    settings = [yaml.safe_load((ROOT / file).read_text()) for file in ("config.yaml", PAPER)]
    methods = {name for one in settings for name in one["methods"]}
    for claim in listed:
        for rule in claims._rules(claim):
            for key in ("method", "over") if rule["kind"] == "runs" else ():
                assert set(claims._listed(rule.get(key, "ecc"))) <= methods


def test_what_a_paper_says_of_all_networks_and_methods_is_judged_on_each():
    judged = {}
    for claim in claims.read(SOURCE):
        for rule in claims._rules(claim):
            if rule["kind"] == "runs":
                both = rule.get("method", "ecc"), rule.get("over", "ecc")
                pair = frozenset(claims._listed(name)[0] for name in both)
                what = (rule.get("stage", "after"), pair)
                judged.setdefault(what, set()).add(rule["plus"]["experiment"])
    networks, others = {"mobilenet", "alexnet", "erfnet"}, ("netadapt", "amc")
    assert judged["gain", frozenset({"ecc"})] == networks
    for other in others:
        assert judged["gain", frozenset({"ecc", other})] == networks
        assert judged["after", frozenset({"ecc", other})] == networks
        assert judged["before", frozenset({"ecc", other})] == networks - {"erfnet"}
    deeper = [one["rule"] for one in claims.read(SOURCE) if one["id"].startswith("depth")]
    assert [claims._listed(rule["over"])[0] for rule in deeper] == list(others)


def test_a_run_without_tables_decides_nothing_and_says_what_is_missing():
    found = claims.decide(claims.read(SOURCE), {}, PUBLISHED)
    assert (found["verdict"] == OPEN).all()
    assert (found["reason"].str.len() > 0).all()
    assert found["ours"].isna().all()
    assert (found["tables"] == "").all()
    energy = found.set_index("claim_id").loc["eap_convolutions", "reason"]
    assert energy == "this run has no eap_networks.csv; configs/complete.yaml has it"


@pytest.mark.parametrize(
    ("ecc", "other", "expected"),
    [
        (AHEAD, BEHIND, HOLDS),
        (BEHIND, AHEAD, FAILS),
        ([[0.7, 0.9], [0.8, 0.6], [0.8, 0.9]], [[0.9, 0.7], [0.6, 0.8], [0.9, 0.8]], OPEN),
    ],
)
def test_a_lead_is_decided_by_its_interval(ecc, other, expected):
    found = verdict(OVER, accuracy_at_budget=runs(ecc, other))
    assert found["verdict"] == expected
    assert found["ours"] == pytest.approx(np.mean(ecc) - np.mean(other), abs=1e-8)
    assert found["low"] <= found["ours"] <= found["high"]


def test_everywhere_means_at_every_budget():
    rule = {**OVER, "everywhere": True}
    assert verdict(rule, accuracy_at_budget=runs(AHEAD, BEHIND))["verdict"] == HOLDS
    ahead, behind = [[0.83, 0.84, 0.85]] * 3, [[0.67, 0.65, 0.64]] * 2
    told = "score, less that of NetAdapt, above at 2 of 3 budgets, 3 seeds, below at others"
    found = verdict(rule, accuracy_at_budget=runs(ahead, [*behind, [0.9301, 0.9401, 0.9501]]))
    assert found["verdict"] == FAILS
    assert found["reason"] == f"{told} not by chance"
    # Alone this budget's interval would end below 0; of three budgets one does so more often.
    others = [0.90, 0.88, 0.92]
    assert interval([np.subtract(ahead[2], others)]).high < 0
    found = verdict(rule, accuracy_at_budget=runs(ahead, [*behind, others]))
    assert found["verdict"] == OPEN
    assert found["reason"] == f"{told} by chance, as far as the seeds tell"


def test_budgets_without_a_difference_are_seldom_told_apart():
    rule = {**OVER, "everywhere": True}
    rng = np.random.default_rng(3)
    budgets = np.linspace(0.2, 0.9, 8)
    contrary = []
    for _ in range(60):
        ahead = rng.normal([[0.9]] * 4 + [[0.5]] * 4, 0.02, size=(8, 3))
        behind = rng.normal(0.5, 0.02, size=(8, 3))
        frame = made({"ecc": ahead, "netadapt": behind}, budgets)
        contrary.append(verdict(rule, accuracy_at_budget=frame)["verdict"] == FAILS)
    assert np.mean(contrary) <= 0.1


def test_one_seed_leaves_it_open():
    found = verdict(OVER, accuracy_at_budget=runs([[0.9]] * 3, [[0.5]] * 3))
    assert found["verdict"] == OPEN
    assert "no repetitions that differ" in found["reason"]


def test_a_lead_that_grows_is_the_tightest_less_the_widest():
    rule = {
        **OVER,
        "plus": {"experiment": "mobilenet", "budget": "tightest"},
        "minus": {"experiment": "mobilenet", "budget": "widest"},
    }
    found = verdict(rule, accuracy_at_budget=runs(AHEAD, BEHIND))
    assert found["ours"] == pytest.approx(0.195 - 0.045)
    assert found["verdict"] == HOLDS


@pytest.mark.parametrize(
    ("saves", "expected", "ours", "told"),
    [
        (0.1, HOLDS, 0.045, "10.0% saved"),
        (0.4, FAILS, 0.1, "40.0% saved"),
        (0.45, FAILS, 0.1, "40.0% saved"),  # what saves less loses too much already
        (0.3, OPEN, 0.1, "40.0% saved; loss from dense at 10.0% saved"),
        (0.05, HOLDS, 0.045, "10.0% saved"),
    ],
)
def test_a_saving_is_judged_by_the_budgets_around_it(saves, expected, ours, told):
    rule = {"kind": "saving", "experiment": "mobilenet", "platform": "jetson_tx2", "at_most": 0.06}
    frame = runs([[0.8, 0.82], [0.8495, 0.8505], [0.9045, 0.9055]], BEHIND)
    found = verdict({**rule, "saves": saves}, accuracy_at_budget=frame)
    assert (found["verdict"], found["ours"]) == (expected, pytest.approx(ours))
    assert told in found["reason"]


def test_a_saving_beyond_all_budgets_is_open():
    rule = {"kind": "saving", "experiment": "mobilenet", "platform": "jetson_tx2", "at_most": 0.06}
    frame = runs([[0.93, 0.931], [0.932, 0.933], [0.934, 0.935]], BEHIND)
    found = verdict({**rule, "saves": 0.6}, accuracy_at_budget=frame)
    assert (found["verdict"], found["reason"]) == (OPEN, "no budget saves as much as 60%")
    frame = runs([[0.1, 0.11]] * 3, BEHIND)
    found = verdict({**rule, "saves": 0.05}, accuracy_at_budget=frame)
    assert (found["verdict"], found["reason"]) == (OPEN, "no budget saves as little as 5%")


def test_gain_is_after_less_before_and_nearest_is_nearest():
    rule = {"kind": "runs", "stage": "gain", "plus": {"experiment": "mobilenet", "nearest": 0.62}}
    found = verdict(rule, accuracy_at_budget=runs(AHEAD, BEHIND))
    assert found["ours"] == pytest.approx(0.85 / 2)


def test_the_first_entry_that_ran_stands_for_a_method():
    frame = runs(AHEAD, BEHIND, "netadapt_table")
    assert verdict(OVER, accuracy_at_budget=frame)["reason"] == "this run has no NetAdapt there"
    rule = {**OVER, "over": ["netadapt", "netadapt_table"]}
    assert verdict(rule, accuracy_at_budget=frame)["verdict"] == HOLDS


def test_runs_with_limits_are_left_out():
    frame = runs(AHEAD, BEHIND)
    limited = runs(BEHIND, AHEAD).assign(limits="parameters-dense-0.5")
    found = verdict(OVER, accuracy_at_budget=pd.concat([frame, limited]))
    assert found["verdict"] == HOLDS


def test_values_of_several_columns_are_summed_and_divided():
    rule = {"kind": "value", "table": "eap", "where": {}, "of": "min", "spread": 0}
    rule |= {"column": ["inputs", "outputs"], "per": "weights", "at_least": 1.0}
    table = pd.DataFrame({"inputs": [1.0, 2.0], "outputs": [2.0, 4.0], "weights": [2.0, 5.0]})
    found = verdict(rule, eap=table)
    assert (found["verdict"], found["ours"]) == (HOLDS, 1.2)
    assert found["reason"].startswith("inputs and outputs per weights, min of 2")
    assert verdict(rule, eap=table.assign(weights=7.0))["verdict"] == FAILS


def test_sizes_that_do_not_order_costs_are_found_in_pairs():
    rule = {"kind": "misordered", "table": "nets", "where": {}, "by": "size", "cost": "energy"}
    rule |= {"at_least": 0.1, "exact": True}
    nets = pd.DataFrame({"size": [10, 20, 30, 31], "energy": [3.0, 2.0, 4.0, 3.5]})
    found = verdict(rule, nets=nets)
    assert found["ours"] == pytest.approx(1 / 5, abs=1e-6)  # 30 and 31 are alike
    assert found["verdict"] == HOLDS
    assert verdict(rule, nets=nets.assign(energy=nets["size"]))["verdict"] == FAILS
    assert verdict(rule, nets=nets[:1])["verdict"] == OPEN
    more = pd.DataFrame({"size": [10, 20, 30, 31], "energy": [4.0, 5.0, 6.0, 4.5]})
    of_runs = pd.concat([nets.assign(seed=0), more.assign(seed=1), nets.assign(seed=2)])
    found = verdict({**rule, "exact": False}, nets=of_runs)
    assert found["ours"] == pytest.approx((1 + 1 + 1) / 5 / 3)
    assert verdict({**rule, "exact": False}, nets=nets)["verdict"] == OPEN


def test_what_cannot_be_tested_still_shows_its_number():
    rule = {"kind": "untestable", "reason": "calibrated", "table": "anchors", "column": "ours_j"}
    anchors = pd.DataFrame({"network": ["alexnet", "erfnet"], "ours_j": [0.2, 1.9]})
    found = verdict({**rule, "where": {"network": "erfnet"}}, anchors=anchors)
    assert (found["verdict"], found["ours"], found["reason"]) == (OPEN, 1.9, "calibrated")
    assert found["tables"] == "anchors"


def errors(chain, *layers, platform="jetson_tx2"):
    named = {"bilinear_chain": chain} | {f"mlp{i + 1}": value for i, value in enumerate(layers)}
    where = {"platform": platform, "network": "mobilenet", "fit": "adam", "test_samples": 2000}
    return pd.DataFrame(
        [{**where, "model": model, "relative_test_error": value} for model, value in named.items()]
    )


def test_an_error_of_a_model_is_as_certain_as_its_test_samples_make_it():
    rule = {"kind": "model_error", "network": "mobilenet", "model": "bilinear_chain"}
    both = pd.concat([errors(0.02), errors(0.03, platform="gtx1080ti")])
    found = verdict({**rule, "at_most": 0.035}, energy_model_errors=both)
    assert found["verdict"] == HOLDS
    assert found["ours"] == 0.03
    assert found["high"] == pytest.approx(0.03 * (1 + 1.96 / 2000**0.5), rel=1e-4)
    assert verdict({**rule, "at_most": 0.025}, energy_model_errors=both)["verdict"] == FAILS
    assert verdict({**rule, "at_most": 0.0305}, energy_model_errors=both)["verdict"] == OPEN
    few = both.assign(test_samples=20)
    assert verdict({**rule, "at_most": 0.035}, energy_model_errors=few)["verdict"] == OPEN


def test_perceptrons_are_judged_by_the_ratio_of_errors():
    rule = {"kind": "perceptron", "network": "mobilenet", "platform": "jetson_tx2"}
    worse = {**rule, "at_least": 1.1}
    found = verdict(worse, energy_model_errors=errors(0.02, 0.03, 0.031, 0.032))
    assert found["verdict"] == HOLDS
    assert found["ours"] == pytest.approx(1.55)
    assert verdict(worse, energy_model_errors=errors(0.03, 0.02, 0.021, 0.022))["verdict"] == FAILS
    # Depths that disagree this much say as little as their starting points.
    assert verdict(worse, energy_model_errors=errors(0.02, 0.02, 0.03, 0.04))["verdict"] == OPEN
    assert verdict(worse, energy_model_errors=errors(0.02, 0.03))["verdict"] == OPEN
    assert verdict(worse, energy_model_errors=errors(0.03))["verdict"] == OPEN


def test_convergence_compares_a_part_of_the_iterations_with_the_last():
    rule = {"kind": "convergence", "network": "mobilenet", "model": "bilinear_chain"}
    history = pd.DataFrame(
        {
            "platform": "jetson_tx2",
            "network": "mobilenet",
            "model": "bilinear_chain",
            "iteration": [1, 100, 200, 1000],
            "relative_test_error": [0.5, 0.1, 0.032, 0.03],
        }
    )
    frames = {"energy_model_history": history, "energy_model_errors": errors(0.03)}
    soon = {**rule, "part": 0.2, "at_most": 0.005}
    found = verdict(soon, **frames)
    assert found["verdict"] == HOLDS
    assert found["ours"] == pytest.approx(0.002)
    assert verdict({**soon, "part": 0.1}, **frames)["verdict"] == FAILS
    assert verdict({**soon, "at_most": 0.003}, **frames)["verdict"] == OPEN


def test_a_value_that_is_computed_is_as_certain_as_other_seeds_leave_it():
    table = pd.DataFrame({"network": ["alexnet", "googlenet"], "energy_over_first": [1.0, 2.1]})
    rule = {"kind": "value", "table": "eap_networks", "column": "energy_over_first", "of": "mean"}
    rule |= {"where": {"network": "googlenet"}, "at_least": 1.6, "spread": 0}
    found = verdict({**rule, "at_most": 2.2}, eap_networks=table)
    assert found["verdict"] == HOLDS
    assert (found["low"], found["high"]) == (2.1, 2.1)
    assert found["reason"].endswith("computed, the same with every seed")
    assert verdict({**rule, "at_most": 2.0}, eap_networks=table)["verdict"] == FAILS
    apart = {**rule, "spread": 0.05}
    found = verdict({**apart, "at_most": 2.205}, eap_networks=table)
    assert (found["verdict"], found["high"]) == (HOLDS, pytest.approx(2.205))
    assert "computed, other seeds within 5%" in found["reason"]
    assert verdict({**apart, "at_most": 2.2}, eap_networks=table)["verdict"] == OPEN
    assert verdict({**apart, "at_most": 1.9}, eap_networks=table)["verdict"] == FAILS
    absent = {**rule, "where": {"network": "vgg16"}}
    assert verdict(absent, eap_networks=table)["verdict"] == OPEN
    repeated = {key: value for key, value in rule.items() if key != "spread"}
    assert verdict(repeated, eap_networks=table)["verdict"] == OPEN


def test_a_value_of_runs_has_an_interval_over_them():
    near = pd.DataFrame({"arm": "accuracy", "seed": range(4), "saved": [2.0, 4.0, 3.0, np.nan]})
    rule = {"kind": "value", "table": "near", "where": {}, "column": "saved", "of": "mean"}
    found = verdict({**rule, "at_least": 0.2}, near=near)
    assert (found["verdict"], found["ours"]) == (HOLDS, 3.0)
    assert found["low"] < 1.0
    found = verdict({**rule, "ratio": True, "at_least": 1.0}, near=near)
    assert found["ours"] == pytest.approx(24 ** (1 / 3))
    assert found["low"] * found["high"] == pytest.approx(found["ours"] ** 2, rel=0.3)
    assert verdict({**rule, "at_least": 2.9}, near=near)["verdict"] == OPEN
    # Of the smallest of a run's rows: one value a run.
    twice = pd.concat([near, near.assign(saved=9.0)])
    found = verdict({**rule, "of": "min", "at_least": 0.5}, near=twice)
    assert found["ours"] == pytest.approx((2 + 4 + 3 + 9) / 4)


def kept(*fractions, seed=0, budget=0.5):
    return pd.DataFrame(
        {
            "experiment": "alexnet",
            "platform": "jetson_tx2",
            "method": "ecc",
            "seed": seed,
            "budget_fraction": budget,
            "limits": "none",
            "group": [f"layer.{i}" for i in range(len(fractions))],
            "width": [round(100 * fraction) for fraction in fractions],
            "full_width": 100,
        }
    )


def test_the_share_of_runs_has_the_exact_interval_of_shares():
    rule = {"kind": "most_pruned", "experiment": "alexnet", "method": "ecc", "above": 0.5}
    runs = [kept(0.9, 0.5, 0.2, seed=seed) for seed in range(6)]
    found = verdict({**rule, "group": "layer.2"}, widths=pd.concat(runs))
    assert (found["verdict"], found["ours"]) == (HOLDS, 1.0)
    assert found["low"] == pytest.approx(0.025 ** (1 / 6))  # of Clopper and Pearson
    assert verdict({**rule, "group": "layer.1"}, widths=pd.concat(runs))["verdict"] == FAILS
    assert verdict({**rule, "group": "layer.2"}, widths=pd.concat(runs[:5]))["verdict"] == OPEN


def test_a_group_is_not_the_most_pruned_by_the_rounding_of_lower_bounds():
    run = kept(0.9, 0.25, 0.2).assign(full_width=[100, 16, 1000])
    for width, first in ((4, False), (5, True)):  # 4 of 16 are the least that are a fifth or more
        widths = run.assign(width=[90, width, 200])
        widths["kept"] = widths["width"] / widths["full_width"]
        assert claims._is_first(widths, "layer.2") == first


def test_accuracy_of_the_dense_network_on_the_papers_images_only():
    rule = {"kind": "dense", "experiment": "mobilenet", "dataset": "imagenet", "at_least": 0.7}
    frame = runs(AHEAD, BEHIND).assign(dense_accuracy=0.71)
    found = verdict(rule, accuracy_at_budget=frame.assign(dataset="fractals"))
    assert (found["verdict"], found["reason"]) == (OPEN, "MobileNet did not run on imagenet")
    frame = frame.assign(dataset="imagenet")
    assert verdict(rule, accuracy_at_budget=frame)["verdict"] == HOLDS
    assert verdict({**rule, "at_least": 0.72}, accuracy_at_budget=frame)["verdict"] == FAILS


def test_what_the_papers_configuration_runs_is_asked_for():
    paper = yaml.safe_load((ROOT / PAPER).read_text())
    for claim in claims.read(SOURCE):
        for rule in claims._rules(claim):
            for experiment in paper["experiments"]:
                name = rule.get("plus", rule).get("experiment")
                if name != experiment["name"]:
                    continue
                for key in {"method", "over"} & set(rule):
                    asked = claims._listed(rule[key])
                    assert set(asked) & set(experiment["methods"]), claim["id"]
                assert rule.get("dataset", experiment["dataset"]) == experiment["dataset"]


def test_more_than_half_is_not_half():
    number = Interval(0.5, 0.5, 0.5)
    assert claims._judge(number, "half", np.nextafter(0.5, 1)).verdict == FAILS


def test_widths_have_spikes():
    # Of three inner layers .5 and .8 turn by 0.05 or more; .2 rises by 0.01 only.
    rule = {"kind": "spikes", "experiment": "alexnet", "method": "ecc", "height": 0.05}
    rule["at_least"] = 0.3333
    two, one = (0.9, 0.5, 0.8, 0.2, 0.21), (0.9, 0.5, 0.8, 0.81, 0.82)
    runs = [kept(*two), kept(*two, seed=1), kept(*two, seed=2), kept(*one, seed=3)]
    found = verdict(rule, widths=pd.concat(runs))
    assert found["ours"] == pytest.approx((3 * 2 + 1) / 3 / 4, abs=1e-6)
    assert found["verdict"] == OPEN
    assert found["low"] < 0.3333 < found["high"]
    more = pd.concat([*runs, *(kept(*two, seed=4 + seed) for seed in range(8))])
    assert verdict(rule, widths=more)["verdict"] == HOLDS
    assert verdict({**rule, "at_least": 0.9}, widths=more)["verdict"] == FAILS
    assert verdict(rule, widths=kept(*two))["verdict"] == OPEN  # one seed


def test_all_measured_inside_and_all_limits_kept():
    rule = {"kind": "within_budget", "method": "ecc", "platforms": 1}
    frame = runs(AHEAD, BEHIND).assign(within_budget=True)
    assert verdict(rule, accuracy_at_budget=frame)["verdict"] == HOLDS
    assert verdict({**rule, "platforms": 2}, accuracy_at_budget=frame)["verdict"] == OPEN
    frame.loc[0, "within_budget"] = False
    found = verdict(rule, accuracy_at_budget=frame)
    assert found["verdict"] == FAILS
    assert found["reason"].startswith("5 of 6 networks")


def test_limits_are_kept_on_each_thing_that_is_limited():
    rule = {"kind": "within_limits", "method": "ecc", "limited": "tx2_time"}
    row = {"method": "ecc", "limited": "tx2_time", "limit": 1.0, "modelled": 0.9}
    table = pd.DataFrame([row, row])
    for inside, expected in (([True, False], FAILS), ([True, True], HOLDS), ([None, None], OPEN)):
        assert verdict(rule, limits=table.assign(within_limit=inside))["verdict"] == expected
    # Of a count the model tells, and nothing is measured.
    both = [rule, {**rule, "limited": "parameters"}]
    measured = table.assign(within_limit=True)
    found = verdict(both, limits=measured)
    assert found["verdict"] == OPEN
    assert found["reason"] == "no budget of ECC has a limit on parameters"
    for modelled, expected in ((900, HOLDS), (1001, FAILS)):
        count = {"method": "ecc", "limited": "parameters", "limit": 1000, "modelled": modelled}
        frames = {"limits": pd.concat([measured, pd.DataFrame([count])])}
        found = verdict(both, **frames)
        assert found["verdict"] == expected


def test_pruning_is_judged_by_the_last_accepted_round():
    def rounds(seed, left):
        return pd.DataFrame(
            {
                "arm": ["eap"] * 3 + ["magnitude"] * 2,
                "round": [0, 1, 2, 0, 1],
                "accepted": [True, True, False, True, True],
                "energy_j_fraction": [1.0, left, 0.7, 1.0, 0.9],
                "seed": seed,
            }
        )

    rule = {"kind": "pruned", "arm": "eap", "over": "magnitude", "column": "energy_j_fraction"}
    three = pd.concat([rounds(seed, left) for seed, left in enumerate([0.80, 0.81, 0.79])])
    found = verdict(rule, eap_pruning=three)
    assert found["verdict"] == HOLDS
    assert found["ours"] == pytest.approx(-0.1)
    swapped = {**rule, "arm": "magnitude", "over": "eap"}
    assert verdict(swapped, eap_pruning=three)["verdict"] == FAILS
    found = verdict(rule, eap_pruning=rounds(0, 0.8))
    assert (found["verdict"], found["ours"]) == (OPEN, pytest.approx(-0.1))


@pytest.mark.parametrize(
    ("name", "left", "expected"),
    [
        ("eap_output_error", 0.5, HOLDS),
        ("eap_output_error", 0.7, FAILS),
        ("eap_fewer_classes_weights", 0.1, HOLDS),
        ("eap_fewer_classes_weights", 0.4, FAILS),
        ("eap_fewer_classes_energy", 0.45, HOLDS),
        ("eap_fewer_classes_energy", 0.25, FAILS),
    ],
)
def test_pruning_of_single_weights_is_decided_by_several_seeds_not_by_one(name, left, expected):
    """`left`: by EAP with equal shares, and with the fewest classes."""
    rng = np.random.default_rng(0)

    def rounds(seed, share, classes=60):
        shares = {part: [1.0, share * rng.uniform(0.99, 1.01)] for part in eap.PARTS}
        return pd.DataFrame(
            {"round": [0, 1], "accepted": True, "seed": seed, "classes": classes, **shares}
        )

    def tables(seeds):
        arms, numbers = {"eap_fixed": left, "magnitude": 0.6}, {60: 0.5, 5: left}
        by_arm = [(arm, rounds(seed, share)) for arm, share in arms.items() for seed in seeds]
        few = [rounds(seed, share, number) for number, share in numbers.items() for seed in seeds]
        return {"eap_pruning": eap.pruning(by_arm), "eap_classes": eap.classes(few)}

    (claim,) = (one for one in claims.read(SOURCE) if one["id"] == name)
    assert claims.decide([claim], tables([0, 1, 2]), PUBLISHED)["verdict"].tolist() == [expected]
    assert claims.decide([claim], tables([0]), PUBLISHED)["verdict"].tolist() == [OPEN]


def test_the_error_of_outputs_is_compared_with_magnitude_at_equal_shares():
    """Both arms keep as many weights in every layer, so that they differ in what they minimise."""
    arms = yaml.safe_load((ROOT / "configs/eap.yaml").read_text())["eap"]["arms"]
    rule = next(one for one in claims.read(SOURCE) if one["id"] == "eap_output_error")["rule"]
    ours, other = arms[rule["arm"]], arms[rule["over"]]
    assert ours["tolerance"] == 0
    assert ours["kept"] == other["kept"]
    assert ours.get("local", True) is not other["local"]
    assert ours["rounds"] == other["rounds"]


def test_complete_has_limits_on_time_and_on_parameters():
    configured = yaml.safe_load((ROOT / "configs/complete.yaml").read_text())["experiments"]
    budgets = [budget for one in configured for budget in one["budgets"]]
    limited = {name for budget in budgets for name in budget.get("limits", ())}
    rule = next(one for one in claims.read(SOURCE) if one["id"] == "other_resources")["rule"]
    assert {one["limited"] for one in rule} == limited == {"jetson_tx2_time", "parameters"}


def test_of_several_rules_all_have_to_hold():
    good = {**OVER}
    bad = {**OVER, "method": "netadapt", "over": "ecc"}
    open_ = {"kind": "untestable", "reason": "it takes ImageNet"}
    frame = runs(AHEAD, BEHIND)
    assert verdict([good, good], accuracy_at_budget=frame)["verdict"] == HOLDS
    assert verdict([good, bad], accuracy_at_budget=frame)["verdict"] == FAILS
    found = verdict([good, open_], accuracy_at_budget=frame)
    assert found["verdict"] == OPEN
    assert found["reason"] == "it takes ImageNet"


def test_what_the_paper_states_is_looked_up():
    assert claims.stated({"experiment": "figure7"}, PUBLISHED) == 0.175
    ahead = claims.stated({"experiment": "table2", "method": "ecc", "minus": "amc"}, PUBLISHED)
    ratio = {"source": "EAP", "network": "googlenet", "method": "dense"}
    ratio |= {"quantity": "normalized_energy", "per": {"network": "alexnet_grouped"}}
    assert claims.stated(ratio, PUBLISHED) == pytest.approx(7.63 / 3.97)
    by_hand = np.mean([0.0373, 0.0456, 0.0258, 0.0171, 0.0389, 0.0423, 0.0332, 0.0207])
    assert ahead == pytest.approx(by_hand, abs=1e-9)
    with pytest.raises(UserError, match="has no row"):
        claims.stated({"experiment": "figure99"}, PUBLISHED)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rule": {"kind": "guess"}}, "rule 'guess' is unknown"), ({"sauce": 1}, "sauce is missing")],
)
def test_a_wrong_claim_is_refused(tmp_path, change, message):
    claim = {"id": "a", "source": "b", "claim": "c", "holds": "d", "rule": {"kind": "untestable"}}
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump([claim | change]))
    with pytest.raises(UserError, match=message):
        claims.read(path)


def test_a_value_that_is_not_there_is_named():
    near = pd.DataFrame({"arm": ["accuracy"] * 2, "margin": 0.01, "range_energy_j": np.nan})
    rule = {"kind": "value", "table": "near", "column": "range_energy_j", "of": "median"}
    rule |= {"where": {"arm": "accuracy", "margin": 0.01}, "without": "the best is alone"}
    elsewhere = "configs/complete.yaml has it"

    def reason(rule, **frames):
        claim = {"id": "one", "source": "ECC", "claim": "so", "holds": "it is", "rule": rule}
        claim["needs"] = "configs/complete.yaml"
        found = claims.decide([claim], frames, PUBLISHED).iloc[0]
        assert found["verdict"] == OPEN
        return found["reason"]

    # Another configuration has it only where this one did not run it.
    assert reason(rule, near=near) == "the best is alone (2 of 2)"
    assert reason(rule) == f"this run has no near.csv; {elsewhere}"
    other = {**rule, "where": {"arm": ["energy", "ecc"], "margin": 0.01}}
    assert reason(other, near=near) == f"near.csv has no arm energy/ECC, margin 0.01; {elsewhere}"
