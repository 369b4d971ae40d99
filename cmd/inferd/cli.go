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
	"strings"
	"syscall"
	"time"

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

// askTimeout bounds the verbs that ask a running inferd about itself.
const askTimeout = 30 * time.Second

// version is set by the build.
var version = "unknown"

// usageError marks what the user typed wrong; everything else is a failure.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errSilent ends with exit code 1 when the verb has already said everything.
var errSilent = errors.New("failed")

// env is what the verbs may touch of the outside.
type env struct {
	in       io.Reader
	out, err io.Writer
	output   string // -o
	address  string // --address
	config   string // --config
	secure   secureFlags
}

// cli runs one command line and returns its exit code. It owns the signals and the only messages about errors.
func cli(argv []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)() // the second signal ends the process at once
	e := &env{in: in, out: out, err: errOut}
	root := rootCommand(e)
	root.SetArgs(verbArgs(argv, os.Getenv))
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	return e.exit(root.ExecuteContext(ctx))
}

// exit says what went wrong, a sentence a line, and is the exit code. With -o json the same stands as an object on standard output, so
// that whoever reads that always gets JSON.
func (e *env) exit(err error) int {
	var (
		usage  usageError
		faults config.Faults
		start  *config.StartError
	)
	code, lines := exitFailed, []string(nil)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errSilent):
		return exitFailed
	case errors.As(err, &faults):
		code = exitUsage
		for _, f := range faults {
			lines = append(lines, "inferd: "+f.Error())
		}
	case errors.As(err, &start):
		lines = []string{start.Error()} // TensorFlow Serving's own line
	case errors.As(err, &usage):
		code = exitUsage
		fallthrough
	default:
		lines = []string{"inferd: " + err.Error()}
	}
	for _, l := range lines {
		fmt.Fprintln(e.err, l)
	}
	if e.output == formatJSON {
		_ = e.print(struct { // standard output is gone when this fails
			Error string `json:"error"`
			Code  int    `json:"exit_code"`
		}{strings.TrimPrefix(strings.Join(lines, "\n"), "inferd: "), code}, nil)
	}
	return code
}

// Values of -o.
const (
	formatTable = "table"
	formatJSON  = "json"
)

func rootCommand(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "inferd",
		Short: "Serve TensorFlow models from a directory, dependably",
		Long: "inferd serves versioned SavedModels from a directory over TensorFlow Serving's REST and gRPC.\n" +
			"`inferd serve` is the appliance; the other verbs ask a running one, or look at models and the machine without one.\n\n" +
			"Exit codes: 0 all is well, 1 it failed or something is wrong, 2 the command line or the configuration is wrong.",
		SilenceErrors: true, SilenceUsage: true,
		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknownVerb(root, args[0])
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; `%s --help` lists the flags", err, cmd.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.StringVarP(&e.output, "output", "o", formatTable, "what to print: table or json")
	flags.StringVar(&e.address, "address", "", "where inferd answers: its control socket's path or http://host:port (default: as configured)")
	flags.StringVarP(&e.config, "config", "c", "", "configuration file (default: "+config.DefaultFile+" when it is there)")
	e.secure.add(flags)
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{formatTable, formatJSON}, cobra.ShellCompDirectiveNoFileComp)))
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if o := e.output; o != formatTable && o != formatJSON {
			e.output = formatTable
			return usagef("-o %s: print either %s or %s", o, formatTable, formatJSON)
		}
		return nil
	}
	root.AddCommand(serveCommand(e), endedCommand(e), servingCommand(e), predictCommand(e), modelsCommand(e), statusCommand(e), rescanCommand(e), reloadCommand(e), checkCommand(e), doctorCommand(e),
		keygenCommand(e), signCommand(e), benchCommand(e), streamCommand(e), topCommand(e), queueCommand(e), tokenCommand(e), versionCommand(e), openRuntimeCommand(e), manualCommand(e), configCommand(e),
		backupCommand(e), restoreCommand(e), runtimeCommand(e), drainCommand(e))
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Run, c.RunE = nil, func(_ *cobra.Command, args []string) error { return help(root, args) }
		case "completion": // cobra prints its help for any word, as if all were well
			c.Args = func(_ *cobra.Command, args []string) error {
				if len(args) > 0 {
					return usagef("no completion is known for %q; bash, zsh, fish and powershell are", args[0])
				}
				return nil
			}
			c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
	return root
}

func must(err error) {
	if err != nil {
		panic(err) // a flag was named that does not exist: a mistake in this package
	}
}

func help(root *cobra.Command, args []string) error {
	cmd, rest, err := root.Find(args)
	if err != nil || len(rest) > 0 && cmd == root {
		return unknownVerb(root, args[0])
	}
	return cmd.Help()
}

func unknownVerb(root *cobra.Command, verb string) error {
	if near := root.SuggestionsFor(verb); len(near) > 0 {
		return usagef("no verb is called %q; did you mean %s?", verb, strings.Join(near, " or "))
	}
	return usagef("no verb is called %q; `inferd help` lists them", verb)
}

// exactly refuses another number of arguments as wrong usage.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == n:
			return nil
		case n == 0:
			return usagef("%s takes %s; %q is too much", cmd.Name(), what, args[0])
		default:
			return usagef("%s takes %s; %d were given", cmd.Name(), what, len(args))
		}
	}
}

// configFile is the file to read: the one asked for, else the default one when it is there or has fragments, else none.
func (e *env) configFile() string {
	if e.config != "" {
		return e.config
	}
	if _, err := os.Stat(config.DefaultFile); err == nil || config.HasFragments(config.DefaultFile) {
		return config.DefaultFile
	}
	return ""
}

// client talks to --address, else to the configured control socket.
func (e *env) client() (*control.Client, error) {
	if e.address != "" {
		token, err := e.secure.authorization()
		if err != nil {
			return nil, err
		}
		trust, err := e.secure.trust()
		if err != nil {
			return nil, err
		}
		return control.Dial(e.address).With(token, trust), nil
	}
	path, err := config.FindControlSocket(e.configFile())
	if err != nil {
		return nil, err
	}
	return control.Dial(path), nil
}

// print writes v as JSON, or calls table.
func (e *env) print(v any, table func(w io.Writer)) error {
	if e.output == formatJSON {
		enc := json.NewEncoder(e.out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	table(e.out)
	return nil
}
