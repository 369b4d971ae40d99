// body.go: payloads and results: packed where that pays, in chunks that fill pages.
package storage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"
	"go.etcd.io/bbolt"
)

// Parts of a job's key in the bucket of bodies.
const (
	partPayload = 0
	partResult  = 1
)

const (
	// Two chunks and their heads fill one page of 4 KiB: no chunk has pages to itself that must lie side by side, so every free page can be
	// used again, whatever sizes come and go.
	chunkBytes = (4096-16)/2 - 16 - bodyKeyBytes
	// bodyKeyBytes: the sequence, the part, the chunk's number.
	bodyKeyBytes = 8 + 1 + 4

	minPacked = 256 // bytes; smaller ones are not worth a look
)

// packer compresses and expands. It may be used by any number of goroutines.
type packer struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newPacker(maxBytes int64) (*packer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(128<<10), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(uint64(max(maxBytes, 1<<20))), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return &packer{enc, dec}, nil
}

func (p *packer) close() {
	_ = p.enc.Close()
	p.dec.Close()
}

// pack is how data is stored: compressed where that saves an eighth. It may be data itself.
func (p *packer) pack(data []byte) ([]byte, body) {
	out, packed := data, false
	if len(data) >= minPacked {
		if small := p.enc.EncodeAll(data, make([]byte, 0, len(data))); len(small) <= len(data)-len(data)/8 {
			out, packed = small, true
		}
	}
	return out, body{raw: int64(len(data)), stored: int64(len(out)), sum: crc32.Checksum(out, castagnoli), packed: packed}
}

// unpack gives back what pack was given.
func (p *packer) unpack(stored []byte, b body) ([]byte, error) {
	if int64(len(stored)) != b.stored || crc32.Checksum(stored, castagnoli) != b.sum {
		return nil, fmt.Errorf("%w: %d bytes are not the %d that were stored", errRecord, len(stored), b.stored)
	}
	if !b.packed {
		return stored, nil
	}
	out, err := p.dec.DecodeAll(stored, make([]byte, 0, min(b.raw, 64<<20)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	if int64(len(out)) != b.raw {
		return nil, fmt.Errorf("%w: %d bytes expand to %d and not to %d", errRecord, len(stored), len(out), b.raw)
	}
	return out, nil
}

func bodyKey(seq uint64, part byte, chunk uint32) []byte {
	k := make([]byte, bodyKeyBytes)
	binary.BigEndian.PutUint64(k, seq)
	k[8] = part
	binary.BigEndian.PutUint32(k[9:], chunk)
	return k
}

// putBody stores the bytes, which must stay unchanged until the transaction has ended.
func putBody(bodies *bbolt.Bucket, seq uint64, part byte, stored []byte) error {
	for chunk := uint32(0); len(stored) > 0; chunk++ {
		n := min(len(stored), chunkBytes)
		if err := bodies.Put(bodyKey(seq, part, chunk), stored[:n]); err != nil {
			return err
		}
		stored = stored[n:]
	}
	return nil
}

// getBody is a copy of what putBody stored.
func getBody(bodies *bbolt.Bucket, seq uint64, part byte, b body) ([]byte, error) {
	if b.stored == 0 {
		return nil, nil
	}
	out := make([]byte, 0, b.stored)
	c, first := bodies.Cursor(), bodyKey(seq, part, 0)
	for k, v := c.Seek(first); len(k) == bodyKeyBytes && string(k[:9]) == string(first[:9]) && int64(len(out)) < b.stored; k, v = c.Next() {
		if int64(len(v)) > b.stored-int64(len(out)) {
			return nil, errRecord
		}
		out = append(out, v...)
	}
	if int64(len(out)) != b.stored {
		return nil, errRecord
	}
	return out, nil
}

// deleteBody removes the chunks of a part.
func deleteBody(bodies *bbolt.Bucket, seq uint64, part byte, b body) error {
	for chunk := uint32(0); int64(chunk)*chunkBytes < b.stored; chunk++ {
		if err := bodies.Delete(bodyKey(seq, part, chunk)); err != nil {
			return err
		}
	}
	return nil
}
