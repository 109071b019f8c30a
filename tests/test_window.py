"""A window tells the truth of a simulated device, and a sensor that cannot be right is refused."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from benchmarks.sampling_protocol import CLEAN, markdown, table
from ecc.errors import UserError
from ecc.measuring import window
from ecc.measuring.interface import Reading, SensorError, Settings, Status
from ecc.measuring.polling import polled_energy
from ecc.measuring.simulated import SimulatedClock, SimulatedDevice, Simulation, rig

SETTINGS = Settings()
ALL = replace(CLEAN, lag_s=0.05, noise=0.01)


def opened(simulation, *, joules=0.3, seconds=0.001, seed=0):
    """A simulated rig, and a function that loads the network (of these joules and seconds)."""
    made = rig(simulation, lambda network, widths: (joules, seconds), seed)
    return made, lambda: made.runner.load(made.runner.prepare(None, None))


def one(simulation, *, settings=SETTINGS, joules=0.3, seconds=0.001, seed=0, gap_w=60.0):
    """One window, of a counter whose period is known."""
    made, load = opened(simulation, joules=joules, seconds=seconds, seed=seed)
    return window.measure(
        made.meter, load(), made.clock, settings, period_s=simulation.period_s, gap_w=gap_w
    )


def errors(simulation, count=60, *, seed=0, seconds=(0.0005, 0.007), settings=SETTINGS):
    """Relative errors of windows of random networks, one after the other on one device."""
    random = np.random.default_rng(seed)
    times = random.uniform(*seconds, count)
    joules = random.uniform(80, 600, count) * times
    made = rig(simulation, lambda network, widths: (joules[widths[0]], times[widths[0]]), seed)
    measured = []
    for number in range(count):
        workload = made.runner.load(made.runner.prepare(None, [number]))
        measured.append(
            window.measure(
                made.meter,
                workload,
                made.clock,
                settings,
                period_s=simulation.period_s,
                gap_w=simulation.idle_w,
            ).raw_energy_j
        )
        workload.stop()
    return np.array(measured) / joules - 1


@dataclass
class Script:
    """A counter that tells what a function makes of the time; 100 W by its second way."""

    clock: SimulatedClock
    total: object
    stepped: bool = False
    metric: str = "energy_j"
    limit_w: float = math.inf
    watts: float = 100.0
    settle_s: float = 0.0
    name: str = "scripted"
    hot: tuple = ()

    def read(self):
        return Reading(self.clock.now(), self.total(self.clock.now()))

    def power_w(self):
        return self.watts

    def status(self):
        hot = any(begin <= self.clock.now() < end for begin, end in self.hot)
        return Status(80.0, 1000.0, ("heat",)) if hot else Status(50.0, 1500.0)


def scripted(total, *, simulation=CLEAN, period_s=0.0, settings=SETTINGS, **of_meter):
    """One window by a scripted meter of 1 ms iterations."""
    made, load = opened(simulation)
    meter = Script(made.clock, total, **of_meter)
    return window.measure(meter, load(), made.clock, settings, period_s=period_s)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "changes",
    [{}, {"period_s": 0.02}, {"sensor": "power"}, {"duty": 1.0}, {"lag_s": 0.03}],
    ids=["counter", "20 ms", "power", "always", "short lag"],
)
def test_windows_tell_the_truth_of_any_network(seed, changes):
    error = errors(replace(ALL, **changes), seed=seed)
    assert abs(error.mean()) < 0.005
    assert error.std() < 0.01


def test_what_ran_before_is_settled():
    """A sensor that averages over a second tells of nothing older, in windows of full length."""
    averaged = replace(CLEAN, sensor="averaged")
    error = errors(averaged, 20)
    assert np.abs(error).max() < 0.001
    assert one(averaged).window_s == pytest.approx(0.7, abs=0.02)


def test_reading_at_edges_beats_reading_at_any_time():
    """At any time: 0.41 T / W, the spread of the difference of two uniform lags."""

    class Unaligned:
        stepped = False

        def __init__(self, meter):
            self.meter = meter

        def __getattr__(self, name):
            return getattr(self.meter, name)

    aligned, anyhow = [], []
    for seed in range(80):
        # Over a whole number of periods, the two lags would be the same.
        settings = replace(SETTINGS, sample_s=0.95 + 0.1 * ((seed * 0.618) % 1))
        for as_seen, errors_ in ((lambda meter: meter, aligned), (Unaligned, anyhow)):
            made, load = opened(replace(CLEAN, swing=0.0), seed=seed)
            meter = as_seen(made.meter)
            taken = window.measure(meter, load(), made.clock, settings, period_s=0.1)
            errors_.append(taken.raw_energy_j / 0.3 - 1)
    assert np.std(anyhow) == pytest.approx(0.41 * 0.1 / 0.7, rel=0.25)
    assert np.std(aligned) < 0.002


def test_windows_end_with_the_sample_but_hold_what_they_must():
    short = one(CLEAN)
    assert 0.5 < short.window_s <= 0.7
    assert short.window_s / 0.1 == pytest.approx(round(short.window_s / 0.1), abs=0.01)
    long = one(CLEAN, seconds=0.2, joules=20.0)
    assert long.iterations >= SETTINGS.iterations
    assert long.window_s >= 2.0
    slow = one(replace(CLEAN, period_s=0.9), settings=replace(SETTINGS, sample_s=0.5))
    assert slow.window_s == pytest.approx(1.8, rel=0.01)


@pytest.mark.parametrize(("seconds", "period_s"), [(0.3, 0.1), (0.3, 0.001), (0.0003, 0.1)])
def test_iterations_that_the_caller_waits_for(seconds, period_s):
    """As on a processor: nothing pauses between them, and the edges are seen late."""
    cpu = replace(
        CLEAN, queue_s=0.0, gaps_from_s=math.inf, period_s=period_s, duty=1.0, query_s=0.0
    )
    error = [
        one(cpu, seconds=seconds, joules=100.0 * seconds, seed=seed).raw_energy_j
        / (100.0 * seconds)
        - 1
        for seed in range(5)
    ]
    assert np.abs(error).max() < 0.03
    assert one(cpu, seconds=seconds).latency_s == pytest.approx(seconds)


def test_gaps_keep_long_iterations_from_aliasing():
    aliased = errors(replace(CLEAN, gaps_from_s=math.inf), 30, seconds=(0.01, 0.01))
    spread = errors(CLEAN, 30, seconds=(0.01, 0.01))
    assert abs(aliased.mean()) + aliased.std() > 0.02
    assert abs(spread.mean()) < 0.005
    assert spread.std() < 0.01


def test_the_energy_of_gaps_is_taken_out():
    """Without it, the gaps would add their part of the idle power."""
    wide = replace(CLEAN, swing=0.0, gap=0.2, duty=1.0)
    energies = [one(wide, seconds=0.01, joules=1.0, seed=seed).raw_energy_j for seed in range(20)]
    assert np.mean(energies) == pytest.approx(1.0, rel=0.005)
    assert one(wide, seconds=0.01, joules=1.0).latency_s == pytest.approx(0.01)
    with pytest.raises(SensorError, match="measure idle power first"):
        one(wide, seconds=0.01, gap_w=math.nan)


def test_batches_are_divided_by_their_images():
    eight = one(replace(CLEAN, batch=8), seconds=0.004, joules=0.1)
    assert eight.raw_energy_j == pytest.approx(0.1, rel=0.01)
    assert eight.latency_s == pytest.approx(0.004 / 8)


def test_latency_is_exact_and_has_no_power():
    made, load = opened(replace(CLEAN, batch=4), seconds=0.0037)
    meter = Script(made.clock, lambda now: now, metric="latency_s")
    taken = window.measure(meter, load(), made.clock, SETTINGS, period_s=0.0)
    assert taken.raw_energy_j == pytest.approx(0.0037 / 4, rel=1e-9)
    assert taken.latency_s == taken.raw_energy_j
    assert math.isnan(taken.power_w)


@pytest.mark.parametrize("period_s", [0.01, 0.1])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_period_of_a_counter_is_found(period_s, seed):
    made, load = opened(replace(CLEAN, period_s=period_s), seed=seed)
    found = window.update_period(made.meter, load(), made.clock, SETTINGS)
    assert found == pytest.approx(period_s, rel=0.02)


def test_a_meter_that_moves_at_any_time_has_no_period():
    made, load = opened(replace(CLEAN, sensor="power"))
    assert window.update_period(made.meter, load(), made.clock, SETTINGS) == 0.0


@pytest.mark.parametrize("gain", [1.0, 1.07, 0.93])
def test_the_counter_is_checked_against_instant_power(gain):
    made, load = opened(replace(CLEAN, gain=gain))
    found = window.cross_check(made.meter, load(), made.clock, SETTINGS)
    assert found == pytest.approx(gain - 1, abs=0.005)


def test_without_a_second_way_nothing_is_checked():
    made, load = opened(CLEAN)
    meter = Script(made.clock, lambda now: 100 * now, watts=math.nan)
    assert math.isnan(window.cross_check(meter, load(), made.clock, SETTINGS))


@pytest.mark.parametrize("sensor", ["counter", "power", "averaged"])
def test_idle_power(sensor):
    made, load = opened(replace(ALL, sensor=sensor, noise=0.0, idle_w=73.0))
    workload = load()
    window.measure(made.meter, workload, made.clock, SETTINGS, period_s=0.1)
    workload.stop()
    period_s = 0.1 if sensor == "counter" else 0.0
    found = window.idle_power(made.meter, made.clock, SETTINGS, period_s=period_s)
    assert found == pytest.approx(73.0, rel=0.005)


def test_an_idle_rail_may_be_off():
    clock = SimulatedClock()
    rail = Script(clock, lambda now: 12.0)
    assert window.idle_power(rail, clock, SETTINGS, period_s=0.0) == 0.0
    counter = Script(clock, lambda now: 12.0, stepped=True)
    with pytest.raises(SensorError, match="did not move"):
        window.idle_power(counter, clock, SETTINGS, period_s=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fault": "dead", "fault_read": 400}, "does not answer"),
        ({"fault": "zeros"}, "read 0 for"),
        ({"fault": "zeros", "fault_read": 400}, "fell from"),
        ({"fault": "stuck", "fault_read": 200}, "did not move in"),
        ({"fault": "jump", "fault_read": 300}, "jumped"),
        ({"fault": "fall", "fault_read": 300}, "fell from"),
        ({"fault": "nan", "fault_read": 300}, "reads nan"),
        ({"fault": "jump", "fault_read": 300, "sensor": "power"}, "jumped"),
        ({"fault": "stuck", "fault_read": 1, "sensor": "power"}, "repeated one reading"),
        ({"fault": "zeros", "sensor": "power"}, "read 0 for"),
        ({"period_s": 2.0}, "shorter than the counter's period"),
        ({"limit_w": 250.0}, "above the 250 W"),
    ],
)
def test_what_cannot_be_true_is_refused_in_one_line(changes, message):
    simulation = replace(CLEAN, **changes)
    made, load = opened(simulation)
    with pytest.raises(SensorError, match=message) as raised:
        window.measure(made.meter, load(), made.clock, SETTINGS, period_s=0.1)
    assert "\n" not in str(raised.value)


def test_a_plain_sensor_passes_all_of_it():
    """The same network, at just over what it takes: 300 W, in its first part 390 W."""
    assert one(replace(CLEAN, limit_w=400.0)).power_w == pytest.approx(300, rel=0.01)


def test_a_step_above_the_others_is_a_jump_though_the_device_could():
    def total(now):
        return math.floor(now / 0.1) * 10.0 + (150.0 if now > 0.72 else 0.0)

    with pytest.raises(SensorError, match="unlike the others"):
        scripted(total, stepped=True, period_s=0.1, limit_w=5000.0)
    # And an ordinary one is none.
    assert scripted(
        lambda now: math.floor(now / 0.1) * 10.0, stepped=True, period_s=0.1
    ).power_w == pytest.approx(100.0, rel=0.005)


def test_a_step_above_the_limit_and_the_others_is_a_jump():
    """120 J more in one step: below twice the limit, and below ten times the others."""

    def total(now):
        return math.floor(now / 0.1) * 15.0 + (120.0 if now > 0.72 else 0.0)

    with pytest.raises(SensorError, match="above the 1050 W"):
        scripted(total, stepped=True, period_s=0.1, limit_w=1050.0)


@pytest.mark.parametrize("died_s", [0.31, 0.5, 0.8])
def test_power_that_is_zero_from_the_midst_of_a_window_on_is_no_window(died_s):
    with pytest.raises(SensorError, match=r"repeated one reading for .* under load"):
        scripted(lambda now: 100.0 * min(now, died_s))


def test_power_that_is_zero_for_a_reading_is_a_window():
    def total(now):
        return 100.0 * (min(now, 0.6) + max(0.0, now - 0.604))

    assert scripted(total).power_w == pytest.approx(100.0, rel=0.01)


def test_a_window_is_throttled_where_its_begin_or_end_is():
    for hot, throttled in ((((0.3, 0.5),), True), (((0.9, 1.2),), True), ((), False)):
        taken = scripted(lambda now: 100.0 * now, hot=hot)
        assert taken.status.throttled == (("heat",) if throttled else ())
        assert taken.status.temperature_c == (80.0 if throttled else 50.0)
        assert taken.status.clock_mhz == (1000.0 if throttled else 1500.0)


def test_throttled_windows_err_and_say_so():
    hot = replace(CLEAN, throttle_every_s=20.0, throttle_s=5.0)
    made, load = opened(hot)
    seen = {}
    for _ in range(20):
        taken = window.measure(made.meter, load(), made.clock, SETTINGS, period_s=0.1)
        # The first and the last window of a hot stretch may be partly cool.
        seen.setdefault(bool(taken.status.throttled), []).append(taken.raw_energy_j)
    assert np.median(seen[False]) == pytest.approx(0.3, rel=0.01)
    assert np.median(seen[True]) == pytest.approx(0.3 * 0.85, rel=0.01)


def test_the_simulated_sensor_has_a_lag_of_first_order():
    """Its closed form against the differential equation, in small steps."""
    clock = SimulatedClock()
    device = SimulatedDevice(clock, replace(CLEAN, lag_s=0.05, idle_w=50.0))
    device.run(0.01, 0.013, 5, 4.0)
    device.run(0.09, 0.002, 7, 0.1)
    step, watts = 1e-5, 50.0
    for number in range(15_000):
        begin = number * step
        power_w = (device.energy_j(begin + step) - device.energy_j(begin)) / step
        watts += (power_w - watts) * step / 0.05
        if number % 3000 == 2999:
            assert device.lagged_w(begin + step) == pytest.approx(watts, rel=1e-3)
    assert device.energy_j(0.15) == pytest.approx(5 * 4.0 + 7 * 0.1 + 50 * (0.15 - 0.079))


def test_impossible_simulations_are_refused():
    with pytest.raises(UserError, match="period_s"):
        Simulation(period_s=0.0)
    with pytest.raises(UserError, match="duty"):
        Simulation(duty=1.5)
    with pytest.raises(UserError, match="throttle_s"):
        Simulation(throttle_every_s=1.0, throttle_s=2.0)


@pytest.mark.parametrize("seconds", [0.00095, 0.001, 0.00104])
def test_the_authors_way_loses_what_lies_before_and_after_its_polls(seconds):
    """100 W, which a second of 1,000 passes takes: 100 J."""
    made, load = opened(CLEAN, seconds=seconds)
    meter = Script(made.clock, lambda now: 100.0 * now)
    joules = 1000 * polled_energy(meter, load(), made.clock, iterations=1000)
    assert 83 <= joules / (seconds / 0.001) <= 91


def test_the_authors_way_takes_no_answer_for_no_energy():
    made, load = opened(CLEAN)
    meter = Script(made.clock, lambda now: 100.0 * now, watts=math.nan)
    assert polled_energy(meter, load(), made.clock) == 0.0


def test_the_table_compares_both_ways():
    hard = "lag, drift and noise"
    rows = table(60, seed=1, scenarios=(hard, "the same, power averaged over 1 s")).set_index(
        "sensor"
    )
    assert abs(rows.loc[hard, "ours_bias_percent"]) <= 0.7
    assert rows.loc[hard, "ours_sd_percent"] <= 1.0
    assert rows.loc[hard, "polled_bias_percent"] < -5
    assert (rows["polled_sd_percent"] > 2 * rows["ours_sd_percent"]).all()
    assert rows.loc[hard, "samples_an_hour"] > 3000
    assert len(markdown(rows.reset_index()).splitlines()) == 4
