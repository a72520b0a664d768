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

Field = npt.NDArray[np.float32]
Box = tuple[slice, slice, slice]

GRID = (240, 240, 155)  # voxels of every BraTS volume
WORK = (slice(36, 204), slice(28, 232), slice(0, 155))  # where a brain may lie in it
CENTRE = (119.0, 131.0, 69.0)  # of the brain's box in BraTS volumes, in voxels
SIZE = 0.92  # of BraTS brains (1250 to 1730 ml) to the template's 1887 ml, along an axis


@dataclass(frozen=True, kw_only=True)
class Template:
    """The template cut to its brain. All maps share one shape; the fractions add up to 255 inside the brain."""

    brain: npt.NDArray[np.uint8]
    """255 inside the brain."""
    gm: npt.NDArray[np.uint8]
    wm: npt.NDArray[np.uint8]
    detail: Field
    """What of the T1 image the tissue fractions do not explain, relative to white matter."""
    ventricles: Field
    """0 to 1: cerebrospinal fluid far from the surface."""
    white_sites: npt.NDArray[np.intp]
    """Voxels (n, 3) deep in the white matter of the cerebrum: where tumours start."""


@functools.cache
def load_template() -> Template:
    t1, gm, wm = (_read_packaged(name) for name in ("t1", "gm", "wm"))
    csf = np.where(t1 > 0, 255 - gm - wm.astype(np.float32), 0).clip(0) / 255
    gm_part, wm_part = gm / np.float32(255), wm / np.float32(255)
    detail = np.where(t1 > 0, t1 - (72 * csf + 166 * gm_part + 221 * wm_part), 0) / 221
    depth = np.kron(ndimage.distance_transform_edt(t1[::2, ::2, ::2] > 0), np.ones((2, 2, 2)))
    depth = 2 * depth[tuple(slice(n) for n in t1.shape)]
    ventricles = csf * ((depth - 22) / 8).clip(0, 1)
    deep = ndimage.gaussian_filter(wm_part, 3) > 0.6
    deep[:, :, :50] = False
    return Template(
        brain=ndimage.gaussian_filter(np.where(t1 > 0, np.uint8(255), np.uint8(0)), 1.5),
        gm=gm,
        wm=wm,
        detail=detail.astype(np.float32),
        ventricles=ventricles.astype(np.float32),
        white_sites=np.argwhere(deep),
    )


def _read_packaged(name: str) -> npt.NDArray[np.uint8]:
    """One map of nilearn's package, cut to the brain. Importing nilearn.datasets would load scikit-learn."""
    spec = importlib.util.find_spec("nilearn")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = os.path.join(spec.submodule_search_locations[0], "datasets", "data")
    image = nib.load(os.path.join(folder, f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"))
    ras: npt.NDArray[np.uint8] = np.asarray(image.dataobj)
    return np.ascontiguousarray(ras[24:173, 25:210, :158][::-1, ::-1])


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], spacing: float) -> Field:
    """A random field of mean about 0 and standard deviation 1 that varies over `spacing` voxels."""
    counts = [_spline(n, spacing).shape[1] for n in shape]
    field = upsample(rng.standard_normal(counts, dtype=np.float32), shape, spacing)
    return field / field.std()


def upsample(control: Field, shape: tuple[int, ...], spacing: float) -> Field:
    """Cubic B-spline with control points every `spacing` voxels, from one before the first voxel on."""
    along_x, along_y, along_z = (_spline(n, spacing) for n in shape)
    field = along_y @ (control @ along_z.T)
    return (along_x @ field.reshape(len(control), -1)).reshape(shape)


@functools.cache
def _spline(n: int, spacing: float) -> Field:
    """Weights (n, control points) of the control points in each of n voxels."""
    control = np.arange(int((n - 1) / spacing) + 4) - 1
    t = np.abs(np.arange(n)[:, None] / spacing - control)
    weights = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.where(t < 2, (2 - t) ** 3 / 6, 0))
    return weights.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Brain:
    """A healthy brain in the box it fills; fields have the box's shape."""

    box: Box
    inside: npt.NDArray[np.bool_]
    csf: Field
    gm: Field
    wm: Field
    detail: Field
    ventricles: Field


@dataclass(frozen=True, kw_only=True)
class Pose:
    """An affine map from phantom voxels to template voxels: template = matrix @ (voxel - CENTRE) + centre."""

    matrix: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]

    def to_phantom(self, template_voxels: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """Phantom voxels (n, 3) of template voxels (n, 3)."""
        return (template_voxels - self.centre) @ np.linalg.inv(self.matrix).T + np.array(CENTRE)


def draw_pose(rng: np.random.Generator) -> Pose:
    a, b, c = rng.normal(0, np.deg2rad(3), 3)
    rotation = np.array([[1, -c, b], [c, 1, -a], [-b, a, 1]])  # small angles
    size = SIZE * rng.normal(1, 0.025) * rng.normal(1, 0.02, 3)
    centre = np.array(load_template().brain.shape) / 2 + rng.normal(0, 1.5, 3)
    return Pose(matrix=rotation / size, centre=centre)


def deform(rng: np.random.Generator, pose: Pose, pushed: tuple[npt.NDArray[np.float64], float]) -> Brain:
    """The template in this pose, with smooth random displacements and tissue pushed away from a tumour.

    pushed: centre (phantom voxels) and radius in mm of what pushes
    """
    template = load_template()
    where = _coordinates(rng, pose, pushed)
    brain = _sample(template.brain, where)
    inside = brain > 145 + 25 * smooth_field(rng, brain.shape, 8).clip(-2, 2)
    box = ndimage.find_objects(inside.view(np.uint8))[0]
    where = where[(slice(None), *box)]
    inside = inside[box]
    gm, wm, detail, ventricles = (
        _sample(m, where) for m in (template.gm, template.wm, template.detail, template.ventricles)
    )
    csf = (255 - gm - wm).clip(0)
    sulci = rng.uniform(0.7, 1.8)
    parts = [p**2 for p in (sulci * csf, gm, wm)]
    total = parts[0] + parts[1] + parts[2]
    csf, gm, wm = (p / total for p in parts)
    offset = tuple(
        slice(w.start + b.start, w.start + b.stop) for w, b in zip(WORK, box, strict=True)
    )
    return Brain(box=offset, inside=inside, csf=csf, gm=gm, wm=wm, detail=detail, ventricles=ventricles)


def _sample(volume: npt.NDArray[np.generic], where: Field) -> Field:
    sampled: Field = ndimage.map_coordinates(volume, where, output=np.float32, order=1)
    return sampled


def _coordinates(rng, pose, pushed) -> Field:
    """Template voxel (3, X, Y, Z) that each voxel of WORK shows."""
    axes = [np.arange(w.start, w.stop, dtype=np.float32) for w in WORK]
    shape = tuple(len(a) for a in axes)
    centre, radius = pushed
    from_centre = np.meshgrid(*(a - np.float32(c) for a, c in zip(axes, centre, strict=True)), indexing="ij", sparse=True)
    squared = sum(d**2 for d in from_centre)
    reach = max(1.6 * radius, 1)
    keep = 1 - np.float32(0.35) * np.exp(-squared / np.float32(2 * reach**2))
    start = pose.matrix @ (centre - np.array(CENTRE)) + pose.centre
    where = np.empty((3, *shape), np.float32)
    for axis, row in enumerate(pose.matrix.astype(np.float32)):
        where[axis] = sum(m * d for m, d in zip(row, from_centre, strict=True)) * keep + np.float32(start[axis])
        where[axis] += 4.0 * smooth_field(rng, shape, 45) + 1.1 * smooth_field(rng, shape, 14)
    return where
