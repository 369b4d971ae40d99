// cli.go: the root command, exit codes, and what every verb shares.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// version is set by the build.
var version = "unknown"

// usageError marks what the user typed wrong; everything else is a failure.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// env is what the verbs may touch of the outside.
type env struct {
	in       io.Reader
	out, err io.Writer
	output   string // -o
	address  string // --address
	config   string // --config
}

// cli runs one command line and returns its exit code. It owns the signals and the only messages about errors.
func cli(argv []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	e := &env{in: in, out: out, err: errOut}
	args := argv[1:]
	if filepath.Base(argv[0]) == servingName {
		args = append([]string{servingName}, args...)
	}
	if args == nil {
		args = []string{} // cobra would take os.Args
	}
	root := rootCommand(e)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	var usage usageError
	var faults config.Faults
	var start *config.StartError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(errOut, "inferd: %v\n", err)
		return exitUsage
	case errors.As(err, &faults):
		for _, f := range faults {
			fmt.Fprintf(errOut, "inferd: %v\n", f)
		}
		return exitUsage
	case errors.As(err, &start):
		fmt.Fprintln(errOut, start) // TensorFlow Serving's own line
		return exitFailed
	case errors.Is(err, errSilent):
		return exitFailed
	default:
		fmt.Fprintf(errOut, "inferd: %v\n", err)
		return exitFailed
	}
}

// errSilent ends with exit code 1 when the verb has already said everything.
var errSilent = errors.New("failed")

func rootCommand(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "inferd",
		Short: "Serve TensorFlow models from a directory, dependably",
		Long: "inferd serves versioned SavedModels from a directory over TensorFlow Serving's REST and gRPC.\n" +
			"`inferd serve` is the appliance; the other verbs ask a running one, or look at models and the machine without one.",
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("no verb is called %q; `inferd help` lists them", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; `%s --help` lists the flags", err, cmd.CommandPath())}
	})
	flags := root.PersistentFlags()
	flags.StringVarP(&e.output, "output", "o", "table", "what to print: table or json")
	flags.StringVar(&e.address, "address", "", "where inferd answers: its control socket's path or http://host:port (default: as configured)")
	flags.StringVarP(&e.config, "config", "c", "", "configuration file (default: "+config.DefaultFile+" when it is there)")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if e.output != "table" && e.output != "json" {
			return usageError{fmt.Errorf("-o %s: print either table or json", e.output)}
		}
		return nil
	}
	root.AddCommand(serveCommand(e), servingCommand(e), predictCommand(e), modelsCommand(e), statusCommand(e), rescanCommand(e),
		checkCommand(e), doctorCommand(e), versionCommand(e))
	return root
}

// exactly refuses another number of arguments as wrong usage.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("%s takes %s; got %d arguments", cmd.CommandPath(), what, len(args))}
		}
		return nil
	}
}

// configFile is the file to read: the one asked for, else the default one when it is there, else none.
func (e *env) configFile() string {
	if e.config != "" {
		return e.config
	}
	if _, err := os.Stat(config.DefaultFile); err == nil {
		return config.DefaultFile
	}
	return ""
}

// client talks to --address, else to the configured control socket.
func (e *env) client() (*control.Client, error) {
	if e.address != "" {
		return control.Dial(e.address), nil
	}
	cfg, err := config.Load(e.configFile(), nil)
	if err != nil {
		return nil, err
	}
	return control.Dial(cfg.FindControlSocket()), nil
}

// print writes v as JSON, or calls table.
func (e *env) print(v any, table func(w io.Writer)) error {
	if e.output == "json" {
		enc := json.NewEncoder(e.out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	table(e.out)
	return nil
}
