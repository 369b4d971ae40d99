# reference.py: what files become, by Pillow, NumPy and wave. Takes [{"file": ..., "spec": ...}, ...] and writes float32 numbers to standard output.
import json
import sys
import wave

import numpy as np
from PIL import Image, ImageOps


def side(n, a, b):
    return max(1, (2 * n * a + b) // (2 * b))


def picture(path, spec):
    image = ImageOps.exif_transpose(Image.open(path))
    # Transparency is left out, not blended.
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    image = image.convert("RGB")
    w, h = image.size
    dw, dh = spec["width"], spec["height"]
    box, place = (0, 0, w, h), (0, 0, dw, dh)
    if spec["fit"] == "crop":
        cw, ch = (side(h, dw, dh), h) if w * dh > h * dw else (w, side(w, dh, dw))
        x, y = (w - cw) // 2, (h - ch) // 2
        box = (x, y, x + cw, y + ch)
    if spec["fit"] == "pad":
        pw, ph = (dw, side(dw, h, w)) if w * dh > h * dw else (side(dh, w, h), dh)
        place = ((dw - pw) // 2, (dh - ph) // 2, pw, ph)
    small = image.crop(box).resize(place[2:], Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", (dw, dh), (spec.get("fill", 0),) * 3)
    canvas.paste(small, place[:2])
    if spec["order"] == "gray":
        a = np.asarray(canvas.convert("L"))[..., None]
    else:
        a = np.asarray(canvas)
    if spec["order"] == "BGR":
        a = a[..., ::-1]
    a = a.astype(np.float64) * spec["scale"]
    a = ((a - np.array(spec.get("mean", [0]))) / np.array(spec.get("std", [1]))).astype(np.float32)
    return a.transpose(2, 0, 1) if spec["layout"] == "NCHW" else a


def sound(path, spec):
    with wave.open(path) as f:
        assert f.getframerate() == spec["rate"] and f.getsampwidth() == 2
        a = np.frombuffer(f.readframes(f.getnframes()), "<i2").reshape(-1, spec["channels"])
    window, hop = spec["window"], spec["hop"]
    count = 1 + max(0, -(-(len(a) - window) // hop))
    a = np.pad(a, ((0, (count - 1) * hop + window - len(a)), (0, 0)))
    rows = [a[i * hop : i * hop + window] for i in range(count)]
    return (np.stack(rows).astype(np.float64) * spec["scale"]).astype(np.float32)


for work in json.load(sys.stdin):
    make = sound if work["spec"]["format"] == "pcm_s16le" else picture
    sys.stdout.buffer.write(np.ascontiguousarray(make(work["file"], work["spec"])).tobytes())
