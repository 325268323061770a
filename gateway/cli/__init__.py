"""The command line: one module a command group, each with `main(argv) -> exit code`.

`main` names the commands and loads a command's module when it is asked for. The commands that look
at or change a running gateway are thin clients of its control plane: they hold no rules of their own.
"""
