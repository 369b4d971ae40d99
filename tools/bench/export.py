#!/usr/bin/env python3
"""export.py OUT_DIR: writes OUT_DIR/mobilenet/1, Keras MobileNetV2 (224x224x3) with random weights of a fixed seed."""

import os
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow as tf  # noqa: E402  (the log level is read at import)

path = os.path.join(sys.argv[1], "mobilenet", "1")
tf.keras.utils.set_random_seed(20261123)
model = tf.keras.applications.MobileNetV2(weights=None)
# With the initial weights every answer is the same to ten digits. The moving averages of one training batch make each layer keep its scale,
# and a steeper last layer spreads the answers.
for layer in model.layers:
    if hasattr(layer, "momentum"):
        layer.momentum = 0.0
model(tf.random.Generator.from_seed(2).uniform([8, 224, 224, 3]), training=True)
for v in model.layers[-1].trainable_variables:
    if "kernel" in v.path:
        v.assign(v * 4.0)
archive = tf.keras.export.ExportArchive()
archive.track(model)
archive.add_endpoint(
    "serving_default",
    lambda x: {"probs": model(x, training=False)},
    input_signature=[tf.TensorSpec([None, 224, 224, 3], tf.float32, name="x")],
)
shutil.rmtree(path, ignore_errors=True)
archive.write_out(path, verbose=False)
rng = tf.random.Generator.from_seed(1)
a, b = (model(rng.uniform([1, 224, 224, 3])).numpy() for _ in range(2))
print("largest difference between two random images:", abs(a - b).max())
