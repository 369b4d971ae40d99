// archive.go: which command unpacks an archive so that the SavedModel in it lies where it must.
package savedmodel

import (
	"archive/tar"
	"archive/zip"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

const (
	maxArchiveNames = 10_000
	maxArchiveBytes = 64 << 20 // unpacked, while looking for names
	maxZip          = 64 << 30 // larger ones are not looked into
)

var errUnread = errors.New("not looked into")

func (p *place) archive() string {
	for _, name := range p.files {
		lower := strings.ToLower(name)
		file, to := p.path(name), p.target()
		mk := ""
		if !p.version {
			mk = "mkdir " + quote(to) + " && "
		}
		if strings.HasSuffix(lower, ".zip") {
			names, err := zipNames(file)
			if err == nil && slices.Contains(names, "config.json") && slices.Contains(names, "model.weights.h5") {
				as := strings.TrimSuffix(file, path.Ext(file)) + ".keras"
				return fmt.Sprintf("found %s, a Keras model under another name: mv %s %s && %s", name, quote(file), quote(as), kerasExport(as, to))
			}
			root, found := savedModelRoot(names)
			switch {
			case err == nil && !found:
				return fmt.Sprintf("found %s, an archive without a SavedModel in it", name)
			case root == "." || err != nil:
				return fmt.Sprintf("found %s, an archive that must be unpacked: %spython3 -m zipfile -e %s %s", name, mk, quote(file), quote(to))
			}
			tmp := p.path(".unpacked")
			return fmt.Sprintf("found %s, an archive that must be unpacked (its SavedModel is in %s): %spython3 -m zipfile -e %s %s && mv %s/* %s/ && rm -r %s",
				name, root, mk, quote(file), quote(tmp), quote(tmp+"/"+root), quote(to), quote(tmp))
		}
		if !isTar(lower) {
			continue
		}
		names, err := tarNames(file, lower)
		root, found := savedModelRoot(names)
		strip := ""
		switch {
		case err == nil && !found:
			return fmt.Sprintf("found %s, an archive without a SavedModel in it", name)
		case found:
			if n := components(root); n > 0 {
				strip = fmt.Sprintf(" --strip-components=%d %s", n, quote(root))
			}
		}
		return fmt.Sprintf("found %s, an archive that must be unpacked: %star -xf %s -C %s%s", name, mk, quote(file), quote(to), strip)
	}
	return ""
}

func isTar(lower string) bool {
	for _, ext := range []string{".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"} {
		if strings.HasSuffix(lower, ext) {
			return true
		}
	}
	return false
}

// savedModelRoot is the folder of saved_model.pb as the archive spells it: "." or "export/1" or "./1".
func savedModelRoot(names []string) (root string, found bool) {
	for _, n := range names {
		base := path.Base(n)
		if base != "saved_model.pb" && base != "saved_model.pbtxt" {
			continue
		}
		if root = strings.TrimSuffix(strings.TrimSuffix(n, base), "/"); root == "" {
			root = "."
		}
		// Someone else chose the name, and it is going to stand in a command.
		if !filepath.IsLocal(root) || root[0] == '-' || strings.IndexFunc(root, unicode.IsControl) >= 0 {
			continue
		}
		return root, true
	}
	return "", false
}

// components counts the leading path elements that tar must strip; it counts the dot of "./1" as one.
func components(root string) int {
	if root == "." {
		return 0
	}
	return strings.Count(root, "/") + 1
}

func zipNames(file string) (names []string, err error) {
	f, size, err := openFile(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	if size > maxZip {
		return nil, errUnread
	}
	r, err := zip.NewReader(f, size)
	if err != nil || len(r.File) > maxArchiveNames {
		return nil, errUnread
	}
	for _, e := range r.File {
		names = append(names, e.Name)
	}
	return names, nil
}

func tarNames(file, lower string) (names []string, err error) {
	f, _, err := openFile(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	var r io.Reader = f
	switch {
	case strings.HasSuffix(lower, "gz"):
		if r, err = gzip.NewReader(f); err != nil {
			return nil, err
		}
	case strings.HasSuffix(lower, "bz2"):
		r = bzip2.NewReader(f)
	case !strings.HasSuffix(lower, ".tar"):
		return nil, errUnread
	}
	for t := tar.NewReader(io.LimitReader(r, maxArchiveBytes)); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return names, nil
		}
		if err != nil || len(names) == maxArchiveNames {
			return names, errUnread
		}
		names = append(names, h.Name)
	}
}
