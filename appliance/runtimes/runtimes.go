// runtimes.go: which TensorFlow runtimes lie side by side, and which of them is to be used.

// Package runtimes keeps TensorFlow runtimes side by side by version: those of packages, and those that were fetched on the box.
//
// Invariants:
//  1. A runtime appears under its version in one rename, when it is whole and checked; what was cut off is removed by the next one.
//  2. What is unpacked has the pinned SHA-256, or one that an operator gave. Nothing else of an archive is believed.
//  3. Choosing one changes a small file only. Whoever starts with it falls back where it cannot be opened.
package runtimes

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/inferd/inferd/inference/tfrt"
	"github.com/inferd/inferd/storage"
)

// PackageDir has the runtimes that packages bring, each in a folder of its version.
const PackageDir = "/usr/lib/inferd/runtime"

// Names in the state directory.
const (
	fetchedName = "runtimes"     // the runtimes that were fetched
	choiceName  = "runtime.json" // which one is to be used
)

// Where a runtime came from.
const (
	FromPackage = "package"
	FromFetched = "fetched"
)

// Places are where runtimes lie.
type Places struct {
	Package string // PackageDir, but in tests
	State   string // the state directory
}

// In has the usual places, with that state directory.
func In(stateDir string) Places { return Places{Package: PackageDir, State: stateDir} }

// Runtime is one that lies there.
type Runtime struct {
	Version string `json:"version"`
	Dir     string `json:"dir"`
	From    string `json:"from"`
	Library string `json:"library,omitempty"` // that may be opened; empty: none may
	Fault   string `json:"fault,omitempty"`   // why not
	Chosen  bool   `json:"chosen"`            // by `inferd runtime use`
}

// versionForm is what a version's folder may be called.
var versionForm = regexp.MustCompile(`^[0-9]+(\.[0-9A-Za-z+-]+){0,5}$`)

// ValidVersion says why s names no version, nil when it may.
func ValidVersion(s string) error {
	if len(s) > 64 || !versionForm.MatchString(s) {
		return fmt.Errorf("%.80q is no version; write for example 2.20.0", s)
	}
	return nil
}

// List has every runtime, the highest version first, one that was fetched before a package's of the same version. It opens none.
func (p Places) List() ([]Runtime, error) {
	choice, _ := p.Choice() // one that cannot be read chooses nothing; whoever starts with it says so
	var list []Runtime
	for _, place := range []struct{ dir, from string }{{filepath.Join(p.State, fetchedName), FromFetched}, {p.Package, FromPackage}} {
		entries, err := os.ReadDir(place.dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if ValidVersion(e.Name()) != nil {
				continue
			}
			r := Runtime{Version: e.Name(), Dir: filepath.Join(place.dir, e.Name()), From: place.from, Chosen: e.Name() == choice.Version}
			if found, err := tfrt.Find(r.Dir); err != nil {
				var tried *tfrt.FindError
				if r.Fault = err.Error(); errors.As(err, &tried) && len(tried.Tried) > 0 {
					r.Fault = tried.Tried[0].Why
				}
			} else {
				r.Library = found.Path
			}
			list = append(list, r)
		}
	}
	slices.SortStableFunc(list, func(a, b Runtime) int { return tfrt.CompareVersions(b.Version, a.Version) })
	return list, nil
}

// Choice is what `inferd runtime use` wrote. The zero value: nothing was chosen.
type Choice struct {
	Version string    `json:"version"`
	By      string    `json:"by,omitempty"`
	At      time.Time `json:"at,omitzero"`
}

// Choice reads it.
func (p Places) Choice() (c Choice, err error) {
	path := filepath.Join(p.State, choiceName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err == nil && c.Version != "" {
		err = ValidVersion(c.Version)
	}
	if err != nil {
		return Choice{}, fmt.Errorf("%s: %w; `inferd runtime use VERSION` writes it anew", path, err)
	}
	return c, nil
}

// Choose writes it. The runtime must be there and may be opened.
func (p Places) Choose(version, by string) (Runtime, error) {
	r, err := p.Find(version)
	if err != nil {
		return r, err
	}
	b, err := json.Marshal(Choice{Version: version, By: by, At: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return r, err
	}
	return r, storage.ReplaceFile(filepath.Join(p.State, choiceName), b, 0o644)
}

// Find is the runtime of that version, which may be opened.
func (p Places) Find(version string) (Runtime, error) {
	if err := ValidVersion(version); err != nil {
		return Runtime{}, err
	}
	list, err := p.List()
	if err != nil {
		return Runtime{}, err
	}
	fault := ""
	for _, r := range list {
		if r.Version != version {
			continue
		}
		if r.Library != "" {
			return r, nil
		}
		fault = r.Dir + ": " + r.Fault
	}
	if fault != "" {
		return Runtime{}, fmt.Errorf("runtime %s cannot be used: %s", version, fault)
	}
	return Runtime{}, fmt.Errorf("there is no runtime %s; `inferd runtime list` shows those that are there, `inferd runtime install` fetches the pinned one", version)
}

// Order has the runtimes that may be opened in the order in which they are to be tried: the chosen one, then the highest.
func (p Places) Order() (list []Runtime, refused []Runtime, err error) {
	all, err := p.List()
	if err != nil {
		return nil, nil, err
	}
	for _, r := range all {
		switch {
		case r.Library == "":
			refused = append(refused, r)
		case r.Chosen:
			list = append([]Runtime{r}, list...)
		default:
			list = append(list, r)
		}
	}
	return list, refused, nil
}

// Remove removes a runtime that was fetched, if it is neither chosen nor in use.
func (p Places) Remove(version, inUse string) error {
	if err := ValidVersion(version); err != nil {
		return err
	}
	dir := filepath.Join(p.State, fetchedName, version)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(p.Package, version)); err == nil {
			return fmt.Errorf("runtime %s is a package's; remove the package", version)
		}
		return fmt.Errorf("there is no runtime %s in %s", version, filepath.Dir(dir))
	}
	if choice, err := p.Choice(); err != nil {
		return err
	} else if choice.Version == version {
		return fmt.Errorf("runtime %s is the chosen one; `inferd runtime use` another first", version)
	}
	if inUse != "" && filepath.Dir(inUse) == dir {
		return fmt.Errorf("runtime %s is in use; `inferd runtime use` another first", version)
	}
	gone := filepath.Join(filepath.Dir(dir), ".removing-"+version) // so that nobody finds half of it
	if err := errors.Join(os.RemoveAll(gone), os.Rename(dir, gone)); err != nil {
		return err
	}
	return os.RemoveAll(gone)
}
