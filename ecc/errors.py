"""The exceptions that a user is meant to see."""


class UserError(Exception):
    """Something in the input is wrong: one line that names the key or file and says what to do."""


class DivergedError(UserError):
    """The loss of a training is no number: of the network and the learning rate, not a fault."""


def require(settings: object, prefix: str, /, **within: bool) -> None:
    """Raises UserError for the first of the settings, by name, that is not within its range."""
    for key, inside in within.items():
        if not inside:
            raise UserError(f"{prefix}{key}: {getattr(settings, key)} is out of its range")
