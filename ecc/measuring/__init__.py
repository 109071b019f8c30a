"""How a device is measured: windows, campaigns, drift, repeatability; and a simulated device.

A sensor (`ecc.platforms`) is read through `EnergyMeter`, a network runs through a `Workload`;
everything here takes both, and a clock, as arguments, so that it can be tried without hardware.
"""
