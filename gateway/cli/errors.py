"""What stops a command, as one line for a person."""


class CommandError(Exception):
    """The command cannot go on. Its text says what is wrong and what to do; it never holds a key.

    `main` prints it on stderr after `gateway: ` and exits with code 1.
    """


class Unanswered(CommandError):
    """No answer came, or one that leaves open whether what was asked was done."""


class OutOfReach(CommandError):
    """The key may not do this (403): it is another role's, or its scope is blocked."""
