"""An irregular tumour grown in a phantom's brain: necrotic core, enhancing rim, oedema that follows white matter.

Axes: X Y Z voxels of 1 mm, along any axes as long as all arrays share them.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brats.labels import ED, ET, NCR, Labels

Field = npt.NDArray[np.float32]

Kind = Literal["usual", "no ET", "multifocal", "tiny"]

COARSE = 2  # mm; oedema spreads on a grid this coarse, eight times quicker than on the voxels
N_SPREADING_STEPS = 90
DIFFUSIVITY_GM = 0.12  # to white matter's 1; Swanson et al. 2000 take 0.1 to 0.2 for glioma cells


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a tumour shall be like, before the brain it grows in is known."""

    volume_ml: float
    """Volume of the whole tumour."""
    core_fraction: float
    """Part of it that is core (NCR and ET)."""
    rim_mm: float
    """Usual thickness of the enhancing rim; 0 for none."""
    n_foci: int

    @property
    def core_radius_mm(self) -> float:
        """Radius of the whole core drawn together into one ball."""
        return float(np.cbrt(1000 * self.volume_ml * self.core_fraction * 3 / (4 * math.pi)))


def plan_tumour(rng: np.random.Generator, kind: Kind) -> Plan:
    """Draw size and composition; volumes as in BraTS, where most whole tumours have 20 to 180 ml."""
    if kind == "tiny":
        return Plan(volume_ml=rng.uniform(0.45, 0.9), core_fraction=0.35, rim_mm=1.5, n_foci=1)
    volume_ml = float(np.exp(rng.uniform(math.log(20), math.log(140))))
    if kind == "no ET":
        return Plan(volume_ml=volume_ml, core_fraction=rng.uniform(0.4, 0.65), rim_mm=0, n_foci=1)
    return Plan(
        volume_ml=volume_ml,
        core_fraction=rng.uniform(0.2, 0.5),
        rim_mm=rng.uniform(2.5, 5.5),
        n_foci=int(rng.integers(2, 4)) if kind == "multifocal" else 1,
    )
