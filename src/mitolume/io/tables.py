"""Tables to CSV or Parquet, whole or not at all. Knows no column."""

from __future__ import annotations

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
