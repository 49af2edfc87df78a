"""What a running stage says: live lines on a terminal, plain lines elsewhere; always on stderr."""

from pear_cli.system.progress.rows import Ticker, duration, size
from pear_cli.system.progress.stderr import board, console, doing, is_live, is_quiet, say, ticker

__all__ = ["Ticker", "board", "console", "doing", "duration", "is_live", "is_quiet", "say", "size", "ticker"]
