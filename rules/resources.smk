# What a job asks a scheduler for, from the work that it does: `memory`, `duration` and `gpus` of a
# stage are functions of wildcards and attempt. No rules here.
# The constants bound what the smoke, the default and the complete run took on one core a job
# (docs/howto/cluster.md); memory is asked for twice over, time three times. Where a GPU trains,
# nothing was measured.
import math
from functools import cache

from ecc import gpus as gpu_files
from ecc.memory import PIXELS_AT_ONCE

MEMORY_MARGIN, TIME_MARGIN = 2, 3
LONGEST = 14 * 24 * 60  # minutes
PLAIN_MB = 250  # of a process without torch
TORCH_MB = 900  # with it
CUDA_MB = 3000  # besides, in the memory of the host, where it uses a GPU
RUN_MB, RUN_S = 0.3, 0.1  # of a run in the tables and figures, of which there may be thousands
WORKER_MB = 500  # a process that loads images
START_S = 60  # imports, and reading data
ITERATION_S = 0.05  # what an iteration takes at least
CPU_MACS, GPU_MACS = (
    5e9,
    1e12,
)  # multiply-accumulates of a training in a second, passes back included
BYTES_PER_WEIGHT = 40  # weights, gradients, moments, the dense network, a best candidate
SAMPLE_S = 1.5  # of a sensor; an emulated device takes a millisecond
# Published architectures: million weights, thousand MACs a pixel, and bytes a pixel that are kept of
# a batch in training.
SIZES = {
    "alexnet": (61.1, 15, 500),
    "alexnet_grouped": (61.0, 15, 500),
    "erfnet": (2.1, 60, 3000),
    "googlenet": (6.7, 31, 2500),
    "mobilenet": (4.3, 12, 2000),
    "resnet50": (25.6, 83, 4000),
    "squeezenet": (1.3, 17, 1500),
    "vgg16": (138.4, 310, 4000),
}
OWN = (60, 100, 4000)  # of a network of the user's
# Of datasets that do not say how many images they have, at most.
IMAGES = {"digits": 2000, "cifar10": 60_000, "cityscapes": 5000, "imagenet": 1.4e6, "folder": 2e5}
# What made images are by default, in a class or all.
MADE = {
    "fractals": {"train": 200, "holdout": 20, "validation": 40},
    "streets": {"train": 400, "holdout": 40, "validation": 80},
}
# How much longer an iteration of a method takes than one of plain training: candidates are judged.
FACTORS = {"netadapt": 6, "evolution": 5, "lcp": 4, "uniform": 1}

gpu_used = cache(gpu_files.used)  # asked for by every job


def memory(of, here=None):
    """Megabytes that jobs of a stage ask for; with `here` for all jobs of an experiment and
    platform.
    """

    @asked_often
    def asked(wildcards, attempt):
        wanted = MEMORY_MARGIN * attempt * MEMORY[of](here or wildcards)
        return 500 * math.ceil(wanted / 500)

    return asked


def duration(of, here=None):
    """Minutes that jobs of a stage ask for; with `here` of an experiment and platform."""
    seconds = later(SECONDS[of], here) if here else SECONDS[of]

    @asked_often
    def asked(wildcards, attempt):
        wanted = TIME_MARGIN * attempt * (START_S + seconds(wildcards)) / 60
        return min(LONGEST, 5 * math.ceil(wanted / 5))

    return asked


def gpus(of, here=None):
    """GPUs that jobs of a stage ask for: 0 where none trains or measures; with `here` for all jobs
    of an experiment and platform.
    """
    asked = GPUS.get(of, lambda wildcards: 0)
    return asked(here) if here else asked


def training_gpus(training):
    return training["processes"] if gpu_used(training["device"]) else 0


def sensing(wildcards):
    """Settings of the sensors that a job reads."""
    entries = [config["platforms"][name] for name in measuring_on(wildcards)]
    return [entry for entry in entries if entry["kind"] in platforms.SENSORS]


def sensor_gpus(wildcards):
    """1 where a job measures a GPU."""
    of_gpu = ("nvml", "jetson")
    entries = sensing(wildcards)
    return int(any(e["kind"] in of_gpu or gpu_used(e.get("device", "cpu")) for e in entries))


def trainings(wildcards, name):
    """The trainings of a stage of an experiment; fine-tuning has several phases."""
    own = of_experiment(wildcards)[name]
    return [settings.stage(config, entry) for entry in (own if isinstance(own, list) else [own])]


def size_of(network):
    """Weights, MACs a pixel, bytes a pixel of an entry of `networks`."""
    entry = config["networks"][network]
    weights, macs, kept = SIZES.get(entry["architecture"], OWN)
    share = entry.get("multiplier", 1.0) ** 2
    return weights * 1e6 * share, macs * 1e3 * share, kept


def pixels_of(data):
    """Pixels of an image."""
    size = data.get("size", 224)
    return size**2 if isinstance(size, int) else size[0] * size[1]


def images_of(data, splits=("train", "holdout", "validation")):
    """Images of a dataset, in all or some splits; of those that do not say how many, all."""
    if data["kind"] in IMAGES:
        return IMAGES[data["kind"]]
    given = {**MADE[data["kind"]], **data}
    return given.get("classes", 1) * sum(given[split] for split in splits)


def judged_of(data):
    """Images that are judged at once: 256, or as many as there are."""
    return min(256, max(images_of(data, [split]) for split in ("holdout", "validation")))


def training_mb(network, data, training):
    """Memory of a training and of the judgement of what it has trained."""
    weights, _, kept = size_of(network)
    batch = math.ceil(training["batch_size"] / training["accumulate"]) * pixels_of(data)
    judged = min(judged_of(data) * pixels_of(data), max(PIXELS_AT_ONCE, pixels_of(data)))
    at_once = 0 if gpu_used(training["device"]) else kept * max(batch, judged) / 1e6
    own = TORCH_MB + CUDA_MB * gpu_used(training["device"]) + weights * BYTES_PER_WEIGHT / 1e6
    return training["processes"] * (own + at_once) + WORKER_MB * data.get("workers", 0)


def iteration_s(network, data, training):
    """Seconds of one iteration: forward, and back at twice the work."""
    pixels = training["batch_size"] * pixels_of(data)
    rate = GPU_MACS if gpu_used(training["device"]) else CPU_MACS
    macs = 3 * pixels * size_of(network)[1]
    return ITERATION_S * training["accumulate"] + macs / rate / training["processes"]


def stage_mb(name):
    """Memory of a stage of an experiment."""

    def needed(wildcards):
        network, data = of_experiment(wildcards)["network"], dataset_settings(wildcards)
        return max(training_mb(network, data, own) for own in trainings(wildcards, name))

    return needed


def stage_s(wildcards, name, iterations=0):
    """Seconds of a stage of an experiment, of so many `iterations` more."""
    network, data = of_experiment(wildcards)["network"], dataset_settings(wildcards)
    parts = trainings(wildcards, name)
    each = max(iteration_s(network, data, own) for own in parts)
    compiled = 600 * any(own["compile"] for own in parts)
    return compiled + each * (iterations + sum(own["iterations"] for own in parts))


def stage_gpus(name):
    return lambda wildcards: max(map(training_gpus, trainings(wildcards, name)))


def method_iterations(wildcards):
    """Iterations of plain training that a method takes the time of, beside its own."""
    own, (training,) = method_settings(wildcards), trainings(wildcards, "compression")
    episodes = own.get("episodes", 0) * (5 if own.get("holdout_images") else 50)
    return training["iterations"] * (FACTORS.get(own["method"], 2) - 1) + episodes


def finetuning_s(wildcards):
    """A method may leave its iterations to fine-tuning, as the uniform width does."""
    (compression,) = trainings(wildcards, "compression")
    return stage_s(wildcards, "finetuning", compression["iterations"])


def network_mb(network):
    """Memory of a network that takes an image of its deployment size."""
    height, width = config["networks"][network]["deployment_size"]
    weights, _, kept = size_of(network)
    return TORCH_MB + (8 * weights + kept * height * width) / 1e6


def of_wildcards(function):
    """`function` of the network that a job is about."""
    return lambda wildcards: function(network_of(wildcards))


def sampling_mb(wildcards):
    return network_mb(network_of(wildcards)) if sensing(wildcards) else PLAIN_MB


def measuring_s(wildcards, windows):
    """Seconds of so many measurements on the platforms of a job."""
    return windows * (len(sensing(wildcards)) * SAMPLE_S + 0.001)


def sampled_s(wildcards):
    """Seconds of a campaign: random widths once, the dense, the smallest and swept ones often."""
    swept_widths = 500 * len(sweeps(wildcards))
    often = (2 + swept_widths) * config["energy"]["repeats"]
    return measuring_s(wildcards, settings.samples(config, wildcards.platform)[0] + often)


def fitted_mb(wildcards):
    needs_torch = any(model["fit"] == "adam" for model in MODELS[network_of(wildcards)])
    samples, _ = settings.samples(config, wildcards.platform)
    return (TORCH_MB if needs_torch else PLAIN_MB) + samples / 100


def fitted_s(wildcards):
    """Seconds of the fits of all energy models of a network."""
    return 60 + sum(
        model.get("iterations", 0) * (0.002 + 4e-6 * model.get("batch_size", 128))
        for model in MODELS[network_of(wildcards)]
    )


def runs_of_method(wildcards):
    """Runs of a method in an experiment on a platform, all of which one job measures."""
    return len(budgets(wildcards.experiment, wildcards.platform)) * len(seeds(wildcards.experiment))


def closing_s(wildcards):
    (training,) = trainings(wildcards, "compression")
    judged = 4 * iteration_s(
        of_experiment(wildcards)["network"], dataset_settings(wildcards), training
    )
    rounds = 1 + closing_rounds(wildcards.experiment)
    measured_s = measuring_s(wildcards, config["energy"]["repeats"])
    return rounds * runs_of_method(wildcards) * (judged + measured_s)


def prepared_s(wildcards):
    """Made images take longer than images that are looked at."""
    data = config["datasets"][wildcards.dataset]
    made = 1e-5 * pixels_of(data) if "train" in data else 0
    return images_of(data) * (0.005 + made)


def pruning():
    return settings.stage(config, EAP["finetuning"])


def pruning_s(wildcards):
    """Rounds of pruning and of training; the pruning itself is as long as 200 iterations."""
    each = iteration_s(of_experiment(wildcards)["network"], dataset_settings(wildcards), pruning())
    return EAP["arms"][wildcards.arm]["rounds"] * (200 + pruning()["iterations"]) * each


def evolving(wildcards):
    """Data and training of a study; its networks are as large as its limit on MACs lets them be."""
    entry = study(wildcards)
    data = config["datasets"][entry["dataset"]]
    return entry, data, settings.stage(config, entry["training"])


def evolved_mb(wildcards):
    entry, data, training = evolving(wildcards)
    batch = (
        0 if gpu_used(training["device"]) else training["batch_size"] * pixels_of(data) * 4000 / 1e6
    )
    each = TORCH_MB + CUDA_MB * gpu_used(training["device"]) + batch
    return (1 + entry["workers"]) * each


def evolved_s(wildcards):
    entry, data, training = evolving(wildcards)
    height, width = entry["deployment_size"]
    macs = 3 * training["batch_size"] * entry["largest_macs"] * pixels_of(data) / (height * width)
    each = ITERATION_S + macs / (GPU_MACS if gpu_used(training["device"]) else CPU_MACS)
    networks = entry["population"] * (1 + entry["generations"])
    return networks * (5 + training["iterations"] * each) / entry["workers"]


@cache
def number_of_runs():
    """Runs of all experiments, which jobs of tables and figures read."""
    return len(all_runs(RUN))


def constant(value):
    return lambda wildcards: value


MEMORY = {
    "evidence": lambda wildcards: PLAIN_MB + RUN_MB * number_of_runs(),
    "budgets": constant(PLAIN_MB),
    "data": constant(TORCH_MB),
    "sensor": constant(TORCH_MB),
    "tracing": of_wildcards(network_mb),
    "sampling": sampling_mb,
    "fitting": fitted_mb,
    "dense": stage_mb("dense"),
    "compression": stage_mb("compression"),
    "closing": stage_mb("compression"),
    "finetuning": stage_mb("finetuning"),
    "verification": sampling_mb,
    "export": of_wildcards(lambda network: 500 + network_mb(network)),
    "layers": lambda wildcards: max(map(network_mb, EAP["dense"]["networks"])),
    "pruning": lambda wildcards: training_mb(
        of_experiment(wildcards)["network"], dataset_settings(wildcards), pruning()
    ),
    "evolution": evolved_mb,
}
# Besides START_S, which every job has.
SECONDS = {
    "evidence": lambda wildcards: 60 + RUN_S * number_of_runs(),
    "budgets": constant(60),
    "data": prepared_s,
    "sensor": constant(300),
    "tracing": constant(60),
    "sampling": sampled_s,
    "fitting": fitted_s,
    "dense": lambda wildcards: stage_s(wildcards, "dense"),
    "compression": lambda wildcards: (
        len(covered_runs(wildcards))
        * stage_s(wildcards, "compression", method_iterations(wildcards))
    ),
    "closing": closing_s,
    "finetuning": lambda wildcards: len(covered_runs(wildcards)) * finetuning_s(wildcards),
    "verification": lambda wildcards: measuring_s(
        wildcards, runs_of_method(wildcards) * config["energy"]["repeats"]
    ),
    "export": constant(300),
    "layers": lambda wildcards: 4 * len(EAP["dense"]["networks"]) * EAP["dense"]["images"],
    "pruning": pruning_s,
    "evolution": evolved_s,
}
GPUS = {
    "sensor": sensor_gpus,
    "sampling": sensor_gpus,
    "dense": stage_gpus("dense"),
    "compression": stage_gpus("compression"),
    "closing": lambda wildcards: max(int(gpu_used(config["device"])), sensor_gpus(wildcards)),
    "finetuning": stage_gpus("finetuning"),
    "verification": sensor_gpus,
    "pruning": lambda wildcards: int(gpu_used(config["device"])),
    "evolution": lambda wildcards: int(gpu_used(config["device"])),
}
