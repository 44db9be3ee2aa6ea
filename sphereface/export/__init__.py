"""Export trained networks as ONNX, TorchScript, safetensors or checkpoints, with a model card."""
