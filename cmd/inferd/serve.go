// serve.go: the appliance, configured by inferd's own file and flags or by TensorFlow Serving's.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/appliance/config"
)

// servingName is the verb, and the argv[0], under which TensorFlow Serving's command line is understood.
const servingName = "tensorflow_model_server"

// shortFlags are easier names for the keys that people set by hand.
var shortFlags = []struct{ name, key, help string }{
	{"models-dir", "models_dir", "the directory whose every folder is a model"},
	{"state-dir", "state_dir", "where to keep what must survive a restart"},
	{"runtime", "runtime.library", "libtensorflow, or the directory that holds it"},
	{"http", "listen.http", "host:port for REST"},
	{"grpc", "listen.grpc", "host:port for gRPC"},
	{"log-level", "log.level", "debug, info, warn or error"},
}

func serveCommand(e *env) *cobra.Command {
	keys := new(config.Flags)
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the appliance in the foreground until it is told to stop",
		Args:  exactly(0, "only flags"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, s := range shortFlags {
				if f := cmd.Flags().Lookup(s.name); f.Changed {
					if err := keys.Set(s.key, f.Value.String()); err != nil {
						return usageError{err}
					}
				}
			}
			cfg, err := config.Load(e.configFile(), keys)
			if err != nil {
				return err
			}
			return run(cmd.Context(), cfg, nil, e.err)
		},
	}
	for _, s := range shortFlags {
		cmd.Flags().String(s.name, "", s.help+" (key "+s.key+")")
	}
	for v := range keys.All() {
		f := cmd.Flags().VarPF(v, v.Key.Path, "", v.Key.Doc)
		if v.IsBoolFlag() {
			f.NoOptDefVal = "true"
		}
	}
	return cmd
}

func servingCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:                servingName,
		Short:              "Run the appliance from TensorFlow Serving's own command line",
		DisableFlagParsing: true, // their flags are not ours
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, ignored, err := config.ParseTFServing(args)
			if errors.Is(err, config.ErrVersion) {
				fmt.Fprintf(e.out, "inferd %s, in place of TensorFlow ModelServer\n", version)
				return nil
			}
			if errors.Is(err, config.ErrHelp) {
				fmt.Fprint(e.out, config.ServingUsage())
				return nil
			}
			if err != nil {
				return err
			}
			return run(cmd.Context(), cfg, ignored, e.err)
		},
	}
}

// run is the appliance until ctx ends.
func run(ctx context.Context, cfg *config.Config, ignored []config.Ignored, stderr io.Writer) error {
	log, err := appliance.NewLogger(stderr, cfg.Log)
	if err != nil {
		return err
	}
	a, err := appliance.New(cfg, appliance.Options{Version: version, Log: log, Ignored: ignored})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}
