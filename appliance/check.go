// check.go: what `inferd check` says about models and configurations, without serving them.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
)

// CheckReport is the outcome of a check.
type CheckReport struct {
	OK       bool      `json:"ok"`
	Findings []Finding `json:"findings"`
}

// Finding is one thing that was looked at.
type Finding struct {
	OK         bool               `json:"ok"`
	Path       string             `json:"path"`
	Message    string             `json:"message"`
	Signatures []CheckedSignature `json:"signatures,omitempty"`
}

// CheckedSignature is one signature of a SavedModel, in words.
type CheckedSignature struct {
	Key     string   `json:"key"`
	Note    string   `json:"note"`
	Inputs  []string `json:"inputs"`
	Outputs []string `json:"outputs"`
}

func (r *CheckReport) add(f Finding) {
	r.OK = r.OK && f.OK
	r.Findings = append(r.Findings, f)
}

// Check looks at path: a version folder, a model's base path, a directory of models, or a configuration file. With load, every good
// version is also loaded and run in a worker process. The error is about path itself; what is wrong inside is in the report.
func Check(ctx context.Context, path string, load bool) (*CheckReport, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	r := &CheckReport{OK: true}
	c := checker{report: r, tags: []string{"serve"}}
	if load {
		if c.trial, err = NewTrial(ctx, config.Default(), nil); err != nil {
			return nil, err
		}
		defer c.trial.Close()
	}
	if st.IsDir() {
		return r, c.directory(ctx, path)
	}
	cfg, err := config.Load(path, nil)
	var faults config.Faults
	switch {
	case errors.As(err, &faults):
		for _, f := range faults {
			r.add(Finding{Path: path, Message: f.Error()})
		}
		return r, nil
	case err != nil:
		return nil, err
	}
	r.add(Finding{OK: true, Path: path, Message: "the configuration is valid"})
	for i := range cfg.Models {
		m := &cfg.Models[i]
		c.tags = m.Tags
		if err := c.directory(ctx, m.BasePath); err != nil {
			r.add(Finding{Path: m.BasePath, Message: fmt.Sprintf("model %s: %v", m.Name, err)})
		}
	}
	if cfg.ModelsDir != "" {
		c.tags = cfg.Defaults.Tags
		if err := c.directory(ctx, cfg.ModelsDir); err != nil {
			r.add(Finding{Path: cfg.ModelsDir, Message: err.Error()})
		}
	}
	return r, nil
}

type checker struct {
	report *CheckReport
	tags   []string
	trial  *Trial // nil: models are not loaded
}

// directory decides by what lies in dir whether it is a version, a model or a set of models.
func (c *checker) directory(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var versions, models []string
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "saved_model.pb" || name == "saved_model.pbtxt":
			c.version(ctx, dir)
			return nil
		case !e.IsDir():
		case isVersion(name):
			versions = append(versions, filepath.Join(dir, name))
		case hasVersions(filepath.Join(dir, name)):
			models = append(models, filepath.Join(dir, name))
		}
	}
	if len(versions) == 0 && len(models) == 0 {
		message := savedmodel.Diagnose(dir)
		if message == "" {
			message = "no SavedModel, no numeric version folder and no model folder is here"
		}
		c.report.add(Finding{Path: dir, Message: message})
	}
	for _, v := range versions {
		c.version(ctx, v)
	}
	for _, m := range models {
		if err := c.directory(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

func isVersion(name string) bool {
	_, err := strconv.ParseInt(name, 10, 64)
	return err == nil
}

func hasVersions(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.IsDir() && isVersion(e.Name()) })
}

func (c *checker) version(ctx context.Context, dir string) {
	info, err := savedmodel.Read(dir, c.tags)
	if err != nil {
		message := err.Error()
		if hint := savedmodel.Diagnose(dir); hint != "" {
			message += "; " + hint
		}
		c.report.add(Finding{Path: dir, Message: message})
		return
	}
	f := Finding{OK: true, Path: dir, Message: fmt.Sprintf("a SavedModel of %.1f MB with %d signatures, whole", float64(info.GraphBytes+info.VariableBytes)/1e6, len(info.Signatures))}
	for _, key := range slices.Sorted(maps.Keys(info.Signatures)) {
		f.Signatures = append(f.Signatures, describe(info.Signatures[key]))
	}
	if c.trial != nil {
		f.OK, f.Message = c.trial.try(ctx, dir, info, f.Message)
	}
	c.report.add(f)
}

func describe(s *inference.Signature) CheckedSignature {
	note := "can be batched"
	if !s.Batchable {
		note = "runs singly: " + s.Unbatchable
	}
	if s.Writes {
		note += "; changes the model's state"
	}
	words := func(list []inference.TensorInfo) (out []string) {
		for i := range list {
			t := &list[i]
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
	return CheckedSignature{Key: s.Key, Note: note, Inputs: words(s.Inputs), Outputs: words(s.Outputs)}
}
