// manual_test.go: the manual pages say of every verb, flag and key what the tables say, and are pages that man and the shells can read.
package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/inferd/inferd/appliance/config"
)

func TestManualHasEveryVerbFlagAndKey(t *testing.T) {
	root := rootCommand(&env{})
	files, err := manual(root)
	if err != nil {
		t.Fatal(err)
	}
	r := &roff{}
	keys := map[string]bool{}
	page := string(files["inferd.yaml.5"])
	for _, k := range config.Keys() {
		keys[k.Path] = !k.Section
		if want := "\\fB" + r.escape(k.Path) + "\\fP\n"; !k.Section && !strings.Contains(page, want) {
			t.Errorf("inferd.yaml.5 does not have the key %s", k.Path)
		}
	}
	page = string(files[servingName+".1"])
	for _, f := range config.ServingFlags() {
		if !strings.Contains(page, r.escape("--"+f.Name+" ("+f.Kind+")")) {
			t.Errorf("%s.1 does not have --%s", servingName, f.Name)
		}
	}
	for _, c := range described(root) {
		if c.Name() == servingName {
			continue
		}
		page, parent := string(files[pageName(c)+".1"]), string(files[pageName(c.Parent())+".1"])
		if !strings.Contains(page, r.inline(lowerFirst(c.Short))) || !strings.Contains(parent, r.inline(c.Short)) {
			t.Errorf("%q is not on the page of %q and on the one above", c.Short, c.CommandPath())
		}
		c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !keys[f.Name] && !strings.Contains(page, r.escape("--"+f.Name)) {
				t.Errorf("the page of %q does not have --%s", c.CommandPath(), f.Name)
			}
		})
	}
}

func TestManualIsReadByManAndShells(t *testing.T) {
	files, err := manual(rootCommand(&env{}))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tried := 0
	try := func(tool string, args ...string) {
		if _, err := exec.LookPath(tool); err != nil {
			t.Logf("%s is not here: not asked about %s", tool, args[len(args)-1])
			return
		}
		tried++
		cmd := exec.Command(tool, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "MANROFFSEQ=", "MANWIDTH=100", "LC_ALL=C.UTF-8")
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Run(); err != nil || said.Len() > 0 {
			t.Errorf("%s %s: %v\n%s", tool, strings.Join(args, " "), err, said.String())
		}
	}
	for _, page := range []string{"inferd.1", "inferd-serve.1", "inferd-bench.1", "inferd-stream.1", servingName + ".1", "inferd.yaml.5"} {
		try("man", "--warnings", "--local-file", "./"+page)
	}
	try("bash", "-n", "inferd.bash")
	try("zsh", "-n", "_inferd")
	try("fish", "-n", "inferd.fish")
	if tried == 0 {
		t.Skip("neither man nor a shell is here")
	}
}
