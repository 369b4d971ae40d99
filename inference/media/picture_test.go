// picture_test.go: pictures: which number lands where, what is refused, and what was booked for it.
package media

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/inferd/inferd/inference/tensor"
)

// four is a picture of 2 by 2 pixels in which every channel is another number.
func four() *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, 2, 2))
	for i := range 4 {
		m.SetRGBA(i%2, i/2, color.RGBA{uint8(10*i + 1), uint8(10*i + 2), uint8(10*i + 3), 255})
	}
	return m
}

func TestPictureNumbers(t *testing.T) {
	file := asPNG(t, four())
	for _, test := range []struct {
		name  string
		spec  Spec
		dtype tensor.DType
		shape tensor.Shape // of the signature
		want  []float32
		got   tensor.Shape
	}{
		{"as it is", Spec{}, tensor.Float, tensor.Shape{-1, 2, 2, 3}, []float32{1, 2, 3, 11, 12, 13, 21, 22, 23, 31, 32, 33}, tensor.Shape{1, 2, 2, 3}},
		{"channels first", Spec{Layout: NCHW}, tensor.Float, tensor.Shape{-1, 3, 2, 2}, []float32{1, 11, 21, 31, 2, 12, 22, 32, 3, 13, 23, 33}, tensor.Shape{1, 3, 2, 2}},
		{"BGR", Spec{Order: BGR}, tensor.Float, tensor.Shape{-1, 2, 2, 3}, []float32{3, 2, 1, 13, 12, 11, 23, 22, 21, 33, 32, 31}, tensor.Shape{1, 2, 2, 3}},
		{"BGR channels first", Spec{Order: BGR, Layout: NCHW}, tensor.Float, tensor.Shape{-1, 3, 2, 2}, []float32{3, 13, 23, 33, 2, 12, 22, 32, 1, 11, 21, 31}, tensor.Shape{1, 3, 2, 2}},
		{"gray", Spec{Order: Gray}, tensor.Float, tensor.Shape{-1, 2, 2, 1}, []float32{2, 12, 22, 32}, tensor.Shape{1, 2, 2, 1}},
		{"gray without channels", Spec{Order: Gray}, tensor.Float, tensor.Shape{-1, 2, 2}, []float32{2, 12, 22, 32}, tensor.Shape{1, 2, 2}},
		{"without rows", Spec{}, tensor.Float, tensor.Shape{2, 2, 3}, []float32{1, 2, 3, 11, 12, 13, 21, 22, 23, 31, 32, 33}, tensor.Shape{2, 2, 3}},
		{"size configured", Spec{Height: 2, Width: 2}, tensor.Float, tensor.Shape{-1, -1, -1, 3}, []float32{1, 2, 3, 11, 12, 13, 21, 22, 23, 31, 32, 33}, tensor.Shape{1, 2, 2, 3}},
		{"one mean", Spec{Scale: 2, Mean: []float64{1}, Std: []float64{4}}, tensor.Float, tensor.Shape{-1, 2, 2, 3},
			[]float32{0.25, 0.75, 1.25, 5.25, 5.75, 6.25, 10.25, 10.75, 11.25, 15.25, 15.75, 16.25}, tensor.Shape{1, 2, 2, 3}},
		{"means in the order of the channels", Spec{Order: BGR, Mean: []float64{3, 2, 1}}, tensor.Float, tensor.Shape{-1, 2, 2, 3}, []float32{0, 0, 0, 10, 10, 10, 20, 20, 20, 30, 30, 30}, tensor.Shape{1, 2, 2, 3}},
		{"bytes", Spec{}, tensor.Uint8, tensor.Shape{-1, 2, 2, 3}, []float32{1, 2, 3, 11, 12, 13, 21, 22, 23, 31, 32, 33}, tensor.Shape{1, 2, 2, 3}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.spec.Format = PNG
			got := made(t, bind(t, test.spec, test.dtype, test.shape...), file)
			if !got.Shape.Equal(test.got) || got.DType != test.dtype {
				t.Fatalf("%v %v", got.DType, got.Shape)
			}
			var numbers []float32
			if test.dtype == tensor.Uint8 {
				for _, b := range got.Data {
					numbers = append(numbers, float32(b))
				}
			} else {
				numbers = floats(got)
			}
			if !slices.Equal(numbers, test.want) {
				t.Errorf("got  %v\nwant %v", numbers, test.want)
			}
		})
	}
}

// TestPictureBatch: a row for each file, in order.
func TestPictureBatch(t *testing.T) {
	in := bind(t, Spec{Format: JPEGOrPNG}, tensor.Uint8, -1, 2, 2, 3)
	other := four()
	other.SetRGBA(0, 0, color.RGBA{99, 98, 97, 255})
	got := made(t, in, asPNG(t, four()), asPNG(t, other))
	if !got.Shape.Equal(tensor.Shape{2, 2, 2, 3}) || !bytes.Equal(got.Data[:3], []byte{1, 2, 3}) || !bytes.Equal(got.Data[12:15], []byte{99, 98, 97}) {
		t.Errorf("%v %v", got.Shape, got.Data)
	}
	if single := bind(t, Spec{Format: PNG}, tensor.Uint8, 2, 2, 3); !single.Single() {
		t.Error("an input without rows is not single")
	} else if _, err := single.Tensor(t.Context(), [][]byte{asPNG(t, four()), asPNG(t, four())}, Limits{}); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), "this input takes one") {
		t.Errorf("two files for one picture: %v", err)
	}
}

// TestFit: what is left of a picture of another shape. The picture is red on the left half and blue on the right, four times as wide as high.
func TestFit(t *testing.T) {
	wide := image.NewRGBA(image.Rect(0, 0, 16, 4))
	for y := range 4 {
		for x := range 16 {
			c := color.RGBA{200, 0, 0, 255}
			if x >= 8 {
				c = color.RGBA{0, 0, 200, 255}
			}
			wide.SetRGBA(x, y, c)
		}
	}
	red := func(fit Fit, fill int) []float32 {
		in := bind(t, Spec{Format: PNG, Fit: fit, Fill: fill}, tensor.Float, -1, 4, 4, 3)
		all := floats(made(t, in, asPNG(t, wide)))
		var r []float32
		for i := 0; i < len(all); i += 3 {
			r = append(r, all[i])
		}
		return r
	}
	// The edges of a triangle filter of twice the scale reach into the other half.
	if got := red(Stretch, 0); got[0] != 200 || got[3] != 0 || got[12] != 200 || got[1] < 150 || got[2] > 50 {
		t.Errorf("stretch: %v", got)
	}
	if got := red(Crop, 0); !slices.Equal(got, []float32{200, 200, 0, 0, 200, 200, 0, 0, 200, 200, 0, 0, 200, 200, 0, 0}) {
		t.Errorf("crop: %v", got)
	}
	if got := red(Pad, 114); got[0] != 114 || got[3] != 114 || got[12] != 114 || got[4] != 200 && got[8] != 200 {
		t.Errorf("pad: %v", got)
	}
}

// withOrientation puts an EXIF segment into a JPEG file.
func withOrientation(file []byte, o uint16, order binary.AppendByteOrder) []byte {
	tiff := []byte("II*\x00")
	if order == binary.AppendByteOrder(binary.BigEndian) {
		tiff = []byte("MM\x00*")
	}
	tiff = order.AppendUint32(tiff, 8)
	tiff = order.AppendUint16(tiff, 2)
	tiff = append(order.AppendUint16(order.AppendUint16(tiff, 0x010f), 2), 0, 0, 0, 0, 0, 0, 0, 0) // the maker, which says nothing
	tiff = order.AppendUint32(order.AppendUint16(order.AppendUint16(tiff, 0x0112), 3), 1)
	tiff = order.AppendUint16(order.AppendUint16(tiff, o), 0)
	tiff = order.AppendUint32(tiff, 0)
	body := append([]byte("Exif\x00\x00"), tiff...)
	segment := binary.BigEndian.AppendUint16([]byte{0xff, markerAPP1}, uint16(2+len(body)))
	return slices.Concat(file[:2], segment, body, file[2:])
}

// TestOrientation: a camera that was held otherwise says so, and the picture is put upright.
func TestOrientation(t *testing.T) {
	const w, h = 24, 16
	upright := photo(w, h)
	// The stored picture of each orientation, from the definition: where its first row and its first column are.
	stored := map[uint16]func(x, y int) (int, int){ // place in the upright picture of the stored pixel
		1: func(x, y int) (int, int) { return x, y },
		2: func(x, y int) (int, int) { return w - 1 - x, y },
		3: func(x, y int) (int, int) { return w - 1 - x, h - 1 - y },
		4: func(x, y int) (int, int) { return x, h - 1 - y },
		5: func(x, y int) (int, int) { return y, x },
		6: func(x, y int) (int, int) { return w - 1 - y, x },
		7: func(x, y int) (int, int) { return w - 1 - y, h - 1 - x },
		8: func(x, y int) (int, int) { return y, h - 1 - x },
	}
	in := bind(t, Spec{Format: JPEG}, tensor.Uint8, -1, h, w, 3)
	want := made(t, in, asJPEG(t, upright, 100)).Data
	for o, place := range stored {
		m := image.NewRGBA(image.Rect(0, 0, w, h))
		if o > 4 {
			m = image.NewRGBA(image.Rect(0, 0, h, w))
		}
		for y := range m.Rect.Dy() {
			for x := range m.Rect.Dx() {
				ux, uy := place(x, y)
				m.SetRGBA(x, y, upright.RGBAAt(ux, uy))
			}
		}
		for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
			got := made(t, in, withOrientation(asJPEG(t, m, 100), o, order)).Data
			if d := meanDifference(got, want); d > 6 { // the halved colours fall otherwise
				t.Errorf("orientation %d: differs by %.1f in the mean", o, d)
			}
		}
	}
}

func meanDifference(a, b []byte) float64 {
	sum := 0.0
	for i := range a {
		sum += math.Abs(float64(a[i]) - float64(b[i]))
	}
	return sum / float64(len(a))
}

// pngHeader is a PNG file of that size with nothing behind its header.
func pngHeader(w, h uint32, depth byte) []byte {
	body := binary.BigEndian.AppendUint32([]byte("IHDR"), w)
	body = append(binary.BigEndian.AppendUint32(body, h), depth, 2, 0, 0, 0)
	b := append([]byte(pngMagic), 0, 0, 0, 13)
	b = binary.BigEndian.AppendUint32(append(b, body...), crc32.ChecksumIEEE(body))
	return b
}

// jpegOf changes the size that a JPEG file says it has.
func jpegOf(file []byte, w, h uint16) []byte {
	file = bytes.Clone(file)
	at := bytes.Index(file, []byte{0xff, 0xc0})
	binary.BigEndian.PutUint16(file[at+5:], h)
	binary.BigEndian.PutUint16(file[at+7:], w)
	return file
}

func TestPictureRefused(t *testing.T) {
	good := asJPEG(t, photo(32, 32), 90)
	progressive := stored(t)["progressive.jpg"]
	scan := progressive[bytes.LastIndex(progressive, []byte{0xff, markerSOS}) : len(progressive)-2]
	for _, test := range []struct {
		name string
		spec Spec
		file []byte
		kind error
		says string
	}{
		{"PNG of ten thousand million pixels", Spec{}, pngHeader(100000, 100000, 8), ErrTooLarge, "its 100000 by 100000 pixels are more than the 16777216 that max_pixels allows"},
		{"PNG as wide as can be", Spec{}, pngHeader(math.MaxInt32, 1, 8), ErrTooLarge, "more than the 16777216"},
		{"JPEG of four thousand million pixels", Spec{}, jpegOf(good, 65535, 65535), ErrTooLarge, "its 65535 by 65535 pixels are more"},
		{"a configured limit", Spec{MaxPixels: 1023}, good, ErrTooLarge, "its 32 by 32 pixels are more than the 1023"},
		{"16 bits, high and narrow", Spec{}, pngHeader(1, 16<<20, 16), ErrTooLarge, "decoding its 1 by 16777216 pixels takes"},
		{"a thousand scans", Spec{}, slices.Concat(progressive[:len(progressive)-2], bytes.Repeat(scan, 1000), progressive[len(progressive)-2:]), ErrTooLarge, "a progressive JPEG file in 101"},
		{"no pixel", Spec{}, pngHeader(0, 7, 8), ErrFile, "PNG file"},
		{"cut short", Spec{}, good[:len(good)/2], ErrFile, "it is a JPEG file that is cut short"},
		{"cut in the header", Spec{}, good[:20], ErrFile, "it is a JPEG file that is cut short"},
		{"PNG without pixels", Spec{}, pngHeader(9, 9, 8), ErrFile, "it is a PNG file that is cut short"},
		{"PNG for JPEG", Spec{Format: JPEG}, pngHeader(9, 9, 8), ErrFile, "it is a PNG file, and this input takes JPEG; send such a file"},
		{"JPEG for PNG", Spec{Format: PNG}, good, ErrFile, "it is a JPEG file, and this input takes PNG"},
		{"GIF", Spec{}, []byte("GIF89a"), ErrFile, "it is a GIF file, and this input takes JPEG or PNG"},
		{"WebP", Spec{}, []byte("RIFF\x00\x00\x00\x00WEBPVP8 "), ErrFile, "it is a WebP file"},
		{"sound", Spec{}, wavFile(1, 1, 16, 8000, ramp(9)), ErrFile, "it is a WAV file"},
		{"HEIC", Spec{}, []byte("\x00\x00\x00\x18ftypheic"), ErrFile, "it is a HEIC, AVIF or MP4 file"},
		{"nothing", Spec{}, nil, ErrFile, "it is empty"},
		{"anything", Spec{}, []byte("hello"), ErrFile, "it is no file of a known kind"},
		{"damaged", Spec{}, append(bytes.Clone(good[:300]), good[310:]...), ErrFile, "JPEG file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.spec.Format == "" {
				test.spec.Format = JPEGOrPNG
			}
			in := bind(t, test.spec, tensor.Float, -1, 32, 32, 3)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			booked := int64(0)
			_, err := in.Tensor(t.Context(), [][]byte{test.file}, Limits{Book: func(n int64) error { booked = n; return nil }})
			runtime.ReadMemStats(&after)
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("got %v, want %s", err, test.says)
			}
			if errors.Is(err, ErrTooLarge) && booked != 0 {
				t.Errorf("booked %d bytes for a file that its header refuses", booked)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
				t.Errorf("took %d bytes to refuse it", got)
			}
		})
	}
}

// TestPictureLimits: of a request as a whole.
func TestPictureLimits(t *testing.T) {
	in := bind(t, Spec{Format: JPEG, MaxPixels: 1024}, tensor.Float, -1, 32, 32, 3)
	good := asJPEG(t, photo(32, 32), 90)
	nine := [][]byte{good, good, good, good, good, good, good, good, good}
	if _, err := in.Tensor(t.Context(), nine, Limits{}); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "the pictures have 9216 pixels together, at most 8192") {
		t.Errorf("nine pictures: %v", err)
	}
	if _, err := in.Tensor(t.Context(), nine[:2], Limits{TensorBytes: 2*32*32*3*4 - 1}); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "2 rows of 12288 bytes each") {
		t.Errorf("a tensor over the limit: %v", err)
	}
	if _, err := in.Tensor(t.Context(), [][]byte{good, []byte("x")}, Limits{}); !errors.Is(err, ErrFile) || !strings.HasPrefix(err.Error(), "file 1: it is no file") {
		t.Errorf("the second file: %v", err)
	}
	no := errors.New("no room")
	if _, err := in.Tensor(t.Context(), nine[:1], Limits{Book: func(int64) error { return no }}); !errors.Is(err, no) {
		t.Errorf("no room: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := in.Tensor(gone, nine[:1], Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits: %v", err)
	}
}

// TestBooked: what is booked is what is taken, whatever the picture is.
func TestBooked(t *testing.T) {
	files := stored(t)
	large := photo(1500, 1000)
	files["photo.jpg"], files["photo.png"] = asJPEG(t, large, 90), asPNG(t, large)
	files["narrow.jpg"], files["wide.png"] = asJPEG(t, photo(3, 5000), 80), asPNG(t, photo(5000, 3))
	files["turned large.jpg"] = withOrientation(files["photo.jpg"], 6, binary.BigEndian)
	files["same size.jpg"] = asJPEG(t, photo(224, 224), 90)
	for name, file := range files {
		in := bind(t, Spec{Format: JPEGOrPNG}, tensor.Float, -1, 224, 224, 3)
		booked := int64(0)
		book := Limits{Book: func(n int64) error { booked = n; return nil }}
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := in.Tensor(t.Context(), [][]byte{file}, book); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		runtime.ReadMemStats(&after)
		// Beside it the tables of the decoders, a canvas and the garbage of their small allocations.
		took := int64(after.TotalAlloc - before.TotalAlloc)
		if took > booked+booked/8+600<<10 {
			t.Errorf("%s: booked %d, took %d", name, booked, took)
		}
	}
}

// TestAsStored: a part of an upright picture, and the pixels that are read for it.
func TestAsStored(t *testing.T) {
	const w, h = 7, 5
	part := image.Rect(1, 2, 4, 4)
	for o := 1; o <= 8; o++ {
		m := image.NewRGBA(image.Rect(0, 0, w, h))
		if lies(o) {
			m = image.NewRGBA(image.Rect(0, 0, h, w))
		}
		stored := asStored(part, w, h, o)
		start, right, down := walk(m, o)
		for y := range h {
			for x := range w {
				at := start + x*right + y*down
				p := image.Pt(at%m.Stride/4, at/m.Stride)
				if p.In(stored) != image.Pt(x, y).In(part) {
					t.Errorf("orientation %d: %d,%d is stored at %v, and the part at %v", o, x, y, p, stored)
				}
			}
		}
	}
}
