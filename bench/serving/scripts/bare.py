"""The forward pass alone, without server and decoding, through one runtime.

    python bare.py onnxruntime|openvino MODEL.onnx PIXELS.npy THREADS SECONDS

Prints the median seconds of a pass.
"""

import sys
import time
from statistics import median

import numpy as np


def main():
    runtime, model, pixels, threads, seconds = sys.argv[1:]
    forward, pixels = RUNTIMES[runtime](model, int(threads)), np.load(pixels)
    durations, end = [], time.perf_counter() + float(seconds)
    for _ in range(3):
        forward(pixels)
    while not durations or time.perf_counter() < end:
        started = time.perf_counter()
        forward(pixels)
        durations.append(time.perf_counter() - started)
    print(median(durations))


def through_onnxruntime(model, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": pixels})


def through_openvino(model, threads):
    from openvino_inference import compiled_model

    return compiled_model(model, threads)


RUNTIMES = {"onnxruntime": through_onnxruntime, "openvino": through_openvino}

if __name__ == "__main__":
    main()
