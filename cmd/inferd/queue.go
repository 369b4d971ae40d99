// queue.go: the durable queue for operators: of a running inferd over its socket, or of a file that nobody has open.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/storage"
)

// queueDoor is the queue behind the socket or in the file.
type queueDoor interface {
	Overview(ctx context.Context) (jobs.Overview, error)
	Jobs(ctx context.Context, sel jobs.Selection) (jobs.Listed, error)
	Job(ctx context.Context, id string) (jobs.Shown, error)
	Operate(ctx context.Context, verb string, sel jobs.Selection) (int, error)
	Compact(ctx context.Context) (jobs.Compacted, error)
	CheckQueue(ctx context.Context) (storage.Report, error)
	Close()
}

// queueFile is a file that no inferd has open.
type queueFile struct {
	*jobs.Service
	queue *storage.Queue
}

func (f *queueFile) Overview(context.Context) (jobs.Overview, error) {
	return worded(f.Service.Overview())
}
func (f *queueFile) Jobs(_ context.Context, sel jobs.Selection) (jobs.Listed, error) {
	return worded(f.List(sel))
}
func (f *queueFile) Job(_ context.Context, id string) (jobs.Shown, error) { return worded(f.Show(id)) }
func (f *queueFile) Operate(ctx context.Context, verb string, sel jobs.Selection) (int, error) {
	return worded(f.Service.Operate(ctx, verb, sel))
}
func (f *queueFile) Compact(ctx context.Context) (jobs.Compacted, error) {
	return worded(f.Service.Compact(ctx))
}
func (f *queueFile) CheckQueue(ctx context.Context) (storage.Report, error) {
	return worded(f.Check(ctx))
}
func (f *queueFile) Close() { _ = f.queue.Close() } // everything is on disk

// worded makes a nil *inference.Error a nil error, and leaves the code out of its text.
func worded[T any](v T, err *inference.Error) (T, error) {
	if err == nil {
		return v, nil
	}
	return v, errors.New(err.Msg)
}

// queue finds the door: the running inferd's, else the file. change says that the file will be written to.
func (e *env) queue(ctx context.Context, file string, change bool) (queueDoor, error) {
	if file == "" {
		c, err := e.client()
		if err != nil {
			return nil, err
		}
		_, err = c.Overview(ctx)
		nobody := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
		if err == nil {
			return c, nil
		}
		c.Close()
		if !nobody || e.address != "" {
			return nil, err
		}
	}
	cfg, err := config.Load(e.configFile(), new(config.Flags))
	if err != nil {
		return nil, err
	}
	opts := appliance.QueueOptions(cfg)
	opts.ReadOnly = !change
	if file == "" {
		file = appliance.QueueFile(cfg)
	}
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("no inferd answers, and there is no queue to look into: %w; --address names a socket, --file a file", err)
	}
	q, err := storage.OpenQueue(file, opts)
	if errors.Is(err, storage.ErrLocked) {
		return nil, fmt.Errorf("%w; if that is an inferd, give its control socket as --address", err)
	}
	if err != nil {
		return nil, err
	}
	return &queueFile{jobs.New(jobs.Options{Queue: q, Boot: storage.BootID(), Settings: func() jobs.Settings { return jobs.Settings{} }}), q}, nil
}

func queueCommand(e *env) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Look at the durable queue and at its jobs; try them again, cancel or remove them; check or compact its file",
		Long: "queue asks a running inferd over its control socket. Where none runs it opens the file itself, state_dir/queue.db or --file,\n" +
			"to read it where nothing is changed.",
		Args: exactly(0, "one of its verbs"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&file, "file", "", "a queue's file that no inferd has open, in place of the running inferd's or of state_dir/queue.db")
	with := func(change bool, f func(ctx context.Context, q queueDoor, args []string) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			q, err := e.queue(cmd.Context(), file, change)
			if err != nil {
				return err
			}
			defer q.Close()
			return f(cmd.Context(), q, args)
		}
	}
	cmd.AddCommand(queueList(e, with), queueShow(e, with), queueVerb(e, with, jobs.VerbRetry, "Try dead, failed or cancelled jobs again, with nothing counted", "queued again"),
		queueVerb(e, with, jobs.VerbCancel, "End jobs that wait or run", "cancelled"),
		queueVerb(e, with, jobs.VerbPurge, "Remove jobs that have ended, with their results", "removed"),
		queueCompact(e, with), queueCheck(e, with))
	return cmd
}

type withQueue func(change bool, f func(ctx context.Context, q queueDoor, args []string) error) func(*cobra.Command, []string) error

// selected adds the flags that choose jobs.
func selected(cmd *cobra.Command, sel *jobs.Selection) {
	cmd.Flags().StringVar(&sel.Model, "model", "", "of this model only")
	cmd.Flags().StringVar(&sel.State, "state", "", "in this state only: queued, leased, done, failed, dead, cancelled or expired")
	must(cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions([]string{"queued", "leased", "done", "failed", "dead", "cancelled", "expired"}, cobra.ShellCompDirectiveNoFileComp)))
}

func queueList(e *env, with withQueue) *cobra.Command {
	var sel jobs.Selection
	cmd := &cobra.Command{
		Use: "ls", Short: "Count the jobs and list them, in order of arrival", Args: exactly(0, "flags only"),
		RunE: with(false, func(ctx context.Context, q queueDoor, _ []string) error {
			o, err := q.Overview(ctx)
			if err != nil {
				return err
			}
			l, err := q.Jobs(ctx, sel)
			if err != nil {
				return err
			}
			all := struct {
				jobs.Overview
				jobs.Listed
			}{o, l}
			return e.print(all, func(w io.Writer) { queueTable(w, o, l) })
		}),
	}
	selected(cmd, &sel)
	cmd.Flags().IntVarP(&sel.Limit, "lines", "n", 100, "jobs at most")
	cmd.Flags().Uint64Var(&sel.After, "after", 0, "go on behind this number, which the last line of a list has")
	return cmd
}

func queueTable(w io.Writer, o jobs.Overview, l jobs.Listed) {
	fmt.Fprintf(w, "%d wait, %d run, %d have ended and are kept, %d dead letters; %.1f MB in a file of %.1f MB\n",
		o.Queued, o.Leased, o.Finished, o.Dead, float64(o.Bytes)/1e6, float64(o.FileBytes)/1e6)
	if o.Degraded {
		fmt.Fprintln(w, "no jobs are taken: the disk does not take what is written")
	}
	if !o.ClockSet {
		fmt.Fprintln(w, "nothing expires: the machine's clock is not set")
	}
	if o.Damaged > 0 {
		fmt.Fprintf(w, "%d damaged records were set aside\n", o.Damaged)
	}
	if len(l.Jobs) == 0 {
		fmt.Fprintln(w, "no jobs")
		return
	}
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tSTATE\tMODEL\tPRIORITY\tTRIED\tFOR\tNOTE")
	for _, j := range l.Jobs {
		model := j.Model
		switch {
		case j.Label != "":
			model += "/" + j.Label
		case j.Version > 0:
			model += fmt.Sprintf("/%d", j.Version)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d/%d\t%s\t%s\n", j.ID, j.State, model, j.Priority, j.Attempts, j.MaxAttempts, ago(j.Submitted), cmp.Or(note(j.Error), "-"))
	}
	_ = t.Flush() // the terminal is gone when this fails
	if l.Next > 0 {
		fmt.Fprintf(w, "there may be more: --after %d\n", l.Next)
	}
}

func queueShow(e *env, with withQueue) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show everything about one job, with its body and its result", Args: exactly(1, "a job's id"),
		RunE: with(false, func(ctx context.Context, q queueDoor, args []string) error {
			j, err := q.Job(ctx, args[0])
			if err != nil {
				return err
			}
			return e.print(j, func(w io.Writer) { showTable(w, j) })
		}),
	}
}

func showTable(w io.Writer, j jobs.Shown) {
	when := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return t.Local().Format(time.DateTime)
	}
	version := ""
	if j.Version > 0 {
		version = fmt.Sprint(j.Version)
	}
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	for _, line := range [][2]string{
		{"id", j.ID}, {"state", j.State}, {"model", j.Model}, {"version", version}, {"label", j.Label}, {"priority", j.Priority},
		{"ordering key", j.OrderingKey}, {"session", j.Session}, {"ref", j.Ref},
		{"attempts", fmt.Sprintf("%d of %d, %d deaths of its worker, %d interruptions", j.Attempts, j.MaxAttempts, j.Deaths, j.Interruptions)},
		{"submitted", when(&j.Submitted)}, {"expires", when(j.Expires)}, {"finished", when(j.Finished)},
		{"last failure", indent(strings.TrimSpace(j.Code+" "+j.Reason), "  ")}, {"", oneLine(j.Error)},
		{"body", fmt.Sprintf("%d bytes, %s", j.PayloadBytes, j.Kind)}, {"", excerpt(j.Payload)},
	} {
		if line[1] != "" {
			fmt.Fprintf(t, "%s\t%s\n", line[0], line[1])
		}
	}
	if j.State == storage.Done.String() {
		fmt.Fprintf(t, "result\t%d bytes\n\t%s\n", j.ResultBytes, excerpt(j.Result))
	}
	_ = t.Flush() // the terminal is gone when this fails
}

// excerpt is the beginning of a body on one line.
func excerpt(b []byte) string {
	const most = 400
	more := ""
	if len(b) > most {
		b, more = b[:most], " ... (-o json has all of it)"
	}
	if !utf8.Valid(b) && more == "" {
		return "not text (-o json has it in base64)"
	}
	return oneLine(strings.ToValidUTF8(string(b), "")) + more
}

func queueVerb(e *env, with withQueue, verb, short, done string) *cobra.Command {
	var sel jobs.Selection
	cmd := &cobra.Command{
		Use: verb + " [ID...]", Short: short,
		Long: short + ".\nThe jobs are named by their ids, or chosen by --model and --state.",
		Args: func(_ *cobra.Command, args []string) error {
			if chosen := sel.Model != "" || sel.State != ""; chosen == (len(args) > 0) {
				return usagef("%s takes either ids of jobs, or --model or --state or both", verb)
			}
			return nil
		},
		RunE: with(true, func(ctx context.Context, q queueDoor, args []string) error {
			n := 0
			if len(args) == 0 {
				args = []string{""}
			}
			for _, id := range args {
				one := sel
				one.ID = id
				k, err := q.Operate(ctx, verb, one)
				if n += k; err != nil {
					if n > 0 {
						return fmt.Errorf("%d %s; then: %w", n, done, err)
					}
					return err
				}
			}
			return e.print(map[string]int{"jobs": n}, func(w io.Writer) { fmt.Fprintf(w, "%d %s\n", n, done) })
		}),
	}
	selected(cmd, &sel)
	return cmd
}

func queueCompact(e *env, with withQueue) *cobra.Command {
	return &cobra.Command{
		Use: "compact", Short: "Write the queue's file anew without its free pages; submits wait meanwhile", Args: exactly(0, "flags only"),
		RunE: with(true, func(ctx context.Context, q queueDoor, _ []string) error {
			c, err := q.Compact(ctx)
			if err != nil {
				return err
			}
			return e.print(c, func(w io.Writer) {
				fmt.Fprintf(w, "the file has %.1f MB, before it had %.1f MB\n", float64(c.After)/1e6, float64(c.Before)/1e6)
			})
		}),
	}
}

func queueCheck(e *env, with withQueue) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Read the whole file, and say what is wrong in it; exit code 1 when something is", Args: exactly(0, "flags only"),
		RunE: with(false, func(ctx context.Context, q queueDoor, _ []string) error {
			r, err := q.CheckQueue(ctx)
			if err != nil {
				return err
			}
			if err := e.print(r, func(w io.Writer) { checkQueueTable(w, &r) }); err != nil {
				return err
			}
			if len(r.Faults) > 0 {
				return errSilent
			}
			return nil
		}),
	}
}

func checkQueueTable(w io.Writer, r *storage.Report) {
	fmt.Fprintf(w, "%d jobs: %d wait, %d run, %d have ended, %d dead letters; %d sessions; %.1f MB in a file of %.1f MB, of which %.1f MB are free\n",
		r.Jobs, r.Queued, r.Leased, r.Finished, r.Dead, r.Sessions, float64(r.Bytes)/1e6, float64(r.FileBytes)/1e6, float64(r.FreeBytes)/1e6)
	if r.SetAside > 0 {
		fmt.Fprintf(w, "note  %d damaged records were found before, and are kept aside\n", r.SetAside)
	}
	for _, f := range r.Faults {
		fmt.Fprintf(w, "WRONG %s\n", f)
	}
	if len(r.Faults) == 0 {
		fmt.Fprintln(w, "the file is clean")
		return
	}
	fmt.Fprintf(w, "%d faults: a start repairs what it can and sets aside what it cannot; keep a copy of the file before that\n", len(r.Faults))
}
