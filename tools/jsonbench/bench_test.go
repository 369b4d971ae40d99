// bench_test.go: the reader and the writer of numbers in JSON beside the libraries that could take their place.
//
// The libraries are given the best case: the shape is known to them beforehand ([][]float32), which it is not to inferd's reader, and their numbers
// need not look as TensorFlow Serving prints them. A library within 1.3 times of ours would replace it.
package jsonbench

import (
	"bytes"
	"encoding/binary"
	stdjson "encoding/json"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/bytedance/sonic"
	goccy "github.com/goccy/go-json"
	"github.com/minio/simdjson-go"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

const (
	rows    = 64
	columns = 1024
)

type request struct {
	Instances [][]float32 `json:"instances"`
}

type answer struct {
	Predictions [][]float32 `json:"predictions"`
}

// document is a predict request of numbers in [0, 1) with so many digits, -1 for as many as Python prints.
func document(digits int) []byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	b.WriteString(`{"instances":[`)
	for i := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		for k := range columns {
			b.WriteByte(",["[btoi(k == 0)])
			b.WriteString(strconv.FormatFloat(rnd.Float64(), 'f', digits, 64))
		}
		b.WriteByte(']')
	}
	b.WriteString("]}")
	return b.Bytes()
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// version has one signature that takes rows of floats and answers with such.
func version() *inference.Version {
	info := func(alias string) []inference.TensorInfo {
		return []inference.TensorInfo{{Alias: alias, DType: tensor.Float, Shape: tensor.Shape{-1, columns}}}
	}
	return &inference.Version{Model: "m", Number: 1, Signatures: map[string]*inference.Signature{
		inference.DefaultSignature: {Key: inference.DefaultSignature, Method: "tensorflow/serving/predict", Inputs: info("x"), Outputs: info("y")}}}
}

func checked(b *testing.B, got float32, n int) {
	if n != rows*columns || got < 0 || got >= 1 {
		b.Fatalf("read %d numbers, the last %v", n, got)
	}
}

func BenchmarkRead(b *testing.B) {
	plain := func(unmarshal func([]byte, any) error) func(b *testing.B, doc []byte) {
		return func(b *testing.B, doc []byte) {
			var r request
			data := make([]byte, 0, 4*rows*columns)
			for b.Loop() {
				r.Instances, data = r.Instances[:0], data[:0]
				if err := unmarshal(doc, &r); err != nil {
					b.Fatal(err)
				}
				for _, row := range r.Instances {
					for _, f := range row {
						data = binary.LittleEndian.AppendUint32(data, math.Float32bits(f))
					}
				}
			}
			last := r.Instances[rows-1]
			checked(b, last[columns-1], rows*len(last))
		}
	}
	readers := []struct {
		name string
		read func(b *testing.B, doc []byte)
	}{
		{"inferd", func(b *testing.B, doc []byte) {
			codec, v := rest.NewCodec(rest.CodecOptions{}), version()
			for b.Loop() {
				call, err := codec.Decode(doc, v)
				if err != nil {
					b.Fatal(err)
				}
				call.Free()
			}
			call, _ := codec.Decode(doc, v)
			t := call.Request().Inputs[0]
			checked(b, math.Float32frombits(binary.LittleEndian.Uint32(t.Data[len(t.Data)-4:])), len(t.Data)/4)
		}},
		{"goccy", plain(goccy.Unmarshal)},
		{"sonic", plain(sonic.ConfigFastest.Unmarshal)},
		{"simdjson", simd},
		{"v1", plain(stdjson.Unmarshal)},
	}
	if v2Unmarshal != nil {
		readers = append(readers, struct {
			name string
			read func(b *testing.B, doc []byte)
		}{"v2", plain(v2Unmarshal)})
	}
	for _, digits := range []int{4, 9, -1} {
		doc := document(digits)
		for _, r := range readers {
			b.Run(r.name+"/digits="+strconv.Itoa(digits), func(b *testing.B) {
				b.SetBytes(int64(len(doc)))
				b.ReportAllocs()
				r.read(b, doc)
			})
		}
	}
}

// simd walks simdjson-go's tape, which is the least that could be done with it.
func simd(b *testing.B, doc []byte) {
	if !simdjson.SupportedCPU() {
		b.Skip("simdjson-go needs AVX2 and CLMUL")
	}
	var parsed *simdjson.ParsedJson
	var err error
	out := make([]byte, 0, 4*rows*columns)
	for b.Loop() {
		if parsed, err = simdjson.Parse(doc, parsed, simdjson.WithCopyStrings(false)); err != nil {
			b.Fatal(err)
		}
		out = out[:0]
		iter := parsed.Iter()
		for t := iter.AdvanceInto(); t != simdjson.TagEnd; t = iter.AdvanceInto() {
			if t != simdjson.TagFloat {
				continue
			}
			f, err := iter.Float()
			if err != nil {
				b.Fatal(err)
			}
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(float32(f)))
		}
	}
	checked(b, math.Float32frombits(binary.LittleEndian.Uint32(out[len(out)-4:])), len(out)/4)
}

func BenchmarkWrite(b *testing.B) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var a answer
	data := make([]byte, 0, 4*rows*columns)
	for range rows {
		row := make([]float32, columns)
		for k := range row {
			row[k] = rnd.Float32()
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(row[k]))
		}
		a.Predictions = append(a.Predictions, row)
	}
	y := []*tensor.Tensor{{DType: tensor.Float, Shape: tensor.Shape{rows, columns}, Data: data}}
	type writer struct {
		name  string
		write func() (int, error)
	}
	plain := func(marshal func(any) ([]byte, error)) func() (int, error) {
		return func() (int, error) { out, err := marshal(&a); return len(out), err }
	}
	codec := rest.NewCodec(rest.CodecOptions{})
	call, refused := codec.Decode(document(4), version())
	if refused != nil {
		b.Fatal(refused)
	}
	var out []byte
	writers := []writer{
		{"inferd", func() (int, error) {
			var err *inference.Error
			if out, err = call.(api.Call).Append(out[:0], inference.NewResponse(y, nil)); err != nil {
				return 0, err
			}
			return len(out), nil
		}},
		{"goccy", plain(goccy.Marshal)},
		{"sonic", plain(sonic.ConfigFastest.Marshal)},
		{"v1", plain(stdjson.Marshal)},
	}
	if v2Marshal != nil {
		writers = append(writers, writer{"v2", plain(v2Marshal)})
	}
	for _, w := range writers {
		b.Run(w.name, func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				var err error
				if n, err = w.write(); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(4 * rows * columns)
			b.ReportMetric(float64(n)/(rows*columns), "bytes/number")
		})
	}
}
