"""One loop, its patches, and the methods that enter it. Knows no file and no report."""
