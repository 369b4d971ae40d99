// serve.go: the appliance, configured by inferd's own file and flags or by TensorFlow Serving's.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

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
	{"memory-limit", "memory.limit", "what inferd and its workers may take of the memory"},
	{"log-level", "log.level", "debug, info, warn or error"},
}

// settings are the configuration as a verb's flags change it.
type settings struct {
	env  *env
	cmd  *cobra.Command
	keys config.Flags
}

// settings adds a flag for every key to cmd, and the short ones.
func (e *env) settings(cmd *cobra.Command) *settings {
	s := &settings{env: e, cmd: cmd}
	for _, short := range shortFlags {
		cmd.Flags().String(short.name, "", short.help+" (key "+short.key+")")
	}
	for v := range s.keys.All() {
		f := cmd.Flags().VarPF(v, v.Key.Path, "", v.Key.Doc)
		if v.IsBoolFlag() {
			f.NoOptDefVal = "true"
		}
	}
	return s
}

// load reads the configuration with the flags laid over it.
func (s *settings) load() (*config.Config, error) {
	for _, short := range shortFlags {
		f := s.cmd.Flags().Lookup(short.name)
		if !f.Changed {
			continue
		}
		if s.cmd.Flags().Changed(short.key) {
			return nil, usagef("--%s and --%s are the same setting; give one of them", short.name, short.key)
		}
		if err := s.keys.Set(short.key, f.Value.String()); err != nil {
			return nil, usageError{err}
		}
	}
	return config.Load(s.env.configFile(), &s.keys)
}

func serveCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the appliance in the foreground until it is told to stop",
		Long: "serve answers TensorFlow Serving's REST and gRPC for every model in the models directory, and follows what changes there.\n" +
			"SIGHUP reads the configuration again, as `inferd reload` does. SIGTERM and SIGINT let requests in flight finish, for drain_timeout at most; a second one ends it at once.",
		Example: "  inferd serve --models-dir ./models\n  inferd serve -c inferd.yaml --listen.http 127.0.0.1:9501",
		Args:    exactly(0, "flags only"),
	}
	s := e.settings(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if e.output == formatJSON && !cmd.Flags().Changed("log.format") {
			must(s.keys.Set("log.format", config.FormatJSON))
		}
		cfg, err := s.load()
		if err == nil {
			err = readable(cfg)
		}
		if err := slowly(cmd.Context(), err); err != nil {
			return err
		}
		again := func() (*config.Config, []config.Ignored, error) {
			cfg, err := s.load()
			return cfg, nil, err
		}
		return run(cmd.Context(), cfg, e, appliance.Options{Reload: again})
	}
	return cmd
}

// readable refuses to start on a models directory that somebody chose and that cannot be read. One that is missing where models were served
// before is waited for, as one that goes away later is: its disk may not be mounted, and the kept copies serve.
func readable(cfg *config.Config) error {
	dir := cfg.ModelsDir
	if dir == "" || dir == config.Default().ModelsDir && len(cfg.Models) > 0 {
		return nil // nobody asked for it
	}
	if _, err := os.ReadDir(dir); err != nil {
		if kept, _ := os.ReadDir(appliance.KeepDir(cfg)); errors.Is(err, fs.ErrNotExist) && len(kept) > 0 {
			return nil
		}
		var p *os.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return cfg.Fault("models_dir", "the models directory %s cannot be read (%v); make it, or name another with --models-dir", dir, err)
	}
	return nil
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
			again := func() (*config.Config, []config.Ignored, error) { return config.ParseTFServing(args) }
			return run(cmd.Context(), cfg, e, appliance.Options{Ignored: ignored, BesideOthers: true, Reload: again})
		},
	}
}

// run is the appliance until ctx ends. SIGHUP has it read its configuration again.
func run(ctx context.Context, cfg *config.Config, e *env, opts appliance.Options) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	opts.Version, opts.Level = version, new(slog.LevelVar)
	var err error
	if opts.Log, err = appliance.NewLogger(e.err, cfg.Log, opts.Level); err != nil {
		return err
	}
	if opts.Service, err = appliance.FromSystemd(); err != nil {
		return err
	}
	appliance.Hide()
	a, err := appliance.New(cfg, opts)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case <-hangups:
				a.Reload(ctx, "SIGHUP")
			case <-ended:
				return
			}
		}
	}()
	return a.Run(ctx)
}
