// checkmodel.go: one directory of models, one model or one version, checked.
package appliance

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/updater"
)

// directory decides by what lies in dir whether it is a version, a model or a set of models.
func (c *checker) directory(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var models []string
	versions, saved := false, false
	for _, e := range entries {
		name := e.Name()
		switch _, number := parseVersion(name); {
		case name == "saved_model.pb", name == "saved_model.pbtxt":
			saved = true
		case strings.HasPrefix(name, "."), !isDir(dir, e):
		case number:
			versions = true
		default:
			models = append(models, filepath.Join(dir, name))
		}
	}
	_, numbered := parseVersion(name(dir))
	switch {
	case saved && versions: // a SavedModel was unpacked over a base path
		c.report.add(FindingWrong, dir, "%s", savedmodel.Diagnose(dir))
		c.base(ctx, c.modelAt(dir), false)
	case saved:
		m := c.modelAt(filepath.Dir(abs(dir)))
		c.version(ctx, dir, m)
		if hint := savedmodel.Diagnose(dir); !numbered && hint != "" {
			c.report.add(FindingWrong, dir, "%s", hint)
		}
	case versions:
		c.base(ctx, c.modelAt(dir), false)
	case numbered && savedmodel.Diagnose(dir) != "": // something else where a version should be
		c.report.add(FindingWrong, dir, "%s", savedmodel.Diagnose(dir))
	case slices.ContainsFunc(models, hasVersions):
		if len(models) == 1 {
			// It cannot be told from outside whether dir was meant as a model or as a directory with one.
			c.report.add(FindingWarning, dir, "is taken for a directory with one model, %s; if it is a model itself: %s", filepath.Base(models[0]), savedmodel.Diagnose(dir))
		} else {
			c.report.add(FindingOK, dir, "a directory of %d models", len(models))
		}
		for _, m := range models {
			c.base(ctx, c.modelAt(m), false)
		}
	case len(models) == 1 && savedmodel.Diagnose(dir) != "" && savedmodel.Diagnose(models[0]) != "":
		c.report.add(FindingWrong, dir, "%s; or, if this is a directory of models, %s", savedmodel.Diagnose(dir), savedmodel.Diagnose(models[0]))
	default:
		said := len(c.report.Findings)
		for _, m := range models {
			if hint := savedmodel.Diagnose(m); hint != "" {
				c.report.add(FindingWrong, m, "%s", hint)
			}
		}
		if len(c.report.Findings) == said {
			c.nothing(dir, FindingWrong, "no SavedModel, no numeric version folder and no model folder is here")
		}
	}
	return nil
}

// name is the last part of a path that may be "." or "..".
func name(dir string) string { return filepath.Base(abs(dir)) }

func abs(dir string) string {
	if a, err := filepath.Abs(dir); err == nil {
		return a
	}
	return dir
}

// modelAt is the settings of the model whose base path is dir. Its BasePath is dir as it was written, for messages.
func (c *checker) modelAt(dir string) config.Model {
	m, _ := c.cfg.Model(name(dir))
	for i := range c.cfg.Models {
		if c.cfg.Models[i].BasePath == abs(dir) {
			m = c.cfg.Models[i]
		}
	}
	m.BasePath = dir
	return m
}

// parseVersion reads a folder's name as the updater does.
func parseVersion(name string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(name), 10, 64)
	return n, err == nil
}

func isDir(dir string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	st, err := os.Stat(filepath.Join(dir, e.Name()))
	return err == nil && st.IsDir()
}

// versionsIn has the folder of each number in a base path, and a sentence for each number that two folders have.
func versionsIn(base string) (byNumber map[int64]string, doubles []string, err error) {
	entries, err := os.ReadDir(base) // sorted, as the updater takes them
	if err != nil {
		return nil, nil, err
	}
	byNumber = make(map[int64]string)
	for _, e := range entries {
		n, ok := parseVersion(e.Name())
		if !ok || !isDir(base, e) {
			continue
		}
		if first, taken := byNumber[n]; taken {
			doubles = append(doubles, fmt.Sprintf("folders %s and %s both mean version %d: %s is ignored", filepath.Base(first), e.Name(), n, e.Name()))
			continue
		}
		byNumber[n] = filepath.Join(base, e.Name())
	}
	return byNumber, doubles, nil
}

func hasVersions(base string) bool {
	byNumber, _, err := versionsIn(base)
	return err == nil && len(byNumber) > 0
}

// base checks a model's base path: with a configuration, what its policy would serve; else every version. required says that the
// service is not ready without it.
func (c *checker) base(ctx context.Context, m config.Model, listed bool) {
	absent := FindingWarning
	if listed && !m.Optional {
		absent = FindingWrong
	}
	byNumber, doubles, err := versionsIn(m.BasePath)
	if err != nil {
		c.report.add(absent, m.BasePath, "model %s: %v", m.Name, err)
		return
	}
	for _, d := range doubles {
		c.report.add(FindingWarning, m.BasePath, "%s", d)
	}
	if len(byNumber) == 0 {
		c.nothing(m.BasePath, absent, fmt.Sprintf("model %s has no version yet: no folder here has a number for its name", m.Name))
		return
	}
	var served, passed []int64
	left := len(byNumber)
	if n := m.VersionPolicy.Latest; c.configured && n > 0 {
		left = n
	}
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(byNumber))) {
		eligible := !c.configured || len(m.VersionPolicy.Specific) == 0 || slices.Contains(m.VersionPolicy.Specific, n)
		if left == 0 || !eligible {
			passed = append(passed, n)
		} else if c.version(ctx, byNumber[n], m) {
			served, left = append(served, n), left-1
		}
	}
	if !c.configured {
		return
	}
	if len(passed) > 0 {
		c.report.add(FindingOK, m.BasePath, "not served because of version_policy: version %s", list(passed))
	}
	for _, n := range m.VersionPolicy.Specific {
		if byNumber[n] == "" {
			c.report.add(FindingWrong, m.BasePath, "model %s: version %d of its version_policy is not there", m.Name, n)
		}
	}
	for _, label := range slices.Sorted(maps.Keys(m.VersionLabels)) {
		if n := m.VersionLabels[label]; !slices.Contains(served, n) {
			c.report.add(FindingWarning, m.BasePath, "model %s: label %s names version %d, which would not be served", m.Name, label, n)
		}
	}
}

func list(numbers []int64) string {
	words := make([]string, len(numbers))
	for i, n := range numbers {
		words[i] = strconv.FormatInt(n, 10)
	}
	return strings.Join(words, ", ")
}

// version checks one version folder and reports whether it would be served.
func (c *checker) version(ctx context.Context, dir string, m config.Model) (good bool) {
	info, err := readVersion(m, dir)
	if err != nil {
		message := strings.TrimPrefix(err.Error(), "read "+dir+": ")
		if hint := savedmodel.Diagnose(dir); hint != "" {
			message += "; " + hint
		}
		c.report.add(FindingWrong, dir, "%s", message)
		return false
	}
	f := Finding{Severity: FindingOK, Subject: dir, Message: "a whole SavedModel: " + size(info)}
	for _, key := range slices.Sorted(maps.Keys(info.Signatures)) {
		f.Signatures = append(f.Signatures, describe(info.Signatures[key], m.Batching))
	}
	var more []Finding
	for _, key := range slices.Sorted(maps.Keys(info.Refused)) {
		more = append(more, Finding{Severity: FindingWarning, Subject: dir, Message: fmt.Sprintf("signature %q cannot be served: %s", key, info.Refused[key])})
	}
	for _, w := range info.Warnings {
		more = append(more, Finding{Severity: FindingWarning, Subject: dir, Message: w})
	}
	if len(info.Signatures) == 0 {
		more = append(more, Finding{Severity: FindingWarning, Subject: dir, Message: "it has no signature, so nothing can be asked of it"})
	}
	if err := savedmodel.Assert(info, m.Signatures); err != nil {
		f.Severity, f.Message = FindingWrong, f.Message+", but "+err.Error()
	}
	c.vet(dir, m, info, &f)
	c.cases(dir, info, &f)
	if c.trial != nil && f.Severity != FindingWrong {
		more = append(more, c.try(ctx, dir, info, &f)...)
	}
	c.report.put(f)
	for _, f := range more {
		c.report.put(f)
	}
	return f.Severity != FindingWrong
}

// try loads the version and says in f how it went; what it returns are further findings.
func (c *checker) try(ctx context.Context, dir string, info *savedmodel.Info, f *Finding) (more []Finding) {
	s, _, proof, err := c.trial.Open(ctx, abs(dir))
	if err != nil {
		f.Severity, f.Message = FindingWrong, f.Message+", but it cannot be served: "+updater.Message(err)
		return nil
	}
	_ = s.Close() // the process ends either way
	f.Message += "; it loads"
	if proof.Unproven != "" {
		more = append(more, Finding{Severity: FindingWarning, Subject: dir, Message: "it was not shown to work: " + proof.Unproven})
	}
	for _, w := range proof.Warnings() {
		more = append(more, Finding{Severity: FindingWarning, Subject: dir, Message: w})
	}
	for i := range f.Signatures {
		p := proof.Signatures[f.Signatures[i].Key]
		switch {
		case f.Signatures[i].Writes: // the note has said why it is not run
		case p.Reason != "":
			f.Signatures[i].Proof = "not run: " + p.Reason
		case p.Largest > 1:
			f.Signatures[i].Proof = fmt.Sprintf("ran with up to %d made-up rows", p.Largest)
		default:
			f.Signatures[i].Proof = "ran on made-up inputs"
		}
		if said := ranCases(p); said != "" {
			f.Signatures[i].Proof = strings.TrimPrefix(f.Signatures[i].Proof+"; "+said, "; ")
		}
	}
	return more
}

func size(info *savedmodel.Info) string {
	s := "graph " + decimal(info.GraphBytes)
	if info.VariableBytes > 0 {
		s += ", variables " + decimal(info.VariableBytes)
	}
	if n := len(info.Assets); n > 0 {
		s += fmt.Sprintf(", %d assets", n)
	}
	return s
}

// decimal is a size with three digits and a unit.
func decimal(bytes int64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}} {
		if v := float64(bytes) / u.size; v >= 1 {
			return strconv.FormatFloat(v, 'g', 3, 64) + " " + u.name
		}
	}
	return strconv.FormatInt(bytes, 10) + " bytes"
}

// describe puts a signature into words, and how requests to it would be run.
func describe(s *inference.Signature, b config.Batching) CheckedSignature {
	c := CheckedSignature{Key: s.Key, Batched: s.Batchable && b.Enabled, Writes: s.Writes, Inputs: words(s.Inputs), Outputs: words(s.Outputs)}
	switch {
	case c.Batched:
		c.Note = "requests that wait are joined"
		if b.MaxBatchSize > 0 {
			c.Note += fmt.Sprintf(", up to %d rows", b.MaxBatchSize)
		}
		if len(b.AllowedBatchSizes) > 0 {
			c.Note += ", padded to one of " + list(b.AllowedBatchSizes) + " rows"
		}
	case s.Batchable:
		c.Note = "runs singly: batching is off"
	default:
		c.Note = "runs singly: " + s.Unbatchable
	}
	return c
}

func words(infos []inference.TensorInfo) []string {
	out := []string{}
	for i := range infos {
		t := &infos[i]
		shape := "unknown rank"
		if !t.UnknownRank {
			shape = t.Shape.String()
		}
		w := fmt.Sprintf("%s %v %s", t.Alias, t.DType, shape)
		if t.Default != nil {
			w += " (has a default)"
		}
		out = append(out, w)
	}
	return out
}
