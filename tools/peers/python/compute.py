#!/usr/bin/env python3
"""compute.py onnxruntime|openvino SAVED_MODEL ANSWERS ONNX THREADS CALLERS: the model in another engine, for its speed alone.

Prints what it answers for the rows of ANSWERS, as base64 of floats, one output a line; then "ready"; then, for each line "BATCH SECONDS" on
standard input, the rows per second. Ends with standard input.
"""

import base64
import json
import sys
import threading
import time

import numpy as np

engine, saved, answers, onnx, threads, callers = *sys.argv[1:5], int(sys.argv[5]), int(sys.argv[6])
want = json.load(open(answers))
x = np.frombuffer(base64.b64decode(want["input"]["floats"]), "<f4").reshape([want["rows"]] + want["input"]["shape"])
names = [o["name"] for o in want["outputs"]]

if engine == "onnxruntime":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    (feed,) = [i.name for i in session.get_inputs()]

    def maker():
        return lambda rows: session.run(names, {feed: rows})
else:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads * callers, "NUM_STREAMS": callers, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(saved, "CPU", settings)

    def maker():
        request = compiled.create_infer_request()

        def call(rows):
            request.infer({0: rows}, share_inputs=True)
            return [request.get_tensor(n).data for n in names]

        return call


for values in maker()(x):
    print(base64.b64encode(np.asarray(values, "<f4").tobytes()).decode())
print("ready", flush=True)
calls = [maker() for _ in range(callers)]
for line in sys.stdin:
    batch, seconds = int(line.split()[0]), float(line.split()[1])
    rows = np.resize(x, [batch] + want["input"]["shape"])
    for call in calls:
        call(rows)
    counts = [0] * callers
    end = time.perf_counter() + seconds

    def work(i):
        while time.perf_counter() < end:
            calls[i](rows)
            counts[i] += 1

    began = time.perf_counter()
    running = [threading.Thread(target=work, args=(i,)) for i in range(callers)]
    for t in running:
        t.start()
    for t in running:
        t.join()
    print(sum(counts) * batch / (time.perf_counter() - began), flush=True)
