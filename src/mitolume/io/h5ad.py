"""Tables of objects as AnnData (``.h5ad``), by its documented format; anndata asks for old pandas.

https://anndata.readthedocs.io/en/stable/fileformat-prose.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

PLACE = re.compile("(label|t|plane|(centroid|bbox)_.*)$")  # columns that measure nothing
_UNITS = {"um": "µm", "um2": "µm²", "um3": "µm³", "px": "px"}


def write_h5ad(path: Path, table: pd.DataFrame) -> None:
    """Write a table: measurements as ``X``, their units in ``var``, all else in ``obs``.

    ``obsm["spatial"]`` are the centroids, X before Y, in µm where these are known.
    """
    import h5py

    names = [str(name).replace("/", "_") for name in table]  # HDF5 would take it for a path
    table = table.set_axis(names, axis="columns")
    numeric = map(str, table.select_dtypes("number"))
    measured = [name for name in numeric if not PLACE.match(name)]
    units = [_UNITS.get(name.rpartition("_")[2], "") for name in measured]
    units = ["1/" * ("_per_" in n and u != "") + u for n, u in zip(measured, units, strict=True)]
    unit = "um" if "centroid_x_um" in table else "px"
    places = [f"centroid_{axis}_{unit}" for axis in "xyz" if f"centroid_{axis}_{unit}" in table]

    def group(name: str, kind: str, **more: Any) -> Any:
        made = file.require_group(name)
        version = "0.2.0" if kind == "dataframe" else "0.1.0"
        made.attrs.update({"encoding-type": kind, "encoding-version": version} | more)
        return made

    def put(place: Any, name: str, values: np.ndarray[Any, Any]) -> None:
        texts = values.dtype.kind == "O"
        made = place.create_dataset(name, data=values, dtype=h5py.string_dtype() if texts else None)
        kind = "string-array" if texts else "array"
        made.attrs.update({"encoding-type": kind, "encoding-version": "0.2.0"})

    def frame(name: str, columns: dict[str, Any], index: Sequence[str]) -> None:
        order = np.array(list(columns), h5py.string_dtype())
        made = group(name, "dataframe", **{"_index": "_index", "column-order": order})
        for own, values in {"_index": np.array(index, object), **columns}.items():
            put(made, own, values)

    with h5py.File(path, "w") as file:
        group("/", "anndata")
        put(file, "X", _numbers(table[measured]))
        other = {name: _column(table[name]) for name in names if name not in measured}
        frame("obs", other, [str(number) for number in range(len(table))])
        frame("var", {"unit": np.array(units, object)}, measured)
        if places:
            put(group("obsm", "dict"), "spatial", _numbers(table[places]))


def _numbers(table: Any) -> Any:
    return table.to_numpy(np.float64, na_value=np.nan)


def _column(values: Any) -> Any:
    """Return a column as numpy has it: texts as objects, missing ones empty."""
    if values.dtype.kind not in "iufb":
        return values.fillna("").astype(str).to_numpy(object)
    return _numbers(values) if values.isna().any() else np.asarray(values)
