"""The command line as `python -m mitolume.cli`."""

from mitolume.cli import main

main()
