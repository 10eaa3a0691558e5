"""Models in the formats of other tools: PyTorch's weights, both ways, and ONNX graphs.

torch_module.py     the model as a PyTorch module: one file to copy, with the names of our parameters
torch_weights.py    its state_dict from a model and back, in memory or as safetensors; needs no torch
onnx_graphs.py      encoder (x to mu, logvar) and decoder (z to the mean of p(x|z)); needs the extra `onnx`
"""

from scratchvae.export.onnx_graphs import decoder_onnx, encoder_onnx, onnx_files, save_onnx
from scratchvae.export.torch_weights import (
    from_torch_state,
    load_torch,
    save_torch,
    torch_call,
    torch_files,
    torch_module_source,
    torch_state,
)

__all__ = [
    "decoder_onnx",
    "encoder_onnx",
    "from_torch_state",
    "load_torch",
    "onnx_files",
    "save_onnx",
    "save_torch",
    "torch_call",
    "torch_files",
    "torch_module_source",
    "torch_state",
]
