"""Energy-constrained compression of neural networks.

A measured platform becomes an energy model, a method spends a budget under that model, and every
number that is shown comes from a file that a rule made. The library knows nothing of Snakemake.
"""

__version__ = "0.1.0"
