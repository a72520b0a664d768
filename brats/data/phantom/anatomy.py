"""A phantom's healthy brain: the MNI152 template that nilearn ships, deformed at random.

Axes: X Y Z voxels of 1 mm in LPS order, as BraTS stores them (X to the left, Y to the back, Z up).
"""

import functools
import importlib.util
import os
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brats.data.layouts import BRATS_SHAPE

Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Box = tuple[slice, slice, slice]
Points = npt.NDArray[np.float64]
"""Voxel positions (n, 3) or one of them (3,)."""

WORK_BOX = (slice(36, 204), slice(28, 232), slice(0, BRATS_SHAPE[2]))  # where in the BraTS grid a brain may lie
CENTRE = (119.0, 131.0, 69.0)  # middle of the brain's box in the BraTS grid, mean of real cases
SIZE = 0.92  # of BraTS brains (1250 to 1730 ml) to the template's (1887 ml), along an axis
TEMPLATE_T1 = {"csf": 72, "gm": 166, "wm": 221}  # the template's median T1 value in voxels of one tissue

# Smooth displacements as (knot spacing, standard deviation) in mm: the shape of the head, and of each gyrus
DISPLACEMENTS_MM = ((45, 3.3), (14, 1.1))
PUSH = 0.35  # how far a tumour pushes the tissue beside it, of that tissue's distance from its centre


@dataclass(frozen=True, kw_only=True)
class Template:
    """The MNI152 template (ICBM 2009a, symmetric) cut to its brain; all maps share one shape."""

    brain: npt.NDArray[np.uint8]
    """255 inside the brain, 0 outside, blurred at the surface."""
    gm: npt.NDArray[np.uint8]
    """Grey matter, in 255ths of the voxel."""
    wm: npt.NDArray[np.uint8]
    """White matter, in 255ths of the voxel."""
    detail: Field
    """What tissue fractions do not explain in the T1 image, relative to white matter."""
    ventricles: Field
    """0 to 1: cerebrospinal fluid far from the surface."""
    white_sites: npt.NDArray[np.intp]
    """Voxels (n, 3) deep in the white matter of the cerebrum, where tumours start."""


@dataclass(frozen=True, kw_only=True)
class Brain:
    """A healthy brain in the box of the BraTS grid that it fills; all fields have the box's shape."""

    box: Box
    inside: Mask
    ventricles: Field
    contents: dict[str, Field]
    """Fractions csf, gm and wm, which add up to 1 everywhere (outside all is csf), the template's detail, and
    what makes healthy brain look like tumour: gliosis around the ventricles, choroid plexus, vessels, meninges."""


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where the template lies: template voxel = matrix @ (voxel - CENTRE) + centre."""

    matrix: Points
    centre: Points

    def to_template(self, voxels: Points) -> Points:
        """Positions in the template of positions (..., 3) in the BraTS grid."""
        return (voxels - CENTRE) @ self.matrix.T + self.centre

    def from_template(self, template_voxels: npt.NDArray[np.intp]) -> Points:
        """Positions in the BraTS grid of voxels (..., 3) of the template."""
        voxels: Points = (template_voxels - self.centre) @ np.linalg.inv(self.matrix).T + CENTRE
        return voxels


@functools.cache
def load_template() -> Template:
    """Read the template, once per process."""
    t1, gm, wm = (_read_packaged(name) for name in ("t1", "gm", "wm"))
    inside = t1 > 0
    fractions = {"gm": gm / np.float32(255), "wm": wm / np.float32(255)}
    fractions["csf"] = np.where(inside, 1 - fractions["gm"] - fractions["wm"], 0).clip(0)
    explained = sum(TEMPLATE_T1[tissue] * fraction for tissue, fraction in fractions.items())
    deep_white = ndimage.gaussian_filter(fractions["wm"], 3) > 0.6
    deep_white[:, :, :50] = False  # brain stem and cerebellum
    return Template(
        brain=ndimage.gaussian_filter(np.where(inside, np.uint8(255), np.uint8(0)), 1.5),
        gm=gm,
        wm=wm,
        detail=np.where(inside, (t1 - explained) / TEMPLATE_T1["wm"], 0).astype(np.float32),
        ventricles=fractions["csf"] * ((_depth_mm(inside) - 22) / 8).clip(0, 1),
        white_sites=np.argwhere(deep_white),
    )


def _read_packaged(name: str) -> npt.NDArray[np.uint8]:
    """One map from nilearn's package, found without importing nilearn.datasets, which loads scikit-learn."""
    spec = importlib.util.find_spec("nilearn")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = os.path.join(spec.submodule_search_locations[0], "datasets", "data")
    path = os.path.join(folder, f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz")
    ras = np.asarray(nib.Nifti1Image.from_filename(path).dataobj, np.uint8)
    return np.ascontiguousarray(ras[24:173, 25:210, :158][::-1, ::-1])  # LPS, the brain and a margin


def _depth_mm(inside: Mask) -> Field:
    """Distance of each voxel from the brain's surface, on every second voxel and therefore to 2 mm or so."""
    coarse = 2 * ndimage.distance_transform_edt(inside[::2, ::2, ::2]).astype(np.float32)
    for axis, n in enumerate(inside.shape):
        coarse = coarse.repeat(2, axis).take(range(n), axis)
    return coarse


def draw_pose(rng: np.random.Generator) -> Pose:
    """A head of random size, slightly turned and off centre."""
    a, b, c = rng.normal(0, np.deg2rad(3), 3)
    rotation = np.array([[1, -c, b], [c, 1, -a], [-b, a, 1]])  # of small angles
    size = SIZE * rng.normal(1, 0.025) * rng.normal(1, 0.02, 3)
    return Pose(matrix=rotation / size, centre=np.array(load_template().brain.shape) / 2 + rng.normal(0, 1.5, 3))


def make_brain(rng: np.random.Generator, pose: Pose, push_centre: Points, push_radius_mm: float) -> Brain:
    """The template in this pose under random smooth displacements, tissue pushed away from a tumour's core.

    push_centre is in voxels of the BraTS grid.
    """
    template = load_template()
    where = _template_voxels(rng, pose, push_centre, push_radius_mm)
    surface = _sample(template.brain, where)
    inside = surface > 180 + 25 * smooth_field(rng, surface.shape, 8).clip(-2, 2)  # skull stripping is uneven
    found = ndimage.find_objects(inside.view(np.uint8))[0]
    where = where[(slice(None), *found)]
    gm, wm, detail, ventricles = (
        _sample(field, where) for field in (template.gm, template.wm, template.detail, template.ventricles)
    )
    x, y, z = (
        slice(work.start + inner.start, work.start + inner.stop)
        for work, inner in zip(WORK_BOX, found, strict=True)
    )
    fractions = _sharpened(gm / np.float32(255), wm / np.float32(255), sulci_width=rng.uniform(0.7, 1.8))
    lookalikes = _lookalikes(rng, fractions, ventricles, inside[found])
    return Brain(
        box=(x, y, z),
        inside=inside[found],
        ventricles=ventricles,
        contents={**fractions, "detail": detail, **lookalikes},
    )


def _template_voxels(rng: np.random.Generator, pose: Pose, push_centre: Points, push_radius_mm: float) -> Field:
    """The position (3, X, Y, Z) in the template that each voxel of WORK_BOX shows."""
    x, y, z = offsets_from(push_centre, WORK_BOX)
    kept = 1 - PUSH * np.exp((x**2 + y**2 + z**2) / (-2 * (1.6 * push_radius_mm) ** 2))
    where = np.empty((3, *kept.shape), np.float32)
    for axis, centre in enumerate(pose.to_template(push_centre).tolist()):
        along_x, along_y, along_z = pose.matrix[axis].tolist()
        where[axis] = (along_x * x + along_y * y + along_z * z) * kept + centre
        for spacing, deviation in DISPLACEMENTS_MM:
            where[axis] += deviation * smooth_field(rng, kept.shape, spacing)
    return where


def offsets_from(centre: Points, box: Box) -> tuple[Field, Field, Field]:
    """Offset in voxels from a centre along X, Y and Z, shapes (X, 1, 1), (Y, 1) and (Z,)."""
    x, y, z = (
        np.arange(side.start, side.stop, dtype=np.float32) - np.float32(middle)
        for side, middle in zip(box, centre, strict=True)
    )
    return x[:, None, None], y[:, None], z


def _sample(volume: npt.NDArray[np.uint8] | Field, where: Field) -> Field:
    return ndimage.map_coordinates(volume, where, output=np.float32, order=1)


def _sharpened(gm: Field, wm: Field, sulci_width: float) -> dict[str, Field]:
    """Fractions as sharp as in one person; the template's are the mean of 152."""
    csf = (1 - gm - wm).clip(0) * np.float32(sulci_width)
    total = csf**2 + gm**2 + wm**2
    return {"csf": csf**2 / total, "gm": gm**2 / total, "wm": wm**2 / total}


def _lookalikes(
    rng: np.random.Generator, fractions: dict[str, Field], ventricles: Field, inside: Mask
) -> dict[str, Field]:
    """Healthy structures, about 0 to 1, that are as bright as tumour in one modality or another."""
    patches, plexus, a, b, thick = (smooth_field(rng, inside.shape, mm) for mm in (12, 5, 9, 9, 22))
    beside_ventricle = 1 - np.exp(-6 * ndimage.gaussian_filter(ventricles, 3))
    surface = ndimage.gaussian_filter(inside.astype(np.float32), 2)
    return {
        "gliosis": fractions["wm"] * beside_ventricle * (0.6 * (1 + patches)).clip(0, 1.6),
        "plexus": ventricles * (plexus - 0.5).clip(0, 1),
        # two fields vanish together along curves
        "vessels": np.exp(-(a**2 + b**2) / 0.012) * (0.15 + fractions["csf"]),
        "meninges": ((0.7 - surface) / 0.25).clip(0, 1) * (thick - 0.3).clip(0, 1.5),
    }


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], spacing: float) -> Field:
    """A random field of mean about 0 and standard deviation 1 that varies over `spacing` voxels."""
    control = rng.standard_normal([_spline(n, spacing).shape[1] for n in shape], dtype=np.float32)
    field = upsample(control, shape, spacing)
    field /= field.std()
    return field


def upsample(control: Field, shape: tuple[int, ...], spacing: float) -> Field:
    """Cubic B-spline with control points every `spacing` voxels, the first of them before the first voxel."""
    along_x, along_y, along_z = (_spline(n, spacing) for n in shape)
    planes = along_y @ (control @ along_z.T)
    field: Field = (along_x @ planes.reshape(len(control), -1)).reshape(shape)
    return field


@functools.cache
def _spline(n: int, spacing: float) -> Field:
    """Weight (voxels, control points) of each control point in each of n voxels."""
    control = np.arange(int((n - 1) / spacing) + 4) - 1
    distance = np.abs(np.arange(n)[:, None] / spacing - control)
    inner, outer = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6
    return np.where(distance < 1, inner, np.where(distance < 2, outer, 0)).astype(np.float32)
