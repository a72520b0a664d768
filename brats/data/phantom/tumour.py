"""A phantom's tumour: necrotic core, enhancing rim of varying thickness, oedema that follows white matter.

Axes: X Y Z voxels of 1 mm; all arrays have the shape of the brain's box.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from brats.data.phantom.anatomy import Brain, Field, Mask, Points, offsets_from, smooth_field, upsample
from brats.labels import ED, ET, NCR, Labels

Kind = Literal["usual", "no ET", "multifocal", "tiny"]

COARSE = 2  # oedema spreads on every second voxel of each axis, eight times quicker than on all
N_STEPS = 90
GROWTH = 0.05  # per step; with DIFFUSION a front that moves 0.4 mm per step in white matter
DIFFUSION = 0.16  # per step in white matter; explicit steps are stable up to 1/6
GM_DIFFUSION = 0.12  # relative to white matter; gliomas 0.1 to 0.2 (Swanson, Alvord and Murray 2000)


@dataclass(frozen=True, kw_only=True)
class Design:
    """What a tumour shall be like, drawn before the brain that it pushes aside."""

    volume_ml: float
    """Volume of the whole tumour."""
    core_fraction: float
    """Part of the volume that is core, NCR and ET."""
    rim_mm: float
    """Usual thickness of the enhancing rim; 0 for no ET."""
    foci: Points
    """Voxels (n, 3) around which its cores lie, the largest first."""

    @property
    def core_radius_mm(self) -> float:
        """Radius of a ball with the volume of all cores."""
        return _radius_mm(self.volume_ml * self.core_fraction)


@dataclass(frozen=True, kw_only=True)
class Tumour:
    """A tumour in the box of its brain."""

    labels: Labels
    strength: Field
    """How strongly oedema shows: from 0 at its edge towards 1 at the core."""


def _radius_mm(volume_ml: float) -> float:
    return math.cbrt(1000 * volume_ml * 3 / (4 * math.pi))


def design_tumour(rng: np.random.Generator, kind: Kind, sites: Points) -> Design:
    """Draw size, composition and foci; the foci are taken from sites (n, 3)."""
    foci = sites[[rng.integers(len(sites))]]
    if kind == "tiny":
        return Design(volume_ml=rng.uniform(0.45, 0.9), core_fraction=0.4, rim_mm=1.5, foci=foci)
    volume_ml = math.exp(rng.uniform(math.log(20), math.log(140)))
    if kind == "no ET":
        return Design(volume_ml=volume_ml, core_fraction=rng.uniform(0.4, 0.65), rim_mm=0, foci=foci)
    core_fraction = rng.uniform(0.15, 0.45)
    if kind == "multifocal":
        nearest_mm = 2 * _radius_mm(volume_ml * core_fraction) + 8  # the cores stay apart
        distance_mm = np.linalg.norm(sites - foci[0], axis=1)
        others = sites[(distance_mm > nearest_mm) & (distance_mm < nearest_mm + 25)]
        foci = np.concatenate([foci, others[rng.integers(len(others), size=rng.integers(1, 3))]])
    return Design(volume_ml=volume_ml, core_fraction=core_fraction, rim_mm=rng.uniform(2.5, 5.5), foci=foci)


def grow_tumour(rng: np.random.Generator, design: Design, brain: Brain) -> Tumour:
    """Grow a tumour of the designed volume around its foci."""
    n_voxels = int(1000 * design.volume_ml)
    core = _grow_core(rng, design, brain, int(n_voxels * design.core_fraction))
    reached = np.log(_spread(core, brain).clip(1e-30))
    reached += 0.3 * smooth_field(rng, core.shape, 6)
    reached[core] = np.inf
    whole = _highest(reached, core | (brain.inside & (brain.contents["csf"] < 0.5)), n_voxels)
    whole = _connected(whole, core)
    beyond_edge = np.where(whole, reached - reached[whole].min(), 0)
    labels = np.where(whole, np.uint8(ED), np.uint8(0))
    labels[core] = NCR
    if design.rim_mm:
        labels[_rim(rng, core, design.rim_mm)] = ET
    return Tumour(labels=labels, strength=1 - np.exp(-beyond_edge / 1.5))


def _grow_core(rng: np.random.Generator, design: Design, brain: Brain, n_voxels: int) -> Mask:
    """Lobed and bumpy balls, squeezed along the axes, around the foci; the ventricles stay free."""
    nearest = np.full(brain.inside.shape, np.inf, np.float32)
    for number, focus in enumerate(design.foci):
        size = rng.uniform(0.4, 0.7) if number else 1.0
        squeeze = np.exp(rng.normal(0, 0.15, 3)) / size
        x, y, z = (float(s) * offset for s, offset in zip(squeeze, offsets_from(focus, brain.box), strict=True))
        np.minimum(nearest, np.sqrt(x**2 + y**2 + z**2), out=nearest)
    lobes, bumps = (smooth_field(rng, nearest.shape, max(3.0, part * design.core_radius_mm)) for part in (0.7, 0.3))
    nearest *= 1 + 0.16 * lobes + 0.07 * bumps
    return _highest(-nearest, brain.inside & (brain.ventricles < 0.3), n_voxels)


def _highest(score: Field, allowed: Mask, n_voxels: int) -> Mask:
    """The allowed voxels with the highest scores."""
    lowest = np.partition(score[allowed], -n_voxels)[-n_voxels]
    highest: Mask = allowed & (score >= lowest)
    return highest


def _connected(whole: Mask, core: Mask) -> Mask:
    """The parts of a tumour that hang together with a core."""
    part, _ = ndimage.label(whole)
    kept: Mask = np.isin(part, np.unique(part[core]))
    return kept


def _spread(core: Mask, brain: Brain) -> Field:
    """Density, 0 to 1, of what grows and diffuses out of the core: along white matter, not through CSF.

    The Fisher-Kolmogorov equation by explicit steps, the usual model of how gliomas infiltrate.
    """
    every = (slice(None, None, COARSE),) * 3
    diffusion = DIFFUSION * (brain.contents["wm"] + GM_DIFFUSION * brain.contents["gm"])
    diffusion = np.where(brain.inside, diffusion, 0)[every]
    density: Field = ndimage.uniform_filter(core.astype(np.float32), COARSE + 1)[every].clip(0)
    neighbours = []
    for axis in range(3):
        one = (slice(None),) * axis + (slice(None, -1),)
        other = (slice(None),) * axis + (slice(1, None),)
        neighbours.append((one, other, np.minimum(diffusion[one], diffusion[other])))
    for _ in range(N_STEPS):
        change = GROWTH * density * (1 - density)
        for one, other, diffusion_between in neighbours:
            flux = diffusion_between * (density[other] - density[one])
            change[one] += flux
            change[other] -= flux
        density += change
    return upsample(np.pad(density, (1, 2), mode="edge"), core.shape, COARSE)


def _rim(rng: np.random.Generator, core: Mask, rim_mm: float) -> Mask:
    """The core's voxels within some `rim_mm` of its surface, here more and there less."""
    box = ndimage.find_objects(core.view(np.uint8))[0]
    depth_mm = ndimage.distance_transform_edt(np.pad(core[box], 1))[1:-1, 1:-1, 1:-1]
    thickness_mm = rim_mm * np.exp(0.45 * smooth_field(rng, depth_mm.shape, max(3.0, 1.5 * rim_mm)))
    rim = np.zeros_like(core)
    rim[box] = core[box] & (depth_mm <= thickness_mm)
    return rim
