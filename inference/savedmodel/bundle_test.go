// bundle_test.go: variables.index, as TensorFlow writes it, as it must not be, and as a fuzzer would have it.
package savedmodel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	slicepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_slice_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

// manyVariables is a model with so many variables that its index has several blocks.
func manyVariables() *modeltest.Model {
	m := modeltest.HalfPlusTwo()
	for i := range 200 {
		m.Variables[fmt.Sprintf("layer/with/a/long/name/%03d", i)] = modeltest.Floats(tensor.Shape{2}, float32(i), 1)
	}
	return m
}

func TestIndexOfManyBlocks(t *testing.T) {
	dir := modeltest.Write(t, manyVariables())
	b, err := os.ReadFile(filepath.Join(dir, "variables", "variables.index"))
	if err != nil {
		t.Fatal(err)
	}
	last, n := "", 0
	err = readIndex(bytes.NewReader(b), int64(len(b)), func(*pb.BundleHeaderProto) error { return nil }, func(e indexEntry) error {
		if e.name <= last || e.Dtype != typespb.DataType_DT_FLOAT {
			t.Errorf("%q after %q, %v", e.name, last, e.Dtype)
		}
		last = e.name
		n++
		return nil
	})
	if err != nil || n != 202 {
		t.Errorf("%d entries, %v", n, err)
	}
	if total, err := checkVariables(dir); err != nil || total != 200*8+8 {
		t.Errorf("%d bytes, %v", total, err)
	}
}

// table builds an index of one block from its entries, compressed when pack is given.
func table(entries []string, pack func([]byte) []byte) []byte {
	var b []byte
	block := func(content []byte) (handle []byte) {
		kind := byte(0)
		if pack != nil {
			content, kind = pack(content), 1
		}
		handle = binary.AppendUvarint(binary.AppendUvarint(nil, uint64(len(b))), uint64(len(content)))
		b = append(append(b, content...), kind)
		c := crc32.Checksum(append(bytes.Clone(content), kind), castagnoli)
		b = binary.LittleEndian.AppendUint32(b, (c>>15|c<<17)+0xa282ead8)
		return handle
	}
	entry := func(to []byte, key, value string) []byte {
		to = append(to, 0, byte(len(key)), byte(len(value)))
		return append(append(to, key...), value...)
	}
	restarts := []byte{0, 0, 0, 0, 1, 0, 0, 0}
	var data []byte
	for i := 0; i < len(entries); i += 2 {
		data = entry(data, entries[i], entries[i+1])
	}
	h := block(append(data, restarts...))
	meta := block(restarts)
	index := block(append(entry(nil, "z", string(h)), restarts...))
	footer := make([]byte, 40)
	copy(footer, append(meta, index...))
	return binary.LittleEndian.AppendUint64(append(b, footer...), tableMagic)
}

// literal is snappy without compression, in one literal.
func literal(b []byte) []byte {
	out := binary.AppendUvarint(nil, uint64(len(b)))
	return append(append(out, 61<<2, byte(len(b)-1), byte((len(b)-1)>>8)), b...)
}

func TestBadIndexes(t *testing.T) {
	header := string(encode(t, &pb.BundleHeaderProto{NumShards: 1}))
	value := func(e *pb.BundleEntryProto) string { return string(encode(t, e)) }
	shape := &shapepb.TensorShapeProto{Dim: []*shapepb.TensorShapeProto_Dim{{Size: 2}}}
	good := &pb.BundleEntryProto{Dtype: typespb.DataType_DT_FLOAT, Shape: shape, Size: 8}
	tests := []struct {
		name    string
		entries []string
		want    string // "" when it is good
	}{
		{"good", []string{"", header, "v", value(good)}, ""},
		{"no tensors", []string{"", header}, ""},
		{"sliced", []string{"", header, "v", value(&pb.BundleEntryProto{Dtype: 1, Shape: shape, Slices: []*slicepb.TensorSliceProto{{}}})}, ""},
		{"nothing", nil, "it is empty"},
		{"no header", []string{"v", value(good)}, "without a header"},
		{"header is no proto", []string{"", "\xff"}, "header"},
		{"entry is no proto", []string{"", header, "v", "\xff"}, `entry "v"`},
		{"no shards", []string{"", string(encode(t, &pb.BundleHeaderProto{}))}, "0 shards"},
		{"many shards", []string{"", string(encode(t, &pb.BundleHeaderProto{NumShards: 1 << 30}))}, "1073741824 shards"},
		{"another shard", []string{"", string(encode(t, &pb.BundleHeaderProto{NumShards: 2}))}, "variables.data-00000-of-00002, which is not there"},
		{"big-endian", []string{"", string(encode(t, &pb.BundleHeaderProto{NumShards: 1, Endianness: pb.BundleHeaderProto_BIG}))}, "big-endian"},
		{"shard out of range", []string{"", header, "v", value(&pb.BundleEntryProto{Dtype: 1, Shape: shape, Size: 8, ShardId: 1})}, "shard 1 of 1"},
		{"negative shard", []string{"", header, "v", value(&pb.BundleEntryProto{Dtype: 1, Shape: shape, Size: 8, ShardId: -1})}, "shard -1 of 1"},
		{"negative offset", []string{"", header, "v", value(&pb.BundleEntryProto{Dtype: 1, Shape: shape, Size: 8, Offset: -8})}, "8 bytes at -8"},
		{"overflow", []string{"", header, "v", value(&pb.BundleEntryProto{Dtype: 1, Shape: shape, Size: 8, Offset: 1<<63 - 1})}, "8 bytes at"},
		{"beyond the shard", []string{"", header, "v", value(&pb.BundleEntryProto{Dtype: 1, Shape: shape, Size: 8, Offset: 1})}, "ends at byte 9"},
		{"size is no product", []string{"", header, "v", value(&pb.BundleEntryProto{Dtype: 1, Shape: shape, Size: 4})}, "no DT_FLOAT [2]"},
		{"no type", []string{"", header, "v", value(&pb.BundleEntryProto{Shape: shape, Size: 8})}, "no type or shape"},
	}
	for _, tt := range tests {
		for form, pack := range map[string]func([]byte) []byte{"plain": nil, "snappy": literal} {
			t.Run(tt.name+"/"+form, func(t *testing.T) {
				dir := t.TempDir()
				if err := os.Mkdir(filepath.Join(dir, "variables"), 0o755); err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(dir, "variables", "variables.index"), table(tt.entries, pack))
				write(t, filepath.Join(dir, "variables", "variables.data-00000-of-00001"), make([]byte, 8))
				_, err := checkVariables(dir)
				if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || !errors.Is(err, ErrIncomplete) && !errors.Is(err, ErrUnsupported)) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
			})
		}
	}
}

// Every byte of an index is under a checksum, or in the footer: a damaged one must not pass, but where the damage does not matter.
func TestEveryDamageToAnIndexIsNoticed(t *testing.T) {
	b := table([]string{"", string(encode(t, &pb.BundleHeaderProto{NumShards: 1}))}, nil)
	none := func(*pb.BundleHeaderProto) error { return nil }
	entry := func(indexEntry) error { return nil }
	if err := readIndex(bytes.NewReader(b), int64(len(b)), none, entry); err != nil {
		t.Fatal(err)
	}
	handles := len(b) - footerBytes
	metaAt, metaSize := int(b[handles]), int(b[handles+1])
	for i := range b {
		if i >= metaAt && i < metaAt+metaSize+trailerBytes || i == handles || i == handles+1 || i > handles+3 && i < len(b)-8 {
			continue // the meta index, which says nothing, its handle, and padding
		}
		damaged := bytes.Clone(b)
		damaged[i] ^= 0x10
		if err := readIndex(bytes.NewReader(damaged), int64(len(b)), none, entry); err == nil {
			t.Errorf("byte %d of %d changed, and nobody noticed", i, len(b))
		}
	}
}

func TestUnsnappy(t *testing.T) {
	tests := []struct{ name, src, want string }{
		{"empty", "\x00", ""},
		{"short literal", "\x03\x08abc", "abc"},
		{"literal with a length byte", "\x03\xf0\x02abc", "abc"},
		{"copy of one byte offset", "\x08\x0cabcd\x01\x04", "abcdabcd"},
		{"copy of two byte offset", "\x08\x0cabcd\x0e\x04\x00", "abcdabcd"},
		{"copy of four byte offset", "\x08\x0cabcd\x0f\x04\x00\x00\x00", "abcdabcd"},
		{"overlapping copy", "\x06\x04ab\x0e\x02\x00", "ababab"},
		{"offset zero", "\x08\x0cabcd\x01\x00", "error"},
		{"offset before the beginning", "\x08\x0cabcd\x01\x05", "error"},
		{"too long", "\x02\x08abc", "error"},
		{"too short", "\x04\x08abc", "error"},
		{"literal cut", "\x03\x08ab", "error"},
		{"length cut", "\x03\xf4\x02", "error"},
		{"announces too much", "\xff\xff\xff\xff\x0f", "error"},
		{"nothing", "", "error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := unsnappy([]byte(tt.src))
			got := string(b)
			if err != nil {
				got = "error"
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzIndex(f *testing.F) {
	f.Add(table([]string{"", "\x08\x01"}, nil))
	f.Add(table([]string{"", "\x08\x01", "v", "\x08\x01\x12\x04\x12\x02\x08\x02\x28\x08"}, literal))
	dir := modeltest.Write(f, manyVariables())
	b, err := os.ReadFile(filepath.Join(dir, "variables", "variables.index"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = readIndex(bytes.NewReader(b), int64(len(b)), func(h *pb.BundleHeaderProto) error {
			if h.NumShards > maxShards {
				return errors.New("many")
			}
			return nil
		}, func(e indexEntry) error {
			if checkEntry(e, 1) == nil && (e.Offset < 0 || e.Size < 0 || e.Offset+e.Size < 0 || e.ShardId != 0) {
				t.Errorf("passed: %v", e)
			}
			return nil
		})
		// The checksums stop nearly every mutation, so the layers below them are fed directly too.
		_ = eachEntry(b, func(key, value []byte) error { _, _, err := blockHandle(value); return err })
		if out, err := unsnappy(b); err == nil && len(out) > maxBlock {
			t.Errorf("%d bytes", len(out))
		}
	})
}
