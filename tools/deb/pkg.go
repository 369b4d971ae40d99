// pkg.go: one package: its files, gathered so that the same input gives the same bytes, and how it is written.
package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/blakesmith/ar"
	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
)

// pkg is a package in the making. The first error of its methods sticks and is returned by write.
type pkg struct {
	info  *nfpm.Info
	time  time.Time
	stage string
	err   error
}

func (b *build) newPackage(name, version string, when time.Time) *pkg {
	return &pkg{time: when, stage: filepath.Join(b.stage, name), info: &nfpm.Info{
		Name: name, Arch: b.arch, Platform: "linux", Version: version, VersionSchema: "none",
		Maintainer: maintainer, Homepage: "https://github.com/inferd/inferd", Priority: "optional", MTime: when,
	}}
}

func (p *pkg) add(kind, src, dst string, mode fs.FileMode) {
	p.info.Contents = append(p.info.Contents, &files.Content{Source: src, Destination: dst, Type: kind,
		FileInfo: &files.ContentFileInfo{Mode: mode, MTime: p.time, Owner: "root", Group: "root"}})
}

// file puts the file src at dst.
func (p *pkg) file(src, dst string, mode fs.FileMode) {
	if _, err := os.Stat(src); err != nil && p.err == nil {
		p.err = err
	}
	p.add(files.TypeFile, src, dst, mode)
}

// config puts a file that belongs to the machine's owner once it is installed.
func (p *pkg) config(src, dst string) { p.add(files.TypeConfig, src, dst, 0o644) }

func (p *pkg) dir(dst string) { p.add(files.TypeDir, "", dst, 0o755) }

func (p *pkg) link(to, dst string) { p.add(files.TypeSymlink, to, dst, 0o777) }

// text puts data at dst, packed where its name ends with .gz.
func (p *pkg) text(data []byte, dst string) {
	if strings.HasSuffix(dst, ".gz") {
		var b bytes.Buffer
		w, err := gzip.NewWriterLevel(&b, gzip.BestCompression) // no name and no time in its header
		if err == nil {
			_, _ = w.Write(data) // into memory
			err = w.Close()
		}
		if err != nil && p.err == nil {
			p.err = err
		}
		data = b.Bytes()
	}
	src := filepath.Join(p.stage, filepath.FromSlash(dst))
	err := os.MkdirAll(filepath.Dir(src), 0o755)
	if err == nil {
		err = os.WriteFile(src, data, 0o644)
	}
	if err != nil && p.err == nil {
		p.err = err
	}
	p.file(src, dst, 0o644)
}

// packed puts the file src at dst, packed.
func (p *pkg) packed(src, dst string) {
	data, err := os.ReadFile(src)
	if err != nil && p.err == nil {
		p.err = err
	}
	p.text(data, dst)
}

// documents puts what every package has in /usr/share/doc.
func (p *pkg) documents(copyright string) {
	doc := path.Join("/usr/share/doc", p.info.Name)
	p.text([]byte(copyright), path.Join(doc, "copyright"))
	changelog := "changelog.gz"
	if strings.Contains(p.info.Version, "-") { // a revision of the package, beside its content's version
		changelog = "changelog.Debian.gz"
	}
	p.text(fmt.Appendf(nil, "%s (%s) unstable; urgency=medium\n\n  * Release %s. What changed: /usr/share/doc/inferd/NEWS.md.gz.\n\n -- %s  %s\n",
		p.info.Name, p.info.Version, p.info.Version, maintainer, p.time.Format(time.RFC1123Z)), path.Join(doc, changelog))
}

// describe sets the description: a line, and paragraphs, which are wrapped as Debian wants them.
func (p *pkg) describe(line string, paragraphs ...string) {
	lines := []string{line}
	for i, text := range paragraphs {
		if i > 0 {
			lines = append(lines, "")
		}
		row := ""
		for word := range strings.FieldsSeq(text) {
			if row != "" && len(row)+1+len(word) > 78 {
				lines, row = append(lines, row), ""
			}
			row = strings.TrimPrefix(row+" "+word, " ")
		}
		lines = append(lines, row)
	}
	p.info.Description = strings.Join(lines, "\n")
}

// write makes the package in the directory out, under the name that apt gives it, and returns its path.
func (p *pkg) write(out, compress string) (string, error) {
	if p.err != nil {
		return "", p.err
	}
	info := *p.info
	info.Deb.Compression = map[string]string{
		"zstd": "zstd:3",
		"xz":   "none", // and packed below: nfpm's own xz takes ten times as long
	}[compress]
	if err := nfpm.PrepareForPackager(&info, "deb"); err != nil {
		return "", err
	}
	name := filepath.Join(out, deb.Default.ConventionalFileName(&info))
	old, err := filepath.Glob(filepath.Join(out, p.info.Name+"_*_"+p.info.Arch+".deb"))
	if err != nil {
		return "", err
	}
	for _, o := range old { // or `apt install build/deb/inferd*.deb` would find two of one package
		if err := os.Remove(o); err != nil {
			return "", err
		}
	}
	f, err := os.Create(name + ".part")
	if err != nil {
		return "", err
	}
	err = deb.Default.Package(&info, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	if compress == "xz" {
		if err := xzData(name + ".part"); err != nil {
			return "", err
		}
	}
	return name, os.Rename(name+".part", name)
}

// xzData packs the data.tar in the package at path. The number of threads does not change what xz writes as long as there may be several.
func xzData(path string) error {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // it was only read
	r := ar.NewReader(from)
	var b bytes.Buffer
	w := ar.NewWriter(&b)
	if err := w.WriteGlobalHeader(); err != nil {
		return err
	}
	for range 3 {
		h, err := r.Next()
		if err != nil {
			return err
		}
		var body bytes.Buffer
		if h.Name == "data.tar" {
			cmd := exec.Command("xz", "--format=xz", "--check=crc64", "-6", "--threads=2", "--stdout")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = r, &body, os.Stderr
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("xz: %w", err)
			}
			h.Name, h.Size = "data.tar.xz", int64(body.Len())
		} else if _, err := body.ReadFrom(r); err != nil {
			return err
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(body.Bytes()); err != nil {
			return err
		}
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
