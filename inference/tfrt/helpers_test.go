// helpers_test.go: models of modeltest as loaded models, and tensors at chosen addresses.
package tfrt

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

// runtimePath is the library that tests use: the directory in LIBTENSORFLOW, else build/runtime of the repository.
func runtimePath(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("LIBTENSORFLOW")
	if dir == "" {
		dir = filepath.Join("..", "..", "build", "runtime")
	}
	for _, name := range libraryNames {
		path, err := filepath.Abs(filepath.Join(dir, name))
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	tb.Skipf("no TensorFlow runtime in %s: run `make runtime` or set LIBTENSORFLOW", dir)
	return ""
}

func openRuntime(tb testing.TB) *Runtime {
	tb.Helper()
	r, err := Open(runtimePath(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// load loads a model of modeltest and checks, when the test ends, that nothing of it is left in C.
func load(tb testing.TB, made *modeltest.Model, opts Options) (*Model, map[string]*inference.Signature) {
	tb.Helper()
	r := openRuntime(tb)
	before := Count()
	m, err := r.Load(modeltest.Write(tb, made), opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := m.Close(); err != nil {
			tb.Error(err)
		}
		if after := Count(); after != before {
			tb.Errorf("C objects before %+v, after %+v", before, after)
		}
	})
	signatures := make(map[string]*inference.Signature)
	for key, def := range made.Meta.SignatureDef {
		signatures[key] = &inference.Signature{Key: key, Inputs: infos(def.Inputs), Outputs: infos(def.Outputs)}
		if err := m.Prepare(signatures[key]); err != nil {
			tb.Fatal(err)
		}
	}
	return m, signatures
}

func infos(side map[string]*pb.TensorInfo) []inference.TensorInfo {
	var list []inference.TensorInfo
	for alias, info := range side {
		t := inference.TensorInfo{Alias: alias, Tensor: info.GetName(), DType: tensor.DType(info.Dtype).Base()}
		for _, d := range info.TensorShape.GetDim() {
			t.Shape = append(t.Shape, d.Size)
		}
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b inference.TensorInfo) int { return cmp.Compare(a.Alias, b.Alias) })
	return list
}

// at moves the tensor's bytes to an address that is off bytes beyond a multiple of 64.
func at(t *tensor.Tensor, off int) *tensor.Tensor {
	room := make([]byte, len(t.Data)+2*align)
	skip := (align - int(uintptr(unsafe.Pointer(unsafe.SliceData(room)))%align)) % align
	data := room[skip+off:][:len(t.Data):len(t.Data)]
	copy(data, t.Data)
	return &tensor.Tensor{DType: t.DType, Shape: t.Shape, Data: data}
}

// callAll runs the signature with all its outputs and clones them. It fails the test where TensorFlow keeps the input.
func callAll(tb testing.TB, m *Model, sig *inference.Signature, in ...*tensor.Tensor) ([]*tensor.Tensor, error) {
	tb.Helper()
	outputs := make([]int, len(sig.Outputs))
	for i := range outputs {
		outputs[i] = i
	}
	got := make([]*tensor.Tensor, len(outputs))
	late, err := m.Call(sig, in, outputs, func(i int, t *tensor.Tensor) error {
		got[i] = t.Clone()
		return nil
	})
	if late != nil {
		tb.Errorf("%s: TensorFlow keeps the input", sig.Key)
	}
	return got, err
}

func wantCode(tb testing.TB, err error, code inference.Code, text string) {
	tb.Helper()
	e, ok := err.(*inference.Error) //nolint:errorlint // the type itself is the promise
	if !ok || e.Code != code || !strings.Contains(e.Msg, text) {
		tb.Errorf("got %v, want %v with %q", err, code, text)
	}
}

func floats(shape tensor.Shape, v ...float32) *tensor.Tensor { return modeltest.Floats(shape, v...) }

// residentBytes is the anonymous memory of this process.
func residentBytes(tb testing.TB) int64 {
	tb.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "RssAnon:")
	var kib int64
	if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
		tb.Fatal(err)
	}
	return kib << 10
}
