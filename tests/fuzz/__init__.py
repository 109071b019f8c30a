"""Everything that a user hands over, changed at random: accepted with its meaning, or refused in
one line. `python -m tests.fuzz --help` says how to run it.
"""
