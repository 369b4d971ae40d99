"""mlserver_runtime.py: TensorFlow as a runtime of MLServer."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class TensorFlow(MLModel):
    async def load(self):
        from tfmodel import Model

        self.model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        if self.model.strings:
            import numpy as np

            x = np.array([s.encode() for s in StringCodec.decode_input(payload.inputs[0])], object)
        else:
            x = NumpyCodec.decode_input(payload.inputs[0])
        outputs = []
        for name, v in self.model(x).items():
            if v.dtype == object:
                outputs.append(StringCodec.encode_output(name, [s.decode() for s in v]))
            else:
                outputs.append(NumpyCodec.encode_output(name, v))
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
