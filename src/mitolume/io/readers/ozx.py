"""OME-Zarr in one zip file (RFC-9), read as a folder is. Knows nothing else of zip files."""

from mitolume.io.readers.ome_zarr import open_file, stated

__all__ = ["open_file", "stated"]
