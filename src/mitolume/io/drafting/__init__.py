"""The parts of `mitolume.io.draft`: from file names to rows. Reads no pixels."""
