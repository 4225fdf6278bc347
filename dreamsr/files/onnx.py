"""ONNX files: the only code that knows the exporter and the runtime, which are optional packages."""

import importlib.util
import io
import logging
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from dreamsr.errors import CheckpointError, DreamSRError, UsageError

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def require() -> None:
    """Raise UsageError where the optional packages are missing."""
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise UsageError(f"ONNX needs {', '.join(missing)}, not installed here", "pip install 'dreamsr[onnx]'")


def encode(
    module: nn.Module,
    examples: Mapping[str, Tensor],
    shapes: Mapping[str, Any],
    output: str,
    metadata: Mapping[str, str],
) -> bytes:
    """The file of a module with named inputs, weights inside; raises DreamSRError for what ONNX cannot express.

    shapes: as `dynamic_shapes` of torch.export.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    try:
        program = _traced(module, examples, shapes, output)
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise DreamSRError(f"this network cannot be exported to ONNX: {reason}", "export it as .safetensors") from error
    ClearMetadataAndDocStringPass()(program.model)  # which holds the lines and folders of this code
    program.model.metadata_props.update(metadata)
    data: bytes = program.model_proto.SerializeToString()
    return data


def _traced(
    module: nn.Module, examples: Mapping[str, Tensor], shapes: Mapping[str, Any], output: str
) -> torch.onnx.ONNXProgram:
    """Without the exporter's talk on stdout and stderr, and its warnings about itself."""
    level, talk = logging.root.manager.disable, io.StringIO()
    logging.disable()
    try:
        with redirect_stdout(talk), redirect_stderr(talk), warnings.catch_warnings(action="ignore"), torch.no_grad():
            program = torch.onnx.export(
                module, kwargs=dict(examples), dynamic_shapes=dict(shapes), output_names=[output], verbose=False
            )
    finally:
        logging.disable(level)
    assert program is not None
    return program


class Session:
    """A file in onnxruntime, on the CPU."""

    def __init__(self, data: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of a C++ library, of several kinds
            raise CheckpointError(f"onnxruntime does not read the file: {str(error).splitlines()[0]}") from error

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, **inputs: Tensor) -> Tensor:
        """The first output."""
        return torch.from_numpy(self._session.run(None, {name: x.numpy() for name, x in inputs.items()})[0])
