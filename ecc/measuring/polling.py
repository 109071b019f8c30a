"""How the authors of ECC measured, re-made to show by how much it errs. No platform uses it.

They ran `nvidia-smi` in a loop in a second process and added up its power, while a network ran
forward passes with a synchronisation after each: no warm-up, no settling, no idle subtracted.
"""

import math

from ecc.measuring.interface import Clock, EnergyMeter, Workload

START_UP_S = 0.1  # until the second process polls for the first time; assumed
QUERY_S = 0.06  # that one call of nvidia-smi takes; assumed


def polled_energy(
    meter: EnergyMeter,
    workload: Workload,
    clock: Clock,
    *,
    iterations: int = 1000,
    seconds: float = math.inf,
    start_up_s: float = START_UP_S,
    query_s: float = QUERY_S,
) -> float:
    """Joules of one image by power x time since the last poll, as the authors add them up.

    Ends after so many iterations or seconds, whichever comes first. What passes before the first
    poll begins and after the last one ends is lost, and a sensor without an answer ([N/A], here
    NaN) counts as 0 W: both without an error, as there.
    """
    joules = 0.0
    begun, first = clock.now(), workload.mark()
    last_poll = begun + start_up_s
    while True:
        workload.feed()
        span = workload.between(first, workload.mark())
        now = clock.now()
        if now >= last_poll + query_s:
            watts = meter.power_w()
            joules += (0.0 if math.isnan(watts) else watts) * (now - last_poll)
            last_poll = now
        if span.iterations >= iterations or now - begun >= seconds:
            return joules / span.iterations / workload.batch
