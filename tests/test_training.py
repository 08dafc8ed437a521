"""Patches, augmentation and the loop: the same seed gives the same weights, broken or not."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.fields import blobs
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.utilities import rank_zero_only
from torch import Generator

from mitolume.errors import CollapsedError, MitolumeError
from mitolume.models.losses import bce
from mitolume.models.networks import SegmentationNetwork, resolve_precision
from mitolume.models.settings import NetworkSettings
from mitolume.preprocess.normalise import normalise
from mitolume.training import loop
from mitolume.training.augment import AUGMENTATIONS, Augmentation, flips
from mitolume.training.loop import CHECKPOINT, cosine
from mitolume.training.methods import METHODS, Step, average_with_teacher
from mitolume.training.patches import Patches, PreparedImage, StepSampler
from mitolume.training.record import TrainingResult
from mitolume.training.segmentation import CollapseCheck, Segmentation, Validation
from mitolume.training.settings import TrainingSettings, UnlabelledSettings


def prepared(n: int, shape: tuple[int, int] = (64, 80)) -> list[PreparedImage]:
    return [PreparedImage(normalise(blobs(i, shape)[0]), blobs(i, shape)[1]) for i in range(n)]


def short(**over: object) -> TrainingSettings:
    values = {"steps": 12, "batch": 2, "patch": 32, "checks": 4, "precision": "float32"}
    return TrainingSettings(**values | over)


def train(
    network: SegmentationNetwork,
    images: list[PreparedImage],
    validation: Validation,
    *,
    folder: Path,
    settings: TrainingSettings,
    shown: dict | None = None,
    **options: object,
) -> TrainingResult:
    task = Segmentation(images, validation=validation, settings=settings, **options)
    return loop.fit(network, task, settings=settings, folder=folder, **(shown or {}))


def fit(folder: Path, *, validation: int = 1, **options: object) -> TrainingResult:
    folder.mkdir(parents=True, exist_ok=True)
    return train(
        SegmentationNetwork(NetworkSettings(width=4), seed=0),
        prepared(3),
        Validation(prepared(validation)),
        method=METHODS["supervised"](),
        settings=options.pop("settings", short()),
        seed=5,
        folder=folder,
        **options,
    )


def same(a: TrainingResult, b: TrainingResult) -> bool:
    return all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_batch_depends_on_seed_and_step_only(seed: int, step: int) -> None:
    images = prepared(3)
    first = Patches(images, patch=32, batch=2, seed=seed)
    first[step + 1]
    for a, b in zip(first[step], Patches(images, patch=32, batch=2, seed=seed)[step], strict=True):
        assert a == b if isinstance(a, int) else torch.equal(a, b)
    other = Patches(images, patch=32, batch=2, seed=seed + 1)[step]
    assert not torch.equal(first[step][1], other[1])


@pytest.mark.parametrize("shape", [(1, 1), (7, 90), (33, 31)])
def test_images_smaller_than_a_patch_are_unsure_outside(shape: tuple[int, int]) -> None:
    image = PreparedImage(np.ones(shape, np.float32), np.ones(shape, np.uint8))
    _, images, targets = Patches([image], patch=32, batch=1, seed=0)[0]
    assert torch.isfinite(images).all()
    height, width = (min(32, side) for side in shape)
    assert (targets[0, 0, :height, :width] == 1).all()
    assert targets.isnan().sum() == 32 * 32 - height * width


def test_every_pixel_is_about_as_likely() -> None:
    small = PreparedImage(np.zeros((32, 32), np.float32), np.zeros((32, 32), np.uint8))
    large = PreparedImage(np.zeros((96, 96), np.float32), np.ones((96, 96), np.uint8))
    patches = Patches([small, large], patch=32, batch=50, seed=0)
    share = torch.stack([patches[i][2].float().mean() for i in range(20)]).mean()
    assert abs(float(share) - 0.9) < 0.04


def test_steps_go_on_through_epochs() -> None:
    done = [0]
    sampler = StepSampler(18, 5, lambda: done[0])
    assert list(sampler) == [0, 1, 2, 3, 4]
    done[0] = 15
    assert list(sampler) == [15, 16, 17]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [blobs(i, (48, 48)) for i in range(6)]
    images = torch.from_numpy(np.stack([normalise(i) for i, _ in pairs])[:, None])
    return images, torch.from_numpy(np.stack([m for _, m in pairs])[:, None])


@pytest.mark.parametrize("change", AUGMENTATIONS.values())
def test_every_augmentation_keeps_shapes_and_targets_and_repeats(change: Augmentation) -> None:
    images, masks = batch()
    before = images.clone(), masks.clone()
    first = change(images, masks, Generator().manual_seed(3))
    again = change(images, masks, Generator().manual_seed(3))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])
    assert first[0].shape == images.shape
    assert first[1].dtype == masks.dtype
    assert set(first[1].unique().tolist()) <= {0, 1, 255}
    assert torch.isfinite(first[0]).all()


def test_image_and_mask_move_together() -> None:
    _, masks = batch()
    moved, moved_masks = flips(masks.float(), masks, Generator().manual_seed(0))
    assert torch.equal(moved, moved_masks.float())
    assert not torch.equal(moved_masks, masks)


def test_flips_move_pixels_and_change_none() -> None:
    images, masks = batch()
    moved, _ = flips(images, masks, Generator().manual_seed(0))
    assert torch.equal(moved.flatten(1).sort().values, images.flatten(1).sort().values)


def test_photometric_blurs_about_half_of_the_patches_and_sharpens_others() -> None:
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    finest = ((y + x) % 2 * 2.0 - 1)[None, None].expand(200, 2, 32, 32)  # the first to go in a blur
    random = Generator().manual_seed(0)
    changed, _ = AUGMENTATIONS["photometric"](finest, torch.zeros(200, 1, 32, 32), random)
    left = (changed * finest).mean((1, 2, 3)).abs()
    assert 0.3 < (left < 0.2).float().mean() < 0.6
    assert (left > 1.5).float().mean() > 0.1


def test_intensity_changes_each_patch_its_own_way() -> None:
    same = torch.ones(2, 1, 32, 32), torch.ones(2, 1, 32, 32)  # which no turn changes
    changed, _ = AUGMENTATIONS["full"](*same, Generator().manual_seed(0))
    assert not torch.allclose(*changed.mean((1, 2, 3)), atol=0.05)


def test_learning_rate_rises_falls_and_ends_at_nothing() -> None:
    rates = [cosine(step, 100) for step in range(101)]
    assert rates[0] < rates[2]
    assert max(rates) == 1
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[100] == pytest.approx(0)


def test_training_learns_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    trained = fit(tmp_path, settings=short(steps=60, learning_rate=0.01, augment="flips"))
    scores = [record["validation_iou"] for record in trained.history]
    assert max(scores) > 0.6
    assert trained.chosen == f"epoch {scores.index(max(scores)) + 1} of 4, the best on the " \
        "validation images"  # fmt: skip


def test_a_training_that_was_stopped_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole")

    def stop_after_two(history: list) -> None:
        if len(history) == 2:
            raise KeyError("killed")

    with pytest.raises(KeyError):
        fit(tmp_path / "broken", shown={"on_epoch": stop_after_two})
    seen = []
    resumed = fit(
        tmp_path / "broken", shown={"advance": lambda step, steps, note: seen.append(step)}
    )
    assert seen[0] == 7  # two epochs of three steps were done
    assert same(whole, resumed)
    steps = [record["step"] for record in resumed.history]
    assert steps == [3, 6, 9, 12]
    losses = [[record["loss"] for record in t.history] for t in (whole, resumed)]
    assert losses[0] == losses[1]


def test_without_validation_the_last_epochs_are_averaged_and_resume_too(tmp_path: Path) -> None:
    settings = short(steps=16, checks=8)
    whole = fit(tmp_path / "whole", validation=0, settings=settings)
    assert whole.chosen == "average of the last 2 of 8 epochs (no validation images)"
    checkpoint = torch.load(tmp_path / "whole" / CHECKPOINT, weights_only=True)
    last = checkpoint["state_dict"]
    name = next(n for n in whole.weights if n.endswith("running_mean"))
    assert not torch.equal(whole.weights[name], last[f"network.{name}"])

    def stop_in_the_middle_of_averaging(history: list) -> None:
        if len(history) == 7:
            raise KeyError("killed")

    with pytest.raises(KeyError):
        fit(tmp_path / "broken", validation=0, settings=settings,
            shown={"on_epoch": stop_in_the_middle_of_averaging})  # fmt: skip
    assert same(whole, fit(tmp_path / "broken", validation=0, settings=settings))


def test_a_loss_that_explodes_says_what_to_do(tmp_path: Path) -> None:
    images = prepared(1)
    images[0].image[:] = np.inf
    network = SegmentationNetwork(NetworkSettings(width=4))
    with pytest.raises(MitolumeError, match=r"training\.learning_rate to a tenth"):
        train(network, images, Validation(), method=METHODS["supervised"](),
              settings=short(augment="none"), seed=0, folder=tmp_path)  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_a_loss_that_teaches_the_network(name: str, tmp_path: Path) -> None:
    method = METHODS[name](UnlabelledSettings())
    others = [PreparedImage(i.image) for i in prepared(3)]
    if method.uses_unlabelled:
        others = [replace(i, mask=method.label((i.image > 0) * np.float32(0.6))) for i in others]
    network = SegmentationNetwork(NetworkSettings(width=4))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    trained = train(network, prepared(2), Validation(), unlabelled=others, method=method,
                    settings=short(steps=4, checks=2), seed=0, folder=tmp_path)  # fmt: skip
    assert all(np.isfinite(record["loss"]) for record in trained.history)
    assert any(not torch.equal(before[k], v) for k, v in trained.weights.items())


def test_pseudo_labels_are_cut_at_one_half() -> None:
    probability = np.array([[0.2, 0.4999], [0.5, 0.9]], np.float32)
    assert METHODS["pseudo_label"]().label(probability).tolist() == [[0, 0], [1, 1]]


def test_a_student_learns_the_probability_itself() -> None:
    """Soft targets: where the teacher says 0.3, the least loss is at 0.3."""
    method = METHODS["noisy_student"]()
    targets = torch.cat([torch.full((1, 1, 16, 16), torch.nan), torch.full((1, 1, 16, 16), 0.3)])
    images = torch.zeros(2, 1, 16, 16)

    def loss(probability: float) -> float:
        class Constant(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.full_like(x, probability).logit()

        step = Step(images, targets, 1, AUGMENTATIONS["none"], bce, Generator().manual_seed(0))
        return float(method.loss(Constant(), step))

    losses = {p: loss(p) for p in (0.1, 0.2, 0.3, 0.4, 0.9)}
    assert min(losses, key=losses.get) == 0.3


def test_the_average_lies_between_teacher_and_student() -> None:
    teacher, student = (
        SegmentationNetwork(NetworkSettings(width=4), seed=n).state_dict() for n in (0, 1)
    )
    student["body.conv_0.conv_0.adn.N.num_batches_tracked"] += 5
    between = average_with_teacher(teacher, student)
    assert between.keys() == student.keys()
    for name, tensor in between.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor - teacher[name], student[name] - tensor)
        else:
            assert torch.equal(tensor, student[name])
    SegmentationNetwork(NetworkSettings(width=4)).load_state_dict(between)


def test_the_model_is_the_average_of_the_weights_where_settings_ask_for_it(tmp_path: Path) -> None:
    for average in (0.0, 1.0):
        network = SegmentationNetwork(NetworkSettings(width=4), seed=1)
        model = train(
            network, prepared(2), Validation(), method=METHODS["supervised"](), seed=0,
            settings=short(steps=6, checks=1, average=average), folder=tmp_path / str(average),
        ).weights  # fmt: skip
        last = network.state_dict()
        moved = [
            not torch.allclose(tensor, last[name].cpu(), atol=1e-6)
            for name, tensor in model.items()
            if tensor.is_floating_point()
        ]
        assert any(moved) == (average > 0)


def test_the_average_reaches_over_a_share_of_the_steps() -> None:
    assert short(steps=1000, average=0.1).decay == pytest.approx(1 - 1 / 100)
    assert short(steps=1000, average=0).decay is None


def test_a_student_is_stopped_by_foreground_that_counts_and_not_by_a_few_pixels() -> None:
    class Bright(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.least = torch.nn.Parameter(torch.tensor(10.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - self.least

    image = np.zeros((256, 256), np.float32)
    image[0, :4] = 20
    watched = [PreparedImage(image)]
    CollapseCheck(watched, share=0.0, threshold=0.5).check(Bright())
    with pytest.raises(
        CollapsedError, match=r"finds 0\.0% foreground in them, where model 1 finds 5"
    ):
        CollapseCheck(watched, share=0.05, threshold=0.5).check(Bright())


def test_half_of_a_batch_is_labelled() -> None:
    ones = PreparedImage(np.ones((32, 32), np.float32), np.ones((32, 32), np.uint8))
    zeros = [PreparedImage(np.zeros((99, 99), np.float32)) for _ in range(20)]
    patches = Patches([ones], zeros, patch=32, batch=5, seed=0)
    _, images, targets = patches[3]
    assert patches.n_labelled == 3
    assert images.mean((1, 2, 3)).tolist() == [1, 1, 1, 0, 0]
    assert targets[3:].isnan().all()


def test_lengths_in_steps_and_epochs() -> None:
    assert TrainingSettings(steps=100, checks=20).steps_per_check == 5
    assert TrainingSettings(steps=21, checks=20).steps_per_check == 2
    assert TrainingSettings(steps=3, checks=20).steps_per_check == 1
    paper = TrainingSettings(steps=None, epochs=100, batch=4).for_images(30)
    assert (paper.steps, paper.steps_per_check, paper.checks) == (800, 8, 100)
    with pytest.raises(ValueError, match="steps"):
        TrainingSettings(steps=3, epochs=3)
    with pytest.raises(ValueError, match="batch of 2"):
        TrainingSettings(patch=16, batch=1)
    assert resolve_precision("bfloat16") == "bfloat16"
    assert resolve_precision("auto") in ("float32", "bfloat16")


@pytest.mark.parametrize(("steps", "checks"), [(7, 3), (21, 20), (5, 9)])
def test_exactly_so_many_steps_are_made(tmp_path: Path, steps: int, checks: int) -> None:
    trained = fit(tmp_path, settings=short(steps=steps, checks=checks))
    assert trained.history[-1]["step"] == steps
    assert len(trained.history) <= checks


def test_validation_without_foreground_chooses_nothing(tmp_path: Path) -> None:
    empty = [PreparedImage(i.image, np.zeros_like(i.mask)) for i in prepared(2)]
    assert not Validation(empty)
    assert Validation(prepared(1) + empty)
    network = SegmentationNetwork(NetworkSettings(width=4))
    trained = train(network, prepared(2), Validation(empty), method=METHODS["supervised"](),
                    settings=short(), seed=0, folder=tmp_path)  # fmt: skip
    assert "average of the last" in trained.chosen


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    fit(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:5000])
    with pytest.raises(MitolumeError, match=r"last\.ckpt is damaged; delete it"):
        fit(tmp_path)


def test_trainings_in_slurm_jobs_are_ordinary_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in each of the tasks of `srun --ntasks 8 dask worker`, whatever Slurm says of the job."""
    plain = fit(tmp_path / "plain")
    job = {
        "SLURM_JOB_ID": "7", "SLURM_JOBID": "7", "SLURM_JOB_NAME": "dask", "SLURM_NTASKS": "8",
        "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2", "SLURM_PROCID": "3", "SLURM_NODEID": "0",
        "SLURM_LOCALID": "3", "SLURM_NODELIST": "node[1-2]", "LOCAL_RANK": "3", "RANK": "3",
        "WORLD_SIZE": "8",
    }  # fmt: skip
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", 3)  # what Lightning reads when it is imported
    usr1 = signal.getsignal(signal.SIGUSR1)
    seen = []
    shown = {"on_epoch": lambda history: seen.append(signal.getsignal(signal.SIGUSR1))}
    assert same(plain, fit(tmp_path / "there", shown=shown))
    assert (tmp_path / "there" / CHECKPOINT).exists()
    assert set(seen) == {usr1}, "Slurm would have to start the job anew"


def test_bfloat16_trains_too(tmp_path: Path) -> None:
    trained = fit(tmp_path, settings=short(precision="bfloat16", steps=4, checks=1))
    assert all(t.dtype != torch.bfloat16 for t in trained.weights.values())


def test_pseudo_labels_are_as_published_whatever_the_settings() -> None:
    asked = UnlabelledSettings(length=0.1, rate=0.1)
    assert METHODS["noisy_student"](asked).settings == asked
    published = METHODS["pseudo_label"](asked).settings
    assert (published.length, published.rate) == (1, 1)
