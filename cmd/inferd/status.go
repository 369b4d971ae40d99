// status.go: what a running inferd says about itself: status, models, rescan; and version.
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance/control"
)

// ask talks to a running inferd, for askTimeout at most.
func (e *env) ask(ctx context.Context, question func(context.Context, *control.Client) error) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return question(ctx, c)
}

func (e *env) status(ctx context.Context) (s *control.Status, err error) {
	err = e.ask(ctx, func(ctx context.Context, c *control.Client) error {
		s, err = c.Status(ctx)
		return err
	})
	return s, err
}

// modelNames are for shell completion, which shows nothing where nothing answers.
func (e *env) modelNames(ctx context.Context) (names []string) {
	if s, err := e.status(ctx); err == nil {
		for _, m := range s.Models {
			names = append(names, m.Name)
		}
	}
	return names
}

func statusCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show health, models and workers of a running inferd; exit code 1 when it is not ready",
		Args:  exactly(0, "flags only"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := e.status(cmd.Context())
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
	if s.LastRun != "" {
		fmt.Fprintf(w, "the run before: %s\n", s.LastRun)
	}
	asks := ""
	if len(s.Asks) > 0 {
		asks = "; they ask for " + strings.Join(s.Asks, " and ")
	}
	fmt.Fprintf(w, "doors: gRPC %s, HTTP %s%s\n", cmp.Or(s.GRPC, "off"), cmp.Or(s.HTTP, "off"), asks)
	if s.Runtime.Error != "" {
		fmt.Fprintf(w, "runtime: none: %s\n", indent(s.Runtime.Error, "  "))
	} else {
		fmt.Fprintf(w, "runtime: %s, isolation %s\n", s.Runtime.Library, s.Runtime.Isolation)
	}
	if s.Runtime.Sandbox != "" {
		fmt.Fprintf(w, "sandbox: %s\n", s.Runtime.Sandbox)
	}
	for _, c := range s.Conditions {
		if c.Message == s.Runtime.Error || saidBy(c, s.Conditions) {
			continue
		}
		fmt.Fprintf(w, "%s: %s (%s, for %s)\n", c.Severity, indent(c.Message, "  "), c.Code, ago(c.Since))
	}
	fmt.Fprintln(w)
	modelsTable(w, s.Models, s.Conditions)
}

// saidBy reports whether what c says stands in another condition, of which the worse is shown: a model that nothing answers for gives the
// reason why its version was refused, which is a condition of its own.
func saidBy(c control.Condition, all []control.Condition) bool {
	worse := map[string]int{"info": 1, "warning": 2, "unready": 3}
	for _, o := range all {
		if o.Code == c.Code || o.Model != c.Model {
			continue
		}
		if strings.Contains(o.Message, c.Message) && worse[o.Severity] >= worse[c.Severity] ||
			strings.Contains(c.Message, o.Message) && worse[o.Severity] > worse[c.Severity] {
			return true
		}
	}
	return false
}

// widestNote is how much of a reason the table of models shows, so that it fits a terminal; the whole stands below it.
const widestNote = 36

// modelsTable prints the models, and below the table what did not fit in it and is not said by one of the conditions either.
func modelsTable(w io.Writer, models []control.Model, said []control.Condition) {
	if len(models) == 0 {
		fmt.Fprintln(w, "no models")
		return
	}
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	var below []string
	whole := func(what, words string) {
		if note(words) != oneLine(words) && !slices.ContainsFunc(said, func(c control.Condition) bool { return strings.Contains(c.Message, words) }) {
			below = append(below, what+": "+oneLine(words))
		}
	}
	fmt.Fprintln(t, "MODEL\tVERSION\tSTATE\tFOR\tWORKER\tMEMORY\tNOTE")
	for _, m := range models {
		if len(m.Versions) == 0 {
			fmt.Fprintf(t, "%s\t-\t-\t-\t-\t-\t%s\n", m.Name, note(m.Problem))
			whole(m.Name, m.Problem)
		}
		for _, v := range m.Versions {
			pid, memory, words := "-", "-", strings.TrimPrefix(v.Message, fmt.Sprintf("model %s version %d refused: ", m.Name, v.Number))
			if k := v.Worker; k != nil {
				pid, memory = strconv.Itoa(k.PID), fmt.Sprintf("%.1f MB", float64(k.PrivateBytes)/1e6)
				if k.Device != "" {
					pid += " on GPU " + k.Device
				}
				if k.PID == 0 {
					pid, memory = k.State, "-" // it is being replaced
				}
				if k.LastDeath != "" {
					words = strings.TrimPrefix(words+fmt.Sprintf("; restarted %d times, last: %s", k.Restarts, k.LastDeath), "; ")
				}
			}
			state := v.State
			if v.Stage != "" && v.Stage != "live" {
				state += " (" + v.Stage + ")"
			}
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", m.Name, v.Number, state, ago(v.Since), pid, memory, cmp.Or(note(words), "-"))
			whole(fmt.Sprintf("%s version %d", m.Name, v.Number), words)
		}
	}
	_ = t.Flush() // the terminal is gone when this fails
	for _, line := range below {
		fmt.Fprintln(w, line)
	}
	for _, m := range models {
		if m.Intent != "" {
			fmt.Fprintf(w, "%s is %s\n", m.Name, m.Intent)
		}
		labelLines(w, m)
		if m.Trial != nil {
			fmt.Fprintln(w, trialText(m.Name, m.Trial))
		}
	}
}

// note is one line of words, not too wide.
func note(words string) string {
	words = oneLine(words)
	if len(words) <= widestNote {
		return words
	}
	return strings.ToValidUTF8(words[:widestNote-3], "") + "..."
}

func oneLine(words string) string { return strings.Join(strings.Fields(words), " ") }

func modelsCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "models",
		Short: "List the models and versions that a running inferd knows",
		Args:  exactly(0, "flags only"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := e.status(cmd.Context())
			if err != nil {
				return err
			}
			return e.print(s.Models, func(w io.Writer) { modelsTable(w, s.Models, nil) })
		},
	}
	cmd.AddCommand(modelVerbs(e)...)
	return cmd
}

func rescanCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "rescan",
		Short: "Have a running inferd look at the model directories now",
		Args:  exactly(0, "flags only"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := e.ask(cmd.Context(), func(ctx context.Context, c *control.Client) error { return c.Rescan(ctx) }); err != nil {
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
		Args:  exactly(0, "flags only"),
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
	if d < 10*time.Minute {
		return d.Round(time.Second).String()
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
