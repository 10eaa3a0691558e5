"""How a command ends: its exit status, and the exception that says it was interrupted."""

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class InterruptionError(Exception):
    """Ctrl-C, with one line that says what is kept. (typer would swallow the words of a KeyboardInterrupt.)"""
