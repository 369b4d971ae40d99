"""tfmodel.py: a SavedModel as the Python peers call it: numpy in, numpy out, by its default signature.

Read from the environment: MODEL_PATH; TF_INTRA and TF_INTER, TensorFlow's threads, which it chooses itself where they are not set; TF_CALL=session
runs the graph in a session, as TensorFlow Serving does, rather than through tf.function. What tf.saved_model.load cannot load is run so too.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
import numpy as np  # noqa: E402  (the log level is read at import)


class Model:
    def __init__(self, path=None):
        import tensorflow as tf

        self.tf = tf
        path = path or os.environ["MODEL_PATH"]
        self.intra, self.inter = int(os.environ.get("TF_INTRA", "0")), int(os.environ.get("TF_INTER", "0"))
        if self.intra or self.inter:
            tf.config.threading.set_intra_op_parallelism_threads(self.intra)
            tf.config.threading.set_inter_op_parallelism_threads(self.inter)
        try:
            if os.environ.get("TF_CALL") == "session":
                raise AttributeError("asked for")
            self.of_function(path)
        except AttributeError:  # a SavedModel with an optimizer that this Keras does not know
            self.of_session(path)
        self(np.array([b"warm"], object) if self.strings else np.zeros([1] + self.shape, np.float32))

    def of_function(self, path):
        self.keep = self.tf.saved_model.load(path)
        call = self.keep.signatures["serving_default"]
        ((self.input, spec),) = call.structured_input_signature[1].items()
        self.strings, self.shape = spec.dtype == self.tf.string, [int(d) for d in spec.shape[1:]]
        self.outputs = sorted(call.structured_outputs)

        def run(x):
            got = call(**{self.input: self.tf.constant(x)})
            return [got[name].numpy() for name in self.outputs]

        self.run = run

    def of_session(self, path):
        v1 = self.tf.compat.v1
        config = v1.ConfigProto(intra_op_parallelism_threads=self.intra, inter_op_parallelism_threads=self.inter)
        self.keep = v1.Session(graph=self.tf.Graph(), config=config)
        with self.keep.graph.as_default():
            signature = v1.saved_model.loader.load(self.keep, ["serve"], path).signature_def["serving_default"]
        ((self.input, spec),) = signature.inputs.items()
        self.strings, self.shape = spec.dtype == self.tf.string.as_datatype_enum, [d.size for d in spec.tensor_shape.dim][1:]
        self.outputs = sorted(signature.outputs)
        self.run = self.keep.make_callable([signature.outputs[n].name for n in self.outputs], feed_list=[spec.name])

    def __call__(self, x):
        return dict(zip(self.outputs, self.run(x)))
