"""The one exception for what a caller can get wrong."""


class InputError(ValueError):
    """A parameter, file, size or value that cannot be used.

    The message is one line: it names the thing, the value it had, and what is allowed. The command line prints it and
    exits with 2; everything else that goes wrong is our mistake and keeps its traceback.
    """
