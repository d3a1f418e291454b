"""The one exception for bad input: the command line prints its message on one line and exits with 2."""


class BadInput(ValueError):
    """What came from outside cannot be used; the message says what, where, and what is accepted."""
