"""triton_model.py: TensorFlow in Triton's Python backend (it has no TensorFlow backend any more); what Triton batched is run as one."""

import os
import sys

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        sys.path.insert(0, os.environ["PEERS_PYTHON"])
        from tfmodel import Model

        self.model = Model()

    def execute(self, requests):
        rows = [pb.get_input_tensor_by_name(r, self.model.input).as_numpy() for r in requests]
        got = self.model(np.concatenate(rows) if len(rows) > 1 else rows[0])
        answers, at = [], 0
        for x in rows:
            end = at + len(x)
            answers.append(pb.InferenceResponse([pb.Tensor(k, v[at:end]) for k, v in got.items()]))
            at = end
        return answers
