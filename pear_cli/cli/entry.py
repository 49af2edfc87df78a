"""Where pear begins: signals first, since to import the rest takes a moment."""

from pear_cli.system import processes, signals


def main() -> None:
    """Run pear as a program."""
    if processes.is_main():
        signals.install(told_by_parent=processes.launched_by_pear())
    else:
        signals.leave_to_others()
    from pear_cli.cli import app

    app.main()
