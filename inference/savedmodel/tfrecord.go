// tfrecord.go: records of a TFRecord file, written, and counted in a file whose writer may have ended early.
package savedmodel

import (
	"encoding/binary"
	"hash/crc32"
	"io"
)

// MaxWarmupRecords is the most that [WarmupFile] may have.
const MaxWarmupRecords = maxWarmupRecords

// recordFrame is what a record has around its data: the length, its checksum and the data's.
const recordFrame = 16

// AppendRecord appends data as a record.
func AppendRecord(dst, data []byte) []byte {
	head := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	dst = append(dst, head...)
	dst = binary.LittleEndian.AppendUint32(dst, mask(crc32.Checksum(head, castagnoli)))
	dst = append(dst, data...)
	return binary.LittleEndian.AppendUint32(dst, mask(crc32.Checksum(data, castagnoli)))
}

// mask is TFRecord's for checksums of data that may hold checksums.
func mask(c uint32) uint32 { return (c>>15 | c<<17) + 0xa282ead8 }

// WholeRecords is how many records of up to most bytes each the file begins with, and how many bytes they take: what follows is cut off or damaged.
func WholeRecords(file io.Reader, most int) (bytes int64, records int) {
	var buf []byte
	for {
		var head [12]byte
		if _, err := io.ReadFull(file, head[:]); err != nil {
			return bytes, records
		}
		length := binary.LittleEndian.Uint64(head[:8])
		if unmask(binary.LittleEndian.Uint32(head[8:])) != crc32.Checksum(head[:8], castagnoli) || length > uint64(most) {
			return bytes, records
		}
		if uint64(cap(buf)) < length+4 {
			buf = make([]byte, length+4)
		}
		buf = buf[:length+4]
		if _, err := io.ReadFull(file, buf); err != nil || unmask(binary.LittleEndian.Uint32(buf[length:])) != crc32.Checksum(buf[:length], castagnoli) {
			return bytes, records
		}
		bytes += int64(length) + recordFrame
		records++
	}
}
