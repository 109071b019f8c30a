"""The exceptions that a user is meant to see."""


class UserError(Exception):
    """Something in the input is wrong: one line that names the key or file and says what to do."""


class DivergedError(UserError):
    """The loss of a training is no number: of the network and the learning rate, not a fault."""
