// config.go: which configuration is in force, and where each value of it came from.
package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/appliance/control"
)

func configCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the configuration: every key, its value and where that came from",
		Args:  exactly(0, "show"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(configShowCommand(e))
	return cmd
}

func configShowCommand(e *env) *cobra.Command {
	var offline, set bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the merged configuration that a running inferd goes by",
		Long: "show prints every key with the value that is in force and, behind it, the file and line, the flag or the default that it came from.\n" +
			"It asks the running inferd; with --offline it reads the files that one would be started with, and needs none.",
		Example: "  inferd config show\n  inferd config show --set\n  inferd config show --offline -c inferd.yaml",
		Args:    exactly(0, "flags only"),
	}
	s := e.settings(cmd)
	cmd.Flags().BoolVar(&offline, "offline", false, "read the files, and ask nobody")
	cmd.Flags().BoolVar(&set, "set", false, "leave out what is at its default")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var shown control.Config
		if offline {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			shown = appliance.ShowConfig(cfg)
		} else if err := e.ask(cmd.Context(), func(ctx context.Context, c *control.Client) error {
			got, err := c.Config(ctx)
			if err == nil {
				shown = *got
			}
			return err
		}); err != nil {
			return err
		}
		if set {
			shown.Keys, shown.Text = changedKeys(shown.Keys), ""
		}
		return e.print(shown, func(w io.Writer) { configText(w, shown) })
	}
	return cmd
}

// changedKeys are those that somebody has set.
func changedKeys(keys []control.Setting) []control.Setting {
	out := []control.Setting{}
	for _, k := range keys {
		if k.From != "default" && k.From != "as in defaults" && k.From != "models_dir" {
			out = append(out, k)
		}
	}
	return out
}

func configText(w io.Writer, shown control.Config) {
	switch len(shown.Files) {
	case 0:
		fmt.Fprintln(w, "# read from no file")
	default:
		fmt.Fprintf(w, "# read from %s\n", strings.Join(shown.Files, ", "))
	}
	if shown.Text != "" {
		fmt.Fprint(w, shown.Text)
		return
	}
	for _, k := range shown.Keys {
		fmt.Fprintf(w, "%s: %s # %s\n", k.Key, k.Value, k.From)
	}
}
