"""Captions: what is shown, the numbers of the run, its settings, as markup without a fault."""

from pathlib import Path

import pandas as pd
import pytest
from docutils.core import publish_parts

from ecc.config import load
from ecc.evidence import captions, findings, names, plan

ROOT = Path(__file__).parents[1]
TEXTS = {path.stem: path.read_text() for path in (ROOT / "docs/report").glob("*.rst")}
TEXTS.pop("workflow")  # of the report as a whole
SETTINGS = load(
    *(ROOT / file for file in ("config.yaml", "configs/eap.yaml", "configs/evolution.yaml"))
)
TITLES = {
    **{name: names.platform_title(name) for name in ("gtx1080ti", "jetson_tx2")},
    "eyeriss": "the accelerator",
}
COMPARISON = pd.DataFrame(
    [
        ("mobilenet", 0.8, 0.4, "after_finetuning", "ecc", 0.9),
        ("mobilenet", 0.4, 0.2, "after_finetuning", "ecc", 0.81),
        ("mobilenet", 0.4, 0.2, "after_finetuning", "uniform", 0.62),
        ("mobilenet", 0.4, 0.2, "before_finetuning", "ecc", 0.7),
        ("alexnet", 0.4, 0.2, "after_finetuning", "ecc", 0.5),
    ],
    columns=["experiment", "budget_fraction", "budget_j", "stage", "method", "mean"],
).assign(platform="jetson_tx2", limits="none", score="accuracy")

ERRORS = pd.DataFrame(
    [
        ("mobilenet", "bilinear_chain", "adam", 0.031),
        ("mobilenet", "bilinear_chain", "nnls", 0.5),
        ("mobilenet", "mlp1", "adam", 0.012),
        ("alexnet", "bilinear_chain", "adam", 0.044),
    ],
    columns=["network", "model", "fit", "relative_test_error"],
).assign(platform="jetson_tx2", train_samples=8000, test_samples=2000)


def run(**tables):
    return findings.Run(SETTINGS, tables, TITLES)


def found(name, **tables):
    return captions.make(name, TEXTS[name], run(**tables)).found


def test_there_are_numbers_and_settings_for_every_text():
    assert set(findings.FOUND) == set(TEXTS)
    assert set(captions.SETTINGS) < set(TEXTS)


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_texts_and_settings_are_whole_markup(name):
    tell = captions.SETTINGS.get(name, captions._of_experiments)
    text = captions.Caption(TEXTS[name], "", tell(run())).text
    publish_parts(text, writer="html", settings_overrides={"halt_level": 2})
    assert "{{" not in text  # Snakemake fills captions in once more
    assert "{%" not in text


@pytest.mark.parametrize("name", ["figure_04", "comparison", "measured", "ranking", "timings"])
def test_settings_are_those_of_the_experiments(name):
    told = captions.SETTINGS.get(name, captions._of_experiments)(run())
    (entry,) = (entry for entry in SETTINGS["experiments"] if entry["name"] == "mobilenet")
    for said in (
        "network mobilenet_embedded at 224 x 224 pixels, data fractals",
        "emulated GTX 1080 Ti, emulated Jetson TX2",
        "budgets reducible-0.5, reducible-0.35",
        f"seeds {', '.join(map(str, entry['seeds']))}",
        f"{entry['compression']['iterations']} of compression",
        "no such device was measured",
    ):
        assert said in told
    assert ("AlexNet" in told) == (name != "figure_04")


def test_settings_of_energy_models_are_samples_and_fits():
    told = captions.SETTINGS["figure_09"](run(energy_model_errors=ERRORS))
    assert "- Networks AlexNet; energy models ``bilinear_chain_adam`` (10000 iterations)." in told
    assert "emulated Jetson TX2: 10000 random width vectors, of which 2000" in told
    assert "GTX" not in told
    assert captions.SETTINGS["figure_09"](run()) == ""


@pytest.mark.parametrize("name", ["eap_layers", "eap_pruning", "evolution_fronts"])
def test_settings_of_studies_name_their_platform_or_there_is_no_study(name):
    assert TITLES["eyeriss" if "eap" in name else "jetson_tx2"] in captions.SETTINGS[name](run())
    without = findings.Run({**SETTINGS, "eap": {}, "evolution": {}}, {}, TITLES)
    assert captions.SETTINGS[name](without) == ""


def test_figures_of_accuracy_tell_the_tightest_budget_of_their_experiment_and_stage():
    told = found("figure_04", comparison=COMPARISON)
    assert "at 0.40 of dense (0.2 J), accuracy: ECC 0.810, uniform width 0.620" in told
    assert "AlexNet" not in told
    assert "0.900" not in told
    assert "ECC 0.700" in found("figure_07", comparison=COMPARISON)
    assert found("table_02", comparison=COMPARISON) == "no experiment of this name was run."


def test_what_others_published_is_told_as_theirs():
    results = pd.DataFrame(
        {
            "network": ["alexnet_grouped", "alexnet_grouped"],
            "method": ["dense", "eap"],
            "top5": [0.8043, 0.7956],
            "energy_mac_fraction": [1.0, 0.267],
        }
    )
    told = found("eap_results", eap_results=results)
    assert told.startswith("as published")
    assert "by EAP: 27 % of the dense energy, top-5 accuracy 0.796" in told
    assert told.count("- ") == 1
    none = found("eap_results", eap_results=results.head(1))
    assert "- of these networks EAP states no results" in none
    methods = pd.DataFrame({"method": ["ecc", "lcp"], "networks": [24, 0]})
    assert found("table_01", table_01=methods) == "networks of each: ECC 24, LcP 0."


def test_a_budget_of_latency_is_in_seconds():
    latency = COMPARISON.rename(columns={"budget_j": "budget_s"})
    assert "(0.2 s)" in found("figure_04", comparison=latency)


def test_measured_energies_are_told_against_budget_and_model():
    runs = pd.DataFrame(
        {
            "experiment": "mobilenet",
            "platform": "jetson_tx2",
            "method": ["ecc", "uniform", "uniform"],
            "budget_j": 1.0,
            "modelled_energy_j": [0.99, 1.0, 1.0],
            "measured_energy_j": [0.9, 1.25, float("nan")],
        }
    )
    told = found("measured", accuracy_at_budget=runs)
    assert "of 2 networks measured, 1 are within" in told
    assert "25.0 % above it (uniform width, MobileNet, emulated Jetson TX2)" in told
    assert "15.0 % on average and 20.0 % at most" in told
    unmeasured = runs.assign(measured_energy_j=float("nan"))
    assert "no platform could measure" in found("measured", accuracy_at_budget=unmeasured)


def test_errors_of_energy_models_are_of_the_networks_of_the_figure():
    assert "MobileNet, emulated Jetson TX2: chain form 3.1 %" in found(
        "figure_02", energy_model_errors=ERRORS
    )
    assert "no hidden layer 3.1 %, one 1.2 %" in found("figure_03", energy_model_errors=ERRORS)
    assert "4.4 %" not in found("figure_02", energy_model_errors=ERRORS)
    assert "from 1.2 % (``mlp1_adam``" in found("energy_model_errors", energy_model_errors=ERRORS)


@pytest.mark.parametrize("cheapest", ["squeezenet", "alexnet"])
def test_what_networks_compare_to_is_what_the_run_found(cheapest):
    networks = pd.DataFrame(
        {
            "network": ["alexnet", "squeezenet"],
            "weights": [60e6, 1e6],
            "energy_mac": [1.0, 2.0] if cheapest == "alexnet" else [2.0, 1.0],
            "convolution_fraction": [0.8, 1.0],
            "relative_difference": [-0.2, float("nan")],
        }
    )
    told = found("eap_networks", eap_networks=networks)
    assert f"the fewest weights has SqueezeNet, the least energy {names.name(cheapest)}" in told
    assert "80 % to 100 %" in told


def test_what_is_left_of_single_weights_is_told_as_means_over_seeds():
    rounds = pd.DataFrame(
        [
            ("eap", 0, 0, True, 1.0, 1.0, 0.9),
            ("eap", 0, 1, True, 0.8, 0.4, 0.88),
            ("eap", 0, 2, False, 0.7, 0.3, 0.5),
            ("eap", 1, 0, True, 1.0, 1.0, 0.9),
            ("eap", 1, 1, True, 0.6, 0.2, 0.86),
        ],
        columns=[
            *("arm", "seed", "round", "accepted", "energy_j_fraction", "weights_fraction"),
            "accuracy",
        ],
    )
    told = found("eap_pruning", eap_pruning=rounds)
    assert "EAP: 70 % of the energy and 30 % of the weights, accuracy 0.870" in told
    classes = pd.DataFrame({"classes": [8, 8], "seed": [0, 1], "energy_j_fraction": [0.5, 0.7]})
    assert "means over seeds: 8 classes 60 %." in found("eap_classes", eap_classes=classes)
    assert "seeds 0, 1, 2; energy of the accelerator" in captions.SETTINGS["eap_pruning"](run())
    for name in ("eap_pruning", "eap_classes"):
        assert found(name) == ""


def test_what_is_markup_in_the_name_of_a_machine_is_escaped():
    html = captions.html(findings._plain("a*b |c| x86_64_"))
    assert "a*b |c| x86_64_" in html


def test_parts_of_a_caption_follow_each_other():
    text = captions.Caption("**Figure 1.** A line.", "two.", "- three").text
    assert text == "**Figure 1.** A line.\n\n**In this run:** two.\n\n**Settings.**\n\n- three\n"
    assert captions.Caption("**Figure 1.** A line.\n").text == "**Figure 1.** A line.\n"


def test_every_figure_of_the_paper_has_its_number_in_its_text():
    assert all(f"**{plan.title(name)}.**" in TEXTS[name] for name in plan.FIGURES)
