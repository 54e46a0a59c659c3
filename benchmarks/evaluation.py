"""How fast predictions are scored, and with how much memory, beside the evaluators that people use.

    .venv/training/bin/python benchmarks/evaluation.py [--slices 535] [--repeat 3] [--only "ours;nnunet"]

The case has 18 vertebrae in slices of 512 x 512: the masks that CTSPINE1K_SAMPLE names (without it, the
phantom's), each slice several times, one pair of vertebrae upon the other. The prediction is the same, bent
by a voxel or two. Each way reads both files and scores all labels, in a process of its own, in turn; seconds
are those of the work without the imports. ``--cpu`` compares processor time, for a machine that others use.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from measuring import Row, peak_mb, table

import ctspine1k
from ctspine1k.demo.phantom import make_phantom

VERTEBRAE = range(4, 22)
TOLERANCES = (1.0, 2.0, 3.0)


def make_masks(root: Path, slices: int) -> str:
    """Write reference.nii.gz and prediction.nii.gz, and tell what they are made of."""
    if "CTSPINE1K_SAMPLE" in os.environ:
        paths, origin = sorted(Path(os.environ["CTSPINE1K_SAMPLE"]).rglob("*_seg.nii.gz")), "real masks"
    else:
        files = ctspine1k.list_files(data_dir=make_phantom(root / "phantom"))
        paths, origin = sorted(file.local for file in files if file.kind == "mask"), "phantom masks"
    sources = [nib.load(path) for path in paths]
    masks = [np.asarray(source.dataobj) for source in sources]
    levels = len(VERTEBRAE) - 1  # in each the lower part of a vertebra and the upper one of the next
    depth = slices / levels
    reference = np.zeros((*masks[0].shape[:2], slices), np.uint8, order="F")
    prediction = np.zeros_like(reference)
    for k in range(slices):
        level = min(levels - 1, int(k / depth))
        mask = masks[level % len(masks)]
        stored = mask[..., min(mask.shape[2] - 1, int((k / depth - level) * mask.shape[2]))]
        upper = VERTEBRAE[-1] - level - 1
        reference[..., k] = np.where(stored > 0, upper + (stored == mask.max()), 0)
        bend = round(1.5 * math.cos(k / 5)), round(1.5 * math.sin(k / 7))
        prediction[..., k] = np.roll(reference[..., k], bend, (0, 1))
    affine = sources[0].affine.copy()
    affine[:3, 2] *= 20 / depth / np.linalg.norm(affine[:3, 2])  # 20 mm a level
    for mask, name in ((reference, "reference"), (prediction, "prediction")):
        nib.save(nib.Nifti1Image(mask, affine), root / f"{name}.nii.gz")
    return origin


# The ways: each reads the files of a folder and scores all labels.


def ours(root: Path, *, distances: bool = True) -> Any:
    """Every measure that we have, or overlaps alone: all that `ctspine1k evaluate` does for a case."""
    from ctspine1k.catalog.ctspine1k import CTSPINE1K
    from ctspine1k.evaluation.scoring import ScoringOptions, Task, score_masks_of
    from ctspine1k.files.folder import FolderPlace
    from ctspine1k.files.predictions import WHOLE
    from ctspine1k.files.raw import RawFile

    case = ctspine1k.load_catalog().cases[0]
    reference, prediction = (
        RawFile(case, "mask", path.stat().st_size, path.name, str(path), None, str(path), "")
        for path in (root / "reference.nii.gz", root / "prediction.nii.gz")
    )
    scored = score_masks_of(
        ctspine1k.__version__,
        FolderPlace(root),
        CTSPINE1K.vocabulary,
        ScoringOptions(distances=distances),
        Task(case, reference, {WHOLE: prediction}),
    )
    if scored.problem:
        raise RuntimeError(scored.problem)
    return scored


def ours_overlap(root: Path) -> Any:
    """Overlaps and centroids."""
    return ours(root, distances=False)


def loaded(root: Path) -> tuple[Any, Any, tuple[float, ...], list[int]]:
    """Both masks as nibabel reads them, spacing, and the labels in either."""
    images = [nib.load(root / f"{name}.nii.gz") for name in ("reference", "prediction")]
    reference, prediction = (np.asarray(image.dataobj) for image in images)
    spacing = tuple(float(size) for size in images[0].header.get_zooms())
    return reference, prediction, spacing, list(VERTEBRAE)


def box_of(label: int, reference: Any, prediction: Any, boxes: Any) -> tuple[Any, Any]:
    """One label in the union box of both, as careful users of a library cut it out."""
    places = [found[label - 1] for found in boxes]
    union = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(*places, strict=True))
    return reference[union] == label, prediction[union] == label


def by_label(root: Path, measure: Callable[[Any, Any, Any], Any]) -> Any:
    """Measure each label in its box."""
    from scipy import ndimage

    reference, prediction, spacing, labels = loaded(root)
    boxes = [ndimage.find_objects(mask) for mask in (reference, prediction)]
    return [measure(*box_of(label, reference, prediction, boxes), spacing) for label in labels]


def panoptica_once(root: Path) -> Any:
    """What one call gives: Dice, IoU, HD, HD95 pooled, ASSD of two means, NSD at one tolerance, centroids."""
    from panoptica import InputType, Metric, Panoptica_Evaluator

    reference, prediction, spacing, _ = loaded(root)
    metrics = [Metric[name] for name in ("DSC", "IOU", "ASSD", "HD", "HD95", "NSD", "CEDI")]
    evaluator = Panoptica_Evaluator(
        expected_input=InputType.MATCHED_INSTANCE, instance_metrics=metrics, global_metrics=[]
    )
    return evaluator.evaluate(prediction, reference, voxelspacing=spacing)


def panoptica_all(root: Path) -> Any:
    """The same with the NSD at three tolerances, which needs a call for each."""
    from panoptica import Metric

    def measure(reference: Any, prediction: Any, spacing: Any) -> Any:
        return [
            Metric.NSD(reference, prediction, voxelspacing=spacing, threshold=tolerance)
            for tolerance in TOLERANCES
        ]

    return panoptica_once(root), by_label(root, measure)


def medpy_all(root: Path) -> Any:
    """Dice, HD, HD95 pooled, ASSD pooled and of two means."""
    import medpy.metric.binary as medpy

    def measure(reference: Any, prediction: Any, spacing: Any) -> Any:
        return (
            medpy.dc(prediction, reference),
            medpy.hd(prediction, reference, spacing),
            medpy.hd95(prediction, reference, spacing),
            medpy.assd(prediction, reference, spacing),
            medpy.asd(prediction, reference, spacing) + medpy.asd(reference, prediction, spacing),
        )

    return by_label(root, measure)


def monai_all(root: Path) -> Any:
    """Dice, HD, HD95 of two, ASSD pooled, NSD at three tolerances."""
    import monai.metrics as monai
    import torch

    def measure(reference: Any, prediction: Any, spacing: Any) -> Any:
        pair = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]
        options = {"include_background": True, "spacing": spacing}
        return (
            monai.compute_dice(*pair),
            monai.compute_hausdorff_distance(*pair, **options),
            monai.compute_hausdorff_distance(*pair, percentile=95, **options),
            monai.compute_average_surface_distance(*pair, symmetric=True, **options),
            [monai.compute_surface_dice(*pair, [tolerance], **options) for tolerance in TOLERANCES],
        )

    return by_label(root, measure)


def deepmind_all(root: Path) -> Any:
    """HD, HD95, ASSD of both directions and NSD at three tolerances, all by area."""
    import surface_distance

    def measure(reference: Any, prediction: Any, spacing: Any) -> Any:
        found = surface_distance.compute_surface_distances(reference, prediction, spacing)
        return (
            [surface_distance.compute_robust_hausdorff(found, percent) for percent in (95, 100)],
            surface_distance.compute_average_surface_distance(found),
            [surface_distance.compute_surface_dice_at_tolerance(found, one) for one in TOLERANCES],
        )

    return by_label(root, measure)


def nnunet_dice(root: Path) -> Any:
    """Dice, IoU and counts of voxels."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    files = [str(root / f"{name}.nii.gz") for name in ("reference", "prediction")]
    return compute_metrics(*files, SimpleITKIO(), list(VERTEBRAE))


WAYS: dict[str, Callable[[Path], Any]] = {
    "ours": ours,
    "ours-overlap": ours_overlap,
    "panoptica": panoptica_once,
    "panoptica, NSD x 3": panoptica_all,
    "monai": monai_all,
    "medpy": medpy_all,
    "deepmind": deepmind_all,
    "nnunet": nnunet_dice,
}

#: Peers that give overlaps, distances between voxels, and the NSD at each tolerance. Of the others, one call
#: of panoptica's gives the NSD at one tolerance, medpy none; DeepMind's are by area, and without overlaps.
SAME_MEASURES = ("panoptica, NSD x 3", "monai")


def once(way: str, root: Path) -> dict[str, float]:
    """Score once after a small case, which imports all that is needed."""
    warnings.simplefilter("ignore")
    WAYS[way](root / "small")
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    WAYS[way](root)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu, "peak_mb": peak_mb()}


def in_turn(root: Path, ways: list[str], repeat: int) -> dict[str, dict[str, float]]:
    """Run the ways in turn, each in a process of its own, and return the medians."""
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(repeat):
        for way in ways:
            command = [sys.executable, __file__, "--one", way, "--root", str(root)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            runs[way].append(json.loads(output.splitlines()[-1]))
    return {
        way: {key: statistics.median(run[key] for run in of_way) for key in of_way[0]}
        for way, of_way in runs.items()
    }


def rows_of(found: dict[str, dict[str, float]], unit: str) -> list[Row]:
    """Compare with the bars."""
    mine = found["ours"][unit]
    rows = [Row("a case, all measures", f"{mine:.3g} s", "6 s", mine / 6, "<= 1")]
    peers = [way for way in found if way not in ("ours", "ours-overlap", "nnunet")]
    rows += [
        Row(
            "a case, all measures",
            f"{mine:.3g} s",
            f"{way}: {found[way][unit]:.3g} s",
            found[way][unit] / mine,
        )
        for way in peers
    ]
    same = [way for way in peers if way in SAME_MEASURES]
    for what, ways in (("the fastest peer", peers), ("the fastest peer of the same measures", same)):
        if ways:
            fastest = min(ways, key=lambda way: found[way][unit])
            rows.append(Row(what, f"{mine:.3g} s", fastest, found[fastest][unit] / mine, ">= 10"))
    if "nnunet" in found:
        alone, theirs = found["ours-overlap"][unit], found["nnunet"][unit]
        rows.append(
            Row("overlap alone", f"{alone:.3g} s", f"nnU-Net: {theirs:.3g} s", theirs / alone, ">= 4")
        )
    return rows


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slices", type=int, default=535)
    parser.add_argument("--long", type=int, default=1000, help="slices of the case whose memory is measured")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", help=f"of {', '.join(WAYS)}, separated by semicolons; all")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(once(args.one, args.root)))
        return
    ways = args.only.split(";") if args.only else list(WAYS)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for folder, slices in ((root, args.slices), (root / "small", 34), (root / "long", args.long)):
            (folder / "small").mkdir(parents=True, exist_ok=True)
            origin = make_masks(folder, slices)
        make_masks(root / "long" / "small", 34)
        rows = rows_of(in_turn(root, ways, args.repeat), "cpu" if args.cpu else "seconds")
        peak = in_turn(root / "long", ["ours"], 1)["ours"]["peak_mb"]
    rows.append(Row(f"peak memory, {args.long} slices", f"{peak:,.0f} MB", "1,200 MB", peak / 1200, "<= 1"))
    print(f"18 vertebrae in {args.slices} slices of 512 x 512 ({origin})\n\n{table(rows)}")


if __name__ == "__main__":
    main()
