"""nnU-Net's side of ``speed.py --nnunet``: plans, builds its default 2D network, predicts.

Each line read, ``mirroring`` or ``no mirroring``, is answered by the seconds of one prediction.
"""

import os
import sys
import time
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import torch
from torch.utils.flop_counter import FlopCounterMode


def size(network: Any, side: int) -> str:
    """Return the parameters of a network, and its multiplications for each pixel of a tile."""
    millions = sum(each.numel() for each in network.parameters()) / 1e6
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, side, side).to(next(network.parameters())))
    each_pixel = counter.get_total_flops() / 2 / side**2
    return f"{millions:.1f} M parameters, {each_pixel:,.0f} multiplications/px"


def main(folder: Path, device: str, answers: TextIO) -> None:
    """Say what was built, and predict once for each line that is read."""
    os.environ |= {f"nnUNet_{place}": f"{folder}/{place}" for place in ("raw", "preprocessed")}
    # These read the environment as they are imported.
    from nnunetv2.experiment_planning import plan_and_preprocess_api as planning
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.set_num_threads(1)
    planning.extract_fingerprint_dataset(1, num_processes=1, show_progress_bar=False)
    plans = PlansManager(planning.plan_experiment_dataset(1)[0])
    planned, (raw,) = plans.get_configuration("2d"), (folder / "raw").iterdir()
    network = nnUNetTrainer.build_network_architecture(plans, planned, 1, 2, False)
    about = planning.load_json(str(raw / "dataset.json"))
    predictor = nnUNetPredictor(device=torch.device(device), allow_tqdm=False)
    predictor.manual_initialization(
        network, plans, planned, [network.state_dict()], about, "nnUNetTrainer", (0, 1)
    )
    tile = planned.patch_size
    made = f"nnU-Net {version('nnunetv2')} with torch {torch.__version__} (2D, tile {tile[0]} x"
    print(f"{made} {tile[1]}, {size(network, tile[0])})", file=answers, flush=True)
    clock = time.process_time if device == "cpu" else time.perf_counter
    for line in sys.stdin:
        predictor.use_mirroring = line.strip() == "mirroring"
        began = clock()
        image = str(raw / "imagesTr/field_0000.tif")
        predictor.predict_from_files_sequential([[image]], [str(folder / "field")])
        print(clock() - began, file=answers, flush=True)


if __name__ == "__main__":
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        main(Path(sys.argv[1]), sys.argv[2], sys.__stdout__)
