"""The engines by name, apart from the runtimes: the flags list them, and importing a runtime takes its time."""

DEFAULT = "onnxruntime"
AUTO = "auto"
"""The faster of those on the processor, measured when a variant is loaded."""
PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
"""ONNX Runtime's names of what runs on a graphics processor."""
ENGINES = (DEFAULT, "openvino", AUTO, *PROVIDERS)
