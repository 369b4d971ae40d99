// check.go: what is wrong with a SavedModel, a models directory or a configuration, and with this machine, without serving.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/tfrt"
)

func checkCommand(e *env) *cobra.Command {
	var (
		load, effective bool
		library         string
	)
	cmd := &cobra.Command{
		Use:   "check DIR|FILE",
		Short: "Say what is wrong with a SavedModel, a models directory or a configuration file, without serving it",
		Long: "check looks at a version folder, a model, a directory of models, a configuration file or TensorFlow Serving's model_config_file,\n" +
			"and says what would be served and what would not, and why. Exit code 1 when something is wrong.",
		Example: "  inferd check ./models\n  inferd check --load ./models/resnet/7\n  inferd check --effective inferd.yaml",
		Args:    exactly(1, "one directory or file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys := new(config.Flags)
			if library != "" {
				must(keys.Set("runtime.library", library))
			}
			file := e.config
			if st, err := os.Stat(args[0]); err == nil && st.IsDir() {
				file = e.configFile() // for the runtime, and the settings of models; a file that is checked has its own
			}
			cfg, err := config.Load(file, keys)
			if err != nil {
				return err
			}
			report, err := appliance.Check(cmd.Context(), args[0], appliance.CheckOptions{Load: load, Config: cfg, Flags: keys})
			if err != nil {
				return err
			}
			return e.report(report, func(w io.Writer) {
				checkTable(w, report)
				if effective && report.Effective != "" {
					fmt.Fprintf(w, "\n%s", report.Effective)
				}
			})
		},
	}
	cmd.Flags().BoolVar(&load, "load", false, "also load each model with TensorFlow and make up a run, in a worker process")
	cmd.Flags().BoolVar(&effective, "effective", false, "of a configuration, also print every key with the value that would be in force")
	cmd.Flags().StringVar(&library, "runtime", "", "for --load: libtensorflow, or the directory that holds it (key runtime.library)")
	return cmd
}

// report prints a report and fails when something in it is wrong.
func (e *env) report(r *appliance.CheckReport, table func(io.Writer)) error {
	if err := e.print(r, table); err != nil {
		return err
	}
	if !r.OK {
		return errSilent
	}
	return nil
}

// mark is a severity as it stands at the start of a line, six wide.
func mark(severity string) string {
	switch severity {
	case appliance.FindingOK:
		return "ok    "
	case appliance.FindingWarning:
		return "note  "
	default:
		return "WRONG "
	}
}

func checkTable(w io.Writer, r *appliance.CheckReport) {
	count := make(map[string]int)
	for _, f := range r.Findings {
		count[f.Severity]++
		fmt.Fprintf(w, "%s%s: %s\n", mark(f.Severity), f.Subject, indent(f.Message, "      "))
		if len(f.Signatures) == 0 {
			continue
		}
		t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
		for _, s := range f.Signatures {
			note := s.Note
			if s.Proof != "" {
				note += "; " + s.Proof
			}
			fmt.Fprintf(t, "      %s\t%s\n", s.Key, note)
			for _, in := range s.Inputs {
				fmt.Fprintf(t, "        in\t%s\n", in)
			}
			for _, out := range s.Outputs {
				fmt.Fprintf(t, "        out\t%s\n", out)
			}
		}
		_ = t.Flush() // the terminal is gone when this fails
	}
	if len(r.Findings) > 1 {
		fmt.Fprintf(w, "%d ok, %d to note, %d wrong\n", count[appliance.FindingOK], count[appliance.FindingWarning], count[appliance.FindingWrong])
	}
}

// indent puts the later lines of a message under its first.
func indent(message, by string) string { return strings.ReplaceAll(message, "\n", "\n"+by) }

func doctorCommand(e *env) *cobra.Command {
	var (
		load   bool
		bundle string
	)
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at what inferd needs of this machine: runtime, CPU, GPUs, memory, ports, permissions",
		Long: "doctor takes the configuration and the flags of serve, and says whether this machine has what they ask for.\n" +
			"Exit code 1 when something is wrong. With --bundle it writes what somebody elsewhere needs to see of this machine and of a running inferd,\n" +
			"without secrets and payloads, into an archive (tar.gz), and fails only when that cannot be written.",
		Example: "  inferd doctor\n  sudo -u inferd inferd doctor --bundle /tmp/inferd.tar.gz",
		Args:    exactly(0, "flags only"),
	}
	s := e.settings(cmd)
	cmd.Flags().StringVar(&bundle, "bundle", "", "write a support archive to this file; -: to standard output")
	cmd.Flags().BoolVar(&load, "load", false, "also open the runtime, in a process of its own, and tell its version")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load()
		var opts appliance.DoctorOptions
		if load {
			opts.OpenRuntime = openRuntime
		}
		if bundle != "" {
			return e.bundle(cmd.Context(), bundle, appliance.BundleOptions{Version: version, Config: cfg, ConfigErr: err, Address: e.address, Doctor: opts})
		}
		if err != nil {
			return err
		}
		report := appliance.Doctor(cmd.Context(), cfg, opts)
		return e.report(report, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
			for _, f := range report.Findings {
				for i, line := range strings.Split(f.Message, "\n") {
					if i == 0 {
						fmt.Fprintf(t, "%s\t%s\t%s\n", strings.TrimSpace(mark(f.Severity)), f.Subject, line)
					} else {
						fmt.Fprintf(t, "\t\t%s\n", line)
					}
				}
			}
			_ = t.Flush() // the terminal is gone when this fails
		})
	}
	return cmd
}

// openRuntimeName is the hidden verb by which doctor opens a runtime in a process of its own: TensorFlow aborts where it does not fit.
const openRuntimeName = "open-runtime"

type openedRuntime struct {
	Version string `json:"version"`
}

func openRuntimeCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: openRuntimeName + " LIBRARY", Hidden: true, Args: exactly(1, "one library"),
		RunE: func(_ *cobra.Command, args []string) error {
			rt, err := tfrt.Open(args[0])
			if err != nil {
				return err
			}
			return e.print(openedRuntime{rt.Version()}, func(w io.Writer) { fmt.Fprintln(w, rt.Version()) })
		},
	}
}

// openRuntime runs the hidden verb.
func openRuntime(ctx context.Context, library string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // from a cold disk it takes seconds
	defer cancel()
	cmd := exec.CommandContext(ctx, self, openRuntimeName, "-o", formatJSON, library)
	cmd.Args[0] = "inferd" // whatever this process is called
	out, err := cmd.Output()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return "", fmt.Errorf("the process that opened it ended with %w: %s", ended, lastLine(ended.Stderr))
	} else if err != nil {
		return "", err
	}
	var got openedRuntime
	if err := json.Unmarshal(out, &got); err != nil || got.Version == "" {
		return "", fmt.Errorf("it tells no version (%q)", out)
	}
	return got.Version, nil
}

func lastLine(b []byte) string {
	text := strings.TrimSpace(string(b))
	return text[strings.LastIndexByte(text, '\n')+1:]
}
