"""Peers give what we give where the definitions agree, and what is documented where they do not.

Run by `make test-training`. medpy, panoptica and MONAI compute surfaces as we do; DeepMind's surface-distance measures
them at the corners of voxels, by area. Dice is equal; distances are to 1e-6, since MONAI computes in float32.
"""

import math
import multiprocessing
import warnings

import nibabel as nib
import numpy as np
import pytest
import torch
from support.judging import CUBE, SPUR, A, volume
from support.spines import AFFINE, SPACING, save_spine, spine
from support.volumes import save

import ctspine1k
from ctspine1k.evaluation.areas import corner_areas
from ctspine1k.evaluation.presets import preset_of
from ctspine1k.evaluation.scores import score_case

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # they import what NumPy and SciPy have moved
    import medpy.metric.binary as medpy
    import monai.metrics
    import panoptica
    import surface_distance
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics, compute_metrics_on_folder
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The threshold is set to 0.5:UserWarning"),
]

LABELS = [19, 20, 21, 22]


def blurred(mask: np.ndarray) -> np.ndarray:
    """A prediction of a mask: bent, with a spur, a hole and a stray piece, and touching the border."""
    bent = np.zeros_like(mask)
    for k in range(mask.shape[2]):
        bent[..., k] = np.roll(
            mask[..., k], (round(2 * math.sin(k / 5)), round(1.5 * math.cos(k / 4))), (0, 1)
        )
    bent[20:24, 60:72, 20] = LABELS[0]
    bent[26:30, 42:48, 40:43] = 0
    bent[3:5, 3:6, 1:3] = LABELS[1]
    bent[0, 40:44, 50] = LABELS[2]
    return bent


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    reference = spine(LABELS)[1]
    return reference, blurred(reference)


@pytest.fixture(scope="module")
def scored(pair):
    return score_case(*pair, SPACING, slice_axis=2)


@pytest.fixture(params=LABELS)
def label(request):
    return request.param


@pytest.fixture
def ours(scored, label):
    row = scored.row(label).columns()
    assert 0.5 < row["dice"] < 0.95  # there is something to compare
    return row


@pytest.fixture
def one(pair, label):
    return tuple(mask == label for mask in pair)


def close(value):
    return pytest.approx(float(value), rel=1e-6)


def test_medpy(one, ours):
    reference, prediction = one
    assert ours["dice"] == medpy.dc(prediction, reference)
    assert ours["iou"] == medpy.jc(prediction, reference)
    assert ours["precision"] == medpy.precision(prediction, reference)
    assert ours["recall"] == medpy.recall(prediction, reference)
    assert ours["hd_mm"] == close(medpy.hd(prediction, reference, SPACING))
    assert ours["hd95_pooled_mm"] == close(medpy.hd95(prediction, reference, SPACING))
    assert ours["assd_mm"] == close(medpy.assd(prediction, reference, SPACING))
    means = medpy.asd(prediction, reference, SPACING), medpy.asd(reference, prediction, SPACING)
    assert ours["assd_two_means_mm"] == close(sum(means) / 2)


def test_monai(one, ours):
    reference, prediction = (torch.from_numpy(mask)[None, None] for mask in one)
    options = {"include_background": True, "spacing": SPACING}
    metrics = monai.metrics
    assert ours["dice"] == close(metrics.compute_dice(prediction, reference))
    assert ours["iou"] == close(metrics.compute_iou(prediction, reference))
    assert ours["hd_mm"] == close(metrics.compute_hausdorff_distance(prediction, reference, **options))
    hd95 = metrics.compute_hausdorff_distance(prediction, reference, percentile=95, **options)
    assert ours["hd95_mm"] == close(hd95)
    assd = metrics.compute_average_surface_distance(prediction, reference, symmetric=True, **options)
    assert ours["assd_mm"] == close(assd)
    for tolerance in (1, 2, 3):
        for name, by_area in ((f"nsd_{tolerance}mm", False), (f"nsd_area_{tolerance}mm", True)):
            dice = metrics.compute_surface_dice(
                prediction, reference, [float(tolerance)], use_subvoxels=by_area, **options
            )
            assert ours[name] == close(dice), name


def test_surface_distance_of_deepmind(one, ours):
    distances = surface_distance.compute_surface_distances(*one, SPACING)
    for tolerance in (1, 2, 3):
        dice = surface_distance.compute_surface_dice_at_tolerance(distances, tolerance)
        assert ours[f"nsd_area_{tolerance}mm"] == close(dice)
    assert preset_of("totalsegmentator").measures == ("dice", "nsd_area_3mm")  # whose evaluator calls it so


def test_areas_of_deepmind():
    table = surface_distance.metrics.lookup_tables.create_table_neighbour_code_to_surface_area
    for spacing in ((1.0, 1.0, 1.0), SPACING):
        assert corner_areas(spacing) == pytest.approx(table(spacing), rel=1e-12)


def test_panoptica(one, ours):
    metric = panoptica.Metric
    assert ours["dice"] == metric.DSC(*one)
    assert ours["iou"] == metric.IOU(*one)
    assert ours["hd_mm"] == close(metric.HD(*one, voxelspacing=SPACING))
    assert ours["hd95_pooled_mm"] == close(metric.HD95(*one, voxelspacing=SPACING))
    assert ours["assd_two_means_mm"] == close(metric.ASSD(*one, voxelspacing=SPACING))
    assert ours["centroid_mm"] == close(metric.CEDI(*one, voxelspacing=SPACING))
    for tolerance in (1, 2, 3):
        dice = metric.NSD(*one, voxelspacing=SPACING, threshold=tolerance)
        assert ours[f"nsd_two_means_{tolerance}mm"] == close(dice)


def test_nnunet(pair, scored, tmp_path):
    files = [tmp_path / "reference.nii.gz", tmp_path / "prediction.nii.gz"]
    for mask, file in zip(pair, files, strict=True):
        nib.save(nib.Nifti1Image(mask, AFFINE), file)
    found = compute_metrics(str(files[0]), str(files[1]), SimpleITKIO(), LABELS)["metrics"]
    for label in LABELS:
        row = scored.row(label)
        assert (row.dice, row.iou) == (found[label]["Dice"], found[label]["IoU"])
        assert row.common_voxels == found[label]["TP"]
        assert row.prediction_voxels == found[label]["n_pred"]
        assert row.reference_voxels == found[label]["n_ref"]
        union = row.reference_voxels + row.prediction_voxels - row.common_voxels
        assert scored.voxels - union == found[label]["TN"]


def test_the_summary_of_nnunet(tmp_path, monkeypatch):
    """Of two cases, with a label that one of them lacks, one that was missed and one that is only predicted."""
    masks = {"liver_106": spine([18, 19, 20])[1], "liver_83": spine([20, 21, 22])[1]}
    for case_id, mask in masks.items():
        save_spine(tmp_path / "raw", case_id, mask.astype(np.int16), mask)
        predicted = np.roll(mask, 2, axis=1)
        predicted[predicted == 22] = 23
        save(tmp_path / "predictions" / f"{case_id}.nii.gz", predicted, affine=AFFINE)
        save(tmp_path / "reference" / f"{case_id}.nii.gz", mask, affine=AFFINE)
    labels = [18, 19, 20, 21, 22, 23]
    spawn = multiprocessing.get_context("spawn")
    monkeypatch.setattr(spawn, "Pool", multiprocessing.pool.ThreadPool)  # this process imports enough
    theirs = compute_metrics_on_folder(
        str(tmp_path / "reference"), str(tmp_path / "predictions"), None, SimpleITKIO(), ".nii.gz", labels
    )
    spines = ctspine1k.open_collection(data_dir=tmp_path / "raw").select(list(masks))
    ours = spines.evaluate(tmp_path / "predictions", preset="nnunet", distances=False).document()
    for own, other in zip(ours["metric_per_case"], theirs["metric_per_case"], strict=True):
        assert own["prediction_file"] == other["prediction_file"]
        there = {
            str(label): of_label for label, of_label in other["metrics"].items() if of_label["TN"] < mask.size
        }
        assert own["metrics"] == there
    assert ours["foreground_mean"]["Dice"] == close(theirs["foreground_mean"]["Dice"])
    assert ours["means"]["dice"]["value"] == close(theirs["foreground_mean"]["Dice"])
    for label in labels:
        assert ours["mean"][str(label)] == {
            name: close(value) for name, value in theirs["mean"][label].items()
        }
    assert ours["foreground_mean"] == {
        name: close(value) for name, value in theirs["foreground_mean"].items()
    }


def test_a_vertebra_on_one_side_only():
    """Where a distance does not exist, ours is NaN. What others do is in docs/evaluating.md."""
    one, none = volume(A) > 0, volume() > 0
    for reference, prediction in ((one, none), (none, one)):
        row = score_case(reference.astype(np.uint8), prediction.astype(np.uint8), (1, 1, 1)).row(1).columns()
        assert (row["dice"], row["nsd_1mm"], row["nsd_area_1mm"]) == (0, 0, 0)
        assert math.isnan(row["hd_mm"])
        assert medpy.dc(prediction, reference) == 0
        with pytest.raises(RuntimeError, match="does not contain any binary object"):
            medpy.hd(prediction, reference)
        tensors = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI says that it will be NaN or inf
            options = {"include_background": True}
            hausdorff = monai.metrics.compute_hausdorff_distance
            assert math.isinf(hausdorff(*tensors, **options))
            assert math.isnan(hausdorff(*tensors, percentile=95, **options))
            assert monai.metrics.compute_surface_dice(*tensors, [1.0], **options) == 0
            left_out = monai.metrics.HausdorffDistanceMetric(include_background=True, percentile=95)
            for pair in (tensors, tensors[:1] * 2 if prediction.any() else tensors[1:] * 2):
                left_out(*pair)
            assert left_out.aggregate() == 0  # of a perfect one and one that was missed
            assert math.isnan(panoptica.Metric.NSD(reference, prediction, threshold=1))
            assert math.isnan(panoptica.Metric.ASSD(reference, prediction))
            with pytest.raises(ValueError, match="zero-size array"):
                panoptica.Metric.HD(reference, prediction)
            assert panoptica.Metric.HD95(reference, prediction) > 0
        assert panoptica.Metric.DSC(reference, prediction) == 0
        assert surface_distance.compute_dice_coefficient(reference, prediction) == 0
        with pytest.raises(AttributeError, match="removed in the NumPy 2"):
            surface_distance.compute_surface_distances(reference, prediction, (1, 1, 1))
    assert (medpy.dc(none, none), panoptica.Metric.DSC(none, none)) == (1, 0)
    both = [torch.from_numpy(none)[None, None]] * 2
    there = [torch.from_numpy(mask)[None, None] for mask in (one, none)]
    for tensors, ignoring, counting in (
        ([there[1], there[0]], 0, 0),
        (there, math.nan, 0),
        (both, math.nan, 1),
    ):
        dice = [float(monai.metrics.compute_dice(*tensors, ignore_empty=choice)) for choice in (True, False)]
        assert dice == pytest.approx([ignoring, counting], nan_ok=True)


def test_the_published_vectors_by_peers():
    """What tells the names apart: pooled and of two, at 1 mm."""
    reference, prediction = volume(A) > 0, volume(A, SPUR) > 0
    assert round(medpy.assd(prediction, reference), 4) == 0.2154
    assert round(float(panoptica.Metric.ASSD(reference, prediction)), 4) == 0.2107
    assert medpy.hd(prediction, reference) == 16
    # DeepMind's percentiles are by area, between corners: another measure, which has no column here.
    by_area = surface_distance.compute_surface_distances(reference, volume(CUBE) > 0, (1, 1, 1))
    assert round(float(surface_distance.compute_robust_hausdorff(by_area, 95)), 4) == 19.7231
    assert round(medpy.hd95(volume(CUBE), reference), 4) == 19.8494
