"""The Jetson TX2, emulated: four of its constants are calibrated on published energies.

Anchors: the dense energies of Yang, Zhu, Liu, ECC, CVPR 2019, section 4 and Table 2, and the
AlexNet energy model that the authors published with their code (`published_tx2`).
`benchmarks/calibrate_platforms.py` makes the calibrated constants again.
"""

from ecc.platforms.emulated import EmulatedDevice

JETSON_TX2 = EmulatedDevice(
    name="jetson_tx2",
    description="Jetson TX2 (emulated)",
    macs_per_s=0.25e12,  # 75 % of 256 cores at 1.3 GHz, one MAC a cycle
    depthwise_macs_per_s=8e9,  # assumed: no reuse across channels
    bytes_per_s=45e9,  # 75 % of 59.7 GB/s
    launch_s=78.6e-6,  # calibrated; the few kernels of one operation, launched by an ARM core
    static_w=2.5,  # assumed: a third of the board's 7.5 W mode
    mac_j=22.7e-12,  # calibrated
    byte_j=46.4e-12,  # calibrated; LPDDR4, 5.8 pJ a bit
    activation_passes=6.64,  # calibrated; batch norm, activation, layout; 512 kB cache
    output_tile=8,  # assumed
    reduction_tile=8,  # assumed: one step of the loop over the reduced dimension
    noise=0.01,
)
