"""`python -m pear_cli` is `pear`."""

from pear_cli.cli.entry import main

if __name__ == "__main__":
    main()
