// ended.go: what systemd has to say of the end of inferd.
package main

import (
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/appliance/config"
)

// endedCommand is the service's ExecStopPost=. It is for nobody else, and never fails.
func endedCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:    "ended",
		Short:  "Note how systemd saw the service end (for ExecStopPost=)",
		Hidden: true,
		Args:   exactly(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := config.Load(e.configFile(), nil)
			if err != nil {
				cfg = config.Default() // that may be why it has ended
			}
			status := strings.TrimSpace(os.Getenv("EXIT_CODE") + " " + os.Getenv("EXIT_STATUS"))
			appliance.NoteEnd(cfg, os.Getenv("SERVICE_RESULT"), status, slog.New(slog.NewTextHandler(e.err, nil)))
			return nil
		},
	}
}
