// read.go: the meta graph as a proto, with its initialiser and its assets.
package freeze

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"google.golang.org/protobuf/proto"

	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
)

// initOp is the key under which TensorFlow 2 saves its initialiser, both as a signature and as its output.
const initOp = "__saved_model_init_op"

// Read reads the meta graph with exactly these tags from saved_model.pb in dir. It wraps a [Refusal] where the file is too large or of another form.
func Read(dir string, tags []string) (*pb.MetaGraphDef, error) {
	path := filepath.Join(dir, "saved_model.pb")
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would block for ever
	if os.IsNotExist(err) {
		return nil, refuse("it has no saved_model.pb; other forms are not frozen")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, maxGraphFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(b) > maxGraphFile {
		return nil, refuse("saved_model.pb has more than %d MiB", maxGraphFile>>20)
	}
	return Decode(b, tags)
}

// Decode is [Read] for the content of saved_model.pb.
func Decode(b []byte, tags []string) (*pb.MetaGraphDef, error) {
	var saved pb.SavedModel
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, &saved); err != nil {
		return nil, fmt.Errorf("saved_model.pb: %w", err)
	}
	for _, m := range saved.GetMetaGraphs() { // of several TensorFlow takes the first
		if sameSet(m.GetMetaInfoDef().GetTags(), tags) {
			return m, nil
		}
	}
	return nil, refuse("it has no meta graph with the tags {%s}", strings.Join(tags, ","))
}

func sameSet(a, b []string) bool {
	sorted := func(s []string) []string { return slices.Compact(slices.Sorted(slices.Values(s))) }
	return slices.Equal(sorted(a), sorted(b))
}

// Asset is a file under assets/ whose path the initialiser is fed.
type Asset struct{ Tensor, File string }

// initialiser is the node that TensorFlow's loader runs once after it has restored the variables, "" when there is none.
func initialiser(meta *pb.MetaGraphDef) string {
	for _, key := range []string{"saved_model_main_op", "legacy_init_op"} {
		if list := meta.GetCollectionDef()[key].GetNodeList().GetValue(); len(list) > 0 {
			return nodeOf(list[0])
		}
	}
	return nodeOf(meta.GetSignatureDef()[initOp].GetOutputs()[initOp].GetName())
}

// assets are the files that the initialiser is fed.
func assets(meta *pb.MetaGraphDef) ([]Asset, error) {
	var list []Asset
	add := func(a *pb.AssetFileDef) { list = append(list, Asset{a.GetTensorInfo().GetName(), a.GetFilename()}) }
	for _, a := range meta.GetAssetFileDef() {
		add(a)
	}
	if len(list) > 0 {
		return list, nil
	}
	for _, packed := range meta.GetCollectionDef()["saved_model_assets"].GetAnyList().GetValue() {
		var a pb.AssetFileDef
		if err := proto.Unmarshal(packed.GetValue(), &a); err != nil {
			return nil, fmt.Errorf("saved_model.pb: an asset: %w", err)
		}
		add(&a)
	}
	return list, nil
}

// nodeOf is the node in "node", "node:1" and "^node".
func nodeOf(input string) string {
	s, _, _ := strings.Cut(strings.TrimPrefix(input, "^"), ":")
	return s
}
