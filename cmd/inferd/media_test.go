// media_test.go: pictures and sound for the scripts.
package main

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/png"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

// mediaFile is a PNG picture of that width, height and gray, or a WAV file of that rate with those samples.
func mediaFile(ts *testscript.TestScript, kind string, args []string) []byte {
	want(ts, false, len(args) >= 2, "file png FILE W H GRAY, or file wav FILE RATE SAMPLES...")
	var numbers []int
	for _, a := range args {
		n, err := strconv.Atoi(a)
		ts.Check(err)
		numbers = append(numbers, n)
	}
	if kind == "png" {
		want(ts, false, len(args) == 3, "file png FILE W H GRAY")
		m := image.NewGray(image.Rect(0, 0, numbers[0], numbers[1]))
		for i := range m.Pix {
			m.Pix[i] = uint8(numbers[2])
		}
		var b bytes.Buffer
		ts.Check(png.Encode(&b, m))
		return b.Bytes()
	}
	le := binary.LittleEndian
	b := append([]byte("RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00"), le.AppendUint32(nil, uint32(numbers[0]))...)
	b = append(le.AppendUint32(b, uint32(2*numbers[0])), "\x02\x00\x10\x00data"...)
	b = le.AppendUint32(b, uint32(2*len(numbers[1:])))
	for _, n := range numbers[1:] {
		b = le.AppendUint16(b, uint16(n))
	}
	return b
}
