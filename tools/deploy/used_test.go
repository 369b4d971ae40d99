// used_test.go: nothing lies in packaging/ that no test and no tool has to do with.
package deploy

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryFileOfPackagingIsUsed(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "git", "-C", "../..", "ls-files", "packaging").Output()
	if err != nil {
		t.Skipf("not a git checkout: %v", err)
	}
	files := strings.Fields(string(out))
	if len(files) < 8 {
		t.Fatalf("git names %v", files)
	}
	for _, f := range files {
		if strings.HasSuffix(f, ".go") {
			continue // the compiler sees to those
		}
		name := filepath.Base(f)
		if dir := filepath.Base(filepath.Dir(f)); dir != "packaging" {
			name = dir + "/" + name // as whoever opens it writes it, joined or in parts
		}
		used := exec.CommandContext(t.Context(), "git", "-C", "../..", "grep", "-qF", "-e", name, "-e", `"`+filepath.Base(f)+`"`, "--", "*_test.go", "tools", "Makefile", ".ci")
		if err := used.Run(); err != nil {
			t.Errorf("%s is named by no test and no tool: try it, or remove it", f)
		}
	}
}
