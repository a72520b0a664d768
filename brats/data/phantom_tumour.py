"""A phantom's tumour: necrotic core, enhancing rim of varying thickness, oedema that follows white matter.

Axes: X Y Z voxels of 1 mm; all arrays share the box of the brain they grow in.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brats.data.phantom_anatomy import Brain, Field, smooth_field, upsample
from brats.labels import ED, ET, NCR, Labels

Kind = Literal["usual", "no ET", "multifocal", "tiny"]

COARSE = 2  # oedema spreads on every second voxel along each axis: eight times quicker
SPREADING_STEPS = 90
GM_DIFFUSIVITY = 0.12  # to white matter's 1 (gliomas: 0.1 to 0.2, Swanson et al. 2000)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a tumour shall be like, drawn before the brain it grows in."""

    volume_ml: float
    """Volume of the whole tumour."""
    core_fraction: float
    """Part of the volume that is core (NCR and ET)."""
    rim_mm: float
    """Usual thickness of the enhancing rim; 0 for none."""
    foci: npt.NDArray[np.float64]
    """Voxels (n, 3) the cores grow around, the main one first."""
    
    @property
    def radius_mm(self) -> float:
        """Radius of the core, were it a ball."""
        return float(np.cbrt(1000 * self.volume_ml * self.core_fraction * 3 / (4 * math.pi)))


@dataclass(frozen=True, kw_only=True)
class Tumour:
    labels: Labels
    strength: Field
    """How strongly oedema shows, 0 to 1: falling towards its edge."""


def plan_tumour(rng: np.random.Generator, kind: Kind, sites: npt.NDArray[np.float64]) -> Plan:
    """Draw size, composition and foci from sites (n, 3) in voxels."""
    foci = sites[rng.integers(len(sites), size=1)]
    if kind == "tiny":
        return Plan(volume_ml=rng.uniform(0.45, 0.9), core_fraction=0.4, rim_mm=1.5, foci=foci)
    volume_ml = math.exp(rng.uniform(math.log(20), math.log(140)))
    if kind == "no ET":
        return Plan(volume_ml=volume_ml, core_fraction=rng.uniform(0.4, 0.65), rim_mm=0, foci=foci)
    if kind == "multifocal":
        distance = np.linalg.norm(sites - foci[0], axis=1)
        near = sites[(distance > 30) & (distance < 65)]
        foci = np.concatenate([foci, near[rng.integers(len(near), size=rng.integers(1, 3))]])
    return Plan(volume_ml=volume_ml, core_fraction=rng.uniform(0.15, 0.45), rim_mm=rng.uniform(2.5, 5.5), foci=foci)


def grow_tumour(rng: np.random.Generator, plan: Plan, brain: Brain) -> Tumour:
    shape = brain.inside.shape
    n_voxels = 1000 * plan.volume_ml
    lobes, bumps = (smooth_field(rng, shape, max(3.0, part * plan.radius_mm)) for part in (0.7, 0.3))
    offset = _distance_from_foci(rng, plan, brain) * (1 + 0.16 * lobes + 0.07 * bumps)
    core = _largest(-offset, brain.inside & (brain.ventricles < 0.3), n_voxels * plan.core_fraction)
    density = _spread(core, brain)
    wavering = smooth_field(rng, shape, 6)
    score = np.log(density.clip(1e-30)) + 0.3 * wavering
    score[core] = np.inf
    whole = _largest(score, core | (brain.inside & (brain.csf < 0.5)), n_voxels)
    whole = core | (ndimage.gaussian_filter(whole.astype(np.float32), 0.7) > 0.5) & whole
    edge = score[whole & ~core].min(initial=0)
    strength = np.where(whole, 1 - np.exp(-(score - edge) / 1.5), 0).astype(np.float32)
    labels = np.where(whole, np.uint8(ED), np.uint8(0))
    labels[core] = NCR
    if plan.rim_mm:
        labels[_rim(rng, core, plan.rim_mm)] = ET
    return Tumour(labels=labels, strength=strength)


def _distance_from_foci(rng, plan, brain) -> Field:
    """Distance from the nearest focus relative to the size of its core, squeezed along random axes."""
    axes = [np.arange(s.start, s.stop, dtype=np.float32) for s in brain.box]
    nearest = np.full(brain.inside.shape, np.inf, np.float32)
    for i, focus in enumerate(plan.foci):
        x, y, z = np.meshgrid(*(a - np.float32(f) for a, f in zip(axes, focus, strict=True)), indexing="ij", sparse=True)
        squeeze = np.exp(rng.normal(0, 0.15, 3)).astype(np.float32)
        size = np.float32(1 if i == 0 else rng.uniform(0.35, 0.7))
        np.minimum(nearest, np.sqrt((x * squeeze[0])**2 + (y * squeeze[1])**2 + (z * squeeze[2])**2) / size, out=nearest)
    return nearest


def _largest(score: Field, allowed: npt.NDArray[np.bool_], n: float) -> npt.NDArray[np.bool_]:
    """The n allowed voxels with the largest score."""
    values = score[allowed]
    threshold = np.partition(values, -int(n))[-int(n)]
    return allowed & (score >= threshold)


def _spread(core: npt.NDArray[np.bool_], brain: Brain) -> Field:
    """Density of what spreads from the core: growth and diffusion, quick along white matter, not through CSF."""
    every = (slice(None, None, COARSE),) * 3
    conductivity = np.where(brain.inside, brain.wm + GM_DIFFUSIVITY * brain.gm, 0)[every].astype(np.float32)
    density = ndimage.uniform_filter(core.astype(np.float32), COARSE + 1)[every]
    lower, upper = slice(None, -1), slice(1, None)
    faces = []
    for axis in range(3):
        a = tuple(lower if i == axis else slice(None) for i in range(3))
        b = tuple(upper if i == axis else slice(None) for i in range(3))
        faces.append((a, b, np.float32(0.16) * np.minimum(conductivity[a], conductivity[b])))
    for _ in range(SPREADING_STEPS):
        change = np.float32(0.05) * density * (1 - density)
        for a, b, conductance in faces:
            flux = conductance * (density[b] - density[a])
            change[a] += flux
            change[b] -= flux
        density += change
    return upsample(np.pad(density, (1, 2), mode="edge"), core.shape, COARSE)


def _rim(rng, core, rim_mm):
    """Voxels of the core nearer to its surface than a thickness that varies from place to place."""
    box = ndimage.find_objects(core.view(np.uint8))[0]
    inner = np.pad(core[box], 1)
    depth = ndimage.distance_transform_edt(inner)[1:-1, 1:-1, 1:-1]
    thickness = rim_mm * np.exp(0.45 * smooth_field(rng, depth.shape, max(3.0, 1.5 * rim_mm)))
    rim = np.zeros_like(core)
    rim[box] = core[box] & (depth <= thickness)
    return rim
