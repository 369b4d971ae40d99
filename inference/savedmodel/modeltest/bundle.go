// bundle.go: a writer for TensorFlow's tensor bundle, the format of a SavedModel's variables.
package modeltest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	versionspb "github.com/wamuir/graft/tensorflow/core/framework/versions_go_proto"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference/tensor"
)

const (
	tableMagic      = 0xdb4775248b80fb57
	restartInterval = 16
	// blockBytes is small, so that even a test's bundle has several blocks.
	blockBytes = 1 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maskedCRC is the checksum as leveldb stores it: rotated and shifted, so that a checksum of checksums stays useful.
func maskedCRC(parts ...[]byte) uint32 {
	var c uint32
	for _, p := range parts {
		c = crc32.Update(c, castagnoli, p)
	}
	return (c>>15 | c<<17) + 0xa282ead8
}

// writeBundle writes prefix.index and prefix.data-00000-of-00001 with the tensors under their names.
func writeBundle(prefix string, tensors map[string]*tensor.Tensor) error {
	if err := os.MkdirAll(filepath.Dir(prefix), 0o755); err != nil {
		return err
	}
	data, err := os.Create(prefix + ".data-00000-of-00001")
	if err != nil {
		return err
	}
	defer data.Close() //nolint:errcheck // the error that counts is the one of the Close below

	var table tableWriter
	header, err := proto.Marshal(&pb.BundleHeaderProto{NumShards: 1, Version: &versionspb.VersionDef{Producer: 1}})
	if err != nil {
		return err
	}
	table.add("", header)
	var at int64
	for _, name := range sortedKeys(tensors) {
		t := tensors[name]
		if t.DType.Size() == 0 {
			return fmt.Errorf("variable %s: %v is not written by this package", name, t.DType)
		}
		entry, err := proto.Marshal(&pb.BundleEntryProto{
			Dtype: typespb.DataType(t.DType), Shape: shapeProto(t.Shape), Offset: at, Size: int64(len(t.Data)), Crc32C: maskedCRC(t.Data),
		})
		if err != nil {
			return err
		}
		table.add(name, entry)
		if _, err := data.Write(t.Data); err != nil {
			return err
		}
		at += int64(len(t.Data))
	}
	if err := data.Close(); err != nil {
		return err
	}
	return os.WriteFile(prefix+".index", table.finish(), 0o644)
}

// tableWriter makes a sorted table of the leveldb format, without compression. Keys are added in order.
type tableWriter struct {
	out          bytes.Buffer
	block, index blockWriter
}

func (w *tableWriter) add(key string, value []byte) {
	w.block.add(key, value)
	if w.block.buf.Len() >= blockBytes {
		w.flush()
	}
}

func (w *tableWriter) flush() {
	if w.block.count == 0 {
		return
	}
	last := w.block.last
	handle := w.write(&w.block)
	w.index.add(last, handle) // the last key itself is a correct separator
}

// write appends the block with its trailer, empties it, and returns its handle.
func (w *tableWriter) write(b *blockWriter) []byte {
	at, content := w.out.Len(), b.finish()
	w.out.Write(content)
	kind := []byte{0} // not compressed
	w.out.Write(kind)
	w.out.Write(binary.LittleEndian.AppendUint32(nil, maskedCRC(content, kind)))
	*b = blockWriter{}
	return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(at)), uint64(len(content)))
}

func (w *tableWriter) finish() []byte {
	w.flush()
	meta := w.write(&blockWriter{})
	index := w.write(&w.index)
	footer := make([]byte, 40, 48)
	copy(footer, slices.Concat(meta, index))
	w.out.Write(binary.LittleEndian.AppendUint64(footer, tableMagic))
	return w.out.Bytes()
}

// blockWriter is one block: entries that share a prefix with the one before, and restart points where they do not.
type blockWriter struct {
	buf      bytes.Buffer
	restarts []uint32
	count    int
	last     string
}

func (b *blockWriter) add(key string, value []byte) {
	shared := 0
	if b.count%restartInterval == 0 {
		b.restarts = append(b.restarts, uint32(b.buf.Len()))
	} else {
		for shared < len(key) && shared < len(b.last) && key[shared] == b.last[shared] {
			shared++
		}
	}
	head := binary.AppendUvarint(nil, uint64(shared))
	head = binary.AppendUvarint(head, uint64(len(key)-shared))
	head = binary.AppendUvarint(head, uint64(len(value)))
	b.buf.Write(head)
	b.buf.WriteString(key[shared:])
	b.buf.Write(value)
	b.last = strings.Clone(key)
	b.count++
}

func (b *blockWriter) finish() []byte {
	if len(b.restarts) == 0 {
		b.restarts = []uint32{0}
	}
	for _, r := range b.restarts {
		b.buf.Write(binary.LittleEndian.AppendUint32(nil, r))
	}
	b.buf.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(b.restarts))))
	return b.buf.Bytes()
}

func shapeProto(s tensor.Shape) *shapepb.TensorShapeProto {
	p := &shapepb.TensorShapeProto{}
	for _, d := range s {
		p.Dim = append(p.Dim, &shapepb.TensorShapeProto_Dim{Size: d})
	}
	return p
}
