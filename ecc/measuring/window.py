"""One window: a network runs, a meter is read, and the joules of one image come out.

A counter of period T that is read at arbitrary moments misses up to T of what it counts, so windows
are cut where it moves. Whatever a sensor cannot truly have shown is a SensorError.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from statistics import median

import numpy as np

from ecc.measuring.interface import (
    Clock,
    EnergyMeter,
    Reading,
    SensorError,
    Settings,
    Status,
    Workload,
)

JUMP = 10.0  # a step is impossible where it is this many times the others of its window
# Above the limit of the device so many times the others are: a late edge can double a step.
JUMP_ABOVE_LIMIT = 3.0
STILL_S = 0.15  # under load no sum of powers rests for so long, and no counter that moves always


@dataclass(frozen=True)
class Window:
    """What one window tells of a network.

    `raw_energy_j` are the joules of one image, and its seconds for a meter of latency; `power_w`
    the mean between the edges, NaN for latency; `latency_s` the seconds of an iteration without
    gaps over its images; `window_s` the seconds between the edges; `status` the worst that was
    seen at the begin and at the end.
    """

    raw_energy_j: float
    power_w: float
    latency_s: float
    window_s: float
    iterations: int
    status: Status


def measure(
    meter: EnergyMeter,
    workload: Workload,
    clock: Clock,
    settings: Settings,
    *,
    period_s: float,
    gap_w: float = math.nan,
) -> Window:
    """Runs the workload and measures one window of it.

    It begins at the first edge after the settling, and ends at the last one that fits into
    `sample_s`, settling included; it is at least two edges and `settings.iterations` long. A meter
    that settles longer than the settings say makes the sample longer, not the window shorter.
    `period_s` is the counter's, by `update_period`; `gap_w` the idle power, in watts.
    """
    watch = _Watch(meter, workload.feed, clock, settings, period_s)
    start, before = clock.now(), workload.mark()
    settle_s = max(settings.settle_s, meter.settle_s)
    watch.look()
    watch.until(start + settle_s)
    # How long an iteration takes is asked before the window: asking within would drain the queue.
    settled = workload.between(before, workload.mark())
    least_s = (settings.iterations + 1) * settled.seconds / settled.iterations
    watch.look()  # an edge that passed while nobody looked is none

    begin = watch.edge()
    first, states = workload.mark(), [meter.status()]
    deadline = max(
        start + settings.sample_s + settle_s - settings.settle_s, begin.seconds + least_s
    )
    end = watch.window(begin, deadline, begin.seconds + least_s)
    last = workload.mark()
    states.append(meter.status())
    span = workload.between(first, last)

    window_s = end.seconds - begin.seconds
    latency_s = (span.seconds - span.gap_s) / span.iterations / workload.batch
    power_w, image_j = math.nan, latency_s
    if meter.metric == "energy_j":
        power_w = (end.total - begin.total) / window_s
        gap_j = 0.0
        if span.gap_s:
            # A pause of a millisecond is idle power, as it is measured with the device ready: the
            # clocks of a device fall, and with them its power, only after seconds without work.
            gap_j = span.gap_s * gap_w
            if math.isnan(gap_j):
                raise SensorError(
                    f"{meter.name}: the network runs with gaps, whose power is not known: "
                    "measure idle power first"
                )
        image_j = (power_w * span.seconds - gap_j) / span.iterations / workload.batch
    return Window(image_j, power_w, latency_s, window_s, span.iterations, reduce(_worst, states))


def update_period(
    meter: EnergyMeter, workload: Workload, clock: Clock, settings: Settings
) -> float:
    """Seconds between two updates of the counter under load; 0 for one that moves at any time."""
    if not meter.stepped:
        return 0.0
    check_s = settings.period_check_s
    fine = replace(settings, poll_s=settings.poll_s / 4, sample_s=check_s)
    watch = _Watch(meter, workload.feed, clock, fine, 0.0)
    edges = [watch.edge()]
    while edges[-1].seconds - edges[0].seconds < check_s:
        edges.append(watch.edge())
    gaps_s = np.diff([edge.seconds for edge in edges])
    # An edge lies somewhere between two readings, which blurs the median, but not the long run;
    # in that a longer gap counts as all the periods it holds.
    periods = np.maximum(1, np.rint(gaps_s / np.median(gaps_s)))
    return float(gaps_s.sum() / periods.sum())


def cross_check(meter: EnergyMeter, workload: Workload, clock: Clock, settings: Settings) -> float:
    """The counter's power over that of the second way, less 1; NaN where there is none."""
    if math.isnan(meter.power_w()):
        return math.nan
    watch = _Watch(meter, workload.feed, clock, settings, 0.0)
    watch.until(clock.now() + max(settings.settle_s, meter.settle_s))
    begin = end = watch.edge()
    seconds, watts = [clock.now()], [meter.power_w()]
    while end.seconds - begin.seconds < settings.cross_check_s:
        if watch.look():
            end = watch.last_edge
        seconds.append(clock.now())
        watts.append(meter.power_w())
    second_way_w = float(np.trapezoid(watts, seconds)) / (seconds[-1] - seconds[0])
    if second_way_w == 0:
        raise SensorError(f"{meter.name}: its power reads 0 W under load: use the counter alone")
    return (end.total - begin.total) / (end.seconds - begin.seconds) / second_way_w - 1


def idle_power(meter: EnergyMeter, clock: Clock, settings: Settings, *, period_s: float) -> float:
    """Watts with nothing running. 0 is an answer where power is summed: a rail can be off."""
    watch = _Watch(meter, None, clock, settings, period_s)
    watch.until(clock.now() + max(settings.settle_s, meter.settle_s))
    begin = watch.edge()
    end = watch.window(begin, begin.seconds + settings.idle_s, begin.seconds)
    return (end.total - begin.total) / (end.seconds - begin.seconds)


class _Watch:
    """The meter, read again and again while the workload is fed; without one, nothing runs."""

    def __init__(
        self,
        meter: EnergyMeter,
        feed: Callable[[], None] | None,
        clock: Clock,
        settings: Settings,
        period_s: float,
    ):
        self.meter, self.feed, self.clock = meter, feed, clock
        self.poll_s, self.period_s = settings.poll_s, period_s
        self.patience_s = max(settings.sample_s, 3 * period_s)
        self.last_edge = self.last = self._checked(meter.read(), None)

    def until(self, seconds: float) -> None:
        while self.clock.now() < seconds:
            self.look()

    def edge(self) -> Reading:
        """The next reading at which a window may begin or end."""
        while not self.look():
            pass
        return self.last_edge

    def window(self, begin: Reading, deadline: float, least: float) -> Reading:
        """The last edge that can be expected by the deadline, two edges or more after the first.

        None before the time `least` is taken. Raises SensorError where the counter's steps
        until then cannot be true.
        """
        edges = [begin]
        while True:
            edges.append(self.edge())
            mean_s = (edges[-1].seconds - begin.seconds) / (len(edges) - 1)
            enough = len(edges) > 2 and edges[-1].seconds >= least
            if enough and edges[-1].seconds + mean_s > deadline:
                self._check_steps(edges)
                return edges[-1]

    def look(self) -> bool:
        """Feeds, waits and reads; whether the reading is an edge."""
        self._work(self._pause_s())
        last, self.last = self.last, self._checked(self.meter.read(), self.last)
        if not self.meter.stepped:
            self.last_edge = self.last
            return True
        if self.last.total > last.total:
            # It moved between two readings, and no longer ago than its period.
            blur_s = self.last.seconds - last.seconds
            blur_s = min(blur_s, self.period_s) if self.period_s else blur_s
            self.last_edge = Reading(self.last.seconds - blur_s / 2, self.last.total)
            return True
        still_s = self.last.seconds - self.last_edge.seconds
        if still_s > self.patience_s:
            raise self._still(still_s)
        return False

    def _work(self, seconds: float) -> None:
        """Lets the device work for so long, or for an iteration, where that takes longer."""
        before = now = self.clock.now()
        while self.feed is not None and now - before < seconds:
            begun = now
            self.feed()
            now = self.clock.now()
            # Where an iteration waits for its end, a sleep would be a pause of the device.
            if now - begun < self.poll_s / 20:
                break
        self.clock.sleep(max(0.0, before + seconds - now))

    def _pause_s(self) -> float:
        if not self.meter.stepped or self.period_s == 0:
            return self.poll_s
        due_s = self.last_edge.seconds + self.period_s - self.clock.now()
        return self.poll_s / 8 if abs(due_s) < self.poll_s else self.poll_s

    def _checked(self, reading: Reading, before: Reading | None) -> Reading:
        name = self.meter.name
        if not math.isfinite(reading.total):
            raise SensorError(f"{name} reads {reading.total}: see whether its own tool shows more")
        if before is not None and reading.total < before.total:
            raise SensorError(
                f"{name} fell from {before.total:.6g} to {reading.total:.6g} J: it was reset, or "
                "is none that counts; start again, and what was measured stays"
            )
        return reading

    def _check_steps(self, edges: list[Reading]) -> None:
        """Raises SensorError where the counter stood still or took a step that cannot be true."""
        begin, end = edges[0], edges[-1]
        seconds = end.seconds - begin.seconds
        loaded = self.feed is not None
        if end.total == begin.total:
            if loaded:
                raise self._still(seconds)
            return
        if loaded and not self.meter.stepped and (still_s := _longest_still(edges)) > STILL_S:
            raise self._still(still_s)
        moves: list[tuple[float, float]] = []  # joules, seconds
        last = begin
        # Readings of a meter that moves at any time are too near to each other to tell of power.
        apart_s = 0.0 if self.meter.stepped else 5 * self.poll_s
        for edge in edges[1:]:
            if edge.total > last.total and (edge.seconds - last.seconds >= apart_s or edge is end):
                moves.append((edge.total - last.total, edge.seconds - last.seconds))
                last = edge
        # An edge seen late makes the next step seem short: none counts as shorter than usual.
        usual_s = max(self.period_s, apart_s, median(move[1] for move in moves))
        steps = sorted((joules / max(passed, usual_s), joules) for joules, passed in moves)
        (watts, joules), others = steps[-1], [step[0] for step in steps[:-1]]
        limit_w = self.meter.limit_w
        mean_w = (end.total - begin.total) / seconds
        # A late edge can double the power of a step that was counted as one period.
        impossible = mean_w > limit_w or watts > 2 * limit_w
        if loaded and others and watts > limit_w:
            impossible |= watts > JUMP_ABOVE_LIMIT * median(others)
        # What else a computer does may come and go while nothing of ours runs.
        jumped = loaded and bool(others) and watts > JUMP * median(others)
        if self.meter.metric == "energy_j" and (impossible or jumped):
            why = f"above the {limit_w:.6g} W of the device" if impossible else "unlike the others"
            raise SensorError(
                f"{self.meter.name} jumped: a step of {joules:.6g} J, or {watts:.6g} W, is {why}; "
                "see whether something else runs, and start again"
            )

    def _still(self, seconds: float) -> SensorError:
        name = self.meter.name
        if self.last.total == 0:
            return SensorError(
                f"{name} read 0 for {seconds:.2f} s: it does not measure this device, or is off"
            )
        if self.meter.stepped:
            return SensorError(
                f"{name}: the counter did not move in {seconds:.2f} s: the window is shorter than "
                "the counter's period (raise sample_s), or the sensor has stopped"
            )
        return SensorError(
            f"{name} repeated one reading for {seconds:.2f} s under load: it does not measure this "
            "device, or has stopped"
        )


def _longest_still(readings: list[Reading]) -> float:
    """The longest time in which the total stayed the same, in seconds."""
    since, longest_s = readings[0], 0.0
    for reading in readings[1:]:
        if reading.total != since.total:
            since = reading
        longest_s = max(longest_s, reading.seconds - since.seconds)
    return longest_s


def _worst(one: Status, other: Status) -> Status:
    return Status(
        temperature_c=float(np.fmax(one.temperature_c, other.temperature_c)),
        clock_mhz=float(np.fmin(one.clock_mhz, other.clock_mhz)),
        throttled=tuple(dict.fromkeys(one.throttled + other.throttled)),
        capped=one.capped or other.capped,
    )
