// check.go: what is wrong with a SavedModel, a models directory or a configuration, and with this machine, without serving.
package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/appliance/config"
)

func checkCommand(e *env) *cobra.Command {
	var load bool
	cmd := &cobra.Command{
		Use:   "check DIR|CONFIG",
		Short: "Say what is wrong with a SavedModel, a models directory or a configuration file, without serving it",
		Args:  exactly(1, "one directory or configuration file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := appliance.Check(cmd.Context(), args[0], load)
			if err != nil {
				return err
			}
			if err := e.print(report, func(w io.Writer) { checkTable(w, report) }); err != nil {
				return err
			}
			if !report.OK {
				return errSilent
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&load, "load", false, "also load each model with TensorFlow and make up a run, in a worker process")
	return cmd
}

func checkTable(w io.Writer, r *appliance.CheckReport) {
	for _, f := range r.Findings {
		if f.OK {
			fmt.Fprintf(w, "ok    %s: %s\n", f.Path, f.Message)
		} else {
			fmt.Fprintf(w, "WRONG %s: %s\n", f.Path, f.Message)
		}
		if len(f.Signatures) == 0 {
			continue
		}
		t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
		for _, s := range f.Signatures {
			fmt.Fprintf(t, "      %s\t%s\n", s.Key, s.Note)
			for _, in := range s.Inputs {
				fmt.Fprintf(t, "        in\t%s\n", in)
			}
			for _, out := range s.Outputs {
				fmt.Fprintf(t, "        out\t%s\n", out)
			}
		}
		_ = t.Flush() // the terminal is gone when this fails
	}
}

func doctorCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Look at what inferd needs of this machine: runtime, CPU, GPUs, memory, ports, permissions",
		Args:  exactly(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := config.Load(e.configFile(), nil)
			if err != nil {
				return err
			}
			report := appliance.Doctor(cfg)
			if err := e.print(report, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
				for _, f := range report.Findings {
					mark := "ok"
					if !f.OK {
						mark = "WRONG"
					}
					fmt.Fprintf(t, "%s\t%s\t%s\n", mark, f.Path, f.Message)
				}
				_ = t.Flush() // the terminal is gone when this fails
			}); err != nil {
				return err
			}
			if !report.OK {
				return errSilent
			}
			return nil
		},
	}
}
