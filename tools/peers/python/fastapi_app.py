"""fastapi_app.py: what people write themselves: FastAPI and uvicorn, TensorFlow in the thread pool, no batching, TensorFlow Serving's JSON."""

import os

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from tfmodel import Model

model = Model()
app = FastAPI()


def answer(body):
    rows = orjson.loads(body)["instances"]
    x = np.array([r.encode() for r in rows], object) if model.strings else np.asarray(rows, np.float32)
    got = {k: [s.decode() for s in v] if v.dtype == object else v for k, v in model(x).items()}
    if len(got) == 1:
        (predictions,) = got.values()
    else:
        predictions = [{k: v[i] for k, v in got.items()} for i in range(len(x))]
    return orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)


@app.post("/v1/models/{name}:predict")
async def predict(name: str, request: Request):
    return Response(await run_in_threadpool(answer, await request.body()), media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
