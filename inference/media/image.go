// image.go: JPEG and PNG files: what their headers say, and their pixels.
package media

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/draw"

	"github.com/inferd/inferd/inference/tensor"
)

const (
	pngMagic  = "\x89PNG\r\n\x1a\n"
	jpegMagic = "\xff\xd8\xff"
	// maxScans bounds the passes of a progressive JPEG: each may cost the time of all its pixels, and takes a few bytes. Encoders write ten.
	maxScans = 128
	// maxBeside bounds what decoding and resizing one picture may take, for each pixel that the configuration allows.
	maxBeside = 32
)

// header is what is known of a picture before it is decoded.
type header struct {
	format        Format
	width, height int
	orientation   int   // EXIF's, 1 to 8
	beside        int64 // memory that decoding and resizing take
}

// look reads a file's header and refuses what must not be decoded.
func (in *Input) look(file []byte) (header, error) {
	h := header{orientation: 1}
	switch {
	case bytes.HasPrefix(file, []byte(jpegMagic)):
		h.format = JPEG
	case bytes.HasPrefix(file, []byte(pngMagic)):
		h.format = PNG
	}
	if want := in.spec.Format; h.format == "" || want != JPEGOrPNG && want != h.format {
		return h, unfit("%s, and this input takes %s; send such a file", kindOf(file), want.words())
	}
	var (
		c   image.Config
		err error
	)
	if h.format == JPEG {
		c, err = jpeg.DecodeConfig(bytes.NewReader(file))
	} else {
		c, err = png.DecodeConfig(bytes.NewReader(file))
	}
	if err != nil {
		return h, damaged(h.format, err)
	}
	h.width, h.height = c.Width, c.Height
	if c.Width <= 0 || c.Height <= 0 {
		return h, unfit("it is a %s file without a pixel", h.format.words())
	}
	if int64(c.Width) > in.spec.MaxPixels/int64(c.Height) {
		return h, tooLarge("its %d by %d pixels are more than the %d that max_pixels allows; send a smaller picture", c.Width, c.Height, in.spec.MaxPixels)
	}
	if h.format == JPEG {
		err = h.lookJPEG(file, c.ColorModel)
	} else {
		h.lookPNG(file)
	}
	if err != nil {
		return h, err
	}
	h.beside += in.resizing(h)
	if h.beside > max(in.spec.MaxPixels, 1<<20)*maxBeside {
		return h, tooLarge("decoding its %d by %d pixels takes %d bytes, more than max_pixels (%d) stands for; send a smaller picture", c.Width, c.Height, h.beside, in.spec.MaxPixels)
	}
	return h, nil
}

// lookPNG estimates the memory that decoding takes: the reader makes 4 bytes of a pixel, of 16-bit channels 8, and of an interlaced
// picture the parts beside the whole.
func (h *header) lookPNG(file []byte) {
	const depth, interlace = 24, 28 // in IHDR, which comes first
	per := int64(4)
	if len(file) > interlace && file[depth] == 16 {
		per = 8
	}
	if len(file) > interlace && file[interlace] != 0 {
		per *= 2
	}
	h.beside = per * int64(h.width) * int64(h.height)
}

func (f Format) words() string {
	switch f {
	case JPEG:
		return "JPEG"
	case PNG:
		return "PNG"
	case JPEGOrPNG:
		return "JPEG or PNG"
	}
	return string(f)
}

// kindOf says what the file seems to be.
func kindOf(file []byte) string {
	for _, k := range []struct{ magic, name string }{
		{jpegMagic, "a JPEG file"}, {pngMagic, "a PNG file"}, {"GIF8", "a GIF file"}, {"BM", "a BMP file"}, {"II*\x00", "a TIFF file"}, {"MM\x00*", "a TIFF file"},
		{"%PDF", "a PDF file"}, {"{", "JSON"}, {"[", "JSON"}, {"<", "XML or HTML"}, {"OggS", "an Ogg file"}, {"fLaC", "a FLAC file"}, {"ID3", "an MP3 file"},
	} {
		if bytes.HasPrefix(file, []byte(k.magic)) {
			return "it is " + k.name
		}
	}
	switch {
	case len(file) == 0:
		return "it is empty"
	case isWAV(file):
		return "it is a WAV file"
	case len(file) >= 12 && string(file[:4]) == "RIFF" && string(file[8:12]) == "WEBP":
		return "it is a WebP file"
	case len(file) >= 12 && string(file[4:8]) == "ftyp":
		return "it is a HEIC, AVIF or MP4 file"
	}
	return "it is no file of a known kind"
}

// damaged is the error of a decoder.
func damaged(f Format, err error) error {
	var unsupported jpeg.UnsupportedError
	var alsoUnsupported png.UnsupportedError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return unfit("it is a %s file that is cut short", f.words())
	case errors.As(err, &unsupported), errors.As(err, &alsoUnsupported):
		return unfit("it is a %s file of a kind that is not read here (%v); save it as a plain one", f.words(), err)
	}
	return unfit("it is a damaged %s file (%v)", f.words(), err)
}

// pictures makes a row of each file.
func (in *Input) pictures(ctx context.Context, files [][]byte, l Limits) (*tensor.Tensor, error) {
	var beside, pixels int64
	headers := make([]header, len(files))
	for i, file := range files {
		h, err := in.look(file)
		if err != nil {
			return nil, nth(files, i, err)
		}
		headers[i], beside, pixels = h, max(beside, h.beside), pixels+int64(h.width)*int64(h.height)
	}
	if most := busyPixels * in.spec.MaxPixels; pixels > most {
		return nil, tooLarge("the pictures have %d pixels together, at most %d may come in one request; send fewer in one", pixels, most)
	}
	t, err := in.allocate(int64(len(files)), 0, beside, l)
	if err != nil {
		return nil, err
	}
	per := len(t.Data) / len(files)
	for i, file := range files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		m, err := headers[i].decode(file)
		if err != nil {
			return nil, nth(files, i, err)
		}
		in.fit(t.Data[i*per:(i+1)*per], m, headers[i].orientation)
	}
	return t, nil
}

// decode reads the pixels. What the file says of transparency is left out: the colours are those that are stored.
func (h header) decode(file []byte) (image.Image, error) {
	var (
		m   image.Image
		err error
	)
	if h.format == JPEG {
		m, err = jpeg.Decode(bytes.NewReader(file))
	} else {
		m, err = png.Decode(bytes.NewReader(file))
	}
	if err != nil {
		return nil, damaged(h.format, err)
	}
	switch m := m.(type) {
	case *image.NRGBA:
		for i := 3; i < len(m.Pix); i += 4 {
			m.Pix[i] = 0xff
		}
	case *image.NRGBA64:
		for i := 6; i+1 < len(m.Pix); i += 8 {
			m.Pix[i], m.Pix[i+1] = 0xff, 0xff
		}
	case *image.Paletted:
		for i, c := range m.Palette {
			if c, ok := c.(color.NRGBA); ok {
				c.A = 0xff
				m.Palette[i] = c
			}
		}
	}
	return m, nil
}

// resizing is the memory that [draw.BiLinear] takes for the picture: four float64 for each column of what it becomes and each row that it
// has, and the weights.
func (in *Input) resizing(h header) int64 {
	src, dst := in.place(h.width, h.height, h.orientation)
	if src.Size() == dst.Size() {
		return 0
	}
	const pixel, weight = 32, 16
	return pixel*int64(dst.Dx())*int64(src.Dy()) + weight*4*int64(src.Dx()+src.Dy()+dst.Dx()+dst.Dy())
}

// fit writes the picture's numbers to row.
func (in *Input) fit(row []byte, m image.Image, orientation int) {
	b := m.Bounds()
	src, dst := in.place(b.Dx(), b.Dy(), orientation)
	src = src.Add(b.Min)
	canvas, _ := in.scratch.Get().(*image.RGBA)
	if canvas == nil {
		canvas = image.NewRGBA(image.Rect(0, 0, in.spec.Width, in.spec.Height))
	}
	defer in.scratch.Put(canvas)
	// A picture that lies on its side is resized as it lies.
	lying := &image.RGBA{Pix: canvas.Pix, Stride: 4 * in.spec.Width, Rect: canvas.Rect}
	if lies(orientation) {
		lying.Stride, lying.Rect = 4*in.spec.Height, image.Rect(0, 0, in.spec.Height, in.spec.Width)
	}
	if dst != lying.Rect {
		f := uint8(in.spec.Fill)
		draw.Draw(lying, lying.Rect, image.NewUniform(color.RGBA{f, f, f, 0xff}), image.Point{}, draw.Src)
	}
	if src.Size() == dst.Size() {
		draw.Draw(lying, dst, m, src.Min, draw.Src)
	} else {
		draw.BiLinear.Scale(lying, dst, m, src, draw.Src, nil)
	}
	in.write(row, lying, orientation)
}
