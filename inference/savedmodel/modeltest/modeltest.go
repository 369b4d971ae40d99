// Package modeltest writes SavedModels, with Go alone: graph, signatures and variables. Tests, benches and tools/makemodels use
// it; the product does not.
//
// Invariants:
//  1. What a constructor returns is a function of its arguments only: the same bytes on every machine.
//  2. [Model.Save] writes saved_model.pb last, so a folder that has one is whole.
//  3. TensorFlow 2.20 loads and runs every model that is not made to fail (tests run them where a runtime is present).
//
// Unless its comment says otherwise, a model has the signature "serving_default" with the input "x" and the output "y".
package modeltest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference/tensor"
)

// Model is a SavedModel in memory. A test may change it before it is saved.
type Model struct {
	Name      string // the constructor's name in snake case
	Meta      *pb.MetaGraphDef
	Variables map[string]*tensor.Tensor
	Assets    map[string][]byte // files under assets/, which Meta.AssetFileDef should name
}

// Proto is the content of saved_model.pb.
func (m *Model) Proto() *pb.SavedModel {
	return &pb.SavedModel{SavedModelSchemaVersion: 1, MetaGraphs: []*pb.MetaGraphDef{m.Meta}}
}

// Save writes the SavedModel into dir, which is made when absent and becomes the version folder itself.
func (m *Model) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if len(m.Variables) > 0 {
		if err := writeBundle(filepath.Join(dir, "variables", "variables"), m.Variables); err != nil {
			return fmt.Errorf("write variables: %w", err)
		}
	}
	for name, content := range m.Assets {
		path := filepath.Join(dir, "assets", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Proto())
	if err != nil {
		return fmt.Errorf("encode saved_model.pb: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, "saved_model.pb"), b, 0o644)
}

// Publish writes the model as base/version, whole or not at all: into a folder with another name first, which is then renamed.
// It returns the version folder.
func (m *Model) Publish(base string, version int64) (string, error) {
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(base, ".writing-")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, strconv.FormatInt(version, 10))
	err = os.Chmod(tmp, 0o755)
	if err == nil {
		err = m.Save(tmp)
	}
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		_ = os.RemoveAll(tmp)
		return "", err
	}
	return dir, nil
}

// Write saves the model into a folder of the test's own and returns it.
func Write(t testing.TB, m *Model) (dir string) {
	t.Helper()
	return WriteVersion(t, filepath.Join(t.TempDir(), m.Name), 1, m)
}

// WriteVersion publishes the model as base/version and returns the version folder.
func WriteVersion(t testing.TB, base string, version int64, m *Model) (dir string) {
	t.Helper()
	dir, err := m.Publish(base, version)
	if err != nil {
		t.Fatalf("write model %s: %v", m.Name, err)
	}
	return dir
}
