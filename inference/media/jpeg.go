// jpeg.go: what the decoder does not tell of a JPEG file: which way up it is, and what decoding it takes.
package media

import (
	"bytes"
	"encoding/binary"
	"image/color"
)

// JPEG's markers.
const (
	markerSOI  = 0xd8
	markerSOS  = 0xda
	markerSOF2 = 0xc2 // the frame of a progressive picture
	markerAPP1 = 0xe1
)

// lookJPEG finds the orientation and estimates the memory that decoding takes.
func (h *header) lookJPEG(file []byte, model color.Model) error {
	// Every scan begins with these bytes, which the pixels never have; other data may, seldom.
	if n := bytes.Count(file, []byte{0xff, markerSOS}); n > maxScans {
		return tooLarge("it is a progressive JPEG file in %d scans, at most %d are read; save it as a plain one", n, maxScans)
	}
	for b := file[2:]; len(b) >= 4 && b[0] == 0xff; {
		marker := b[1]
		if marker == 0xff { // a fill byte
			b = b[1:]
			continue
		}
		if marker == markerSOS {
			break
		}
		if marker == markerSOI || marker == 1 || marker >= 0xd0 && marker <= 0xd7 { // without a length
			b = b[2:]
			continue
		}
		n := 2 + int(binary.BigEndian.Uint16(b[2:]))
		if n < 4 || n > len(b) {
			break
		}
		if marker == markerAPP1 {
			if o := orientation(b[4:n]); o != 0 {
				h.orientation = o
			}
		}
		b = b[n:]
	}
	planes, per := int64(3), int64(3)
	switch model {
	case color.GrayModel:
		planes, per = 1, 1
	case color.CMYKModel:
		planes, per = 4, 8 // and the joined picture
	case color.YCbCrModel:
	default: // stored as RGB, and joined too
		per = 7
	}
	if bytes.Contains(file, []byte{0xff, markerSOF2}) {
		per += 4 * planes // a coefficient each
	}
	const block = 32 // the largest unit that a side is rounded up to
	round := func(n int) int64 { return (int64(n) + block - 1) / block * block }
	h.beside = per * round(h.width) * round(h.height)
	return nil
}

// orientation is that of an EXIF segment, 0 where it does not say.
func orientation(app1 []byte) int {
	tiff, ok := bytes.CutPrefix(app1, []byte("Exif\x00\x00"))
	if !ok || len(tiff) < 8 {
		return 0
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch string(tiff[:4]) {
	case "II*\x00":
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 0
	}
	at := uint64(order.Uint32(tiff[4:]))
	if at+2 > uint64(len(tiff)) {
		return 0
	}
	const tagOrientation, short, entry = 0x0112, 3, 12
	entries := tiff[at+2:]
	for range order.Uint16(tiff[at:]) {
		if len(entries) < entry {
			return 0
		}
		if order.Uint16(entries) == tagOrientation && order.Uint16(entries[2:]) == short {
			if o := int(order.Uint16(entries[8:])); o >= 1 && o <= 8 {
				return o
			}
			return 0
		}
		entries = entries[entry:]
	}
	return 0
}
