// bench.go: load on a server, and what came of it.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/appliance/loadgen"
)

type benchFlags struct {
	loadgen.Options
	protocol, rate, input, cpus, svg string
}

func benchCommand(e *env) *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench MODEL|URL",
		Short: "Put load on a server of TensorFlow Serving's REST or gRPC, and measure its latency, goodput and refusals",
		Long: "The target is a model of the local inferd, or of the server at --address host:port, or a URL (http://host:8501/v1/models/NAME,\n" +
			"grpc://host:8500/NAME). NAME/3 is version 3. Inputs are made up from the model's metadata, or read with --input.\n\n" +
			"With --rate requests are sent at that rate whatever the answers do (an open loop), and latency counts from the time at which a\n" +
			"request was due. With several rates, or a sweep (10..1000x8), each is a step. Without, --callers send as fast as they are answered.\n" +
			"Good is what was answered within --deadline. A step with a * was too much for the generator itself.\n" +
			"Ctrl-C ends the run and prints what there is.",
		Example: "  inferd bench resnet --rate 50 --deadline 200ms\n  inferd bench resnet --rate 10..1000x8 --deadline 200ms --svg resnet.svg --cpus 1\n" +
			"  inferd bench grpc://tf-serving:8500/resnet --callers 4 --rows 8 -o json",
		Args: exactly(1, "one model or URL"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return e.modelNames(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.bench(cmd.Context(), args[0], f, cmd.Flags().Changed("callers"))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.protocol, "protocol", "", "rest or grpc (default: rest, or by the URL)")
	flags.StringVar(&f.rate, "rate", "", "requests per second: 100, or 100,200,400, or 10..1000x8 (a sweep of 8)")
	flags.StringVar(&f.rate, "rates", "", "the same as --rate")
	flags.StringVar(&f.Arrivals, "arrivals", loadgen.Fixed, "fixed (evenly spaced) or poisson (as from many clients)")
	flags.IntVar(&f.Callers, "callers", 1, "a closed loop of so many callers, each waiting for its answer; not with --rate")
	flags.DurationVar(&f.Duration, "duration", 10*time.Second, "how long each step is measured")
	flags.DurationVar(&f.Warmup, "warmup", time.Second, "how long each step runs before that")
	flags.DurationVar(&f.Deadline, "deadline", 0, "sent with each request; answers within it are good (default: none)")
	flags.DurationVar(&f.Timeout, "timeout", 0, "how long an answer is waited for (default: the deadline and 5s, or 10s)")
	flags.Int64Var(&f.Rows, "rows", 1, "rows of a made-up request")
	flags.StringVar(&f.input, "input", "", "file with the request as JSON ({\"inputs\": ...} or {\"instances\": ...}), - for standard input")
	flags.StringVar(&f.Signature, "signature", "", "signature (default: serving_default)")
	flags.StringVar(&f.Priority, "priority", "", "interactive, normal or batch, sent as X-Inferd-Priority")
	flags.IntVar(&f.InFlight, "in-flight", 1000, "most requests in flight at a time; over REST as many connections")
	flags.IntVar(&f.Clients, "clients", 1, "send from so many addresses 127.0.0.2 and up; the target must be on the loopback")
	flags.BoolVar(&f.ExpectContinue, "expect-continue", false, "REST: wait for 100 Continue before a body is sent")
	flags.BoolVar(&f.Insecure, "insecure", false, "TLS: trust any certificate")
	flags.StringVar(&f.cpus, "cpus", "", "processors for the generator, as in 1 or 0,2-3 (default: any)")
	flags.StringVar(&f.svg, "svg", "", "also draw latency and goodput against the rate into this file")
	must(cmd.RegisterFlagCompletionFunc("protocol", cobra.FixedCompletions([]string{loadgen.REST, loadgen.GRPC}, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("arrivals", cobra.FixedCompletions([]string{loadgen.Fixed, loadgen.Poisson}, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("priority", cobra.FixedCompletions([]string{"interactive", "normal", "batch"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func (e *env) bench(ctx context.Context, what string, f benchFlags, callers bool) error {
	target, err := loadgen.ParseTarget(what)
	if err != nil {
		return usageError{err}
	}
	if f.rate != "" {
		if callers {
			return usagef("--rate is an open loop and --callers a closed one; give one of them")
		}
		if f.Rates, err = loadgen.ParseRates(f.rate); err != nil {
			return usagef("--rate %w", err)
		}
	}
	if p := f.protocol; p != "" && p != loadgen.REST && p != loadgen.GRPC {
		return usagef("--protocol %.40q: write %s or %s", p, loadgen.REST, loadgen.GRPC)
	} else if p != "" && target.Protocol != "" && p != target.Protocol {
		return usagef("--protocol %s: the URL is of %s", p, target.Protocol)
	} else if target.Protocol == "" {
		target.Protocol = cmp.Or(p, loadgen.REST)
	}
	if f.cpus != "" {
		if err := pin(f.cpus); err != nil {
			return usagef("--cpus %w", err)
		}
	}
	if target.Address == "" {
		if target.Address, err = e.doorOf(ctx, &target); err != nil {
			return err
		}
	}
	if f.Token, err = e.secure.token(); err != nil {
		return err
	}
	f.TLS, f.CA = e.secure.tls || e.secure.ca != "", e.secure.ca
	if err := f.Check(target); err != nil {
		return usageError{err}
	}
	if f.input != "" {
		if f.Input, err = e.read(f.input); err != nil {
			return err
		}
	}
	f.Progress = func(p loadgen.Progress) { progressLine(e.err, p) }
	g, err := loadgen.New(ctx, target, f.Options)
	if err != nil {
		return err
	}
	defer g.Close()
	result, err := g.Run(ctx)
	if err != nil {
		return err
	}
	if err := e.print(result, result.Table); err != nil {
		return err
	}
	if f.svg != "" {
		if err := drawTo(f.svg, result); err != nil {
			return err
		}
	}
	if result.Interrupted {
		return errSilent // it has been said in the result
	}
	return nil
}

func drawTo(file string, r *loadgen.Result) (err error) {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	return r.SVG(out)
}

// doorOf is the address to measure: --address when it is host:port, else what the inferd behind the control socket says.
func (e *env) doorOf(ctx context.Context, t *loadgen.Target) (string, error) {
	address := e.address
	if rest, ok := strings.CutPrefix(address, "https://"); ok {
		address, t.TLS = rest, true
	}
	address = strings.TrimRight(strings.TrimPrefix(address, "http://"), "/")
	if strings.Contains(address, ":") && !strings.Contains(address, "/") {
		return address, nil
	}
	s, err := e.status(ctx)
	if err != nil {
		return "", fmt.Errorf("%w (--address host:port measures without a control socket)", err)
	}
	door, key := s.HTTP, "listen.http"
	if t.Protocol == loadgen.GRPC {
		door, key = s.GRPC, "listen.grpc"
	}
	if door == "" {
		return "", fmt.Errorf("%s is off in this inferd; set %s, or choose the other --protocol", t.Protocol, key)
	}
	return door, nil
}

func progressLine(w io.Writer, p loadgen.Progress) {
	what := fmt.Sprintf("%.4g/s", p.Rate)
	if p.Rate == 0 {
		what = fmt.Sprintf("%d callers", p.Callers)
	}
	fmt.Fprintf(w, "%s, %.0f of %.0f s: %d sent, %d good, %d refused, %d failed, %d in flight\n", what, p.Gone.Seconds(), p.Whole.Seconds(), p.Sent, p.Good, p.Refused, p.Failed, p.In)
}

// parseCPUs reads "1" and "0,2-3".
func parseCPUs(text string) (*unix.CPUSet, error) {
	var set unix.CPUSet
	for part := range strings.SplitSeq(text, ",") {
		from, to, span := strings.Cut(part, "-")
		low, err := strconv.Atoi(from)
		high := low
		if err == nil && span {
			high, err = strconv.Atoi(to)
		}
		if err != nil || low < 0 || high < low || high >= 1024 {
			return nil, fmt.Errorf("%.40q: write processors as in 1 or 0,2-3", text)
		}
		for c := low; c <= high; c++ {
			set.Set(c)
		}
	}
	return &set, nil
}

// pin keeps this process on the processors: each of its threads, and so those that they start.
func pin(text string) error {
	set, err := parseCPUs(text)
	if err != nil {
		return err
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(id, set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("%s: %w; this machine has %d processors", text, err, runtime.NumCPU())
		}
	}
	runtime.GOMAXPROCS(set.Count())
	return nil
}
