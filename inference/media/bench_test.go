// bench_test.go: what a file costs, in bytes on the wire and in time.
package media

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/inferd/inferd/inference/tensor"
)

// TestSizes: a picture of 224 by 224 as a file, as that file in JSON, and as numbers in JSON.
func TestSizes(t *testing.T) {
	file := asJPEG(t, photo(224, 224), 95)
	in := bind(t, Spec{Format: JPEG, Scale: 1.0 / 255}, tensor.Float, -1, 224, 224, 3)
	numbers, err := json.Marshal(floats(made(t, in, file)))
	if err != nil {
		t.Fatal(err)
	}
	inJSON := len(`{"instances":[{"b64":""}]}`) + base64.StdEncoding.EncodedLen(len(file))
	t.Logf("224x224: a JPEG file of %d bytes, %d as b64 in JSON, %d as tensor bytes, %d as numbers in JSON", len(file), inJSON, 224*224*3*4, len(numbers))
	if 20*inJSON > len(numbers) {
		t.Errorf("the file in JSON has %d bytes, the numbers %d", inJSON, len(numbers))
	}
}

func BenchmarkPicture(b *testing.B) {
	for _, size := range []struct{ w, h int }{{224, 224}, {640, 480}, {1920, 1080}, {4000, 3000}} {
		m := photo(size.w, size.h)
		for name, file := range map[string][]byte{"jpeg": asJPEG(b, m, 90), "png": asPNG(b, m)} {
			if name == "png" && size.w > 2000 {
				continue
			}
			b.Run(fmt.Sprintf("%s/%dx%d", name, size.w, size.h), func(b *testing.B) {
				in := bind(b, Spec{Format: JPEGOrPNG, Scale: 1.0 / 255}, tensor.Float, -1, 224, 224, 3)
				b.ReportAllocs()
				b.SetBytes(int64(len(file)))
				for b.Loop() {
					made(b, in, file)
				}
			})
		}
	}
	b.Run("turned/640x480", func(b *testing.B) {
		in := bind(b, Spec{Format: JPEG, Layout: NCHW}, tensor.Float, -1, 3, 224, 224)
		file := withOrientation(asJPEG(b, photo(640, 480), 90), 6, binary.LittleEndian)
		b.ReportAllocs()
		for b.Loop() {
			made(b, in, file)
		}
	})
}

func BenchmarkSound(b *testing.B) {
	in := bind(b, Spec{Format: PCM, Hop: 7800}, tensor.Float, -1, 15600)
	file := ramp(10 * 16000)
	b.Run("file/10s", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(file)))
		for b.Loop() {
			made(b, in, file)
		}
	})
	b.Run("stream/20ms", func(b *testing.B) {
		w, err := in.Windower()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		piece := file[:640]
		b.SetBytes(int64(len(piece)))
		for b.Loop() {
			if err := w.Push(piece, func(Window) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
