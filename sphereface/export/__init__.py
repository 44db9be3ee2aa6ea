"""A trained network for programs without this package: ONNX, TorchScript, safetensors, each with a
model card.
"""
