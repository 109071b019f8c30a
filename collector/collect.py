"""Measures the energy of a network at given widths on an old device: one file, nothing else.

Needs Python 3.6 and torch 1.4 or newer, as on a Jetson with JetPack 4. On another machine, make
the structure of the network and the widths to measure (README.md beside this file). On the device:

    python3 collect.py --list                       # sensors of this device
    python3 collect.py --network mobilenet --structure mobilenet.json --widths widths.csv \\
        --out campaign                              # energy of the GPU's power rail
    python3 collect.py ... --sensor latency         # seconds in place of joules

A campaign that was stopped, even by a power cut, goes on when the same command is given again.
"""

import argparse
import csv
import fcntl
import glob
import hashlib
import importlib
import json
import math
import os
import platform
import random
import sys
import threading
import time

import torch
from torch import nn
from torch.nn import functional

QUEUE = 8  # iterations that wait on the GPU
READINGS = 5  # fewest power readings of a window
SETTINGS = {  # the protocol: (default, meaning)
    "sample_s": (1.5, "seconds of a sample, settling included"),
    "settle_s": (0.5, "seconds that a network runs before its window"),
    "poll_s": (0.002, "seconds between two readings of power"),
    "iterations": (10, "fewest iterations of a window"),
    "warm_up_s": (20.0, "seconds under load before anything counts"),
    "idle_s": (5.0, "seconds of the measurement of idle power"),
    "reference_every": (20, "samples between two windows of the reference network"),
    "baseline": (5, "windows of the reference network at the start"),
    "repeats": (0.02, "part of the samples that is measured a second time"),
}


class CollectError(Exception):
    """What the user is told, in one line."""


# Networks: the layers and the order of the parameters are those of ecc.networks.


class SameConv2d(nn.Conv2d):
    """TensorFlow's "SAME" padding: more at the bottom and right where it is odd."""

    def forward(self, input):
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []  # left, right, top, bottom
        for size in (input.shape[3], input.shape[2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        padding = (pads[2], pads[0])
        if pads[0::2] != pads[1::2]:
            input, padding = functional.pad(input, pads), (0, 0)
        return functional.conv2d(
            input, self.weight, self.bias, self.stride, padding, groups=self.groups
        )


def mobilenet(widths, classes):
    def layers(inputs, outputs, kernel, stride, groups=1):
        convolution = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        return [convolution, nn.BatchNorm2d(outputs, eps=0.001), nn.ReLU6(inplace=True)]

    found = layers(3, widths[0], 3, 2)
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    for inputs, outputs, stride in zip(widths, widths[1:], strides):  # noqa: B905
        found += layers(inputs, inputs, 3, stride, inputs) + layers(inputs, outputs, 1, 1)
    return nn.Sequential(*found, Mean(), nn.Linear(widths[-1], classes))


class Mean(nn.Module):
    def forward(self, features):
        return features.mean(dim=(2, 3))


def alexnet(widths, classes):
    def relu(layer):
        return [layer, nn.ReLU(inplace=True)]

    w1, w2, w3, w4, w5, w6, w7 = widths
    found = [*relu(nn.Conv2d(3, w1, 11, stride=4, padding=2)), nn.MaxPool2d(3, stride=2)]
    found += [*relu(nn.Conv2d(w1, w2, 5, padding=2)), nn.MaxPool2d(3, stride=2)]
    for inputs, outputs in ((w2, w3), (w3, w4), (w4, w5)):
        found += relu(nn.Conv2d(inputs, outputs, 3, padding=1))
    found += [nn.MaxPool2d(3, stride=2), nn.AdaptiveAvgPool2d((6, 6)), nn.Flatten()]
    found += relu(nn.Linear(w5 * 36, w6)) + relu(nn.Linear(w6, w7))
    return nn.Sequential(*found, nn.Linear(w7, classes))


class Down(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs - inputs, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2, stride=2)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x):
        return functional.relu(self.bn(torch.cat([self.conv(x), self.pool(x)], 1)))


class Factorised(nn.Module):
    def __init__(self, channels, inner, dilation=1):
        super().__init__()
        a, b, c = inner
        self.conv1 = nn.Conv2d(channels, a, (3, 1), padding=(1, 0))
        self.conv2 = nn.Conv2d(a, b, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(b, eps=1e-3)
        d = dilation
        self.conv3 = nn.Conv2d(b, c, (3, 1), padding=(d, 0), dilation=(d, 1))
        self.conv4 = nn.Conv2d(c, channels, (1, 3), padding=(0, d), dilation=(1, d))
        self.bn2 = nn.BatchNorm2d(channels, eps=1e-3)

    def forward(self, x):
        inner = functional.relu(self.bn1(self.conv2(functional.relu(self.conv1(x)))))
        return functional.relu(self.bn2(self.conv4(functional.relu(self.conv3(inner)))) + x)


class Up(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x):
        return functional.relu(self.bn(self.conv(x)))


class ERFNet(nn.Module):
    def __init__(self, widths, classes):
        super().__init__()
        inner = iter([widths[i : i + 3] for i in range(0, len(widths), 3)])
        encoder = [Down(3, 16), Down(16, 64), *(Factorised(64, next(inner)) for _ in range(5))]
        dilations = (2, 4, 8, 16) * 2
        encoder += [Down(64, 128), *(Factorised(128, next(inner), d) for d in dilations)]
        self.encoder = nn.Sequential(*encoder)
        self.head = nn.Conv2d(128, classes, 1)  # has parameters, but no part in the inference
        decoder = [Up(128, 64), *(Factorised(64, next(inner)) for _ in range(2))]
        decoder += [Up(64, 16), *(Factorised(16, next(inner)) for _ in range(2))]
        decoder += [nn.ConvTranspose2d(16, classes, 2, stride=2)]
        self.decoder = nn.Sequential(*decoder)

    def forward(self, images):
        return self.decoder(self.encoder(images))


NETWORKS = {"alexnet": alexnet, "erfnet": ERFNet, "mobilenet": mobilenet}


def builder(name, classes):
    """A function widths -> module, of a network in this file or of `module:function`."""
    if name in NETWORKS:
        return lambda widths: NETWORKS[name](widths, classes)
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(sorted(NETWORKS))
        raise CollectError(f"--network {name}: not {known} or module:function ({error})") from error


# Sensors


def first_line(path, default=""):
    try:
        with open(path) as file:
            return file.readline().strip().strip("\0")
    except OSError:
        return default


def rails(root):
    """Rails of INA3221 sensors: {name: (files, unit)}; the files' product times unit is watts."""
    found = {}

    def add(name, files, unit):
        found[f"{name} ({files[0]})" if name in found else name] = (files, unit)

    def number(path):
        return "".join(c for c in os.path.basename(path) if c.isdigit())

    for chip in sorted(glob.glob(root + "/sys/bus/i2c/drivers/ina3221x/*/iio:device*")):
        for power in sorted(glob.glob(chip + "/in_power[0-9]_input")):
            address = f"{os.path.basename(os.path.dirname(chip))}/{number(power)}"
            add(first_line(f"{chip}/rail_name_{number(power)}", address), [power], 1e-3)
    for chip in sorted(glob.glob(root + "/sys/class/hwmon/hwmon*")):
        for current in sorted(glob.glob(chip + "/curr[123]_input")):
            voltage = f"{chip}/in{number(current)}_input"
            if first_line(chip + "/name") == "ina3221" and os.path.exists(voltage):
                address = f"{os.path.basename(chip)}/{number(current)}"
                label = first_line(f"{chip}/in{number(current)}_label", address)
                add(label, [voltage, current], 1e-6)
    return found


class Power(threading.Thread):
    """Reads the sum of rails again and again, beside the work that it measures."""

    def __init__(self, root, wanted, poll_s):
        super().__init__(daemon=True)
        found, self.files = rails(root), {}
        for pattern in wanted:
            exact = [name for name in found if name.lower() == pattern.lower()]
            names = exact or [name for name in found if pattern.lower() in name.lower()]
            if len(names) != 1:
                there = ", ".join(found) or "no INA3221 (--sensor latency needs none)"
                raise CollectError(f"--rails {pattern}: {len(names)} rails fit, found are: {there}")
            self.files[names[0]] = found[names[0]]
        self.poll_s, self.readings, self.error = poll_s, [], None  # readings: (seconds, watts)
        if wanted:
            self.watts()
            self.start()

    def watts(self):
        total = 0.0
        for files, product in self.files.values():
            for path in files:
                try:
                    with open(path) as file:
                        product *= int(file.read())
                except (OSError, ValueError) as error:
                    raise CollectError(f"{path}: the sensor does not answer ({error})") from error
            total += product
        return total

    def run(self):
        try:
            while True:
                watts = self.watts()
                self.readings.append((time.perf_counter(), watts))
                time.sleep(self.poll_s)
        except CollectError as error:
            self.error = error

    def mean(self, begin, end):
        """Mean watts between two moments, NaN without a rail; forgets the readings so far."""
        if not self.files:
            return math.nan
        readings, self.readings = self.readings, []
        if self.error:
            raise self.error
        inside = [entry for entry in readings if begin <= entry[0] <= end]
        if len(inside) < READINGS:
            raise CollectError(f"{len(inside)} readings of power in {end - begin:.2f} s: too few")
        steps = zip(inside, inside[1:])  # noqa: B905, RUF007
        joules = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in steps)
        return joules / (inside[-1][0] - inside[0][0])


def temperature_c(root):
    """Degrees of the GPU's zone, or of the hottest."""
    found = {}
    for zone in glob.glob(root + "/sys/class/thermal/thermal_zone*"):
        text = first_line(zone + "/temp")
        if text.lstrip("-").isdigit():
            found[first_line(zone + "/type").lower()] = int(text) / 1e3
    of_gpu = [value for name, value in found.items() if "gpu" in name]
    return max(of_gpu or list(found.values()) or [math.nan])


def clock_mhz(root):
    """The clock of a Tegra's GPU."""
    for chip in ("gp10b", "gv11b", "gm20b", "gpu"):
        for path in glob.glob(f"{root}/sys/class/devfreq/*{chip}/cur_freq"):
            return int(first_line(path, "0")) / 1e6
    return math.nan


# Running a network


class Work:
    """A network that runs again and again on a device."""

    def __init__(self, module, images):
        self.cuda = images.is_cuda
        module = module.to(images.device).eval()
        self.step = lambda: module(images)
        self.waiting = []
        self.step()  # an error in the network shows here
        if graphs(self.cuda):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self.step()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.output = module(images)
            self.step = graph.replay

    def run(self, seconds, iterations=1):
        """(iterations, their seconds, begin, end): at least `seconds` and `iterations`.

        Waits at the begin and the end alone: between them the GPU always has work.
        """
        self.wait()
        begin, count = time.perf_counter(), 0
        first = self.mark()
        while count < iterations or time.perf_counter() - begin < seconds:
            self.step()
            count += 1
            if self.cuda:
                self.waiting.append(self.mark())
                if len(self.waiting) > QUEUE:
                    self.waiting.pop(0).synchronize()
        last = self.mark()
        self.wait()
        end = time.perf_counter()
        spent = first.elapsed_time(last) / 1e3 if self.cuda else end - begin
        return count, spent, begin, end

    def mark(self):
        if not self.cuda:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self):
        self.waiting = []
        if self.cuda:
            torch.cuda.synchronize()


def graphs(cuda):
    """Whether CUDA graphs can be used: torch 1.10, built for CUDA 11."""
    built = (torch.version.cuda or "0").split(".")[0]
    return cuda and hasattr(torch.cuda, "CUDAGraph") and int(built) >= 11


# The campaign


def read_structure(path):
    """The structure as Python values, and its fingerprint as ecc.structure makes it."""
    try:
        with open(path) as file:
            values = json.load(file)
        values["widths"] = [group["width"] for group in values["groups"]]
        values["size"] = values["operations"][0]["in_size"]
        names = ("groups", "operations", "image_channels", "classes", "fixed_vectors")
        text = json.dumps({name: values[name] for name in names}, indent=1)
        return values, hashlib.sha256(text.encode()).hexdigest()
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CollectError(f"{path}: not the structure of a network ({error})") from error


def width_columns(groups):
    return [f"width_{group}" for group in range(groups)]


def read_widths(path, full):
    """Rows of widths, checked against the full widths."""
    names = width_columns(len(full))
    with open(path, newline="") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    if header not in (names, ["sample", *names]) or not lines:
        raise CollectError(f"{path}: not rows of the columns [sample,]{names[0]} .. {names[-1]}")
    found = []
    for number, line in enumerate(lines):
        try:
            values = [int(text) for text in line]
            row = values[len(header) - len(full) :]
            right = len(line) == len(header) and all(1 <= w <= s for w, s in zip(row, full))  # noqa: B905
        except ValueError:
            right = False
        if not right or values[: len(header) - len(full)] not in ([], [number]):
            raise CollectError(
                f"{path}: line {number + 2}: samples count from 0, widths are whole numbers from 1 "
                "to the network's full widths"
            )
        found.append(row)
    return found


def plan(count, repeats, seed):
    """(kind, sample) of every sample in random order, blind repeats among them."""
    stream = random.Random(seed)
    tasks = [("sample", number) for number in range(count)]
    stream.shuffle(tasks)
    for number in stream.sample(range(count), round(repeats * count)):
        place = stream.randint(tasks.index(("sample", number)) + 1, len(tasks))
        tasks.insert(place, ("repeat", number))
    return tasks


class Journal:
    """windows.csv: a row is on disk when `add` returns; a torn last line is cut off."""

    def __init__(self, path, columns):
        self.path = path
        self.file = open(path, "a+", newline="")  # noqa: SIM115
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CollectError(f"{path}: belongs to a campaign that is running") from error
        with open(path, "rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
        self.file.seek(0)
        reader = csv.DictReader(self.file)
        self.rows = list(reader)
        if reader.fieldnames not in (None, columns):
            raise CollectError(f"{path}: it has other columns: choose another --out")
        self.writer = csv.DictWriter(self.file, columns, lineterminator="\n")
        if reader.fieldnames is None:
            self.writer.writeheader()

    def add(self, row):
        self.writer.writerow(row)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.rows.append(row)


def write_json(path, values):
    with open(path + ".part", "w") as file:
        json.dump(values, file, indent=2, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".part", path)


class Campaign:
    """Everything from the command line to the last window."""

    def __init__(self, chosen):
        self.chosen, self.root, self.batch = chosen, chosen.root.rstrip("/"), chosen.batch
        structure, fingerprint = read_structure(chosen.structure)
        self.full, self.size = structure["widths"], chosen.size or structure["size"]
        self.reference = [max(1, width // 2) for width in self.full]
        self.widths = read_widths(chosen.widths, self.full)
        self.build = builder(chosen.network, structure["classes"])
        self.device = torch.device(chosen.device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise CollectError(f"--device {chosen.device}: torch finds no GPU: try --device cpu")
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        torch.manual_seed(chosen.seed)
        images = torch.randn([self.batch, structure["image_channels"], *self.size])
        self.images = images.to(self.device)  # not zeros, which take less power
        self.metric = "latency_s" if chosen.sensor == "latency" else "energy_j"
        wanted = chosen.rails if self.metric == "energy_j" else []
        self.power = Power(self.root, wanted, chosen.poll_s)
        self.provenance = self.describe(fingerprint)
        os.makedirs(chosen.out, exist_ok=True)
        self.path = os.path.join(chosen.out, "campaign.json")
        self.journal = Journal(os.path.join(chosen.out, "windows.csv"), self.columns())
        if self.journal.rows:
            self.provenance = self.known()

    def columns(self):
        names = ["window", "segment", "kind", "sample", *width_columns(len(self.full))]
        names += [f"raw_{self.metric}", "power_w"]
        names += ["latency_s"] if self.metric != "latency_s" else []
        names += ["window_s", "iterations", "batch", "idle_power_w", "temperature_c", "clock_mhz"]
        return [*names, "capped", "attempts", "throttled", "started_s"]

    def describe(self, fingerprint):
        cuda, chosen = self.device.type == "cuda", self.chosen
        device = torch.cuda.get_device_name(self.device) if cuda else platform.machine() + " CPU"
        driver = first_line(self.root + "/etc/nv_tegra_release") or platform.release()
        return {
            "about": {"collector": os.path.basename(__file__), "network": chosen.network},
            "settings": {name: getattr(chosen, name) for name in SETTINGS},
            "seed": chosen.seed,
            "fingerprint": fingerprint,
            "widths": hashlib.sha256(json.dumps(self.widths).encode()).hexdigest(),
            "metric": self.metric,
            "sensor": "INA3221 " + "+".join(self.power.files) if self.power.files else "latency",
            "device": first_line(self.root + "/proc/device-tree/model") or device,
            "batch": self.batch,
            "meter": {"rails": sorted(self.power.files), "driver": driver},
            "runner": {
                "device": device,
                "torch_device": str(self.device),
                "size": list(self.size),
                "precision": "float32",
                "graphs": graphs(cuda),
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version() if cuda else None,
                "cudnn_benchmark": torch.backends.cudnn.benchmark,
                "threads": torch.get_num_threads(),
            },
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
            "hardware": {"system": f"{platform.system()} {platform.machine()}"},
            "segments": [],
        }

    def known(self):
        """The provenance of the windows that are there, if they are of this campaign."""
        with open(self.path) as file:
            known = json.load(file)
        for name in ("fingerprint", "widths", "metric", "sensor", "device", "batch", "seed"):
            if known[name] != self.provenance[name]:
                raise CollectError(
                    f"{self.path}: its {name} is {known[name]}, not {self.provenance[name]}: "
                    "choose another --out"
                )
        return known

    def run(self):
        """One segment: from a start to the end, or to whatever stops it."""
        every = self.chosen.reference_every
        done = [(row["kind"], int(row["sample"])) for row in self.journal.rows]
        tasks = plan(len(self.widths), self.chosen.repeats, self.chosen.seed)
        tasks = [task for task in tasks if task not in set(done)]
        if not tasks:
            say(f"everything is measured: {self.journal.path}")
            return
        reference = ("reference", -1)
        steps = [reference] * max(1, self.chosen.baseline - done.count(reference))
        for start in range(0, len(tasks), every):
            steps += [*tasks[start : start + every], reference]
        self.begin()
        for number, (kind, sample) in enumerate(steps):
            self.window(kind, sample)
            self.progress(number + 1, len(steps))

    def begin(self):
        """Warm-up, idle power, and a new segment in campaign.json."""
        work = Work(self.build(self.reference), self.images)
        load_w = self.power.mean(*work.run(self.chosen.warm_up_s)[2:])
        idle = time.perf_counter()
        time.sleep(self.chosen.idle_s)
        self.idle_w = self.power.mean(idle, time.perf_counter())
        if load_w <= self.idle_w:
            say(f"warning: {load_w:.2f} W under load, {self.idle_w:.2f} W idle: is it this rail?")
        self.begun, now, segments = time.perf_counter(), time.time(), self.provenance["segments"]
        segment = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(now)),
            "started_unix": now,
            "period_s": 0.0,
            "cross_check": None,
            "idle_power_w": None if math.isnan(self.idle_w) else self.idle_w,
            "settings": {name: getattr(self.chosen, name) for name in SETTINGS},
        }
        segments.append(segment)
        self.before = now - segments[0]["started_unix"]
        write_json(self.path, self.provenance)

    def window(self, kind, sample):
        widths = self.reference if kind == "reference" else self.widths[sample]
        work = Work(self.build(widths), self.images)
        started_s = self.before + time.perf_counter() - self.begun
        work.run(self.chosen.settle_s)
        window_s = self.chosen.sample_s - self.chosen.settle_s
        count, spent, begin, end = work.run(window_s, self.chosen.iterations)
        power_w = self.power.mean(begin, end)
        if power_w <= 0:
            raise CollectError(f"{self.provenance['sensor']}: 0 W under load: choose other --rails")
        latency_s = spent / count / self.batch
        row = {
            "window": len(self.journal.rows),
            "segment": len(self.provenance["segments"]) - 1,
            "kind": kind,
            "sample": sample,
            "power_w": power_w,
            "latency_s": latency_s,
            "window_s": end - begin,
            "iterations": count,
            "batch": self.batch,
            "idle_power_w": self.idle_w,
            "temperature_c": temperature_c(self.root),
            "clock_mhz": clock_mhz(self.root),
            "capped": False,
            "attempts": 1,
            "throttled": "",
            "started_s": started_s,
        }
        row.update(zip(width_columns(len(widths)), widths))  # noqa: B905
        row["raw_" + self.metric] = latency_s if math.isnan(power_w) else power_w * latency_s
        self.journal.add(
            {name: row[name] if row[name] == row[name] else "" for name in self.columns()}
        )
        del work
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def progress(self, done, total):
        pace = (time.perf_counter() - self.begun) / done
        text = (
            f"{done}/{total} windows, {pace:.2f} s each, {(total - done) * pace / 60:.0f} min left"
        )
        if sys.stderr.isatty():
            say("\r" + text, end="" if done < total else "\n")
        elif done % self.chosen.reference_every == 0 or done == total:
            say(text)


def say(text, end="\n"):
    print(text, end=end, file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--list", action="store_true", help="show the power rails of this device, and end")
    add("--network", help=f"{', '.join(sorted(NETWORKS))}, or module:function (widths -> module)")
    add("--structure", help="structure of the network, a JSON file of the workflow")
    add("--widths", help="CSV of the widths to measure")
    add("--out", help="folder of the campaign")
    add("--sensor", choices=("power", "latency"), default="power")
    add("--rails", nargs="+", default=["GPU"], help="rails to sum, whole names or parts; GPU")
    add("--size", nargs=2, type=int, help="height and width of an image, if not the structure's")
    add("--device", default="cuda:0", help="of torch, cuda:0 or cpu; cuda:0")
    add("--batch", type=int, default=1, help="images of an iteration; 1")
    add("--seed", type=int, default=0, help="of the order and the images; 0")
    add("--root", default="/", help="where the files of the system are; /")
    for name, (value, meaning) in SETTINGS.items():
        option = "--" + name.replace("_", "-")
        add(option, type=type(value), default=value, help=f"{meaning}; {value}")
    return parser.parse_args()


def check(chosen):
    """What argparse does not see."""
    for name in ("network", "structure", "widths", "out"):
        if getattr(chosen, name) is None:
            raise CollectError(f"--{name} is missing: see --help")
    for name in ("poll_s", "iterations", "idle_s", "reference_every", "baseline", "batch"):
        if not getattr(chosen, name) > 0:
            raise CollectError(f"--{name.replace('_', '-')} must be above 0")
    if not 0 <= chosen.repeats <= 1:
        raise CollectError("--repeats must be a part, from 0 to 1")
    if not 0 <= chosen.settle_s < chosen.sample_s:
        raise CollectError("--sample-s must be above --settle-s")


def main():
    chosen = arguments()
    try:
        if chosen.list:
            print("\n".join(sorted(rails(chosen.root.rstrip("/")))) or "no INA3221 was found")
            return 0
        check(chosen)
        with torch.no_grad():
            Campaign(chosen).run()
    except KeyboardInterrupt:
        say("stopped: the same command goes on from here")
        return 130
    except (CollectError, OSError, RuntimeError, ValueError, KeyError) as error:
        say("error: " + " ".join(str(error).split()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
