// e2e_bad_test.go: folders that cannot be served, and runtimes that cannot be opened.
package appliance

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// TestBadModels: what cannot be served is refused with the reason in the status, in the public state and in the log, while the version
// before it serves on.
func TestBadModels(t *testing.T) {
	three := func(name string) map[string]*pb.TensorInfo {
		return map[string]*pb.TensorInfo{name: {Dtype: typespb.DataType_DT_FLOAT, TensorShape: &shapepb.TensorShapeProto{
			Dim: []*shapepb.TensorShapeProto_Dim{{Size: -1}, {Size: 3}}}}}
	}
	s := serve(t, func(cfg *config.Config) {
		m := listed(cfg, "asserted")
		m.Signatures = config.Signatures{inference.DefaultSignature: {Inputs: three("x"), Outputs: three("score")}}
		cfg.Models = []config.Model{m}
	})
	half := modeltest.HalfPlusTwo()
	for _, model := range []string{"unknown_op", "no_run"} {
		s.publish(model, 1, half)
		s.live(model, 1)
	}
	s.publish("unknown_op", 2, modeltest.UnknownOp())
	s.publish("no_run", 2, modeltest.NoRun())
	s.publish("asserted", 1, half)
	s.publish("unproven", 1, modeltest.TFExample())

	for _, c := range []struct {
		model   string
		version int64
		serves  bool   // version 1 does
		public  string // the code in the public state
		reason  []string
	}{
		{"unknown_op", 2, true, "NOT_FOUND", []string{"NOT_FOUND: Op type not registered 'InferdOpThatNobodyHas", "still serving version 1"}},
		{"no_run", 2, true, "FAILED_PRECONDITION", []string{`made-up run of signature "serving_default": Could not find variable missing`, "still serving version 1"}},
		{"asserted", 1, false, "FAILED_PRECONDITION", []string{"asserted", "in the model", "x: DT_FLOAT [-1,3]", "x: x:0 DT_FLOAT [-1,1]", "score", "the model has no such output"}},
	} {
		v := s.staged(c.model, c.version, "quarantined", c.reason...)
		t.Log(v.Message)
		if c.serves {
			s.live(c.model, 1)
			s.ask(c.model, []float32{1}, []float32{2.5})
		}
		if code, body := s.get(fmt.Sprintf("/v1/models/%s/versions/%d", c.model, c.version)); code != 200 || !containsAll(body, []string{`"END"`, c.public}) {
			t.Errorf("public status of %s: %d %s", c.model, code, body)
		}
		s.logs.wait(t, "msg", "version refused", "model", c.model, "err", c.reason[0])
	}

	// A parser of strings fails on whatever is made up: it is published, with a warning.
	if v := s.live("unproven", 1); !strings.Contains(v.Message, "not proven") {
		t.Errorf("unproven: %+v", v)
	}
	s.logs.wait(t, "msg", "live without proof", "model", "unproven")
	y, err := s.callGRPC(t.Context(), "unproven", "", map[string]*tensorpb.TensorProto{"examples": {
		Dtype: typespb.DataType_DT_STRING, StringVal: [][]byte{modeltest.Example(1), modeltest.Example(2)},
		TensorShape: &shapepb.TensorShapeProto{Dim: []*shapepb.TensorShapeProto_Dim{{Size: 2}}},
	}}, "y")
	if err != nil || len(y) != 2 || y[0] != 2.5 || y[1] != 3 {
		t.Errorf("tf.Examples: %v, %v", y, err)
	}
}

// TestSomethingElse: a folder that holds no SavedModel says what it holds, and the command that makes it right.
func TestSomethingElse(t *testing.T) {
	s := serve(t, nil)
	put := func(path string) {
		t.Helper()
		path = filepath.Join(s.models, path)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, []byte("\x89HDF\r\n\x1a\nnot much"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put("keras/1/model.keras")
	put("hdf5/1/model.h5")
	put("lite/model.tflite")
	if err := modeltest.HalfPlusTwo().Save(filepath.Join(s.models, "unnumbered")); err != nil {
		t.Fatal(err)
	}
	modeltest.WriteVersion(t, filepath.Join(s.models, "deep", "inner"), 1, modeltest.HalfPlusTwo())

	for _, c := range []struct {
		model string
		says  []string
	}{
		{"keras", []string{"model.keras", "keras.saving.load_model", ".export("}},
		{"hdf5", []string{"model.h5", "keras.saving.load_model", ".export("}},
		{"lite", []string{"model.tflite"}},
		{"unnumbered", []string{"SavedModel", "mkdir", "mv ", "/1"}},
		{"deep", []string{"inner", "mv "}},
	} {
		st := s.until(c.model+" says what it holds", func(st *control.Status) bool { return containsAll(said(st, c.model), c.says) })
		t.Logf("%s: %s", c.model, said(st, c.model))
	}
}

// said is everything that the status says about the model.
func said(st *control.Status, model string) string {
	for _, m := range st.Models {
		if m.Name == model {
			text := m.Problem
			for _, v := range m.Versions {
				text += "\n" + v.Message
			}
			return text
		}
	}
	return ""
}

// TestNoRuntime: without a library that can be opened the appliance is live, not ready, and says which file it looked for where.
func TestNoRuntime(t *testing.T) {
	empty, foreign, broken := t.TempDir(), t.TempDir(), t.TempDir()
	machine := elf.EM_AARCH64
	if strings.Contains(arch(t), "aarch64") {
		machine = elf.EM_X86_64
	}
	header := make([]byte, 64) // of a 64-bit little-endian shared object
	copy(header, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(header[16:], uint16(elf.ET_DYN))
	binary.LittleEndian.PutUint16(header[18:], uint16(machine))
	binary.LittleEndian.PutUint32(header[20:], 1)
	binary.LittleEndian.PutUint16(header[52:], 64)
	for dir, content := range map[string][]byte{foreign: header, broken: []byte("version https://git-lfs.github.com/spec/v1\n")} {
		if err := os.WriteFile(filepath.Join(dir, "libtensorflow_cc.so.2"), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, library string
		says          []string
	}{
		{"an empty directory", empty, []string{empty, "libtensorflow_cc.so.2", "libtensorflow.so.2", "make runtime"}},
		{"no directory", filepath.Join(empty, "nowhere"), []string{filepath.Join(empty, "nowhere"), "make runtime"}},
		{"another machine's", foreign, []string{filepath.Join(foreign, "libtensorflow_cc.so.2"), strings.TrimPrefix(machine.String(), "EM_")}},
		{"no library", broken, []string{filepath.Join(broken, "libtensorflow_cc.so.2"), "ELF"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := run(t, testConfig(t, func(cfg *config.Config) {
				cfg.Runtime.Library = c.library
				modeltest.WriteVersion(t, filepath.Join(cfg.ModelsDir, "m"), 1, modeltest.HalfPlusTwo())
			}))
			st := s.Status()
			t.Log(st.Runtime.Error)
			if !containsAll(st.Runtime.Error, c.says) {
				t.Errorf("it says %q, want %q in it", st.Runtime.Error, c.says)
			}
			s.logs.wait(t, "level", "ERROR", "msg", "no TensorFlow runtime", "err", c.says[0])
			s.staged("m", 1, "quarantined", append(c.says, "no TensorFlow runtime", "give inferd a runtime")...)
			for _, path := range []string{"/healthz", "/v2/health/live"} {
				if code, body := s.get(path); code != 200 {
					t.Errorf("%s answers %d %s", path, code, body)
				}
			}
			s.ready("", 503)
			s.ready("m", 503)
			if code, body := s.get("/readyz"); !strings.Contains(body, c.says[0]) {
				t.Errorf("/readyz answers %d %s", code, body)
			}
			y, err := s.askREST(t.Context(), "m", []float32{1})
			if err == nil {
				t.Errorf("a model answered %v without TensorFlow", y)
			}
		})
	}
}

// arch is the machine as the kernel names it.
func arch(t testing.TB) string {
	t.Helper()
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	return strings.ToLower(strings.TrimPrefix(f.Machine.String(), "EM_"))
}
