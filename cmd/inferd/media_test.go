// media_test.go: pictures and sound for the scripts.
package main

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// mediaFile is a PNG or JPEG picture of that width, height and gray, or a WAV file of that rate with those samples.
func mediaFile(ts *testscript.TestScript, kind string, args []string) []byte {
	want(ts, false, len(args) >= 2, "file png FILE W H GRAY, or file wav FILE RATE SAMPLES...")
	var numbers []int
	for _, a := range args {
		n, err := strconv.Atoi(a)
		ts.Check(err)
		numbers = append(numbers, n)
	}
	if kind != "wav" {
		want(ts, false, len(args) == 3, "file png|jpg FILE W H GRAY")
		m := image.NewGray(image.Rect(0, 0, numbers[0], numbers[1]))
		for i := range m.Pix {
			m.Pix[i] = uint8(numbers[2])
		}
		var b bytes.Buffer
		if kind == "jpg" {
			ts.Check(jpeg.Encode(&b, m, nil))
			return b.Bytes()
		}
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

// writeExamples writes the blocks of docs/media.md to the script's directory docs: media.yaml, media.py and, in order, media1.sh and so on.
func writeExamples(e *testscript.Env) error {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "media.md"))
	if err != nil {
		return err
	}
	dir := filepath.Join(e.WorkDir, "docs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	shells := 0
	for i, block := range strings.Split(string(text), "```") {
		kind, body, _ := strings.Cut(block, "\n")
		name := "media." + kind
		switch {
		case i%2 == 0 || kind != "sh" && kind != "yaml" && kind != "python":
			continue
		case kind == "sh":
			shells++
			name = "media" + strconv.Itoa(shells) + ".sh"
		case kind == "python":
			name = "media.py"
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// python is the interpreter with TensorFlow Serving's client, which `make e2e` makes.
func python() string {
	path, err := filepath.Abs(filepath.Join("..", "..", "build", "venv", "bin", "python"))
	if err != nil {
		return ""
	}
	return path
}
