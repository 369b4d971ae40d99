// reload.go: has a running inferd read its configuration again, and says what came of it.
package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
)

func reloadCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Have a running inferd read its configuration again, all of it or, where it has a fault, none",
		Long: "reload has a running inferd read its configuration file again, with the flags that it was started with, as SIGHUP does, and prints what\n" +
			"is different and when it counts. Exit code 1 when the file was refused: the configuration before stays in force then.",
		Args: exactly(0, "flags only"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var done *control.Reloaded
			if err := e.ask(cmd.Context(), func(ctx context.Context, c *control.Client) (err error) {
				done, err = c.Reload(ctx)
				return err
			}); err != nil {
				return err
			}
			if err := e.print(done, func(w io.Writer) { reloadedTable(w, done) }); err != nil {
				return err
			}
			if len(done.Faults) > 0 {
				return errSilent
			}
			return nil
		},
	}
}

func reloadedTable(w io.Writer, r *control.Reloaded) {
	switch {
	case len(r.Faults) > 0:
		for _, f := range r.Faults {
			fmt.Fprintf(w, "refused: %s\n", indent(f, "  "))
		}
		fmt.Fprintln(w, "nothing was changed: the configuration before stays in force")
		return
	case len(r.Changes) == 0:
		fmt.Fprintln(w, "nothing is different")
		return
	}
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "SETTING\tFROM\tTO\tCOUNTS")
	for _, c := range r.Changes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", c.Key, c.From, c.To, counts(c.Effect))
	}
	_ = t.Flush() // the terminal is gone when this fails
}

func counts(effect string) string {
	switch config.Effect(effect) {
	case config.NextLoad:
		return "for versions loaded from now on"
	case config.Restart:
		return "after a restart; until then it stays as it was"
	default:
		return effect
	}
}
