// check.go: what `inferd check` says about configurations and models, without serving them.
package appliance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/savedmodel"
)

// CheckReport is the outcome of a check, or of a look at the machine.
type CheckReport struct {
	OK       bool      `json:"ok"` // nothing is wrong; there may be warnings
	Findings []Finding `json:"findings"`
	// Effective is the whole configuration as it would be served, in YAML, when a valid one was checked.
	Effective string `json:"effective,omitempty"`
}

// Severities of findings.
const (
	FindingOK      = "ok"
	FindingWarning = "warning" // it would be served, and perhaps not as was meant
	FindingWrong   = "wrong"
)

// Finding is one thing that was looked at.
type Finding struct {
	Severity   string             `json:"severity"`
	Subject    string             `json:"subject"` // a path, a path with its line, or a word for a part of the machine
	Message    string             `json:"message"`
	Signatures []CheckedSignature `json:"signatures,omitempty"`
}

// CheckedSignature is one signature of a SavedModel, in words.
type CheckedSignature struct {
	Key     string   `json:"key"`
	Batched bool     `json:"batched"` // requests are joined into one run
	Writes  bool     `json:"writes"`  // a run changes the model's state
	Note    string   `json:"note"`
	Inputs  []string `json:"inputs"`
	Outputs []string `json:"outputs"`
	Proof   string   `json:"proof,omitempty"` // what made-up runs have shown, where the model was loaded
}

func (r *CheckReport) add(severity, subject, format string, args ...any) {
	r.put(Finding{Severity: severity, Subject: subject, Message: fmt.Sprintf(format, args...)})
}

func (r *CheckReport) put(f Finding) {
	r.OK = r.OK && f.Severity != FindingWrong
	r.Findings = append(r.Findings, f)
}

// CheckOptions say how to check. Zero means default.
type CheckOptions struct {
	// Load also loads every good version and makes up a run, in a worker process.
	Load bool
	// Config has the runtime and the settings of models when what is checked is no configuration itself; nil means the defaults.
	Config *config.Config
	// Flags are laid over a configuration that is checked.
	Flags *config.Flags
}

// Check looks at path: a version folder, a model's base path, a directory of models, a configuration file or TensorFlow Serving's
// model_config_file. The error is about path itself; what is wrong inside is in the report. It writes nothing.
func Check(ctx context.Context, path string, opts CheckOptions) (*CheckReport, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	c := &checker{report: &CheckReport{OK: true, Findings: []Finding{}}, cfg: opts.Config, flags: opts.Flags}
	if c.cfg == nil {
		c.cfg = config.Default()
	}
	if !st.IsDir() {
		if done, err := c.file(path); done || err != nil {
			return c.report, err
		}
	}
	if opts.Load {
		if c.trial, err = NewTrial(ctx, c.cfg, nil); err != nil {
			return nil, err
		}
		defer c.trial.Close()
	}
	switch {
	case c.configured:
		c.models(ctx)
	case st.IsDir():
		err = c.directory(ctx, path)
	default:
		err = c.directory(ctx, filepath.Dir(path)) // of a saved_model.pb
	}
	return c.report, err
}

// checker is one check under way.
type checker struct {
	report     *CheckReport
	cfg        *config.Config
	flags      *config.Flags
	configured bool   // cfg is what is checked
	trial      *Trial // nil: models are not loaded
}

// A model_config_file begins with one of its two fields, whatever its name is.
var modelConfigFile = regexp.MustCompile(`^(?:\s|#[^\n]*\n)*(?:model_config_list|model_config)\s*:?\s*[{<]`)

// file finds out what a file is. done says that nothing is left to be looked at.
func (c *checker) file(path string) (done bool, err error) {
	name := filepath.Base(path)
	if name == "saved_model.pb" || name == "saved_model.pbtxt" {
		return false, nil
	}
	head, err := readHead(path)
	if err != nil {
		return true, err
	}
	ext := strings.ToLower(filepath.Ext(name))
	isYAML := ext == ".yaml" || ext == ".yml"
	if !isYAML {
		if hint := savedmodel.DiagnoseFile(path); hint != "" {
			c.report.add(FindingWrong, path, "%s", hint)
			return true, nil
		}
		if bytes.IndexByte(head, 0) >= 0 {
			c.report.add(FindingWrong, path, "is neither a configuration, which is text, nor a model that is known here")
			return true, nil
		}
	}
	var (
		cfg     *config.Config
		ignored []config.Ignored
		what    = "the configuration is valid"
	)
	if !isYAML && modelConfigFile.Match(head) {
		cfg, ignored, err = config.ParseTFServing([]string{"--model_config_file=" + path})
		what = "TensorFlow Serving's model_config_file is valid"
	} else {
		cfg, err = config.Load(path, c.flags)
	}
	var faults config.Faults
	switch {
	case errors.As(err, &faults):
		for _, f := range faults {
			c.fault(path, f)
		}
		return true, nil
	case err != nil:
		return true, err
	}
	if n := len(cfg.Fragments()); n > 0 {
		what += fmt.Sprintf(", with what %d file(s) of %s beside it say", n, config.FragmentsDir)
	}
	c.report.add(FindingOK, path, "%s", what)
	for _, i := range ignored {
		c.report.add(FindingWarning, i.Name, "changes nothing here: %s", i.Reason)
	}
	if w := cfg.OpenWarning(); w != "" && isYAML {
		c.report.add(FindingWarning, path, "%s", w)
	}
	c.cfg, c.configured, c.report.Effective = cfg, true, string(cfg.YAML())
	return false, nil
}

// fault puts the place of a fault where the eye looks for it.
func (c *checker) fault(path string, f config.Fault) {
	subject := path
	if f.File != "" {
		subject = f.File
	}
	if f.Line > 0 {
		subject = fmt.Sprintf("%s:%d", subject, f.Line)
	}
	f.File, f.Line, f.Flag = "", 0, ""
	c.report.add(FindingWrong, subject, "%v", f)
}

func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	head := make([]byte, 8<<10)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return head[:n], nil
}

// models checks everything that the configuration would serve.
func (c *checker) models(ctx context.Context) {
	for i := range c.cfg.Models {
		c.base(ctx, c.cfg.Models[i], true)
	}
	if c.cfg.ModelsDir == "" {
		return
	}
	entries, err := os.ReadDir(c.cfg.ModelsDir)
	if err != nil {
		severity := FindingWrong
		if len(c.cfg.Models) > 0 && c.cfg.ModelsDir == config.Default().ModelsDir {
			severity = FindingWarning // nobody asked for it
		}
		c.report.add(severity, "models_dir", "%v; make it, or name another", err)
		return
	}
	found := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.Name() == "lost+found" || !isDir(c.cfg.ModelsDir, e) {
			continue
		}
		found++
		m, listed := c.cfg.Model(e.Name())
		switch dir := filepath.Join(c.cfg.ModelsDir, e.Name()); {
		case !listed:
			c.base(ctx, m, false)
		case m.BasePath != dir:
			c.report.add(FindingWarning, dir, "is not served: model %s is configured with base_path %s", m.Name, m.BasePath)
		}
	}
	if found == 0 && len(c.cfg.Models) == 0 {
		c.nothing(c.cfg.ModelsDir, FindingWarning, "holds no model yet")
	}
}

// nothing says what lies in dir in place of what was expected, else words.
func (c *checker) nothing(dir, severity, words string) {
	if hint := savedmodel.Diagnose(dir); hint != "" {
		c.report.add(FindingWrong, dir, "%s", hint)
		return
	}
	c.report.add(severity, dir, "%s", words)
}
