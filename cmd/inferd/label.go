// label.go: labels of versions, moved by hand.
package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance/control"
)

func labelVerb(e *env) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "label MODEL LABEL VERSION",
		Short: "Let a label name another version, over restarts, until unlabel or until the configuration says something else of it",
		Args:  exactly(3, "a model, a label and a version number"),
		RunE: func(cmd *cobra.Command, args []string) error {
			version, err := strconv.ParseInt(args[2], 10, 64)
			if err != nil {
				return usageError{fmt.Errorf("%q is no version number", args[2])}
			}
			return e.tell(cmd.Context(), func(ctx context.Context, c *control.Client) (string, error) {
				return c.Label(ctx, args[0], args[1], version, force)
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also to a version that is not live; the label answers once it is")
	return cmd
}

func unlabelVerb(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "unlabel MODEL LABEL",
		Short: "Give a label back to the configuration: the version that this names, or none",
		Args:  exactly(2, "a model and a label"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.tell(cmd.Context(), func(ctx context.Context, c *control.Client) (string, error) { return c.Unlabel(ctx, args[0], args[1]) })
		},
	}
}

// tell asks for something and prints what inferd says to it.
func (e *env) tell(ctx context.Context, ask func(context.Context, *control.Client) (string, error)) error {
	var text string
	if err := e.ask(ctx, func(ctx context.Context, c *control.Client) (err error) {
		text, err = ask(ctx, c)
		return err
	}); err != nil {
		return err
	}
	return e.print(map[string]string{"message": text}, func(w io.Writer) { fmt.Fprintln(w, text) })
}

// labelLines are the labels of a model, below the table of models.
func labelLines(w io.Writer, m control.Model) {
	for _, l := range m.Labels {
		by, held := "", ""
		if l.By != "" {
			by = ", moved by " + l.By
		}
		if l.Held {
			held = "; that version is not live: requests by it are refused"
		}
		fmt.Fprintf(w, "%s label %s names version %d%s%s\n", m.Name, l.Name, l.Version, by, held)
	}
}
