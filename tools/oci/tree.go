// tree.go: the image's files: what goes where, and which libraries that needs.
package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// tensorflowNeeds are what every libtensorflow for Linux needs, for an image whose TensorFlow is mounted.
var tensorflowNeeds = []string{"libpthread.so.0", "libdl.so.2", "librt.so.1", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1"}

const (
	user       = 65532 // nobody's on any machine, as in other images without a shell
	runtimeDir = "usr/lib/inferd/runtime"
)

// entry is one file, folder or link of the image.
type entry struct {
	mode  fs.FileMode // with fs.ModeDir or fs.ModeSymlink
	owner int
	from  string // a file of this machine
	text  string // else the content, or where a link points to
}

// tree is the image by paths without a leading slash, in layers from what changes least.
type tree struct {
	layers  []map[string]entry
	machine string // elf's word for the processor
}

// newTree finds out what an image of that binary and that runtime has in it.
func newTree(binary, runtime string) (*tree, error) {
	f, err := elf.Open(binary)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; `make build` makes it", binary, err)
	}
	_ = f.Close() // only read
	base, tensorflow, inferd := map[string]entry{}, map[string]entry{}, map[string]entry{}

	dir := func(p string, mode fs.FileMode, owner int) { base[p] = entry{mode: fs.ModeDir | mode, owner: owner} }
	dir("tmp", fs.ModeSticky|0o777, 0)
	dir("models", 0o755, 0)
	dir("etc/inferd", 0o755, 0)
	dir("var/lib/inferd", 0o750, user)
	dir("var/lib/inferd/models", 0o755, user)
	dir("run/inferd", 0o755, user)
	text := func(p, s string) { base[p] = entry{mode: 0o644, text: s} }
	text("etc/passwd", fmt.Sprintf("root:x:0:0:root:/:/none\ninferd:x:%d:%d:inferd:/var/lib/inferd:/none\n", user, user))
	text("etc/group", fmt.Sprintf("root:x:0:\ninferd:x:%d:\n", user))
	text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
	if _, err := os.Stat("/etc/ssl/certs/ca-certificates.crt"); err == nil {
		base["etc/ssl/certs/ca-certificates.crt"] = entry{mode: 0o644, from: "/etc/ssl/certs/ca-certificates.crt"}
	}

	need := []string{binary}
	if runtime != "" {
		files, err := os.ReadDir(runtime)
		if err != nil {
			return nil, err
		}
		for _, e := range files {
			if e.IsDir() || !strings.Contains(e.Name(), ".so") && e.Name() != "cpu-flags" {
				continue
			}
			from := filepath.Join(runtime, e.Name())
			tensorflow[path.Join(runtimeDir, e.Name())] = entry{mode: 0o644, from: from}
			need = append(need, from)
		}
		if len(tensorflow) == 0 {
			return nil, fmt.Errorf("%s has no library in it; `make runtime` fetches one into build/runtime", runtime)
		}
	}
	libs, err := libraries(f.Machine, need, runtime)
	if err != nil {
		return nil, err
	}
	for _, lib := range libs {
		base[strings.TrimPrefix(lib, "/")] = entry{mode: 0o755, from: lib}
	}

	inferd["usr/bin/inferd"] = entry{mode: 0o755, from: binary}
	for _, link := range []string{"tensorflow_model_server", "tf_serving_entrypoint.sh"} { // what images of TensorFlow Serving are started by
		inferd["usr/bin/"+link] = entry{mode: fs.ModeSymlink | 0o777, text: "inferd"}
	}
	t := &tree{machine: f.Machine.String()}
	for _, l := range []map[string]entry{base, tensorflow, inferd} {
		if len(l) > 0 {
			t.layers = append(t.layers, withParents(l))
		}
	}
	return t, nil
}

// withParents adds the folders that lead to each entry.
func withParents(l map[string]entry) map[string]entry {
	for _, p := range slices.Collect(maps.Keys(l)) {
		for d := path.Dir(p); d != "."; d = path.Dir(d) {
			if _, ok := l[d]; !ok {
				l[d] = entry{mode: fs.ModeDir | 0o755}
			}
		}
	}
	return l
}

// libraries are the paths, on this machine, of every library that the files need, and of the program that loads them.
func libraries(machine elf.Machine, files []string, beside string) ([]string, error) {
	cache, err := loaderCache()
	if err != nil {
		return nil, err
	}
	found := make(map[string]bool)
	for _, name := range tensorflowNeeds {
		at, ok := cache[machine.String()+name]
		if !ok {
			return nil, fmt.Errorf("TensorFlow needs %s, which this machine's loader does not find", name)
		}
		found[at] = true
		files = append(files, at)
	}
	for seen := map[string]bool{}; len(files) > 0; files = files[1:] {
		if seen[files[0]] {
			continue
		}
		seen[files[0]] = true
		f, err := elf.Open(files[0])
		if err != nil {
			continue // a stand-in, or no library: it needs nothing
		}
		needed, err := f.ImportedLibraries()
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP {
				if b, e := io.ReadAll(p.Open()); e == nil {
					found[string(bytes.TrimRight(b, "\x00"))] = true
				}
			}
		}
		_ = f.Close() // only read
		if err != nil {
			return nil, fmt.Errorf("%s: %w", files[0], err)
		}
		for _, name := range needed {
			if beside != "" {
				if _, err := os.Stat(filepath.Join(beside, name)); err == nil {
					continue // it is in the image, beside who needs it
				}
			}
			at, ok := cache[f.Machine.String()+name]
			if !ok {
				return nil, fmt.Errorf("%s needs %s, which this machine's loader does not find", files[0], name)
			}
			if !strings.HasPrefix(name, "ld-linux") { // that one is there by its own path
				found[at] = true
			}
			files = append(files, at)
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// loaderCache is where this machine's loader finds libraries, by processor and name.
func loaderCache() (map[string]string, error) {
	tool, err := exec.LookPath("ldconfig")
	if err != nil {
		tool = "/sbin/ldconfig"
	}
	out, err := exec.Command(tool, "-p").Output()
	if err != nil {
		return nil, fmt.Errorf("ldconfig -p, which says where libraries lie: %w", err)
	}
	cache := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		name, at, ok := strings.Cut(strings.TrimSpace(line), " => ")
		name, _, flagged := strings.Cut(name, " ")
		if !ok || !flagged {
			continue
		}
		f, err := elf.Open(at)
		if err != nil {
			continue
		}
		key := f.Machine.String() + name
		_ = f.Close() // only read
		if _, ok := cache[key]; !ok {
			cache[key] = at
		}
	}
	return cache, nil
}

// write makes the tree a folder. Owners are left to what makes an image of it.
func (t *tree) write(root string) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	for _, layer := range t.layers {
		for _, p := range slices.Sorted(maps.Keys(layer)) {
			e, to := layer[p], filepath.Join(root, p)
			var err error
			switch {
			case e.mode.IsDir():
				if err = os.Mkdir(to, 0o755); errors.Is(err, fs.ErrExist) {
					err = nil // another layer has it too
				}
				err = errors.Join(err, os.Chmod(to, e.mode.Perm()|e.mode&fs.ModeSticky))
			case e.mode&fs.ModeSymlink != 0:
				err = os.Symlink(e.text, to)
			default:
				err = e.copyTo(to)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// open is the file's content and its size.
func (e entry) open() (io.ReadCloser, int64, error) {
	if e.from == "" {
		return io.NopCloser(strings.NewReader(e.text)), int64(len(e.text)), nil
	}
	f, err := os.Open(e.from)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close() // err says more
		return nil, 0, err
	}
	return f, st.Size(), nil
}

func (e entry) copyTo(to string) error {
	in, _, err := e.open()
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, e.mode.Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
