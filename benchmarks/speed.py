"""How fast is it? Each figure is a ratio of two things that are done in turns in one process.

``python benchmarks/speed.py [--rounds 5] [--side 1024] [--only prediction]``: a few minutes on one
core. What is timed is processor time on one thread, so that other programs on the machine change
little (on a graphics card: seconds). A ratio is the median over the rounds, after one that warms
up. Rows are added to ``results/speed.csv``, with machine, versions and commit.
``--nnunet PYTHON`` compares with nnU-Net alone, run by a Python that has nnunetv2.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np
import onnxruntime
import pandas as pd
import tifffile
import torch
from monai.inferers import sliding_window_inference
from skimage.measure import label, regionprops_table
from speed_nnunet import size
from torch import nn
from torch.utils.data import DataLoader, Dataset

import mitolume
from mitolume.analysis.labelling import label_objects
from mitolume.analysis.measure import measure_objects
from mitolume.batch.predict import predict_files
from mitolume.inference.predictor import Predictor
from mitolume.models.bundle import Card, save_bundle, versions
from mitolume.models.losses import dice_bce
from mitolume.models.networks import (
    SegmentationNetwork,
    find_device,
    for_prediction,
    resolve_precision,
)
from mitolume.models.openvino_network import OpenVINONetwork
from mitolume.models.settings import NetworkSettings
from mitolume.runs.recipe import load_recipe
from mitolume.training.augment import full
from mitolume.training.loop import fit
from mitolume.training.methods import METHODS
from mitolume.training.patches import Patches, PreparedImage
from mitolume.training.segmentation import Segmentation

RESULTS = Path(__file__).parent / "results/speed.csv"
STEPS = 20  # of a timed training
Work = Callable[[], Any]
# Name, what is timed, what it is compared with.
Figure = tuple[str, Work, Work]


def seconds() -> float:
    """Return the processor time of this process and of those it started; wall time with a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def network(channels_last: bool = True) -> SegmentationNetwork:
    """Return the default's network, its normalisation measured; as a user of MONAI has it, NCHW."""
    made = SegmentationNetwork(NetworkSettings())
    with torch.no_grad():
        for _ in range(3):
            made(torch.randn(2, 1, 64, 64))
    if not channels_last:
        made.body.to(memory_format=torch.contiguous_format)
    return made.to(find_device()).eval()


def objects(side: int) -> np.ndarray[Any, Any]:
    """Return a mask of about as many objects as a field of cells shows."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(0).normal(size=(side, side)), 4)
    return (noise > np.quantile(noise, 0.9)).astype(np.uint8)


def prediction(folder: Path, side: int) -> Iterator[Figure]:
    """Compare the command `predict`, reading and writing included, with MONAI's sliding window."""
    image, device = folder / "image.tif", find_device()
    pixels = np.random.default_rng(0).integers(0, 4096, (side, side)).astype(np.uint16)
    tifffile.imwrite(image, pixels)
    ours, plain, fast_layout = network(), network(channels_last=False), network()
    predictor = Predictor(ours, Card(network=NetworkSettings()))
    whole = torch.randn(1, 1, side, side, device=device)
    bare = network().to(getattr(torch, predictor.precision))

    def default(ready: Predictor = predictor) -> None:
        predict_files(ready, [image], folder / "out", overwrite=True)

    @torch.inference_mode()
    def monai(body: nn.Module) -> None:
        read = tifffile.imread(image).astype(np.float32)
        tensor = torch.from_numpy((read - read.mean()) / read.std())[None, None].to(device)
        logits = sliding_window_inference(tensor, (256, 256), 4, body, overlap=0.25)
        mask = (logits.sigmoid()[0, 0] >= 0.5).byte().cpu().numpy()
        tifffile.imwrite(folder / "monai.tif", mask)

    @torch.inference_mode()
    def alone() -> None:
        bare(whole.to(getattr(torch, predictor.precision)))

    in_float32 = Predictor(ours, predictor.card, precision="float32")
    four = Predictor(ours, predictor.card, views=4)
    openvino = Predictor(ours, predictor.card, engine="openvino")
    sliding = "MONAI's sliding window (256 px, overlap 0.25, float32)"
    yield (
        f"predict, default ({predictor.precision}) / {sliding}",
        default,
        lambda: monai(plain.body),
    )
    yield f"predict, default / {sliding}, channels last", default, lambda: monai(fast_layout)
    yield f"predict, OpenVINO / {sliding}", lambda: default(openvino), lambda: monai(plain.body)
    yield "predict, default / the bare network, same precision", default, alone
    yield f"predict, float32 / {sliding}", lambda: default(in_float32), lambda: monai(plain.body)
    yield f"predict, four views / {sliding}", lambda: default(four), lambda: monai(plain.body)


def nnunet(python: str, folder: Path, side: int) -> Iterator[Figure]:
    """Compare the command `predict` with nnU-Net's predictor, reading and writing in both."""
    noise = np.random.default_rng(0).integers(0, 4096, (side, side)).astype(np.uint16)
    raw = folder / "raw/Dataset001_speed"
    image, mask = raw / "imagesTr/field_0000.tif", raw / "labelsTr/field.tif"
    for path, pixels in (image, noise), (mask, objects(side)):
        path.parent.mkdir(parents=True)
        tifffile.imwrite(path, pixels)
    about = {"channel_names": {"0": "light"}, "labels": {"background": 0, "mitochondrion": 1}}
    about |= {"numTraining": 1, "file_ending": ".tif"}
    (raw / "dataset.json").write_text(json.dumps(about))
    ours, pipe = network(), subprocess.PIPE
    command = [python, Path(__file__).with_name("speed_nnunet.py"), folder, find_device().type]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) as process:

        def ask(views: str) -> float:
            process.stdin.write(f"{views}\n")
            return float(process.stdout.readline())

        if not (theirs := process.stdout.readline().strip()):
            sys.exit(f"{python} could not run nnU-Net, for the reason above.")
        pairs = ("auto", "no mirroring"), ("auto", "mirroring"), ("float32", "no mirroring")
        for precision, views in pairs:
            ready = Predictor(ours, Card(network=NetworkSettings()), precision=precision)
            default = partial(predict_files, ready, [image], folder / "out", overwrite=True)
            name = f"predict, {ready.precision} ({size(ours.body, side)}) / {theirs}, {views}"
            yield name, default, partial(ask, views)


class _Samples(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Patches drawn and augmented one by one, as a plain loop does."""

    def __init__(self, images: list[PreparedImage]) -> None:
        self.patches = Patches(images, patch=128, batch=1, seed=0)

    def __len__(self) -> int:
        return STEPS * 8

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        _, image, target = self.patches[number]
        image, target = full(image, target, torch.Generator().manual_seed(number))
        return image[0], target[0]


def training(folder: Path, side: int) -> Iterator[Figure]:
    """Compare the steps of a training with those of a plain loop, and with the bare step."""
    pixels = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    images, device = [PreparedImage(pixels, objects(side))], find_device()
    precision = resolve_precision("auto")
    settings = load_recipe(fields=folder / "none.csv").training.model_copy(
        update={"steps": STEPS, "checks": 1, "precision": precision}
    )

    def ours() -> None:
        task = Segmentation(images, method=METHODS["supervised"](), settings=settings, seed=0)

        def stop(done: int, *_: Any) -> None:
            if done == STEPS:
                raise StopIteration  # before the checkpoint, which many steps share

        with tempfile.TemporaryDirectory() as place, suppress(StopIteration):
            fit(network(), task, settings=settings, folder=Path(place), advance=stop)

    def loop(batches: Any, made: SegmentationNetwork, low: bool) -> None:
        optimiser = torch.optim.Adam(made.train().parameters(), lr=3e-3)
        for image, target in batches:
            optimiser.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=low):
                logits = made.body(image.to(device)) if not low else made(image.to(device))
            dice_bce(logits.float(), target.to(device)).backward()
            optimiser.step()

    _, image, target = Patches(images, patch=128, batch=8, seed=0)[0]
    same = [(image, target)] * STEPS
    samples = DataLoader(_Samples(images), batch_size=8)
    low = precision == "bfloat16"
    yield (
        f"training ({precision}) / plain loop in float32",
        ours,
        lambda: loop(samples, network(channels_last=False), low=False),
    )
    yield "training / the bare step, same precision", ours, lambda: loop(same, network(), low)


def files(folder: Path, side: int) -> Iterator[Figure]:
    """Compare reading with tifffile's, and labelling and measuring with scikit-image's."""
    mask = objects(side)
    tifffile.imwrite(folder / "stack.tif", np.stack([mask] * 16))
    yield (
        "reading 16 planes / tifffile",
        lambda: mitolume.read(folder / "stack.tif").values,
        lambda: tifffile.imread(folder / "stack.tif"),
    )
    names = ("label", "area", "centroid", "axis_major_length", "solidity", "perimeter")
    yield (
        "objects: label and measure / scikit-image's label and regionprops_table",
        lambda: measure_objects(label_objects(mask)),
        lambda: regionprops_table(label(mask), properties=names),
    )


def start(folder: Path, side: int) -> Iterator[Figure]:
    """Compare how long commands take to start with importing torch."""
    tifffile.imwrite(folder / "small.tif", objects(512) * 100)
    save_bundle(folder / "model", network().state_dict(), Card(network=NetworkSettings()))

    def python(*arguments: Any) -> Work:
        command = [sys.executable, *map(str, arguments)]
        return lambda: subprocess.run(command, check=True, capture_output=True)

    cli, torch_alone = ("-m", "mitolume"), python("-c", "import torch")
    code = (
        "import torch, mitolume.models.networks as made; "
        "from mitolume.models.settings import NetworkSettings; torch.set_num_threads(1); "
        "own = made.SegmentationNetwork(NetworkSettings()).eval().to(made.find_device()); "
        "own = made.for_prediction(own, made.resolve_precision('auto')); "
        "torch.set_grad_enabled(False); "
        "own(torch.zeros(1, 1, 512, 512).to(next(own.parameters())))"
    )
    predict = (*cli, "predict", folder / "model", folder / "small.tif", "--overwrite", "--out")
    yield "mitolume --help / importing torch", python(*cli, "--help"), torch_alone
    ours = python(*predict, folder / "out")
    yield "predict of 512 px / importing torch", ours, torch_alone
    yield "predict of 512 px / importing torch and the network alone", ours, python("-c", code)


def engines(folder: Path, side: int) -> Iterator[Figure]:
    """Compare what else could compute the default's network with torch; OpenVINO is an option."""
    image = torch.randn(1, 1, side, side)
    own, exact = (for_prediction(network(), name) for name in ("bfloat16", "float32"))
    openvino, in_float32 = (
        OpenVINONetwork(network(), 1, precision) for precision in ("bfloat16", "float32")
    )
    compiled = torch.compile(own)

    @torch.inference_mode()
    def torch_alone(model: Any) -> None:
        model(image.to(next(model.parameters())))

    runtime = onnxruntime.SessionOptions()
    runtime.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(in_float32.graph, runtime)
    given = {session.get_inputs()[0].name: image.numpy()}

    def low() -> None:
        torch_alone(own)

    def float32() -> None:
        torch_alone(exact)

    yield "network by OpenVINO / by torch, bfloat16", lambda: openvino(image), low
    yield "network by torch.compile / by torch, bfloat16", lambda: torch_alone(compiled), low
    yield "network by OpenVINO / by torch, float32", lambda: in_float32(image), float32
    yield "network by ONNX Runtime / by torch, float32", lambda: session.run(None, given), float32


PARTS = {
    "prediction": prediction, "engines": engines, "training": training, "files": files,
    "start": start,
}  # fmt: skip


def measure(figure: Figure, rounds: int) -> dict[str, Any]:
    """Do two things in turns, and compare their times."""
    name, ours, theirs = figure
    times = []
    for _ in range(rounds + 1):
        pair = []
        for work in (ours, theirs):
            began = seconds()
            told = work()  # the seconds of another process
            pair.append(told if isinstance(told, float) else seconds() - began)
        times.append(pair)
    own, other = np.array(times[1:]).T
    ratios = own / other
    row = {"figure": name, "ratio": np.median(ratios), "least": ratios.min()}
    row |= {"most": ratios.max(), "rounds": rounds, "seconds": np.median(own)}
    print(f"{row['ratio']:6.2f} ({row['least']:.2f} to {row['most']:.2f})  {name}", flush=True)
    return row | {"seconds_other": np.median(other)}


def main() -> None:
    """Measure, and add the rows to the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--nnunet", metavar="PYTHON", help="compare with its nnU-Net alone")
    options = parser.parse_args()
    if options.nnunet and not shutil.which(options.nnunet):
        parser.error(f"--nnunet needs a Python that has nnunetv2, and {options.nnunet} is none.")
    torch.set_num_threads(1)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    known = {
        "date": datetime.now(UTC).date().isoformat(), "commit": commit, "machine": machine,
        "side": options.side, "versions": " ".join(f"{k} {v}" for k, v in versions().items()),
    }  # fmt: skip
    rows = [pd.read_csv(RESULTS)] if RESULTS.exists() else []
    parts = [PARTS[name] for name in options.only]
    for part in [partial(nnunet, options.nnunet)] if options.nnunet else parts:
        with tempfile.TemporaryDirectory() as folder:
            for figure in part(Path(folder), options.side):
                rows.append(pd.DataFrame([measure(figure, options.rounds) | known]))
                table = pd.concat(rows, ignore_index=True)
                table.to_csv(RESULTS, index=False, float_format="%.4g")


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
