"""Networks run on a processor for real, and on a CUDA device whose calls and time are faked."""

import inspect
import math
import weakref
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks import compare_sampling
from ecc.errors import UserError
from ecc.measuring import torch_runner
from ecc.measuring.interface import Reading, SystemClock
from ecc.measuring.simulated import Simulation, rig
from ecc.measuring.torch_runner import FEED_S, GAP, QUEUED_S, RunSettings, TorchRunner
from ecc.networks import Network
from ecc.structure import Group, Structure

ONE = np.array([4])


@dataclass
class ManualClock:
    seconds: float = 100.0

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += max(seconds, 0.0)


@dataclass
class OneGroup:
    """A network of one channel group; `make` gives its module at a width."""

    make: object
    size: tuple[int, int] = (6, 5)
    structure: Structure = field(default_factory=lambda: Structure((Group("a", 8),), (), 3, 4))
    built: list = field(default_factory=list)

    def build(self, widths):
        module = self.make(int(widths[0]))
        self.built.append(weakref.ref(module))
        return module


class Worker(nn.Module):
    """A convolution whose work is done by `work`, too."""

    def __init__(self, width, work=lambda: None):
        super().__init__()
        self.layer = nn.Conv2d(3, width, 3)
        self.work = work

    def forward(self, images):
        self.work()
        return self.layer(images)


@pytest.fixture
def one_line():
    """A UserError in one line, of which the given words are a part."""

    class Raised:
        def __init__(self, *words):
            self.words = words

        def __enter__(self):
            return self

        def __exit__(self, kind, error, trace):
            assert isinstance(error, UserError), error
            assert "\n" not in str(error)
            assert all(word in str(error) for word in self.words), str(error)
            return True

    return Raised


# On the processor


def test_spans_hold_the_iterations_and_seconds_of_the_clock():
    clock = SystemClock()
    network = Network("mobilenet", classes=10, multiplier=0.25, size=(64, 64))
    runner = TorchRunner(RunSettings("cpu", batch=2), clock)
    workload = runner.load(runner.prepare(network, network.full_widths))
    assert workload.batch == 2
    workload.feed()
    moments = [clock.now()]
    first = workload.mark()
    moments.append(clock.now())
    for _ in range(5):
        workload.feed()
    moments.append(clock.now())
    last = workload.mark()
    moments.append(clock.now())
    workload.feed()
    span = workload.between(first, last)
    assert span.iterations == 5
    assert moments[2] - moments[1] <= span.seconds <= moments[3] - moments[0]
    gaps = [span.gap_s / span.seconds]
    for _ in range(4):  # a busy machine lets a gap last longer, but not every time
        first, _, last = workload.mark(), workload.feed(), workload.mark()
        workload.feed()
        gaps.append((span := workload.between(first, last)).gap_s / span.seconds)
    assert 0 <= min(gaps) < 1 / 5
    workload.stop()
    runner.close()


@pytest.mark.parametrize(("iteration_s", "gapped"), [(0.006, False), (0.010, True), (0.5, True)])
def test_long_iterations_on_a_processor_have_random_gaps(iteration_s, gapped):
    clock = ManualClock()
    work = partial(clock.sleep, iteration_s)
    runner = TorchRunner(RunSettings("cpu"), clock)
    workload = runner.load(runner.prepare(OneGroup(partial(Worker, work=work)), ONE))
    gaps_s = []
    for _ in range(200):
        first = workload.mark()
        workload.feed()
        span = workload.between(first, workload.mark())
        assert span.iterations == 1
        assert span.seconds - span.gap_s == pytest.approx(iteration_s)
        gaps_s.append(span.gap_s)
    if not gapped:
        assert not any(gaps_s)
        return
    assert np.mean(gaps_s) == pytest.approx(GAP * iteration_s, rel=0.2)
    assert np.std(gaps_s) > 0.3 * GAP * iteration_s
    assert np.max(gaps_s) <= 2 * GAP * iteration_s * 1.001


def outputs_of(network, widths, **settings):
    """What the loaded network gives in its first iteration, and its module as it was then."""
    seen = []

    class Watched:
        size, structure = network.size, network.structure

        def build(self, widths):
            module = network.build(widths)
            module.register_forward_hook(
                lambda module, given, output: seen.append((module, given[0].clone(), output))
            )
            return module

    runner = TorchRunner(RunSettings(**{"device": "cpu", **settings}), ManualClock())
    prepared = runner.prepare(Watched(), widths)
    workload = runner.load(prepared)
    assert workload.batch == settings.get("batch", 1)
    return (*seen[0], prepared.blank)


@pytest.mark.parametrize(
    ("name", "size", "settings"),
    [
        ("mobilenet", (32, 32), {"batch": 2}),
        ("alexnet", (64, 64), {}),
        ("erfnet", (16, 16), {"channels_last": True}),
        ("mobilenet", (32, 32), {"precision": "bf16"}),
    ],
)
def test_networks_get_weights_that_keep_activations_alive(name, size, settings):
    network = Network(name, classes=10, multiplier=0.25, size=size)
    # Half the widths where that is possible.
    widths = np.maximum(network.full_widths // 2, 1)
    module, images, output, blank = outputs_of(network, widths, **settings)
    assert blank  # built without values
    assert not module.training
    assert images.shape == (settings.get("batch", 1), 3, *size)
    assert (images != 0).all()
    assert output.isfinite().all()
    assert 1e-3 < output.float().std() < 1e4
    dtype = torch.bfloat16 if settings.get("precision") == "bf16" else torch.float32
    assert {images.dtype, output.dtype} == {dtype}
    assert {p.dtype for p in module.parameters()} == {dtype}
    expected = {key: value.shape for key, value in network.build(widths).state_dict().items()}
    assert {key: value.shape for key, value in module.state_dict().items()} == expected
    if settings.get("channels_last"):
        assert images.is_contiguous(memory_format=torch.channels_last)
        convolution = next(m for m in module.modules() if isinstance(m, nn.Conv2d))
        assert convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_activations_neither_vanish_nor_explode_with_depth():
    def deep(width):
        layers = []
        for _ in range(30):
            layers += [nn.Conv2d(3 * width, 3 * width, 3, padding=1), nn.ReLU()]
            layers += [nn.ConvTranspose2d(3 * width, 3 * width, 2, stride=2), nn.ReLU()]
            layers += [nn.AvgPool2d(2), nn.BatchNorm2d(3 * width)]
        return nn.Sequential(nn.Conv2d(3, 3 * width, 1), *layers)

    _, _, output, blank = outputs_of(OneGroup(deep), ONE)
    assert blank
    assert 1e-3 < output.std() < 1e3


def test_the_same_seed_gives_the_same_images_and_weights():
    network = OneGroup(Worker)
    outputs = [outputs_of(network, ONE, seed=seed)[2] for seed in (0, 0, 1)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


class WithBuffer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.register_buffer("factor", torch.tensor([2.0, 3.0, 4.0]).view(3, 1, 1))

    def forward(self, images):
        return images * self.factor


class WithPlainTensor(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.factors = [torch.tensor([2.0, 3.0, 4.0]).view(3, 1, 1)]

    def forward(self, images):
        return images * self.factors[0]


class WithFrozenWeight(nn.Conv2d):
    def __init__(self, width):
        super().__init__(3, 3, 1, groups=3, bias=False)
        with torch.no_grad():
            self.weight.copy_(torch.tensor([2.0, 3.0, 4.0]).view(3, 1, 1, 1))
        self.requires_grad_(False)


class WithParameter(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Conv2d(3, width, 1)
        self.factor = nn.Parameter(torch.tensor([2.0, 3.0, 4.0]).view(3, 1, 1))

    def forward(self, images):
        self.layer(images)
        return images * self.factor


class WithValuesWhenBuilt(WithBuffer):
    def __init__(self, width):
        super().__init__(width)
        self.factor *= torch.linspace(0, 1, 2)[-1].item()


@pytest.mark.parametrize(
    "make", [WithBuffer, WithPlainTensor, WithFrozenWeight, WithParameter, WithValuesWhenBuilt]
)
def test_constants_of_a_network_are_kept(make):
    _, images, output, blank = outputs_of(OneGroup(make), ONE)
    assert not blank
    factor = torch.tensor([2.0, 3.0, 4.0]).view(3, 1, 1)
    torch.testing.assert_close(output, images * factor)


def test_shared_weights_stay_shared():
    def tied(width):
        layers = [nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)]
        layers[1].weight = layers[0].weight
        return nn.Sequential(*layers)

    module, *_ = outputs_of(OneGroup(tied), ONE)
    assert module[0].weight is module[1].weight


class Overwrites(nn.Module):
    def forward(self, images):
        return images.mul_(2)


def test_what_cannot_be_measured_is_refused(one_line):
    runner = TorchRunner(RunSettings("cpu", batch=7), ManualClock())

    def load(make, **kwargs):
        runner.load(runner.prepare(OneGroup(make, **kwargs), ONE))

    with one_line("in place"):
        load(lambda width: Overwrites())
    with one_line("lazy"):
        load(lambda width: nn.LazyConv2d(2, 1))
    with one_line("widths [4]", "does not run on cpu in fp32"):
        load(lambda width: nn.Conv2d(5, 2, 1))
    with one_line("batch 7 of 1000000x1000000", "smaller batch"):
        load(Worker, size=(10**6, 10**6))
    with one_line("alexnet needs images"):
        small = Network("alexnet", classes=4, multiplier=0.1)
        runner.load(runner.prepare(_resized(small, (32, 32)), small.full_widths))


def _resized(network, size):
    return OneGroup(lambda width: network.build(), size=size)


def test_outputs_that_are_not_finite_are_told_once(caplog):
    class Overflows(nn.Module):
        def forward(self, images):
            return images / 0

    runner = TorchRunner(RunSettings("cpu"), ManualClock())
    for _ in range(2):
        runner.load(runner.prepare(OneGroup(lambda width: Overflows()), ONE))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not finite" in caplog.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "mps"}, "set cuda:0 or cpu"),
        ({"device": "gpu0"}, "set cuda:0 or cpu"),
        ({"precision": "fp8"}, "fp32, tf32, fp16, bf16"),
        ({"device": "cpu", "precision": "tf32"}, "on cpu"),
        ({"batch": 0}, "batch is 0"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_impossible_settings_are_refused(settings, words, one_line):
    with one_line(words):
        RunSettings(**settings)


def test_threads_are_set_recorded_and_given_back():
    before = torch.get_num_threads()
    runner = TorchRunner(RunSettings("cpu", threads=before + 1, batch=3), ManualClock())
    about = runner.provenance()
    assert (about["threads"], about["batch"], about["precision"]) == (before + 1, 3, "fp32")
    assert about["torch"] == torch.__version__
    runner.close()
    assert torch.get_num_threads() == before


# On a device that is faked


class FakeCuda:
    """What `torch.cuda` offers, with a device whose work takes time of `clock` and nothing else.

    Every call must fit the signature of the real one. `log` holds those that wait or do not come
    twice; `slower` is the factor of all work, `cycles_per_s` the frequency.
    """

    OutOfMemoryError = torch.cuda.OutOfMemoryError

    def __init__(self, clock):
        self.clock, self.log, self.slower, self.cycles_per_s = clock, [], 1.0, 2e9
        self.end = clock.now()  # of the work that was launched
        self.idle_s = 0.0  # between works
        self.capturing = None
        self.graphs = weakref.WeakSet()
        self.replays, self.gaps_s, self.current = 0, [], []
        self.host_s = 0.0  # that a launch takes
        self.count, self.present = 1, True
        self.fails = {}  # by what is done next: a list of errors, None for none

    def run(self, seconds):
        """A kernel."""
        self.fail("run")
        if self.capturing is not None:
            self.capturing.seconds += seconds
            return
        assert self.current, "work outside the stream"
        self.clock.sleep(self.host_s)
        self.idle_s += max(self.clock.now() - self.end, 0)
        self.end = max(self.end, self.clock.now()) + seconds * self.slower

    def fail(self, what):
        errors = self.fails.get(what)
        if errors and (error := errors.pop(0)):
            raise error

    def wait(self, until, what):
        assert self.capturing is None, f"{what} while capturing"
        self.log.append(what)
        self.clock.sleep(until - self.clock.now())

    def fits(self, real, *args, **kwargs):
        inspect.signature(real).bind(*args, **kwargs)

    def is_available(self):
        return self.present

    def device_count(self):
        return self.count

    def get_device_name(self, index):
        self.fits(torch.cuda.get_device_name, index)
        return f"Fake GPU {index}"

    def empty_cache(self):
        self.log.append("empty_cache")

    def _sleep(self, cycles):
        assert isinstance(cycles, int)
        assert cycles >= 1
        seconds = cycles / self.cycles_per_s
        self.gaps_s.append(seconds)
        slower, self.slower = self.slower, 1.0
        self.run(seconds)
        self.slower = slower

    def stream(self, stream):
        self.fits(torch.cuda.stream, stream)
        fake = self

        class Context:
            def __enter__(self):
                fake.current.append(stream)

            def __exit__(self, *_):
                assert fake.current.pop() is stream

        return Context()

    def Stream(self, *args, **kwargs):  # noqa: N802
        self.fits(torch.cuda.Stream.__new__, None, *args, **kwargs)
        self.fail("stream")
        fake = self

        class Stream:
            def synchronize(self):
                fake.wait(fake.end, "stream.synchronize")

        return Stream()

    def Event(self, *args, **kwargs):  # noqa: N802
        self.fits(torch.cuda.Event.__new__, None, *args, **kwargs)
        fake = self

        class Event:
            seconds = math.nan

            def record(self, stream):
                assert fake.capturing is None
                self.seconds = max(fake.end, fake.clock.now())

            def query(self):
                fake.fail("query")
                return self.seconds <= fake.clock.now()

            def synchronize(self):
                if self.seconds > fake.clock.now():
                    fake.wait(self.seconds, "event.synchronize")

            def elapsed_time(self, end):
                assert kwargs["enable_timing"]
                if not (self.query() and end.query()):
                    raise RuntimeError("device not ready")
                return (end.seconds - self.seconds) * 1000

        return Event()

    def CUDAGraph(self):  # noqa: N802
        fake = self

        class Graph:
            seconds, state = 0.0, "new"

            def replay(self):
                assert self.state == "captured"
                fake.replays += 1
                fake.run(self.seconds)

            def reset(self):
                assert fake.end <= fake.clock.now(), "reset while it runs"
                self.state = "reset"
                fake.graphs.discard(self)

        graph = Graph()
        self.graphs.add(graph)
        return graph

    def graph(self, graph, *args, **kwargs):
        self.fits(torch.cuda.graph.__init__, None, graph, *args, **kwargs)
        assert kwargs["stream"] is self.current[-1]  # in which cuBLAS has its workspace already
        fake = self

        class Context:
            def __enter__(self):
                fake.wait(fake.end, "capture")
                assert graph.state == "new"
                fake.capturing = graph

            def __exit__(self, kind, error, trace):
                fake.capturing = None
                if error is not None:
                    # As `capture_end` does, whose own error hides the first.
                    raise RuntimeError("CUDA error: operation failed due to a previous error\nand")
                graph.state = "captured"

        return Context()


@pytest.fixture
def fake(monkeypatch):
    cuda = FakeCuda(ManualClock())
    monkeypatch.setattr(torch_runner, "cuda", cuda)
    monkeypatch.setattr(torch_runner._Gpu, "_place", staticmethod(lambda _: torch.device("cpu")))
    return cuda


@pytest.fixture
def gpu(fake):
    """A function that loads a network on the faked device, by the seconds of its iteration."""
    runners = []

    def load(iteration_s, **settings):
        runners.append(TorchRunner(RunSettings(**settings), fake.clock))
        network = OneGroup(partial(Worker, work=partial(fake.run, iteration_s)))
        return runners[-1].load(runners[-1].prepare(network, ONE))

    yield load
    for runner in runners:
        runner.close()


def test_a_graph_is_captured_once_after_the_warm_up(fake):
    runs = []

    def work():
        runs.append(fake.capturing)
        fake.run(1e-3)

    runner = TorchRunner(RunSettings(), fake.clock)
    workload = runner.load(runner.prepare(OneGroup(partial(Worker, work=work)), ONE))
    eager = len(runs) - 1
    assert eager >= 3
    assert runs[:eager] == [None] * eager
    assert runs[-1] is not None
    assert fake.log.count("capture") == 1
    before, replays = len(runs), fake.replays
    mark = workload.mark()
    workload.feed()
    assert len(runs) == before  # nothing but replays
    assert workload.between(mark, workload.mark()).iterations == fake.replays - replays
    runner.close()


def test_preparing_does_not_touch_the_device_which_another_network_has(fake):
    runner = TorchRunner(RunSettings(), fake.clock)
    log, network = list(fake.log), OneGroup(Worker)
    prepared = runner.prepare(network, ONE)
    assert fake.log == log
    assert len(network.built) == 1
    assert all(p.is_meta for p in prepared.module.parameters())
    runner.load(prepared)
    assert len(network.built) == 1
    runner.close()


@pytest.mark.parametrize("iteration_s", [3e-5, 1e-3, 0.007, 0.009, 0.04, 0.3])
@pytest.mark.parametrize("graphs", [True, False])
def test_the_queue_is_filled_never_overfilled_and_never_waited_for(fake, gpu, iteration_s, graphs):
    workload = gpu(iteration_s, graphs=graphs)
    workload.feed()
    log, idle_s = list(fake.log), fake.idle_s
    for _ in range(200):
        fake.clock.sleep(0.002)
        before = fake.clock.now()
        workload.feed()
        assert fake.clock.now() == before
        queued_s = fake.end - fake.clock.now()
        # What is finished of the first chunk is not known.
        least_s = max(QUEUED_S - torch_runner.CHUNK_S, 2 * iteration_s) - iteration_s
        most_s = max(QUEUED_S, 2 * iteration_s) + iteration_s
        assert least_s - 1e-9 <= queued_s <= most_s * (1 + 2 * GAP) + 1e-9
    assert fake.log == log  # nothing waited
    assert fake.idle_s == idle_s


def test_feeding_ends_where_launches_take_longer_than_the_work(fake, gpu):
    workload = gpu(1e-4, graphs=False)
    fake.host_s = 1e-3
    for _ in range(10):
        before = fake.clock.now()
        workload.feed()
        # One chunk more at most, which holds 25 of these launches.
        assert 0 < fake.clock.now() - before <= FEED_S + 0.026


@pytest.mark.parametrize("iteration_s", [5e-5, 1e-3, 0.0079])
def test_spans_are_exact_and_in_the_order_of_the_stream(fake, gpu, iteration_s):
    workload = gpu(iteration_s)
    marks, counts = [], []
    for _ in range(4):
        for _ in range(50):
            workload.feed()
            fake.clock.sleep(0.003)
        marks.append(workload.mark())
        counts.append(fake.replays)
    for first in range(4):
        for last in range(first + 1, 4):
            span = workload.between(marks[first], marks[last])
            assert span.iterations == counts[last] - counts[first]
            assert span.seconds == pytest.approx(span.iterations * iteration_s, rel=1e-6)
            assert span.gap_s == 0
    # Only the last of a pair is waited for: what was fed behind it may still run.
    workload.feed()
    mark = workload.mark()
    fake.clock.sleep(QUEUED_S / 2)
    workload.feed()
    workload.between(marks[-1], mark)
    assert fake.end > fake.clock.now()


@pytest.mark.parametrize("later_cycles_per_s", [2e9, 0.7e9])
def test_gaps_are_measured_whatever_the_clock_of_the_device(fake, gpu, later_cycles_per_s):
    workload = gpu(0.010)
    fake.cycles_per_s = later_cycles_per_s
    workload.feed()
    first, before = workload.mark(), len(fake.gaps_s)
    for _ in range(1000):
        fake.clock.sleep(0.002)
        workload.feed()
    last, gaps_s = workload.mark(), fake.gaps_s[before:]
    fake.clock.sleep(0.02)
    workload.feed()
    span = workload.between(first, last)
    assert span.iterations == len(gaps_s) > 150
    assert span.gap_s == pytest.approx(sum(gaps_s), rel=1e-6)
    assert span.seconds - span.gap_s == pytest.approx(span.iterations * 0.010, rel=1e-6)
    mean = GAP * 0.010 * 2e9 / later_cycles_per_s
    assert np.mean(gaps_s) == pytest.approx(mean, rel=0.2)
    assert np.std(gaps_s) > 0.3 * mean


def test_the_queue_follows_a_device_that_speeds_up(fake, gpu):
    fake.slower = 5.0  # it was idle
    workload = gpu(1e-3)
    fake.slower = 1.0
    for _ in range(100):
        workload.feed()
        fake.clock.sleep(0.002)
    workload.feed()
    assert 0.9 * QUEUED_S <= fake.end - fake.clock.now() <= 1.1 * QUEUED_S


def test_stopping_waits_and_gives_everything_back(fake):
    runner = TorchRunner(RunSettings(), fake.clock)
    network = OneGroup(partial(Worker, work=lambda: fake.run(1e-3)))
    for _ in range(20):
        workload = runner.load(runner.prepare(network, ONE))
        workload.feed()
        workload.stop()
        assert fake.end <= fake.clock.now()
        assert not fake.graphs
        assert network.built[-1]() is None  # although `workload` still stands
    runner.close()


def test_what_cannot_be_captured_says_what_to_set(fake, gpu, one_line):
    fake.fails["run"] = [None] * 4 + [RuntimeError("operation not permitted when capturing\nmore")]
    with one_line("cannot be captured", "set graphs: false"):
        gpu(1e-3)
    gpu(1e-3, graphs=False).feed()


@pytest.mark.parametrize("runs_before", [0, 2, 4])  # the first iteration, warm-up, capture
def test_memory_that_is_short_is_tried_again_and_then_told(fake, gpu, one_line, runs_before):
    short = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried\nto allocate")
    fake.fails["run"] = [None] * runs_before + [short]
    workload = gpu(1e-3, batch=64)
    assert "empty_cache" in fake.log
    workload.feed()
    workload.stop()
    fake.fails["run"] = ([None] * runs_before + [short]) * 2
    with one_line("batch 64 of 6x5 images", "Fake GPU 0", "smaller batch"):
        gpu(1e-3, batch=64)


def test_a_device_that_fails_is_told_in_one_line(fake, gpu, one_line):
    workload = gpu(1e-3)
    workload.feed()
    fake.fails["query"] = [RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel")]
    with one_line("Fake GPU 0 failed", "unspecified launch failure"):
        workload.feed()


def test_a_gpu_that_is_not_there_or_taken_is_told(fake, one_line):
    with one_line("torch finds 1 GPU"):
        TorchRunner(RunSettings("cuda:1"), fake.clock)
    fake.fails["stream"] = [RuntimeError("CUDA error: device busy\nmore")]
    with one_line("device cuda:0 cannot be used", "device busy"):
        TorchRunner(RunSettings(), fake.clock)
    fake.present = False
    with one_line("no CUDA GPU found by torch"):
        TorchRunner(RunSettings(), fake.clock)


def test_without_a_pause_on_the_device_there_are_no_gaps_and_a_warning(fake, gpu, caplog):
    fake._sleep = None
    workload = gpu(0.010)
    assert "_sleep" in caplog.text
    first = workload.mark()
    workload.feed()
    assert workload.between(first, workload.mark()).gap_s == 0


@pytest.mark.parametrize(("precision", "switch"), [("fp32", "ieee"), ("tf32", "tf32")])
def test_precision_is_set_recorded_and_given_back(fake, precision, switch, recwarn):
    backends = torch.backends
    parts = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    before = [part.fp32_precision for part in parts], backends.cudnn.benchmark
    backends.cudnn.benchmark = True
    runner = TorchRunner(RunSettings("cuda", precision=precision, channels_last=True), fake.clock)
    assert [part.fp32_precision for part in parts] == [switch] * 3
    assert not backends.cudnn.benchmark
    about = runner.provenance()
    assert runner.device == about["device"] == "Fake GPU 0"
    assert about["precision"] == precision
    assert about["graphs"]
    assert about["channels_last"]
    assert about["cuda"] == torch.version.cuda
    runner.close()
    assert backends.cudnn.benchmark
    backends.cudnn.benchmark = before[1]
    assert [part.fp32_precision for part in parts] == before[0]
    assert not recwarn.list


# Beside the way of the authors


@dataclass
class ConstantPower:
    """A counter of 100 W that moves in steps of `period_s`, or smoothly."""

    clock: ManualClock
    period_s: float = 0.0

    @property
    def stepped(self):
        return self.period_s > 0

    def power_w(self):
        return math.nan

    def read(self):
        self.clock.sleep(1e-5)
        now = self.clock.now()
        counted = now // self.period_s * self.period_s if self.stepped else now
        return Reading(now, 100.0 * counted)


@pytest.mark.parametrize("period_s", [0.0, 0.001])
def test_the_authors_loop_loses_what_is_not_polled(period_s):
    clock = ManualClock()
    network = OneGroup(partial(Worker, work=partial(clock.sleep, 0.001)))
    rows = np.array([[2], [4]])
    found, per_hour = compare_sampling.by_authors(
        ConstantPower(clock, period_s),
        network,
        rows,
        seconds=math.inf,
        seed=0,
        device="cpu",
        clock=clock,
        iterations=1000,
    )
    assert sorted(found["sample"]) == [0, 1]
    # 1,000 passes of 1 ms at 100 W are 100 J; the first 0.1 s and the last poll are lost.
    assert found["value"].between(0.083, 0.0905).all()
    assert per_hour == pytest.approx(3600, rel=0.01)


def test_the_campaign_of_the_comparison_keeps_to_its_time_and_to_the_truth():
    cost_j, cost_s = 0.5, 0.004
    simulated = rig(Simulation(), lambda network, widths: (cost_j, cost_s))
    rows = np.repeat(np.arange(1, 9)[:, None], 5, axis=0)
    begun = simulated.clock.now()
    found, per_hour = compare_sampling.by_campaign(simulated, OneGroup(Worker), rows, 40.0, seed=0)
    assert 40 <= simulated.clock.now() - begun < 45
    assert 10 <= len(found) < len(rows)
    assert found["value"].mean() == pytest.approx(cost_j, rel=0.05)
    assert 2000 < per_hour < 3600


def test_repeatability_is_within_vectors():
    vectors, values = pd.Series([0, 0, 1, 1, 2]), pd.Series([1.0, 1.0, 99.0, 101.0, 7.0])
    one = np.sqrt(2) / 100
    expected = np.sqrt((0 + one**2) / 2)
    assert compare_sampling.repeatability(vectors, values) == pytest.approx(expected)
    assert math.isnan(compare_sampling.repeatability(vectors[3:], values[3:]))


def test_the_comparison_ends_in_one_line_where_it_cannot_begin(capsys):
    assert compare_sampling.main(["--device", "mps", "--sensor", "latency"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "set cuda:0 or cpu" in told
