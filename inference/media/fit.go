// fit.go: where a picture's pixels go, and which numbers they become.
//
// A picture of another size is resized with a triangle filter that is as wide as the scale asks (draw.BiLinear): what Pillow calls
// BILINEAR and TensorFlow bilinear with antialias. The result has 8 bits for each channel, and then becomes numbers. For the same pixels
// it is within 1 of Pillow's, which rounds between the two directions too; the tests hold it against Pillow. JPEG decoders differ among
// themselves beyond that, above all where colour is stored at half the resolution.
package media

import (
	"encoding/binary"
	"image"
	"math"
)

// place is the part of a picture of w by h pixels, as it is stored, that goes into the part dst of the input's pixels, as they are stored.
func (in *Input) place(w, h, orientation int) (src, dst image.Rectangle) {
	if lies(orientation) {
		w, h = h, w
	}
	dw, dh := in.spec.Width, in.spec.Height
	src, dst = image.Rect(0, 0, w, h), image.Rect(0, 0, dw, dh)
	wider, narrower := int64(w)*int64(dh) > int64(h)*int64(dw), int64(w)*int64(dh) < int64(h)*int64(dw)
	switch in.spec.Fit {
	case Crop:
		if wider {
			src = middle(src, share(h, dw, dh), h)
		} else if narrower {
			src = middle(src, w, share(w, dh, dw))
		}
	case Pad:
		if wider {
			dst = middle(dst, dw, share(dw, h, w))
		} else if narrower {
			dst = middle(dst, share(dh, w, h), dh)
		}
	}
	return asStored(src, w, h, orientation), asStored(dst, dw, dh, orientation)
}

// lies reports whether a picture of that orientation is stored on its side.
func lies(orientation int) bool { return orientation > 4 }

// asStored is where r, of a picture of w by h pixels the right way up, is stored.
func asStored(r image.Rectangle, w, h, orientation int) image.Rectangle {
	if lies(orientation) {
		r = image.Rect(r.Min.Y, r.Min.X, r.Max.Y, r.Max.X)
		w, h = h, w
	}
	switch orientation {
	case 2, 3, 7, 8:
		r.Min.X, r.Max.X = w-r.Max.X, w-r.Min.X
	}
	switch orientation {
	case 3, 4, 6, 7:
		r.Min.Y, r.Max.Y = h-r.Max.Y, h-r.Min.Y
	}
	return r
}

// share is n*a/b rounded, at least 1.
func share(n, a, b int) int {
	return max(1, int((2*int64(n)*int64(a)+int64(b))/(2*int64(b))))
}

// middle is the middle of r with the sides w and h.
func middle(r image.Rectangle, w, h int) image.Rectangle {
	at := image.Pt((r.Dx()-w)/2, (r.Dy()-h)/2)
	return image.Rectangle{Min: at, Max: at.Add(image.Pt(w, h))}
}

// numbers has, for each channel by its place in Order, the number that each value becomes.
func (s *Spec) numbers() *[3][256]float32 {
	t := new([3][256]float32)
	for c := range t {
		mean, std := at(s.Mean, c, 0), at(s.Std, c, 1)
		for v := range t[c] {
			t[c][v] = float32((float64(v)*s.Scale - mean) / std)
		}
	}
	return t
}

// at is the list's number for channel c: its only one, or none's.
func at(list []float64, c int, none float64) float64 {
	switch {
	case len(list) == 0:
		return none
	case c < len(list):
		return list[c]
	}
	return list[0]
}

// write writes the canvas, the right way up, as the tensor's numbers.
func (in *Input) write(row []byte, m *image.RGBA, orientation int) {
	w, h := in.spec.Width, in.spec.Height
	channels := in.spec.channels()
	// From one channel of a pixel to the next, and from one pixel to the next, in elements.
	perChannel, perPixel := 1, channels
	if in.spec.Layout == NCHW {
		perChannel, perPixel = w*h, 1
	}
	start, right, down := walk(m, orientation)
	at := 0
	for range h {
		p := start
		for range w {
			px := m.Pix[p : p+4 : p+4]
			r, g, b := px[0], px[1], px[2]
			switch in.spec.Order {
			case Gray:
				r = luma(r, g, b)
			case BGR:
				r, b = b, r
			}
			in.put(row, at, 0, r)
			if channels == 3 {
				in.put(row, at+perChannel, 1, g)
				in.put(row, at+2*perChannel, 2, b)
			}
			at += perPixel
			p += right
		}
		start += down
	}
}

// put writes element i, which is channel c's value v.
func (in *Input) put(row []byte, i, c int, v uint8) {
	if in.table == nil {
		row[i] = v
		return
	}
	binary.LittleEndian.PutUint32(row[4*i:], math.Float32bits(in.table[c][v]))
}

// walk is how to read m so that it is the right way up: the offset of the first pixel, the step to the one on its right, and to the one below.
func walk(m *image.RGBA, orientation int) (start, right, down int) {
	x, y := 4, m.Stride
	lastX, lastY := 4*(m.Rect.Dx()-1), m.Stride*(m.Rect.Dy()-1)
	switch orientation {
	case 2: // mirrored
		return lastX, -x, y
	case 3: // upside down
		return lastX + lastY, -x, -y
	case 4: // mirrored and upside down
		return lastY, x, -y
	case 5: // mirrored, and turned left
		return 0, y, x
	case 6: // turned left
		return lastY, -y, x
	case 7: // mirrored, and turned right
		return lastX + lastY, -y, -x
	case 8: // turned right
		return lastX, y, -x
	}
	return 0, x, y
}

// luma is ITU-R BT.601's, as Pillow and image/color calculate it.
func luma(r, g, b uint8) uint8 {
	return uint8((19595*uint32(r) + 38470*uint32(g) + 7471*uint32(b) + 1<<15) >> 16)
}
