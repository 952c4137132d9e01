"""Our inference.py with the forward pass through OpenVINO: the same archive, the same server, the other runtime."""

from pathlib import Path

import inference
import openvino

input_fn, predict_fn, output_fn = inference.input_fn, inference.predict_fn, inference.output_fn


def model_fn(model_dir):
    """What inference.py loads, with another forward()."""
    compiled = compiled_model(Path(model_dir, "model.onnx"), inference.thread_count())
    return inference.model_fn(model_dir)._replace(forward=lambda pixels: compiled(pixels)[0])


def compiled_model(path, threads):
    """The network on the processor, one request at a time, computing in float32 as the others do."""
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Else every worker's thread is pinned to the same core.
        "ENABLE_CPU_PINNING": False,
        # Else it takes bfloat16 where the processor has it.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    network = openvino.Core().read_model(path)
    _, *shape = network.input(0).partial_shape
    network.reshape([1, *(dimension.get_length() for dimension in shape)])  # a fixed shape is a little faster
    return openvino.compile_model(network, "CPU", settings)
