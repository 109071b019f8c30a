"""Run-length compression of zeros, in the format of the accelerator Eyeriss.

A symbol is a run of up to 31 zeros (5 bits) and the value that follows it; three symbols and a
flag fill a word, of 64 bits where values have 16 (Chen, Krishna, Emer, Sze, JSSC 2017, section IV).
"""

RUN_BITS, SYMBOLS, FLAG_BITS = 5, 3, 1


def rate(density: float, value_bits: int) -> float:
    """Expected bits of a compressed value over its own, in [0, 1], for independent zeros.

    A symbol covers the zeros of its run, of which the k-th is there with probability (1 - d)^k,
    k <= 31, and one value: (1 - (1 - d)^32) / d values in all. Data that would grow are left as
    they are.
    """
    values_of_symbol = sum((1 - density) ** zeros for zeros in range(2**RUN_BITS))
    symbol_bits = value_bits + RUN_BITS + FLAG_BITS / SYMBOLS
    return min(1.0, symbol_bits / value_bits / values_of_symbol)
