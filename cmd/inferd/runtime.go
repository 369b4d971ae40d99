// runtime.go: TensorFlow runtimes that lie side by side: fetched, listed, chosen, removed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/runtimes"
)

func runtimeCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "runtime",
		Short: "Install, list, choose and remove TensorFlow runtimes, which lie side by side by version",
		Long: "Runtimes come in packages (" + runtimes.PackageDir + "/VERSION), or are fetched on the box (runtimes/VERSION in state_dir). Used is what\n" +
			"runtime.library names, else what `runtime use` chose, else the highest version.",
		Args: exactly(0, "install, list, use or remove"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(runtimeInstallCommand(e), runtimeListCommand(e), runtimeUseCommand(e), runtimeRemoveCommand(e))
	return cmd
}

// places are where the configuration has runtimes.
func (e *env) places() (runtimes.Places, error) {
	cfg, err := config.Load(e.configFile(), nil)
	if err != nil {
		return runtimes.Places{}, err
	}
	return runtimes.In(cfg.StateDir), nil
}

func runtimeInstallCommand(e *env) *cobra.Command {
	var wheel, sum string
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Fetch the runtime that this inferd is pinned to, or take it out of a wheel",
		Long: "install downloads the pinned wheel of TensorFlow with python3's pip, from the package index that pip is set up for, checks its SHA-256, and\n" +
			"puts its libraries beside the other runtimes. --wheel takes a file instead, which must have the pinned SHA-256 or the one that --sha256 names.\n" +
			"Nothing that serves is changed: `inferd runtime use VERSION` does that.",
		Example: "  inferd runtime install\n  inferd runtime install --wheel tensorflow_cpu-2.20.0-cp311-cp311-manylinux_2_17_x86_64.whl",
		Args:    exactly(0, "flags only"),
	}
	cmd.Flags().StringVar(&wheel, "wheel", "", "a wheel that is here already, for boxes without a network")
	cmd.Flags().StringVar(&sum, "sha256", "", "of --wheel, when it is another one than the pinned one")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p, err := e.places()
		if err != nil {
			return err
		}
		w := runtimes.Wheel{Path: wheel, SHA256: sum}
		switch {
		case wheel == "" && sum != "":
			return usagef("--sha256 is the sum of a --wheel; what is fetched has the pinned one")
		case sum == "":
			pin, err := runtimes.Pinned()
			if err != nil {
				return err
			}
			if w.SHA256 = pin.SHA256; wheel == "" {
				var done func()
				if w, done, err = e.fetchRuntime(cmd.Context(), p, pin); err != nil {
					return err
				}
				defer done()
			}
		}
		r, err := p.Install(cmd.Context(), w, func(ctx context.Context, library string) error {
			_, err := openRuntime(ctx, library)
			return err
		})
		if err != nil {
			return err
		}
		return e.print(r, func(out io.Writer) {
			fmt.Fprintf(out, "runtime %s is installed in %s; `inferd runtime use %s` uses it\n", r.Version, r.Dir, r.Version)
		})
	}
	return cmd
}

// fetchRuntime downloads the pinned wheel to where there is room for it. done removes it.
func (e *env) fetchRuntime(ctx context.Context, p runtimes.Places, pin runtimes.Pin) (w runtimes.Wheel, done func(), err error) {
	dir, err := os.MkdirTemp(p.State, ".fetching-")
	if err != nil {
		return w, nil, err
	}
	done = func() { _ = os.RemoveAll(dir) }
	fmt.Fprintf(e.err, "fetching %s %s ...\n", pin.Package, pin.Version)
	if w, err = runtimes.Fetch(ctx, pin, dir, e.err); err != nil {
		done()
		return w, nil, err
	}
	return w, done, nil
}

func runtimeListCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the runtimes that are there, which one is chosen, and which a running inferd uses",
		Args:  exactly(0, "flags only"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := e.places()
			if err != nil {
				return err
			}
			list, err := p.List()
			if err != nil {
				return err
			}
			used := ""
			if s, err := e.status(cmd.Context()); err == nil {
				used = s.Runtime.Library
			}
			type line struct {
				runtimes.Runtime
				InUse bool `json:"in_use"`
			}
			lines := make([]line, 0, len(list))
			for _, r := range list {
				lines = append(lines, line{r, used != "" && used == r.Library})
			}
			return e.print(lines, func(w io.Writer) {
				if len(lines) == 0 {
					fmt.Fprintf(w, "no runtimes in %s and %s; `inferd runtime install` fetches one\n", filepath.Join(p.State, "runtimes"), p.Package)
				} else {
					t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
					fmt.Fprintln(t, "VERSION\tFROM\tCHOSEN\tIN USE\tWHERE")
					for _, l := range lines {
						where := l.Dir
						if l.Fault != "" {
							where += " cannot be used: " + l.Fault
						}
						fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", l.Version, l.From, yes(l.Chosen), yes(l.InUse), where)
					}
					_ = t.Flush() // the terminal is gone when this fails
				}
				if used != "" && appliance.RuntimeInUse(used) == "" {
					fmt.Fprintf(w, "inferd uses %s\n", used)
				}
			})
		},
	}
}

func runtimeUseCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "use VERSION",
		Short: "Change to a runtime, once every live model has been loaded and proven with it; else nothing changes",
		Long: "use has the running inferd load every live version with that runtime, in new workers beside those that serve, and hold each against its golden\n" +
			"cases and recorded requests. When all are good they take over, and no request is lost; when one is not, the old runtime goes on and use says why.\n" +
			"Where no inferd runs the choice counts from the next start on, which falls back to another runtime where that one cannot be opened.",
		Args: exactly(1, "one version"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := e.useRuntime(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return e.print(map[string]string{"message": text}, func(w io.Writer) { fmt.Fprintln(w, text) })
		},
	}
}

func (e *env) useRuntime(ctx context.Context, version string) (string, error) {
	if err := runtimes.ValidVersion(version); err != nil {
		return "", usageError{err}
	}
	c, err := e.client()
	if err != nil {
		return "", err
	}
	defer c.Close()
	text, err := c.UseRuntime(ctx, version) // models may take their time
	if err == nil || e.address != "" || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
		return text, err
	}
	p, err := e.places()
	if err != nil {
		return "", err
	}
	r, err := p.Choose(version, "")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("no inferd answers: runtime %s in %s is chosen, and used from the next start on", version, r.Dir), nil
}

func runtimeRemoveCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "remove VERSION",
		Short: "Remove a runtime that was fetched and is not used",
		Args:  exactly(1, "one version"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := e.places()
			if err != nil {
				return err
			}
			used := ""
			if s, err := e.status(cmd.Context()); err == nil {
				used = s.Runtime.Library
			}
			if err := p.Remove(args[0], used); err != nil {
				return err
			}
			return e.print(map[string]string{"removed": args[0]}, func(w io.Writer) { fmt.Fprintf(w, "runtime %s is removed\n", args[0]) })
		},
	}
}
