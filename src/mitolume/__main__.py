"""The command line as `python -m mitolume`."""

from mitolume.cli import main

if __name__ == "__main__":
    main()
