"""Sums up a table of objects, for an image. Knows no pixel.

Every number is defined in docs/measurements.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from mitolume.analysis.measure import units_of


def summarise_image(
    objects: pd.DataFrame,
    shape: Sequence[int],
    pixel_size_um: Mapping[str, float] | None = None,
    n_unsure: int = 0,
) -> dict[str, int | float]:
    """Sum up the objects of one image.

    Parameters
    ----------
    objects
        What `mitolume.analysis.measure.measure_objects` returned for the whole image.
    shape
        (Y, X) or (Z, Y, X) of the image.
    pixel_size_um
        The one that the objects were measured with.
    n_unsure
        Pixels of which nobody knows what they are: no part of the field of view.

    Returns
    -------
    dict
        Column to number. In an image without objects, counts and areas are 0, all that would be a
        mean or a ratio to them is NaN.

    Examples
    --------
    >>> import mitolume.analysis.measure as measure
    >>> labels = np.zeros((50, 40), int)
    >>> labels[10:15, 5:25], labels[30:35, 5:25] = 1, 2
    >>> found = summarise_image(measure.measure_objects(labels), labels.shape)
    >>> found["n_objects"], found["footprint_share"], found["fragmentation_index_per_px"]
    (2, 0.1, 0.01)
    """
    units = units_of(shape, pixel_size_um)
    size, unit = units.size, units.unit
    power = size.rsplit("_", 1)[1]
    total = float(objects[size].sum())
    field = (math.prod(shape) - n_unsure) * math.prod(units.spacing)
    roundness = "form_factor" if len(units.axes) == 2 else "sphericity"
    network = objects["n_junctions"] > 0
    branches = int(objects["n_branches"].sum())
    skeleton = float(objects[f"skeleton_length_{unit}"].sum())

    found: dict[str, int | float] = {
        "n_objects": len(objects),
        "n_networks": int(network.sum()),
        "n_individuals": int((~network).sum()),
        f"total_{size}": total,
        "footprint_share": total / field if field else math.nan,
        f"fragmentation_index_per_{power}": len(objects) / total if total else math.nan,
        f"total_skeleton_length_{unit}": skeleton,
        f"mean_branch_length_{unit}": skeleton / branches if branches else math.nan,
        "mean_branches_per_network": float(objects.loc[network, "n_branches"].mean()),
    }
    for column in (size, f"length_{unit}", f"width_{unit}", "aspect_ratio", roundness, "solidity"):
        found[f"mean_{column}"] = float(objects[column].mean())
        found[f"median_{column}"] = float(objects[column].median())
    return found
