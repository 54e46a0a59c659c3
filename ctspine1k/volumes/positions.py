"""Where a header says that its voxels lie, in mm, and why that may be wrong.

A NIfTI header may say it in three ways: the sform is an affine; the qform is a rotation, whose voxel sizes
are in pixdim; pixdim alone gives only sizes. As in nibabel, the first one counts that has a code: sform, then
qform. If neither has a code, nibabel guesses from shape and pixdim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.quaternions import quat2mat
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from ctspine1k.errors import CaseError, GeometryError
from ctspine1k.volumes.orientation import degenerate_axes

__all__ = ["GEOMETRY_TOLERANCE", "Doubt", "DoubtKind", "doubts_about", "unit_doubt", "unit_of", "with_choice"]

#: Headers of one scan that two programs wrote differ by rounding, up to this much (affine entries, mm).
GEOMETRY_TOLERANCE = 1e-3

#: The same for the directions of a qform: near half a turn, its rounded quaternion is off by 1e-3 radians.
_DIRECTION_TOLERANCE = 3e-3

#: Advice for whoever has the option ``on_geometry``.
_CHOICE = 'Pass on_geometry="raise" to stop here, on_geometry="warn" to continue.'

#: "header": its fields disagree, or are invalid; "units": not mm; "degenerate": an axis without length or
#: direction; "unplaced": neither sform nor qform.
DoubtKind: TypeAlias = Literal["header", "units", "degenerate", "unplaced"]

#: Units other than mm, by their code in ``xyzt_units``: their name, and mm. Unknown units are read as mm.
_UNITS = {1: ("metres", 1000.0), 3: ("microns", 0.001)}


@dataclass(frozen=True)
class Doubt:
    """Why the position that a header gives may be wrong."""

    kind: DoubtKind
    error: GeometryError  #: it names the file, and is raised or becomes a warning


def with_choice(error: CaseError) -> CaseError:
    """Return an error about where voxels lie, with advice for functions that have ``on_geometry``."""
    return type(error)(error.file, error.expected, error.found, f"{error.hint} {_CHOICE}")


def unit_of(header: nib.Nifti1Header) -> tuple[str, float]:
    """Return the header's unit of length, and how many mm it is."""
    return _UNITS.get(int(header["xyzt_units"]) % 8, ("mm", 1.0))


def doubts_about(
    header: nib.Nifti1Header, stored: nib.Nifti1Header, affine: NDArray[np.float64], name: str
) -> tuple[Doubt, ...]:
    """List what is doubtful about the position that a header gives.

    Args:
        header: as nibabel has corrected it.
        stored: as it is in the file.
        affine: (4, 4), finite, in mm: the one that counts.
        name: of the file, for messages.
    """
    return tuple(
        Doubt(kind, GeometryError(name, expected, found, hint))
        for kind, expected, found, hint in _doubts(header, stored, affine)
    )


def _doubts(
    header: nib.Nifti1Header, stored: nib.Nifti1Header, affine: NDArray[np.float64]
) -> Iterator[tuple[DoubtKind, str, str, str]]:
    """Yield kind, what was expected, what was found, and a hint."""
    with np.errstate(all="ignore"):  # of NaN and infinity: they are reported as differences
        differing = "; ".join(_contradictions(header, stored, affine))
    if differing:
        hint = f"Affine and spacing come from {_source(header)}, as in nibabel."
        yield "header", "a header whose sform, qform and pixdim agree", differing, hint
    unit, in_mm = unit_of(header)
    if in_mm != 1.0:
        yield "units", *unit_doubt(unit, affine, "xyzt_units")
    if what := degenerate_axes(affine):
        expected = "an affine with a length and a direction for each axis"
        yield "degenerate", expected, f"{affine[:3].tolist()} ({what})", "Correct the header."
    if _source(header) == "pixdim":
        hint = "The directions of the axes are a guess, about which nibabel and SimpleITK disagree."
        yield "unplaced", "a header with an sform or a qform", "neither: both codes are 0", hint


def unit_doubt(unit: str, affine: NDArray[np.float64], field: str) -> tuple[str, str, str]:
    """Return what to say of a unit other than mm that a field of a header has: expected, found, and a hint.

    Args:
        unit: its name.
        affine: (4, 4), converted to mm.
        field: its name.
    """
    sizes = _text(voxel_sizes(affine))
    hint = f"They are converted: the spacing is {sizes} mm. If that is wrong, correct {field}."
    return "lengths in mm", f"lengths in {unit}", hint


def _source(header: nib.Nifti1Header) -> str:
    """Return what nibabel takes the affine from."""
    return next((form for form in ("sform", "qform") if header[f"{form}_code"] != 0), "pixdim")


def _contradictions(
    header: nib.Nifti1Header, stored: nib.Nifti1Header, affine: NDArray[np.float64]
) -> Iterator[str]:
    source = _source(header)
    for code in ("sform_code", "qform_code"):
        if stored[code] != header[code]:  # nibabel has set it to 0
            yield f"{code} {int(stored[code])}, which does not exist"
    sizes, pixdim = voxel_sizes(affine), _in_mm(header, stored["pixdim"][1:4])
    if not _are_close(sizes, pixdim):
        of_affine = "the affine" if source == "pixdim" else f"the {source}"
        yield f"spacing {_text(sizes)} mm by {of_affine}, {_text(pixdim)} mm by pixdim"
    if source == "sform" and header["qform_code"] != 0 and not degenerate_axes(affine):
        yield from _qform_differences(header, affine)


def _qform_differences(header: nib.Nifti1Header, affine: NDArray[np.float64]) -> Iterator[str]:
    """Yield how the qform differs from the sform in origin and directions; pixdim is compared elsewhere."""
    try:
        directions = _directions(header)
    except (HeaderDataError, ValueError) as error:
        yield f"a qform that cannot be read ({error})"
        return
    origin = _in_mm(header, [header[f"qoffset_{axis}"] for axis in "xyz"])
    if not _are_close(affine[:3, 3], origin):
        yield f"origin {_text(affine[:3, 3])} by the sform, {_text(origin)} by the qform"
    # As in nearly every file: the way through the nearest qform takes longer.
    if _are_close(affine[:3, :3], directions * np.linalg.norm(affine[:3, :3], axis=0), 1e-6):
        return
    # A qform cannot express shears, such as those of a tilted gantry: it is compared with the nearest one.
    nearest = header.copy()
    nearest.set_qform(affine)
    expected = _directions(nearest)
    if not _are_close(directions, expected, _DIRECTION_TOLERANCE):
        codes = ("".join(nib.orientations.aff2axcodes(_affine_of(form))) for form in (expected, directions))
        angle = np.degrees(np.arccos(np.clip((directions * expected).sum(axis=0), -1, 1))).max()
        yield "axes {} by the sform, {} by the qform, up to {:.1f} degrees apart".format(*codes, angle)


def _directions(header: nib.Nifti1Header) -> NDArray[np.float64]:
    """Return the directions of the axes by the qform, as columns.

    Raises:
        HeaderDataError, ValueError: there is no such rotation.
    """
    quaternion = np.asarray(header.get_qform_quaternion(), np.float64)
    if not np.isfinite(quaternion).all():
        raise ValueError("its quaternion is not finite")
    rotation: NDArray[np.float64] = quat2mat(quaternion)
    rotation[:, 2] *= header["pixdim"][0]  # 1, or -1 if the axes are left-handed
    return rotation


def _affine_of(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = directions
    return affine


def _in_mm(header: nib.Nifti1Header, lengths: Any) -> NDArray[np.float64]:
    return np.asarray(lengths, np.float64) * unit_of(header)[1]


def _are_close(
    one: NDArray[np.float64], other: NDArray[np.float64], tolerance: float = GEOMETRY_TOLERANCE
) -> bool:
    """Return whether finite numbers are close to others; `numpy.allclose` takes ten times as long."""
    return bool((np.abs(one - other) <= tolerance).all())


def _text(values: NDArray[np.float64]) -> str:
    return str(values.round(4).tolist())
