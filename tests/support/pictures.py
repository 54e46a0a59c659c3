"""Small cases to be drawn, and what a figure shows."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np

from ctspine1k.pictures.planes import overlay
from ctspine1k.volumes.headers import Geometry

#: To the right, the front and upwards: sizes, mm, and where most of the labels lie, far from the middle.
SHAPE, SPACING = (14, 11, 9), (0.7, 0.8, 2.5)
RIGHT, FRONT, UP = 10, 3, 2


def anatomy():
    """Image and labels in RAS: L1 at the bottom, T12 above it (most of it in slice 2), T11 above that."""
    image = np.random.default_rng(0).integers(-700, 1500, SHAPE).astype("f4")
    labels = np.zeros(SHAPE, "u1")
    labels[9:12, 2:5, 0] = 20
    labels[9:12, 2:5, 1:4] = 19
    labels[9:12, 2:5, 5:8] = 18
    labels[RIGHT, FRONT - 2 : FRONT + 6, UP] = 19
    labels[RIGHT - 3 : RIGHT + 3, FRONT, UP] = 19
    return image, labels


def views(image, labels):
    """Axial, coronal and sagittal slice of it: the patient's right and front come first, and the top does."""
    return [
        overlay(image[::-1, ::-1, UP].T, labels[::-1, ::-1, UP].T),
        overlay(image[::-1, FRONT, ::-1].T, labels[::-1, FRONT, ::-1].T),
        overlay(image[RIGHT, ::-1, ::-1].T, labels[RIGHT, ::-1, ::-1].T),
    ]


def stored(image, labels, orientation="LAS", **columns):
    """The row of a case whose file is stored so, by nibabel."""
    affine = np.diag([*SPACING, 1.0])
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(orientation)
    )
    files = [nib.Nifti1Image(voxels, affine).as_reoriented(turn) for voxels in (image, labels)]
    image, labels = (np.transpose(np.asarray(file.dataobj), (2, 0, 1)) for file in files)
    geometry = Geometry.of(files[0].affine, files[0].shape)
    return {
        "image": image,
        "segmentation": labels.astype("i4"),
        "patient_id": "mine",
        "spacing": list(geometry.spacing),
        "orientation": geometry.orientation,
        **columns,
    }


def without_geometry(row):
    return {name: value for name, value in row.items() if name not in ("spacing", "orientation", "source")}


def panels(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


def title(figure):
    return "\n".join(text.get_text() for text in figure.texts)


def texts(axes):
    return {text.get_text() for text in axes.texts}


def same(figure, other):
    assert title(figure) == title(other)
    assert [axes.get_title() for axes in figure.axes] == [axes.get_title() for axes in other.axes]
    assert all(np.array_equal(a, b) for a, b in zip(panels(figure), panels(other), strict=True))
    return True


def boxes(artists, figure):
    figure.draw_without_rendering()  # which lays texts out
    return [artist.get_window_extent() for artist in artists]


def overlapping(boxes):
    """Pairs that share more than a rounded edge."""
    return [
        (one, other)
        for one, other in itertools.combinations(boxes, 2)
        if min(one.x1, other.x1) - max(one.x0, other.x0) > 1
        and min(one.y1, other.y1) - max(one.y0, other.y0) > 1
    ]


def within(boxes, figure):
    low, high = (0, 0), figure.bbox.size
    return all((box.min >= low).all() and (box.max <= high + 1e-6).all() for box in boxes)
