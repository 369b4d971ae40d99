// status.go: what a running inferd says about itself: status, models, rescan; and version.
package main

import (
	"fmt"
	"io"
	"runtime"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance/control"
)

func statusCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show health, models and workers of a running inferd; exit code 1 when it is not ready",
		Args:  exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if err := e.print(s, func(w io.Writer) { statusTable(w, s) }); err != nil {
				return err
			}
			if !s.Ready {
				return errSilent
			}
			return nil
		},
	}
}

func statusTable(w io.Writer, s *control.Status) {
	fmt.Fprintf(w, "inferd %s, pid %d, up %s: live %s, ready %s\n", s.Version, s.PID, ago(s.Since), yes(s.Live), yes(s.Ready))
	if s.Runtime.Error != "" {
		fmt.Fprintf(w, "runtime: none: %s\n", s.Runtime.Error)
	} else {
		fmt.Fprintf(w, "runtime: %s, isolation %s\n", s.Runtime.Library, s.Runtime.Isolation)
	}
	for _, c := range s.Conditions {
		fmt.Fprintf(w, "%s: %s (%s, since %s ago)\n", c.Severity, c.Message, c.Code, ago(c.Since))
	}
	modelsTable(w, s.Models)
}

func modelsTable(w io.Writer, models []control.Model) {
	if len(models) == 0 {
		fmt.Fprintln(w, "no models")
		return
	}
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "MODEL\tVERSION\tSTATE\tFOR\tWORKER\tMEMORY\tNOTE")
	for _, m := range models {
		if len(m.Versions) == 0 {
			fmt.Fprintf(t, "%s\t-\t-\t-\t-\t-\t%s\n", m.Name, m.Problem)
		}
		for _, v := range m.Versions {
			pid, memory, note := "-", "-", v.Message
			if v.Worker != nil {
				pid, memory = strconv.Itoa(v.Worker.PID), fmt.Sprintf("%.1f MB", float64(v.Worker.PrivateBytes)/1e6)
				if v.Worker.LastDeath != "" {
					note += fmt.Sprintf(" (restarted %d times, last: %s)", v.Worker.Restarts, v.Worker.LastDeath)
				}
			}
			state := v.State
			if v.Stage != "" && v.Stage != "live" {
				state += " (" + v.Stage + ")"
			}
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", m.Name, v.Number, state, ago(v.Since), pid, memory, note)
		}
	}
	_ = t.Flush() // the terminal is gone when this fails
}

func modelsCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "models",
		Short: "List the models and versions that a running inferd knows",
		Args:  exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			return e.print(s.Models, func(w io.Writer) { modelsTable(w, s.Models) })
		},
	}
}

func rescanCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "rescan",
		Short: "Have a running inferd look at the model directories now",
		Args:  exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			if err := c.Rescan(cmd.Context()); err != nil {
				return err
			}
			return e.print(map[string]bool{"rescanned": true}, func(w io.Writer) { fmt.Fprintln(w, "the model directories are being looked at") })
		},
	}
}

func versionCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  exactly(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			return e.print(v, func(w io.Writer) { fmt.Fprintf(w, "inferd %s (%s, %s)\n", version, v["go"], v["platform"]) })
		},
	}
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := time.Since(t)
	if d < time.Minute {
		return d.Round(time.Second).String()
	}
	return d.Round(time.Minute).String()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
