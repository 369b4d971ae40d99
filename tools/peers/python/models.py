#!/usr/bin/env python3
"""models.py OUT BASIC_PITCH NAME...: makes the models that the peers are measured with, and what TensorFlow itself answers.

Writes OUT/NAME/NAME/1 (a SavedModel; basic-pitch is copied from BASIC_PITCH) and OUT/NAME/answers.json: three rows of input and TensorFlow's
outputs for them. Seeds are fixed. With Keras's initial weights every input has the same answer to ten digits, so that a server that answers
anything would pass: the moving averages of one training batch make each layer keep its scale, and a steeper last layer spreads the answers.
"""

import base64
import json
import os
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
import numpy as np  # noqa: E402  (the log level is read at import)
import tensorflow as tf  # noqa: E402
from tfmodel import Model  # noqa: E402

ROWS = 3


def export(model, path, shape):
    # Not tf.saved_model.save of a tf.Module around it: what that writes of a Keras 3 model cannot be restored by TensorFlow's C++ loader.
    archive = tf.keras.export.ExportArchive()
    archive.track(model)
    spec = [tf.TensorSpec([None] + shape, tf.float32, name="x")]
    archive.add_endpoint("serving_default", lambda x: {"probs": model(x, training=False)}, input_signature=spec)
    archive.write_out(path, verbose=False)


def spread(model, shape, steeper):
    for layer in model.layers:
        if hasattr(layer, "momentum"):
            layer.momentum = 0.0
    model(tf.random.Generator.from_seed(2).uniform([8] + shape), training=True)
    for v in model.layers[-1].trainable_variables:
        if "kernel" in v.path:
            v.assign(v * steeper)


def mlp(path):
    layers = tf.keras.layers
    model = tf.keras.Sequential([tf.keras.Input((32,)), layers.Dense(128, activation="relu"), layers.Dense(10, activation="softmax")])
    export(model, path, [32])


def mobilenet(path):
    model = tf.keras.applications.MobileNetV2(weights=None)
    spread(model, [224, 224, 3], 4.0)
    export(model, path, [224, 224, 3])


def resnet50(path):
    model = tf.keras.applications.ResNet50(weights=None)
    spread(model, [224, 224, 3], 4.0)
    export(model, path, [224, 224, 3])


def text(path):
    module = tf.Module()
    module.table = tf.Variable(tf.random.Generator.from_seed(3).normal([4096, 8]), name="table")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serve(text):
        words = tf.strings.split(tf.strings.lower(text))
        rows = tf.gather(module.table, tf.strings.to_hash_bucket_fast(words.flat_values, 4096))
        total = tf.math.unsorted_segment_sum(rows, words.value_rowids(), tf.shape(text, out_type=tf.int64)[0])
        return {"embedding": tf.reshape(total, [-1, 8]), "upper": tf.strings.upper(text)}

    module.serve = serve
    tf.saved_model.save(module, path, signatures={"serving_default": serve})


def basic_pitch(path):
    shutil.copytree(sys.argv[2], path)


SENTENCES = [b"the quick brown fox jumps over the lazy dog", b"pack my box with five dozen liquor jugs", b"how vexingly quick daft zebras jump"]


def described(values):
    if values.dtype == object:
        return {"datatype": "BYTES", "strings": [v.decode() for v in values.ravel()]}
    return {"datatype": "FP32", "floats": base64.b64encode(values.astype("<f4").tobytes()).decode()}


def answers(path, name):
    model = Model(path)
    shape = model.shape
    if model.strings:
        x = np.array(SENTENCES, object)
    else:
        x = np.random.default_rng(1).random([ROWS] + shape, np.float32)
    got = model(x)
    for k, v in got.items():
        if v.dtype != object and not min(np.abs(v[0] - v[1]).max(), np.abs(v[1] - v[2]).max()) > 0.05 * np.abs(v).max():
            sys.exit(f"{name}: the answers {k} of different inputs are alike, which no comparison could tell from wrong ones")
    outputs = [{"name": k, "shape": list(got[k].shape[1:]), **described(got[k])} for k in sorted(got)]
    return {"name": name, "rows": ROWS, "input": {"name": model.input, "shape": shape, **described(x)}, "outputs": outputs}


MAKERS = {"mlp": mlp, "mobilenet": mobilenet, "resnet50": resnet50, "basic-pitch": basic_pitch, "text": text}

for name in sys.argv[3:]:
    home = os.path.join(sys.argv[1], name)
    if os.path.exists(os.path.join(home, "answers.json")):
        continue
    print("making", name, "...", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    tf.keras.utils.set_random_seed(20261126)
    path = os.path.join(home, name, "1")
    MAKERS[name](path)
    with open(os.path.join(home, "answers.part"), "w") as out:
        json.dump(answers(path, name), out)
    os.rename(os.path.join(home, "answers.part"), os.path.join(home, "answers.json"))
