"""The one exception that a user is meant to see."""


class UserError(Exception):
    """Something in the input is wrong: one line that names the key or file and says what to do."""
