"""Tables to CSV or Parquet, whole or not at all. Knows no column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mitolume.errors import MitolumeError
from mitolume.io.write import atomic


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table; the ending of the file says how.

    Parameters
    ----------
    path
        Ends in ``.csv`` or ``.parquet``. Parquet keeps the types of columns, also of an empty
        table; CSV is UTF-8 with a header, NaN is an empty cell.
    table
        Its index is not written.

    Raises
    ------
    MitolumeError
        The ending is another, or the place can't be written to.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise MitolumeError(
            f"{path} ends in {ending or 'nothing'}, but a table is written as .csv or .parquet: "
            "name the file so"
        )
    with atomic(path) as temporary:
        if ending == ".csv":
            table.to_csv(temporary, index=False, encoding="utf-8")
        else:
            table.to_parquet(temporary, index=False)


def below_each_other(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put tables with different columns below each other.

    Parameters
    ----------
    tables
        At least one. Of empty ones only the columns of the first count, and those only where all
        are empty.

    Returns
    -------
    pandas.DataFrame
        Whole numbers that some tables lack stay whole numbers (``Int64``), and are missing there.
    """
    filled = [table for table in tables if len(table)] or list(tables[:1])
    joined = pd.concat(filled, ignore_index=True)
    for name in joined:
        own = [table[name].dtype.kind for table in filled if name in table]
        if joined[name].dtype.kind == "f" and set(own) <= {"i", "u"}:
            joined[name] = joined[name].astype("Int64")
    return joined
