// models.go: what an operator does to one model of a running inferd.
package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func modelVerbs(e *env) []*cobra.Command {
	var limit int
	history := &cobra.Command{
		Use:   "history MODEL",
		Short: "Show what happened to a model: seen, tried, refused, published, on probation, retired, rolled back, labelled",
		Args:  exactly(1, "a model"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			events, err := c.History(cmd.Context(), args[0], limit)
			if err != nil {
				return err
			}
			return e.print(events, func(w io.Writer) {
				if len(events) == 0 {
					fmt.Fprintf(w, "nothing is remembered of model %s\n", args[0])
					return
				}
				t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
				fmt.Fprintln(t, "WHEN\tVERSION\tWHAT\tBY\tWHY")
				for _, v := range events {
					fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\n", v.At.Local().Format(time.DateTime), v.Version, v.What, v.By, v.Reason)
				}
				_ = t.Flush() // the terminal is gone when this fails
			})
		},
	}
	history.Flags().IntVarP(&limit, "lines", "n", 50, "events at most, the newest")
	return []*cobra.Command{
		modelVerb(e, "rollback", "Go back to the version that was good before the one that serves", false),
		modelVerb(e, "promote", "End the probation of the new version well, at once: it gets every request", false),
		modelVerb(e, "pin", "Serve this version alone, also after a restart, until unpin", true),
		modelVerb(e, "unpin", "Follow the version policy again", false),
		modelVerb(e, "unload", "Unload every version of the model, also after a restart, until load", false),
		modelVerb(e, "load", "Load an unloaded model as its policy says, or try its refused newest version again, and wait for that", false),
		modelVerb(e, "retry", "Try a refused version once more, with its files as they are now", true),
		labelVerb(e), unlabelVerb(e), tuneVerb(e), history,
	}
}

func modelVerb(e *env, name, short string, numbered bool) *cobra.Command {
	use, what, n := name+" MODEL", "a model", 1
	if numbered {
		use, what, n = use+" VERSION", "a model and a version number", 2
	}
	return &cobra.Command{
		Use: use, Short: short, Args: exactly(n, what),
		RunE: func(cmd *cobra.Command, args []string) error {
			var version int64
			if numbered {
				var err error
				if version, err = strconv.ParseInt(args[1], 10, 64); err != nil {
					return usageError{fmt.Errorf("%q is no version number", args[1])}
				}
			}
			c, err := e.client()
			if err != nil {
				return err
			}
			text, err := c.Verb(cmd.Context(), name, args[0], version)
			if err != nil {
				return err
			}
			return e.print(map[string]string{"message": text}, func(w io.Writer) { fmt.Fprintln(w, text) })
		},
	}
}
