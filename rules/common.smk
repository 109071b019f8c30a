# Helpers of all rules: the checked configuration, and paths that follow from it. No rules here.
import gc
import inspect
import os
import socket
import sys
import time
from functools import cache
from pathlib import Path

from snakemake.logging import logger

from ecc import config as settings
from ecc import files, logs, platforms
from ecc.budgets import PATTERN
from ecc.errors import UserError
from ecc.evidence import names, plan
from ecc.sources import MARK, digest, imported, own_network

BASE = Path(workflow.basedir)
STARTED = time.monotonic()  # the date may be set meanwhile
HELD = []  # the open file that tells other runs of this one


# A plan is millions of objects that stay: looking for garbage among them at the usual pace takes a
# good part of its time.
gc.set_threshold(1_000_000, 20, 100)


def of_platform(name, look):
    """What `look` finds of a platform; an error names its key."""
    try:
        return look()
    except UserError as error:
        told = str(error).removeprefix(f"platforms.{name}: ").removeprefix(f"platform {name}: ")
        raise UserError(f"config key platforms.{name}: {told}") from error


def make_platform(name):
    return of_platform(name, lambda: platforms.make(name, config["platforms"][name]))


def title(name):
    """As figures show it; registered ones alone have printed names."""
    platform = PLATFORMS[name]
    if platform is platforms.PLATFORMS.get(name):
        return names.platform_title(name)
    return of_platform(name, lambda: platform.description)


try:
    for file in workflow.configfiles:
        settings.check_text(file, config)
    config.update(settings.check(config, BASE / "configs" / "schema.yaml"))
    SAMPLED = settings.sampled(config)  # (platform, network)
    PLATFORMS = {name: make_platform(name) for name in config["platforms"]}
    TITLES = {name: title(name) for name in sorted({platform for platform, _ in SAMPLED})}
    settings.check_units(
        config, {name: of_platform(name, lambda: PLATFORMS[name].metric) for name in TITLES}
    )
    if workflow.is_main_process:
        files.refuse_unwritable(".snakemake")  # Snakemake's own files; else a traceback tells of it
        files.refuse_future([config["results"], BASE / "ecc", BASE / "workflow_scripts"])
except UserError as error:
    sys.exit(str(error))

# Said, not yet an end: there may be nothing to write. Of files that are to be made again Snakemake
# says that they are protected, not why.
if workflow.is_main_process and Path(config["results"]).is_dir():
    try:
        files.refuse_unwritable(config["results"])
    except UserError as error:
        print(error, file=sys.stderr)

logger.addFilter(logs.of_disks)

# Scripts run in processes of their own: they find the library in this folder, and stop when this
# process is gone (ecc.logs).
os.environ.update(
    PYTHONPATH=str(BASE),
    ECC_PARENT=str(os.getpid()),
    ECC_CORES=str(workflow.resource_settings.cores or 0),
)

EXPERIMENTS = [experiment["name"] for experiment in config["experiments"]]
PAIRS = settings.pairs(config)  # (experiment, platform)
MODELS = settings.energy_models(config)  # by network
NETWORKS = sorted(MODELS)
FIGURES = plan.available(config["energy"], config["experiments"])


def kind_of(platform):
    return config["platforms"][platform]["kind"]


def swept(platform, network):
    """Sweeps of a network, where the platform is one of those under `energy`."""
    return [
        {"group": entry["group"], "step": entry.get("step", 1)}
        for entry in config["energy"]["sweeps"]
        if entry["network"] == network and platform in config["energy"]["platforms"]
    ]


# Figures of how energies were measured: where a sensor took them, where a width was swept.
MEASUREMENTS = [
    name
    for name, there in (
        ("drift", any(kind_of(platform) not in platforms.PLATFORMS for platform, _ in SAMPLED)),
        ("staircase", any(swept(*pair) for pair in SAMPLED)),
    )
    if there
]
# Figures that the papers do not have; some need limits beside budgets, or a method that ran.
LIMITED = any(
    budget.get("limits") for entry in config["experiments"] for budget in entry["budgets"]
)
SEARCHED = any(
    config["methods"][method]["method"] == "amc"
    for entry in config["experiments"]
    for method in entry["methods"]
)
OF_ECC = [entry for entry in config["experiments"] if "ecc" in entry["methods"]]
METHOD_FIGURES = {
    "measured": "measured against budgeted energy",
    "finetuning": "before and after fine-tuning",
    "fronts": "Pareto fronts over methods",
    "residuals": "errors of energy models by width",
    **({"convergence": "how ECC converges"} if OF_ECC else {}),
    **({"limits": "several budgets at once"} if LIMITED else {}),
    **({"learning": "what AMC's agent learns"} if SEARCHED else {}),
}
CATEGORIES = {
    "error_history": "Energy models",
    "hidden_layers": "Energy models",
    "accuracy": "Accuracy at budget",
    "kept_widths": "Widths",
}
# A run, and the wildcards that are left to tell the jobs of one experiment and platform apart.
RUN = "{experiment}/{platform}/{budget}/{method}/seed{seed}"
APART = "".join(f"-{{{name}}}" for name in ("budget", "seed") if name not in config["batch"])


wildcard_constraints:
    dataset="|".join(config["datasets"]),
    network="|".join(NETWORKS),
    platform="|".join(config["platforms"]),
    experiment="|".join(EXPERIMENTS),
    method="|".join(config["methods"]),
    budget=PATTERN,
    seed=r"\d+",


def hold_results():
    """Ends where results cannot be written, before Snakemake finds that out job by job, or where
    another run writes them: of two that start at the same instant, Snakemake's lock stops neither.
    """
    try:
        files.refuse_unwritable(config["results"])
        if workflow.execution_settings.lock:
            HELD.append(files.hold(config["results"]))
    except UserError as error:
        sys.exit(str(error))


def tell_host():
    """Says where this run is at work, beside its lock, which other machines may see too."""
    Path(".snakemake/host").write_text(socket.gethostname())


def say_what_failed():
    """Repeats the errors of the jobs below Snakemake's own lines about them."""
    since = time.time() - (time.monotonic() - STARTED)
    print(*logs.errors(f"{config['results']}/logs", since), sep="\n", file=sys.stderr)


def library(script):
    """Params function: a digest of the sources that a script imports, so that an edit of one
    reruns what depends on it; those of ecc, and of the network where it is the user's own.

    Not inputs: dozens of files for each of thousands of jobs are most of what planning costs.
    """
    return lambda wildcards: sources(script, network_of(wildcards))


class Names(dict):
    """Stands for wildcards in the rules of one experiment and platform, so that what depends on no
    others is asked for once, not for every job.
    """

    __getattr__ = dict.__getitem__


def asked_often(function):
    """`function` with its signature at hand: Snakemake asks for it several times a job."""
    function.__signature__ = inspect.signature(function)
    return function


def later(function, here):
    """Function of wildcards: of those of the job, and the names in `here`."""
    return asked_often(lambda wildcards: function(Names(here, **wildcards)))


@cache
def sources(script, network):
    """Digest of the sources of a script, and of a network or None."""
    file = BASE / "workflow_scripts" / f"{script}.py"
    return digest([*imported(file, BASE / "ecc"), *own_sources(network)])


def network_of(wildcards):
    """The network that a job is about, or None."""
    if wildcards.get("experiment"):
        return of_experiment(wildcards)["network"]
    return wildcards.get("network")


def own_sources(network):
    """Sources of a network that a function of the user's builds."""
    architecture = config["networks"][network]["architecture"] if network else ""
    return own_network(architecture, Path.cwd())


def traced_before(wildcards):
    """The structure of a network of the user's: refused, if need be, before it is trained."""
    network = of_experiment(wildcards)["network"]
    is_own = MARK in config["networks"][network]["architecture"]
    return f"<results>/networks/{network}.json" if is_own else []


def of_experiment(wildcards):
    """The settings of the experiment in `wildcards`."""
    return settings.experiment(config, wildcards.experiment)


def manifest(wildcards):
    """The manifest of the dataset of an experiment."""
    return f"<results>/data/{of_experiment(wildcards)['dataset']}/manifest.json"


def of_network(path):
    """Input function: `path` for the network, platform and energy model of an experiment."""
    return lambda wildcards: path.format(
        platform=wildcards.platform,
        network=of_experiment(wildcards)["network"],
        model=settings.model_file(settings.used_model(config, wildcards.experiment)),
    )


def of_method(wildcards):
    """Input function: the energy model under which a method compresses in an experiment."""
    used = settings.used_model(config, wildcards.experiment, wildcards.method)
    network = of_experiment(wildcards)["network"]
    return f"<results>/energy_models/{wildcards.platform}/{network}/{settings.model_file(used)}"


def limiting(wildcards):
    """Platforms beside that of the budgets on which limits of an experiment are kept."""
    platforms = settings.limit_platforms(config, wildcards.experiment)
    return [platform for platform in platforms if platform != wildcards.platform]


def of_limits(path, own=False):
    """Input function: `path` for the network and energy model of an experiment, on each platform
    that limits name, after its `own` platform.
    """
    return lambda wildcards: [
        path.format(
            platform=platform,
            network=of_experiment(wildcards)["network"],
            model=settings.model_file(settings.used_model(config, wildcards.experiment)),
        )
        for platform in [*([wildcards.platform] if own else []), *limiting(wildcards)]
    ]


def platform_settings(wildcards):
    """Settings of the platform in `wildcards`."""
    return config["platforms"][wildcards.platform]


def budgeted_on(wildcards):
    """Settings of the platforms of an experiment's budgets: its own, then those of limits."""
    return {name: config["platforms"][name] for name in [wildcards.platform, *limiting(wildcards)]}


def measuring_on(wildcards):
    """Names of the platforms that a job measures on."""
    on_all = wildcards.get("experiment") is not None
    return list(budgeted_on(wildcards)) if on_all else [wildcards.platform]


def recorded(wildcards):
    """Files of recorded platforms, whose change reruns what replays them."""
    entries = [config["platforms"][name] for name in measuring_on(wildcards)]
    folders = [Path(entry["folder"]) for entry in entries if entry["kind"] == "recorded"]
    return [file for folder in folders for file in sorted(folder.glob("*"))]


def measured(platform):
    """Whether a sensor of this machine (or a simulated one) is read."""
    return kind_of(platform) in (*platforms.SENSORS, "simulated")


def chunks(wildcards):
    """Files of the chunks in which the samples of a network are taken; none where one job takes
    all: by default, and where there is a campaign, which is measured or replayed as a whole.
    """
    size = config["energy"].get("chunk")
    if size is None or kind_of(wildcards.platform) not in platforms.PLATFORMS:
        return []
    count = settings.samples(config, wildcards.platform)[0]
    folder = f"<results>/samples/{wildcards.platform}/{wildcards.network}/chunks"
    return [f"{folder}/{first}.csv" for first in range(0, count, size)]


def chunk_size(wildcards):
    """Samples of a chunk: the last one has what is left."""
    left = settings.samples(config, wildcards.platform)[0] - int(wildcards.first)
    return min(config["energy"]["chunk"], left)


def sensors(of):
    """Files that say that the sensors of platforms were found."""
    return [f"<results>/samples/{platform}/sensor.json" for platform in of if measured(platform)]


def undisturbed(wildcards):
    """Threads of a job that measures: all of them, so that no other job runs beside it."""
    return workflow.cores if any(map(measured, measuring_on(wildcards))) else 1


def sweeps(wildcards):
    """The sweeps of a network on a platform."""
    return swept(wildcards.platform, wildcards.network)


def dataset_settings(wildcards):
    """Settings of the dataset of an experiment."""
    return config["datasets"][of_experiment(wildcards)["dataset"]]


def network_settings(wildcards):
    """Settings of the network of an experiment."""
    return settings.network(config, of_experiment(wildcards)["network"])


def stage(name):
    """Params function: the training settings of a stage of an experiment."""
    return lambda wildcards: settings.stage(config, of_experiment(wildcards)[name])


def published_weights(wildcards):
    """The file of weights that an experiment starts from, if there is one."""
    weights = of_experiment(wildcards)["dense"].get("weights", "torchvision")
    return [] if weights == "torchvision" else weights


def refuse_missing_weights():
    """Ends where a file of weights is not there, and is no result of this workflow either."""
    for index, entry in enumerate(config["experiments"]):
        file = entry["dense"].get("weights", "torchvision")
        made = file.startswith(f"{config['results']}/")
        if file != "torchvision" and not made and not os.path.isfile(file):
            key = f"config key experiments[{index}].dense.weights"
            sys.exit(f"{key}: there is no file {file}: put it there, or correct the path")


def processes(name):
    """Threads function: the processes that share the batches of a stage, or of the phases."""

    def count(wildcards):
        own = of_experiment(wildcards)[name]
        return settings.stage(config, own[0] if isinstance(own, list) else own)["processes"]

    return count


def threads_held():
    """Threads of the jobs that may hold more than one, by the start of their names: a number, or
    "all". Not the number of all cores: another one of `--cores` must not look like a change.
    """
    held = {f"evolve/{name}": entry["workers"] for name, entry in STUDIES.items()}
    for entry in config["experiments"]:
        here = Names(experiment=entry["name"])
        for name, own in (
            ("train_dense", "dense"),
            ("compress", "compression"),
            ("finetune", "finetuning"),
        ):
            held[f"{name}/{entry['name']}"] = processes(own)(here)
    for experiment, platform in PAIRS:
        if any(map(measured, [platform, *settings.limit_platforms(config, experiment)])):
            for name in ("close_budgets", "verify_energy"):
                held[f"{name}/{experiment}-{platform}"] = "all"
    for platform in config["platforms"]:
        if measured(platform):
            held[f"sample_energy/{platform}"] = "all"
    return {start: threads for start, threads in held.items() if threads != 1}


def phases(wildcards):
    """The training settings of the phases of an experiment's fine-tuning."""
    return [settings.stage(config, phase) for phase in of_experiment(wildcards)["finetuning"]]


def common_names(wildcards):
    """The names that all runs of a job share, as in the columns of tables."""
    entry = of_experiment(wildcards)
    told = {name: wildcards[name] for name in ("experiment", "platform", "method")}
    return {**told, "network": entry["network"], "dataset": entry["dataset"]}


@asked_often
def method_settings(wildcards):
    """Settings of the method in `wildcards`."""
    return config["methods"][wildcards.method]


@asked_often
def longest_first(wildcards):
    """Priority: methods whose jobs take longest start before the others, so that no core waits for
    one of them at the end.
    """
    return 6 if method_settings(wildcards)["method"] in ("netadapt", "evolution") else 5


def budgets(experiment, platform):
    return settings.budget_labels(config, experiment, platform)


def seeds(experiment):
    return settings.experiment(config, experiment)["seeds"]


def batched(path, experiment, platform):
    """`path` for every run that one job covers: expanded over the wildcards in `batch`."""
    values = {"budget": budgets(experiment, platform), "seed": seeds(experiment)}
    covered = {name: values[name] for name in values if name in config["batch"]}
    named = {"experiment": experiment, "platform": platform}
    return expand(path, **named, **covered, allow_missing=True)


def closing_rounds(experiment):
    """How often the budgets of an experiment are tightened where the device measures more."""
    return settings.experiment(config, experiment).get("closing_rounds", 0)


def closed(experiment, platform):
    """The file that stands for all closing.json of a method, if budgets are closed."""
    path = f"<results>/compressed/{experiment}/{platform}/.{{method}}.closed"
    return path if closing_rounds(experiment) else []


def first_of(path, experiment, platform):
    """`path` for the first run of a method. It stands for those of all runs where one job writes
    them: asking for each takes planning time that grows with the square of their number.
    """
    return all_of(path, experiment, platform)[0]


def all_of(path, experiment, platform):
    """`path` for every run of a method in an experiment on a platform."""
    return expand(
        path,
        experiment=experiment,
        platform=platform,
        budget=budgets(experiment, platform),
        seed=seeds(experiment),
        allow_missing=True,
    )


def covered_runs(wildcards):
    """(budget, seed) of the runs that one job covers, in the order of `batched`."""
    of_budget = [wildcards.get("budget")] if "budget" not in config["batch"] else None
    of_seed = [int(wildcards.get("seed"))] if "seed" not in config["batch"] else None
    return [
        (budget, seed)
        for budget in of_budget or budgets(wildcards.experiment, wildcards.platform)
        for seed in of_seed or seeds(wildcards.experiment)
    ]


def all_runs(path, algorithm=None, seeds_each=None):
    """`path` for every run of every experiment, or for those of one algorithm and of the first
    `seeds_each` seeds.
    """
    return [
        file
        for experiment, platform in PAIRS
        for file in expand(
            path,
            experiment=experiment,
            platform=platform,
            method=[
                method
                for method in settings.experiment(config, experiment)["methods"]
                if algorithm in (None, config["methods"][method]["method"])
            ],
            budget=budgets(experiment, platform),
            seed=seeds(experiment)[:seeds_each],
        )
    ]


def verified():
    """The file that stands for all energy.json of a method, for every one that is run."""
    path = f"<results>/finetuned/{RUN}/energy.json"
    return [
        first_of(path, experiment, platform).format(method=method)
        for experiment, platform in PAIRS
        for method in settings.experiment(config, experiment)["methods"]
    ]


def converged():
    """The run of ECC that is shown along its iterations: at the first experiment's last budget."""
    if not OF_ECC:
        return []
    entry = OF_ECC[0]
    platform = plan.shown_platforms(plan.FIGURES["figure_06"], entry["platforms"])[0]
    run = RUN.format(
        experiment=entry["name"],
        platform=platform,
        budget=budgets(entry["name"], platform)[-1],
        method="ecc",
        seed=entry["seeds"][0],
    )
    return [f"<results>/compressed/{run}/history.csv", f"<results>/finetuned/{run}/metrics.json"]


def caption(name):
    """Caption of a figure or table for the report: written by the run, with its numbers."""
    return os.path.abspath(f"{config['results']}/captions/{name}.rst")


def described():
    """Printed names of all platforms: of those that are sampled, and that studies estimate on."""
    others = [study["platform"] for study in [*([EAP] if EAP else []), *STUDIES.values()]]
    return {name: PLATFORMS[name].description for name in sorted(others)} | TITLES


def exported_settings(wildcards):
    """What the card of an exported network says besides what the metrics of its run hold."""
    entry = of_experiment(wildcards)
    return {
        "energy_model": settings.used_model(config, wildcards.experiment, wildcards.method),
        "smallest_width": entry["smallest_width"],
        "compression": settings.stage(config, entry["compression"]),
    }


def benchmarks():
    """Benchmark files of all jobs whose time is worth showing."""
    return [
        *expand("<benchmarks>/train_dense/{experiment}.tsv", experiment=EXPERIMENTS),
        *(
            f"<benchmarks>/fit_energy_models/{platform}-{network}.tsv"
            for platform, network in SAMPLED
        ),
    ]


# The study of single weights (eap.smk)

EAP = config["eap"]


def refuse_unknown(key, known):
    """Ends where `eap` names what another part of the configuration does not have."""
    given = EAP
    for part in key.split("."):
        given = given[part]
    for name in [given] if isinstance(given, str) else given:
        if name not in known:
            sys.exit(f"config key eap.{key}: '{name}' is unknown: use one of {', '.join(known)}")


def refuse_classes():
    """Ends where `eap` asks for more target classes than its dense network has."""
    network = settings.experiment(config, EAP["experiment"])["network"]
    known = settings.network(config, network)["classes"]
    if (most := max(EAP["classes"])) > known:
        sys.exit(f"config key eap.classes: {most} is too many: {network} has {known} classes")


def eap_rounds(arms, classes):
    """The rounds of prunings, with every seed."""
    path = "<results>/eap/{experiment}/{arm}/classes-{classes}/seed{seed}/rounds.csv"
    return expand(
        path,
        experiment=EAP["experiment"],
        arm=arms,
        classes=classes,
        seed=settings.eap_seeds(config),
    )


# The studies of evolved architectures (evolution.smk)

STUDIES = config["evolution"]
EVOLUTION_FIGURES = ("spread", "fronts", "hypervolume")


def refuse_studies():
    """Ends where a platform cannot tell the energy of the networks that a study evolves."""
    able = [name for name, platform in PLATFORMS.items() if platforms.estimates(platform)]
    for name, entry in STUDIES.items():
        if (platform := entry["platform"]) not in able:
            told = f"config key evolution.{name}.platform: '{platform}' cannot tell the energy"
            sys.exit(f"{told} of a new network: use one of {', '.join(able)}")


def study(wildcards):
    """The settings of a study."""
    return STUDIES[wildcards.study]


def study_parts(path):
    """`path` for every arm and seed of every study."""
    return [
        file
        for name, entry in STUDIES.items()
        for file in expand(path, study=name, arm=entry["arms"], seed=entry["seeds"])
    ]
