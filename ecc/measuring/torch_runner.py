"""Networks on a GPU or a processor by PyTorch, at full load and without waiting for the host.

A GPU runs what a CUDA graph has captured, from a queue that `feed` keeps filled: at batch 1 the
launches of a network take longer than its kernels, and its energy would hardly depend on its
widths. All of it happens in one stream, so that nothing has to be synchronised but the ends.
"""

import gc
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy

from ecc import provenance
from ecc.errors import UserError
from ecc.measuring.interface import Buildable, Clock, Span

PRECISIONS = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
QUEUED_S = 0.05  # work on the device that is not finished: more than any read of a sensor takes
CHUNK_S = 0.0025  # of that, what is followed by one event
# Launching may hold up the sensor for this long, and only does so where the queue is empty. Where
# launches take longer than the work (no graphs), the device waits for each reading of the sensor.
FEED_S = 0.01
WARM_UP = 3  # iterations: the first loads kernels and chooses algorithms
TIMING_S = 0.02  # for the time of an iteration, by which the queue is filled
SHORTEST_S = 1e-5  # no iteration is taken to be shorter: the queue of the driver has an end
GAPS_FROM_S = 0.008  # iterations longer than this have random gaps between them
# Mean length of a gap, as a part of the iteration. On a simulated counter of 100 ms (a quarter of
# which it looks), iterations of 9 to 20 ms left 1.5 to 4.1 % with 1 %, and 0.5 to 1.1 % with 3 %.
GAP = 0.03
BIAS = 0.01  # standard deviation of biases

# What says so without being torch.OutOfMemoryError: a processor, CUDA itself, cuDNN, cuBLAS.
NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")

cuda: Any = torch.cuda  # the whole surface of CUDA that is used here
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSettings:
    """How networks run; raises UserError for what is impossible.

    `device`: a torch device, cuda:0 or cpu. `batch`: images of one iteration. `precision`: "fp32"
    is without TensorFloat-32, "tf32" with it, "fp16" and "bf16" hold weights and activations in 16
    bits. `graphs`: each network is captured as a CUDA graph; without, the host's launches and
    pauses are measured as well. `channels_last`: NHWC in memory, which the 16-bit convolutions of
    a GPU prefer; by default tensors are contiguous, as PyTorch's own are. `threads`: of a
    processor; by default PyTorch's. `seed`: of weights, images and gaps.
    """

    device: str = "cuda:0"
    batch: int = 1
    precision: str = "fp32"
    graphs: bool = True
    channels_last: bool = False
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        try:
            kind = torch.device(self.device).type
        except RuntimeError:
            kind = ""
        if kind not in ("cuda", "cpu"):
            raise UserError(f"device '{self.device}' is not supported: set cuda:0 or cpu")
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise UserError(f"precision '{self.precision}' is unknown: known are {known}")
        if kind == "cpu" and self.precision == "tf32":
            raise UserError("precision tf32 is that of a GPU: set fp32 or bf16 on cpu")
        if self.batch < 1:
            raise UserError(f"batch is {self.batch}: set at least 1")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"threads is {self.threads}: set at least 1, or leave it out")


@dataclass
class _Prepared:
    """A network at widths. `blank`: its parameters have shapes only, and get random values."""

    network: Buildable
    widths: NDArray[np.int64]
    module: nn.Module | None = None
    blank: bool = False


class TorchRunner:
    """The device of `settings`. PyTorch's switches of precision are set until `close`."""

    def __init__(self, settings: RunSettings, clock: Clock):
        self.settings, self._clock = settings, clock
        self._dtype = PRECISIONS[settings.precision]
        self._random = np.random.default_rng([settings.seed, *b"gaps"])
        self._gpu = _Gpu(settings) if settings.device.startswith("cuda") else None
        self._place = self._gpu.place if self._gpu else torch.device("cpu")
        self._restore: list[Callable[[], None]] = []
        self._warned = False
        self._configure()

    @property
    def device(self) -> str:
        return self._gpu.name if self._gpu else str(provenance.hardware()["processor"])

    def prepare(self, network: Buildable, widths: NDArray[np.int64]) -> _Prepared:
        prepared = _Prepared(network, np.array(widths, dtype=np.int64))
        # On a processor this would slow down, and heat, what is being measured there.
        if self._gpu:
            self._build(prepared)
        return prepared

    def load(self, prepared: _Prepared) -> "_GpuWorkload | _CpuWorkload":
        """Raises UserError where the network does not run, is not captured or does not fit."""
        # The second attempt stands outside the first one's `except`, whose traceback holds memory.
        workload = self._attempt(prepared)
        if workload is None:
            gc.collect()
            if self._gpu:
                cuda.empty_cache()
            workload = self._attempt(prepared)
        if workload is None:
            height, width = prepared.network.size
            raise UserError(
                f"batch {self.settings.batch} of {height}x{width} images is too large for the "
                f"memory of {self.device}: set a smaller batch"
            )
        return workload

    def provenance(self) -> dict[str, Any]:
        settings = self.settings
        about: dict[str, Any] = {
            "device": self.device,
            "torch_device": settings.device,
            "torch": str(torch.__version__),
            "precision": settings.precision,
            "batch": settings.batch,
            "channels_last": settings.channels_last,
            "seed": settings.seed,
        }
        if self._gpu is None:
            return about | {"graphs": False, "threads": torch.get_num_threads()}
        return about | {
            "graphs": settings.graphs,
            "threads": torch.get_num_threads(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "cudnn_benchmark": bool(torch.backends.cudnn.benchmark),
            "gaps": self._gpu.pauses,
        }

    def close(self) -> None:
        """Gives PyTorch its switches back."""
        while self._restore:
            self._restore.pop()()

    def _configure(self) -> None:
        """Sets the switches of the whole process, and remembers what they were."""
        if self.settings.threads is not None:
            before = torch.get_num_threads()
            self._restore.append(lambda: torch.set_num_threads(before))
            torch.set_num_threads(self.settings.threads)
        if self._gpu is None:
            return
        # `allow_tf32` is deprecated, and an error where somebody has used these.
        backends: Any = torch.backends
        precision = "tf32" if self.settings.precision == "tf32" else "ieee"
        for part in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):
            self._switch(part, "fp32_precision", precision)
        # Autotuning would choose other algorithms for the same widths from one day to the next.
        self._switch(backends.cudnn, "benchmark", False)

    def _switch(self, part: Any, name: str, value: Any) -> None:
        before = getattr(part, name)
        self._restore.append(lambda: setattr(part, name, before))
        setattr(part, name, value)

    def _build(self, prepared: _Prepared) -> None:
        network, widths = prepared.network, prepared.widths
        module = _shapes(network, widths)
        prepared.blank = module is not None
        module = network.build(widths) if module is None else module
        if any(map(is_lazy, module.parameters())):
            raise UserError(
                "the network has lazy layers, whose sizes are only known when it has run: give "
                "them their sizes"
            )
        prepared.module = module.eval().requires_grad_(False).to(dtype=self._dtype)

    def _attempt(self, prepared: _Prepared) -> "_GpuWorkload | _CpuWorkload | None":
        """The workload, or None where memory was short."""
        try:
            return self._gpu_workload(prepared) if self._gpu else self._cpu_workload(prepared)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise UserError(
                    f"the network at widths {prepared.widths.tolist()} does not run on "
                    f"{self.settings.device} in {self.settings.precision} ({_reason(error)})"
                ) from error
        return None

    def _cpu_workload(self, prepared: _Prepared) -> "_CpuWorkload":
        module, images = self._placed(prepared)
        return _CpuWorkload(module, images, self._clock, self._random)

    def _gpu_workload(self, prepared: _Prepared) -> "_GpuWorkload":
        gpu = self._gpu
        assert gpu is not None
        with cuda.stream(gpu.stream):
            module, images = self._placed(prepared)
            with torch.inference_mode():
                for _ in range(WARM_UP):
                    module(images)
            gpu.stream.synchronize()  # a kernel that fails does so here, and not while capturing
            graph = gpu.capture(module, images) if self.settings.graphs else None
            return _GpuWorkload(gpu, module, images, graph, self._clock, self._random)

    def _placed(self, prepared: _Prepared) -> tuple[nn.Module, Tensor]:
        """Module and images on the device, after one iteration that proves them fit to be used."""
        if prepared.module is None:
            self._build(prepared)
        module, prepared.module = prepared.module, None
        assert module is not None
        layout = torch.channels_last if self.settings.channels_last else torch.contiguous_format
        random = torch.Generator(device=self._place).manual_seed(self.settings.seed)
        with torch.no_grad():
            if prepared.blank:
                module = module.to_empty(device=self._place)
                initialise(module, random)
            module = module.to(device=self._place).to(memory_format=layout)
            channels = prepared.network.structure.image_channels
            shape = (self.settings.batch, channels, *prepared.network.size)
            # Zeros take up to 13 % less power.
            images = torch.randn(shape, generator=random, device=self._place, dtype=self._dtype)
            images = images.contiguous(memory_format=layout)
        written = images._version
        with torch.inference_mode():
            output = module(images)
        if images._version != written:
            raise UserError(
                "the network writes into its input, which would change from one iteration to the "
                "next: make its first operation one that is not in place"
            )
        if not self._warned and isinstance(output, Tensor) and not output.isfinite().all():
            self._warned = True
            logger.warning(
                "outputs at widths %s are not finite in %s, which changes the power: "
                "measure in another precision",
                prepared.widths.tolist(),
                self.settings.precision,
            )
        return module, images


class _Gpu:
    """One CUDA device and the stream in which everything on it happens.

    Warm-up, capture and replays share the stream, so cuBLAS has its workspace before a capture;
    one that is made within would live in that graph's memory, and keep it for ever.
    """

    def __init__(self, settings: RunSettings):
        if not cuda.is_available():
            build = (
                f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "has no CUDA"
            )
            raise UserError(
                f"no CUDA GPU found by torch: torch {torch.__version__} {build}; install a driver "
                "and a torch that fit each other, or set device to cpu"
            )
        index, count = torch.device(settings.device).index or 0, cuda.device_count()
        if index >= count:
            raise UserError(f"device {settings.device}: torch finds {count} GPU(s), from cuda:0")
        self.place = self._place(index)
        try:
            self.name = str(cuda.get_device_name(index))
            self.stream = cuda.Stream(device=index)
        except RuntimeError as error:
            raise UserError(
                f"device {settings.device} cannot be used ({_reason(error)}): see nvidia-smi for "
                "its state and for who else uses it"
            ) from error
        self._sleep: Any = getattr(cuda, "_sleep", None)
        self._cycles_per_s = 0.0
        if self._sleep is None:
            logger.warning(
                "torch %s has no torch.cuda._sleep: no gaps between long iterations, whose time "
                "may then divide the sensor's period",
                torch.__version__,
            )

    @staticmethod
    def _place(index: int) -> torch.device:
        return torch.device("cuda", index)

    @property
    def pauses(self) -> bool:
        """Whether it can pause by itself, within its queue."""
        return self._sleep is not None

    def event(self) -> Any:
        """A place in the stream, whose time is known; whoever waits for it lets others compute."""
        event = cuda.Event(enable_timing=True, blocking=True)
        event.record(self.stream)
        return event

    def calibrate(self) -> None:
        """Finds out, once, how long a pause takes; waits for the device."""
        if self._cycles_per_s:
            return
        cycles = 2_000_000  # 1 ms at 2 GHz
        self._sleep(1)  # loads the kernel
        first = self.event()
        self._sleep(cycles)
        self._cycles_per_s = cycles / max(elapsed_s(first, self.event()), 1e-6)

    def pause(self, seconds: float) -> None:
        """Queues a gap of about `seconds`: exact where the frequency is that of `calibrate`."""
        self._sleep(max(1, round(seconds * self._cycles_per_s)))

    def capture(self, module: nn.Module, images: Tensor) -> Any:
        """One iteration as a CUDA graph.

        Each graph has memory of its own, which `reset` frees and the next capture returns to the
        driver: `torch.cuda.graph` empties the cache when it begins. So nothing is fragmented by
        thousands of captures. A pool that they shared would have to be held alive between them.
        Only this thread is watched for what may not be captured; others prepare networks.
        """
        graph = cuda.CUDAGraph()
        try:
            with (
                torch.inference_mode(),
                cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"),
            ):
                module(images)
        except RuntimeError as error:
            if _out_of_memory(error):
                raise
            raise UserError(
                f"the network cannot be captured as a CUDA graph ({_reason(error)}): "
                "set graphs: false"
            ) from error
        return graph


@dataclass(frozen=True)
class _Chunk:
    """Iterations launched at once, between two events; `gap` is that before the gap, if any."""

    iterations: int
    gap: Any | None
    begin: Any
    end: Any


@dataclass(frozen=True)
class _GpuMark:
    iterations: int
    gaps: int
    event: Any


class _GpuWorkload:
    """A network on a GPU, whose queue `feed` keeps filled."""

    def __init__(
        self,
        gpu: _Gpu,
        module: nn.Module,
        images: Tensor,
        graph: Any,
        clock: Clock,
        random: np.random.Generator,
    ):
        self.batch = len(images)
        self._gpu, self._clock, self._random = gpu, clock, random
        self._graph: Any = graph
        self._module: Any = module
        self._images: Any = images  # which the graph reads as well
        self._queue: deque[_Chunk] = deque()
        self._fed = self._waiting = self._gaps_fed = 0  # iterations, those in the queue, gaps
        self._gaps_s = [0.0]  # seconds of the first 0, 1, 2, .. gaps, as far as they are over
        self._iteration_s = self._timed()  # the shortest seen: the clock may rise only now
        self._gapped = gpu.pauses and self._iteration_s > GAPS_FROM_S
        if self._gapped:
            gpu.calibrate()
        self._end = gpu.event()  # of what was launched last

    def feed(self) -> None:
        self._collect()
        with _watched(self._gpu), cuda.stream(self._gpu.stream):
            until = self._clock.now() + FEED_S
            while (missing := self._missing()) > 0:
                chunk = 1 if self._gapped else max(1, int(CHUNK_S / self._iteration_s))
                self._launch(min(chunk, missing))
                if self._clock.now() >= until:
                    return

    def mark(self) -> _GpuMark:
        with _watched(self._gpu):
            return _GpuMark(self._fed, self._gaps_fed, self._gpu.event())

    def between(self, first: _GpuMark, last: _GpuMark) -> Span:
        with _watched(self._gpu):
            seconds = elapsed_s(first.event, last.event)
        self._collect()
        gap_s = self._gaps_s[last.gaps] - self._gaps_s[first.gaps]
        return Span(last.iterations - first.iterations, seconds, gap_s)

    def stop(self) -> None:
        with _watched(self._gpu):
            self._gpu.stream.synchronize()
        self._queue.clear()
        if self._graph is not None:
            self._graph.reset()
        self._graph = self._module = self._images = None

    def _missing(self) -> int:
        """Iterations that the queue lacks."""
        return max(2, math.ceil(QUEUED_S / self._iteration_s)) - self._waiting

    def _launch(self, iterations: int) -> None:
        gap, begin = None, self._end
        if self._gapped:
            gap = self._gpu.event()
            self._gpu.pause(self._random.uniform(0, 2 * GAP) * self._iteration_s)
            begin = self._gpu.event()
            self._gaps_fed += 1
        for _ in range(iterations):
            self._run()
        self._end = self._gpu.event()
        self._queue.append(_Chunk(iterations, gap, begin, self._end))
        self._fed += iterations
        self._waiting += iterations

    def _run(self) -> None:
        if self._graph is not None:
            self._graph.replay()
            return
        with torch.inference_mode():
            self._module(self._images)

    def _collect(self) -> None:
        """Takes what is finished out of the queue, without waiting."""
        with _watched(self._gpu):
            while self._queue and self._queue[0].end.query():
                chunk = self._queue.popleft()
                self._waiting -= chunk.iterations
                taken_s = elapsed_s(chunk.begin, chunk.end) / chunk.iterations
                self._iteration_s = min(self._iteration_s, max(taken_s, SHORTEST_S))
                if chunk.gap is not None:
                    gap_s = elapsed_s(chunk.gap, chunk.begin)
                    self._gaps_s.append(self._gaps_s[-1] + gap_s)

    def _timed(self) -> float:
        """Seconds of an iteration."""
        self._run()  # the first replay brings the graph to the device
        count = 1
        while True:
            first = self._gpu.event()
            for _ in range(count):
                self._run()
            seconds = max(elapsed_s(first, self._gpu.event()) / count, SHORTEST_S)
            if count > 1 or seconds > TIMING_S / 2:
                return seconds
            count = min(50, math.ceil(TIMING_S / seconds))


@dataclass(frozen=True)
class _CpuMark:
    iterations: int
    seconds: float
    gap_s: float


class _CpuWorkload:
    """A network on a processor, which runs whenever it is fed."""

    def __init__(
        self, module: nn.Module, images: Tensor, clock: Clock, random: np.random.Generator
    ):
        self.batch = len(images)
        self._module: Any = module
        self._images: Any = images
        self._clock, self._random = clock, random
        self._iterations, self._gap_s = 0, 0.0
        self._iteration_s = self._timed()

    def feed(self) -> None:
        if self._iteration_s > GAPS_FROM_S:
            begin = self._clock.now()
            self._clock.sleep(self._random.uniform(0, 2 * GAP) * self._iteration_s)
            self._gap_s += self._clock.now() - begin
        self._run()
        self._iterations += 1

    def mark(self) -> _CpuMark:
        return _CpuMark(self._iterations, self._clock.now(), self._gap_s)

    def between(self, first: _CpuMark, last: _CpuMark) -> Span:
        return Span(
            last.iterations - first.iterations,
            last.seconds - first.seconds,
            last.gap_s - first.gap_s,
        )

    def stop(self) -> None:
        self._module = self._images = None

    def _run(self) -> None:
        with torch.inference_mode():
            self._module(self._images)

    def _timed(self) -> float:
        """Seconds of an iteration: the shortest of some, as whatever disturbs makes it longer."""
        found = math.inf
        end = self._clock.now() + TIMING_S
        for _ in range(WARM_UP):
            begin = self._clock.now()
            self._run()
            found = min(found, self._clock.now() - begin)
            if self._clock.now() >= end:
                break
        return found


def initialise(module: nn.Module, random: torch.Generator) -> None:
    """Random values for convolutions, linear layers and batch norms, in place.

    Weights have variance 2 / fan-in (He et al., 2015), with which activations behind ReLUs neither
    vanish nor explode; batch norms change nothing, so their statistics fit. The values do not
    matter but for this: how many bits flip decides the power.
    """
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.reset_parameters()
        elif isinstance(layer, _ConvNd | nn.Linear):
            layer.weight.normal_(0, math.sqrt(2 / _fan_in(layer)), generator=random)
            if layer.bias is not None:
                layer.bias.normal_(0, BIAS, generator=random)


def elapsed_s(first: Any, last: Any) -> float:
    """Seconds between two CUDA events; waits for the second."""
    last.synchronize()
    return float(first.elapsed_time(last)) / 1000


def _fan_in(layer: nn.Module) -> float:
    """Products that are summed into one output."""
    if isinstance(layer, _ConvTransposeNd):
        # A stride of two spreads the kernel over four outputs.
        inputs = layer.in_channels // layer.groups
        return max(1.0, inputs * math.prod(layer.kernel_size) / math.prod(layer.stride))
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return max(1.0, weight[0].numel())


def _shapes(network: Buildable, widths: NDArray[np.int64]) -> nn.Module | None:
    """The network without values, in a twentieth of the time; None where values are needed.

    Needed are those of everything but convolutions, linear layers and batch norms: buffers and
    parameters that hold constants, frozen or shared weights. Some networks compute with values
    while they are built, which is only known when they fail.
    """
    try:
        with torch.device("meta"):
            module = network.build(widths)
    except UserError:
        raise
    except Exception:
        return None
    assert isinstance(module, nn.Module)
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    shared = len(names) > len(list(module.parameters()))
    return None if shared or not all(map(_random_layer, module.modules())) else module


def _random_layer(layer: nn.Module) -> bool:
    """Whether `initialise` knows all values that the layer itself holds."""
    own = list(chain(layer.named_parameters(recurse=False), layer.named_buffers(recurse=False)))
    known: set[str] = set()
    if isinstance(layer, _ConvNd | nn.Linear):
        known = {"weight", "bias"}
    elif isinstance(layer, _BatchNorm):
        known = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    fits = all(name in known and tensor.is_meta and not is_lazy(tensor) for name, tensor in own)
    frozen = any(not parameter.requires_grad for parameter in layer.parameters(recurse=False))
    plain = (
        value for name, value in vars(layer).items() if name not in ("_parameters", "_buffers")
    )
    return fits and not frozen and not any(map(_holds_tensor, plain))


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(isinstance(entry, Tensor) for entry in value)
    return isinstance(value, Tensor)


def _out_of_memory(error: BaseException | None) -> bool:
    """Also where it ended a capture, whose own error then stands before it."""
    while error is not None:
        said = str(error)
        if isinstance(error, torch.OutOfMemoryError) or any(words in said for words in NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@contextmanager
def _watched(gpu: _Gpu) -> Iterator[None]:
    """A device that fails while it runs a network, in one line."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"{gpu.name} failed while it ran a network ({_reason(error)}): see dmesg, and start "
            "again"
        ) from error
