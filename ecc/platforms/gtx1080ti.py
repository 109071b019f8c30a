"""The GTX 1080 Ti, emulated: three of its constants are calibrated on published energies.

Anchors: the dense energies of Yang, Zhu, Liu, ECC, CVPR 2019, section 4 and Table 2.
`benchmarks/calibrate_platforms.py` makes the calibrated constants again.
"""

from ecc.platforms.emulated import EmulatedDevice

GTX1080TI = EmulatedDevice(
    name="gtx1080ti",
    description="GTX 1080 Ti (emulated)",
    macs_per_s=4.8e12,  # 85 % of 11.3 TFLOP/s, two operations a MAC
    depthwise_macs_per_s=14.7e9,  # calibrated
    bytes_per_s=320e9,  # 66 % of 484 GB/s: at batch 1, matrices times vectors
    launch_s=25e-6,  # assumed: the few kernels of one operation
    static_w=120.0,  # assumed: clocks up, board and memory powered, of 250 W
    mac_j=10e-12,  # assumed
    byte_j=393e-12,  # calibrated; with static power 246 W where memory bounds
    activation_passes=1.71,  # calibrated; the 2.75 MB cache holds what is read again
    output_tile=32,  # assumed: one warp
    reduction_tile=8,  # assumed: one step of the loop over the reduced dimension
    noise=0.01,
)
