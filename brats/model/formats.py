"""The graph of a model in the formats of other programs: ONNX, and the archive of `torch.export`.

Each is read again and compared with the network before it is handed out.
"""

import importlib.util
import io
import json
import warnings
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from brats.errors import BratsError, ConfigError
from brats.model.portable import INPUT_NAMES, OUTPUT_NAME, TOLERANCE, Captured

ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
DESCRIPTION = "brats"  # key of the metadata of a file: its inputs, outputs and decoding, as model.json has them


def check_onnx_installed() -> None:
    """Raise ConfigError where a package is missing that ONNX files are made and checked with."""
    if missing := [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"--formats: onnx needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed; install the extra export (pip install '.[export]'), or name other formats"
        )


def to_torch(captured: Captured) -> tuple[bytes, float]:
    """The archive (.pt2) of a graph, and how far its probabilities are from the network's, at most.

    `torch.export.load` reads it without code of this project. Raises BratsError where they differ.
    """
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no tensor is the storage of all, which is as it should be on a CPU
        torch.export.save(captured.program, file, extra_files={DESCRIPTION: _description(captured)})
        file.seek(0)
        loaded = torch.export.load(file).module()
    with torch.inference_mode():
        found = loaded(*captured.random_inputs()).numpy()
    return file.getvalue(), _difference(captured, found, "torch.export")


def to_onnx(captured: Captured) -> tuple[bytes, float]:
    """The ONNX file of a graph, and how far its probabilities in onnxruntime are from the network's, at most.

    Raises BratsError where they differ, and ConfigError where a package is missing.
    """
    check_onnx_installed()
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages about each other
        made: Any = torch.onnx.export(captured.program, dynamo=True, verbose=False, output_names=[OUTPUT_NAME])
    model = made.model_proto
    model.metadata_props.add(key=DESCRIPTION, value=_description(captured))
    content: bytes = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    inputs = [tensor.numpy() for tensor in captured.random_inputs()]
    (found,) = session.run([OUTPUT_NAME], dict(zip(INPUT_NAMES, inputs, strict=True)))
    return content, _difference(captured, found, "ONNX")


def _description(captured: Captured) -> str:
    card = asdict(captured.card)
    return json.dumps({name: card[name] for name in ("format", "inputs", "normalisation", "outputs", "decoding")})


def _difference(captured: Captured, found: npt.NDArray[np.float32], format_name: str) -> float:
    with torch.inference_mode():
        expected = captured.network(*captured.random_inputs()).numpy()
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise BratsError(
            f"--formats: the {format_name} file of the encoder {captured.card.encoder} gives probabilities that "
            f"are up to {difference:.2g} from the network's, where {TOLERANCE:g} is accepted; it is not written"
        )
    return difference
