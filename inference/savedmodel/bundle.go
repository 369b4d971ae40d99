// bundle.go: a checker for TensorFlow's tensor bundle: variables.index, a sorted table of the leveldb format, and the shards it names.
package savedmodel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference/tensor"
)

const (
	tableMagic   = 0xdb4775248b80fb57
	footerBytes  = 48
	trailerBytes = 5 // kind of compression, checksum
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// indexEntry is one tensor of a bundle.
type indexEntry struct {
	name string
	*pb.BundleEntryProto
}

// readIndex calls begin with the header, then each with every tensor.
func readIndex(r io.ReaderAt, size int64, begin func(*pb.BundleHeaderProto) error, each func(indexEntry) error) error {
	if size > maxIndexFile {
		return fmt.Errorf("%d bytes, at most %d are read", size, int64(maxIndexFile))
	}
	if size < footerBytes {
		return errCut
	}
	var footer [footerBytes]byte
	if _, err := r.ReadAt(footer[:], size-footerBytes); err != nil {
		return err
	}
	if binary.LittleEndian.Uint64(footer[40:]) != tableMagic {
		return errors.New("it does not end as a table does")
	}
	_, rest, err := blockHandle(footer[:40]) // of the meta index, which is empty
	if err != nil {
		return err
	}
	index, _, err := blockHandle(rest)
	if err != nil {
		return err
	}
	block, err := readBlock(r, size-footerBytes, index)
	if err != nil {
		return fmt.Errorf("index block: %w", err)
	}
	begun := false
	return eachEntry(block, func(_, value []byte) error {
		h, _, err := blockHandle(value)
		if err != nil {
			return err
		}
		block, err := readBlock(r, size-footerBytes, h)
		if err != nil {
			return fmt.Errorf("block at %d: %w", h.at, err)
		}
		return eachEntry(block, func(key, value []byte) error {
			if !begun {
				begun = true
				var header pb.BundleHeaderProto
				if len(key) != 0 {
					return errors.New("it begins without a header")
				}
				if err := proto.Unmarshal(value, &header); err != nil {
					return fmt.Errorf("header: %w", err)
				}
				return begin(&header)
			}
			e := indexEntry{name: string(key), BundleEntryProto: new(pb.BundleEntryProto)}
			if err := proto.Unmarshal(value, e.BundleEntryProto); err != nil {
				return fmt.Errorf("entry %q: %w", key, err)
			}
			return each(e)
		})
	})
}

type handle struct{ at, size int64 }

func blockHandle(b []byte) (h handle, rest []byte, err error) {
	at, n := binary.Uvarint(b)
	if n <= 0 || at > maxIndexFile {
		return h, nil, errors.New("a bad block handle")
	}
	size, m := binary.Uvarint(b[n:])
	if m <= 0 || size > maxBlock {
		return h, nil, errors.New("a bad block handle")
	}
	return handle{int64(at), int64(size)}, b[n+m:], nil
}

// readBlock is the content of the block, checked and uncompressed.
func readBlock(r io.ReaderAt, end int64, h handle) ([]byte, error) {
	if h.at+h.size+trailerBytes > end {
		return nil, errCut
	}
	b := make([]byte, h.size+trailerBytes)
	if _, err := r.ReadAt(b, h.at); err != nil {
		return nil, err
	}
	content, kind, sum := b[:h.size], b[h.size], binary.LittleEndian.Uint32(b[h.size+1:])
	c := crc32.Checksum(b[:h.size+1], castagnoli)
	if c>>15|c<<17 != sum-0xa282ead8 { // stored rotated and shifted
		return nil, errors.New("its checksum is wrong")
	}
	switch kind {
	case 0:
		return content, nil
	case 1:
		return unsnappy(content)
	default:
		return nil, fmt.Errorf("compression of kind %d", kind)
	}
}

// eachEntry walks a block. key and value are valid until f returns.
func eachEntry(b []byte, f func(key, value []byte) error) error {
	bad := errors.New("a damaged block")
	if len(b) < 4 {
		return bad
	}
	restarts := int64(binary.LittleEndian.Uint32(b[len(b)-4:]))
	end := int64(len(b)) - 4 - 4*restarts
	if end < 0 {
		return bad
	}
	b = b[:end]
	var key []byte
	for len(b) > 0 {
		var n [3]uint64 // shared, not shared, value
		for i := range n {
			v, l := binary.Uvarint(b)
			if l <= 0 {
				return bad
			}
			n[i], b = v, b[l:]
		}
		if n[0] > uint64(len(key)) || n[1] > uint64(len(b)) || n[2] > uint64(len(b))-n[1] {
			return bad
		}
		key = append(key[:n[0]], b[:n[1]]...)
		if err := f(key, b[n[1]:n[1]+n[2]]); err != nil {
			return err
		}
		b = b[n[1]+n[2]:]
	}
	return nil
}

// unsnappy is the snappy block format, which old writers used for tables.
func unsnappy(src []byte) ([]byte, error) {
	bad := errors.New("damaged snappy data")
	want, n := binary.Uvarint(src)
	if n <= 0 || want > maxBlock {
		return nil, bad
	}
	src = src[n:]
	var dst []byte // grows with what is there, not with what is announced
	for len(src) > 0 {
		tag := src[0]
		src = src[1:]
		number := func(bytes int) (v int, ok bool) {
			if len(src) < bytes {
				return 0, false
			}
			for i := range bytes {
				v |= int(src[i]) << (8 * i)
			}
			src = src[bytes:]
			return v, true
		}
		length, offset, ok := int(tag>>2)+1, 0, true
		switch tag & 3 {
		case 0: // literal
			if length > 60 {
				length, ok = number(length - 60)
				length++
			}
			if !ok || length > len(src) || uint64(len(dst)+length) > want {
				return nil, bad
			}
			dst, src = append(dst, src[:length]...), src[length:]
			continue
		case 1:
			length = int(tag>>2)&7 + 4
			offset, ok = number(1)
			offset |= int(tag>>5) << 8
		case 2:
			offset, ok = number(2)
		case 3:
			offset, ok = number(4)
		}
		if !ok || offset == 0 || offset > len(dst) || uint64(len(dst)+length) > want {
			return nil, bad
		}
		for range length { // the copy may overlap what it makes
			dst = append(dst, dst[len(dst)-offset])
		}
	}
	if uint64(len(dst)) != want {
		return nil, bad
	}
	return dst, nil
}

// checkVariables holds variables/variables.index against the shards beside it and returns their size together. It wraps
// ErrIncomplete; when there is no index, fs.ErrNotExist too.
func checkVariables(dir string) (total int64, err error) {
	index := filepath.Join(dir, "variables", "variables.index")
	f, size, err := openFile(index)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	defer f.Close() //nolint:errcheck // only read

	var shards []int64 // sizes; -1 not looked at yet
	name := func(i int) string {
		return fmt.Sprintf("variables/variables.data-%05d-of-%05d", i, len(shards))
	}
	err = readIndex(f, size, func(h *pb.BundleHeaderProto) error {
		if h.NumShards < 1 || h.NumShards > maxShards {
			return fmt.Errorf("%d shards", h.NumShards)
		}
		if h.Endianness != pb.BundleHeaderProto_LITTLE {
			return fmt.Errorf("%w: variables of a big-endian machine", ErrUnsupported)
		}
		shards = make([]int64, h.NumShards)
		for i := range shards {
			n, err := fileSize(filepath.Join(dir, name(i)))
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("it names %s, which is not there", name(i))
			}
			if err != nil {
				return err
			}
			shards[i] = n
			total += n
		}
		return nil
	}, func(e indexEntry) error {
		if err := checkEntry(e, len(shards)); err != nil {
			return fmt.Errorf("variable %q: %w", e.name, err)
		}
		if end := e.Offset + e.Size; end > shards[e.ShardId] {
			return fmt.Errorf("variable %q ends at byte %d of %s, which has %d", e.name, end, name(int(e.ShardId)), shards[e.ShardId])
		}
		return nil
	})
	switch {
	case err == nil && shards == nil:
		err = errors.New("it is empty")
		fallthrough
	case err != nil && !errors.Is(err, ErrUnsupported):
		return 0, fmt.Errorf("%w: variables/variables.index: %w", ErrIncomplete, err)
	}
	return total, err
}

func checkEntry(e indexEntry, shards int) error {
	if e.ShardId < 0 || int(e.ShardId) >= shards {
		return fmt.Errorf("lies in shard %d of %d", e.ShardId, shards)
	}
	if e.Offset < 0 || e.Size < 0 || e.Offset+e.Size < 0 {
		return fmt.Errorf("has %d bytes at %d", e.Size, e.Offset)
	}
	shape, unknown, err := shapeOf(e.Shape)
	if err != nil {
		return err
	}
	d := tensor.DType(e.Dtype)
	if d == tensor.Invalid || unknown {
		return errors.New("has no type or shape")
	}
	if len(e.Slices) > 0 || d.Size() == 0 || d >= tensor.Int4 {
		return nil // its slices have entries of their own; or its length is no product
	}
	if want, err := shape.Bytes(d); err != nil || want != e.Size {
		return fmt.Errorf("has %d bytes, which is no %v %v", e.Size, d, shape)
	}
	return nil
}
