// paths_test.go: links inside a version folder and out of it.
package savedmodel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

func TestCheckPaths(t *testing.T) {
	for _, tt := range []struct {
		name, link, to string // to: from the link's own folder, or absolute
		want           error
	}{
		{name: "no link"},
		{"a file inside", "variables/copy", "variables.index", nil},
		{"a file above, inside", "variables/graph", "../saved_model.pb", nil},
		{"a folder inside", "assets.extra", "variables", nil},
		{"through the outside and back", "back", "../1/saved_model.pb", nil},
		{"a sibling", "twin", "../2", ErrOutside},
		{"a folder whose name begins alike", "twin", "../10", ErrOutside},
		{"the base path", "up", "..", ErrOutside},
		{"an absolute path", "variables/passwd", "/etc/passwd", ErrOutside},
		{"nothing", "dangling", "nowhere", ErrIncomplete},
	} {
		t.Run(tt.name, func(t *testing.T) {
			base := filepath.Join(t.TempDir(), "m")
			dir := modeltest.WriteVersion(t, base, 1, modeltest.HalfPlusTwo())
			for _, n := range []string{"2", "10"} {
				if err := os.Mkdir(filepath.Join(base, n), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if tt.link != "" {
				if err := os.Symlink(tt.to, filepath.Join(dir, tt.link)); err != nil {
					t.Fatal(err)
				}
			}
			linked := filepath.Join(t.TempDir(), "7")
			if err := os.Symlink(dir, linked); err != nil {
				t.Fatal(err)
			}
			for _, d := range []string{dir, linked} {
				err := CheckPaths(d)
				if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
					t.Errorf("%s: %v, want %v", d, err, tt.want)
				}
				if errors.Is(err, ErrOutside) && (!strings.Contains(err.Error(), tt.link+" is a symbolic link to "+tt.to)) {
					t.Errorf("%q does not name the link", err)
				}
			}
		})
	}
}

func TestAssetsStayInside(t *testing.T) {
	for _, name := range []string{"../../../etc/passwd", "/etc/passwd", "a/../../x", ".."} {
		m := modeltest.HalfPlusTwo()
		m.Meta.AssetFileDef = []*pb.AssetFileDef{{Filename: name}}
		if _, err := Read(modeltest.Write(t, m), nil); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "lies outside the folder") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
