// stream.go: inputs over one WebSocket, predictions live in the terminal.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	inferd "github.com/inferd/inferd/clients/go"
)

type streamFlags struct {
	wav, images, jsonl, session        string
	version                            int64
	label, signature, input            string
	labels                             string
	durable, ordered, dropOldest, file bool
	deadline                           time.Duration
	window, hop, rate                  int
	scale                              float64
}

// lastAnswers is how long an interrupted stream waits for what is in flight.
const lastAnswers = 5 * time.Second

func streamCommand(e *env) *cobra.Command {
	var f streamFlags
	cmd := &cobra.Command{
		Use:   "stream MODEL --wav FILE|- | --images DIR | --jsonl [FILE]",
		Short: "Stream sound, pictures or JSON lines to a model, and see its predictions as they come",
		Long: "One WebSocket carries the inputs, in as fast as the appliance grants credit; it comes back by itself when it is lost.\n" +
			"--wav cuts the sound into windows of the size that the model takes, --images resizes, --jsonl sends each line: a request with\n" +
			"\"instances\" or \"inputs\", or one instance. Where the configuration says how a model's input arrives (models[].media), pictures and\n" +
			"samples go as they are.\n\n" +
			"With --durable each input is on the appliance's disk before it is run, and answered whatever happens. With --session FILE a second\n" +
			"start goes on where the first one ended, however it ended: every result comes once.",
		Example: "  inferd stream basic-pitch --wav song.wav\n  arecord -q -f S16_LE -r 16000 -t wav | inferd stream keywords --wav - --drop-oldest\n" +
			"  inferd stream sensor --jsonl readings.jsonl --session readings.session",
		Args: func(cmd *cobra.Command, args []string) error {
			if f.jsonl == "-" && len(args) == 2 { // --jsonl FILE, as written: the flag's value is optional
				return nil
			}
			return exactly(1, "one model")(cmd, args)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault // the file of --jsonl
			}
			return e.modelNames(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				f.jsonl = args[1]
			}
			if err := f.check(); err != nil {
				return err
			}
			return e.stream(cmd.Context(), args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.wav, "wav", "", "WAV file, or - for standard input")
	flags.StringVar(&f.images, "images", "", "directory of .jpg and .png pictures, sent in the order of their names")
	flags.StringVar(&f.jsonl, "jsonl", "", "file of JSON lines; alone, or as -, standard input")
	flags.Lookup("jsonl").NoOptDefVal = "-"
	flags.Int64Var(&f.version, "version", 0, "version number (default: the highest that is available)")
	flags.StringVar(&f.label, "label", "", "version label")
	flags.StringVar(&f.signature, "signature", "", "signature (default: serving_default)")
	flags.StringVar(&f.input, "input", "", "the input that sound or pictures are (default: the only one)")
	flags.StringVar(&f.labels, "classes", "", "file with the name of each class on a line, for class scores")
	flags.BoolVar(&f.durable, "durable", false, "to disk before it is run; answered whatever happens")
	flags.BoolVar(&f.ordered, "ordered", false, "answers in the order of the inputs")
	flags.BoolVar(&f.dropOldest, "drop-oldest", false, "rather skip than lag: the oldest input that waits gives way")
	flags.BoolVar(&f.file, "as-file", false, "send pictures and samples as they are without asking whether the model takes them so (models[].media)")
	flags.DurationVar(&f.deadline, "deadline", 0, "an answer later than that is worth nothing (default: as configured)")
	flags.StringVar(&f.session, "session", "", "file to keep the session in, so that the next start goes on with it; means --durable")
	flags.IntVar(&f.window, "window", 0, "--wav: samples in a window (default: what the model takes)")
	flags.IntVar(&f.hop, "hop", 0, "--wav: samples from one window to the next (default: the window)")
	flags.IntVar(&f.rate, "rate", 0, "--wav: samples per second that the model takes (default: the file's)")
	flags.Float64Var(&f.scale, "scale", 0, "--images: what pixels are divided by (default: 255 for floats, 1 for whole numbers)")
	return cmd
}

func (f *streamFlags) check() error {
	given := 0
	for _, s := range []string{f.wav, f.images, f.jsonl} {
		if s != "" {
			given++
		}
	}
	f.durable = f.durable || f.session != ""
	switch {
	case given != 1:
		return usagef("give one of --wav, --images and --jsonl; %d were given", given)
	case f.version != 0 && f.label != "":
		return usagef("--version and --label both choose a version; give one of them")
	case f.durable && f.dropOldest:
		return usagef("a durable input is never dropped; leave --drop-oldest out, or --durable and --session")
	case f.ordered && f.dropOldest:
		return usagef("--ordered waits for the oldest and --drop-oldest does not; give one of them")
	case f.window < 0 || f.hop < 0 || f.rate < 0 || f.deadline < 0 || f.scale < 0:
		return usagef("--window, --hop, --rate, --deadline and --scale are not below zero")
	case f.wav == "" && (f.window != 0 || f.hop != 0 || f.rate != 0):
		return usagef("--window, --hop and --rate are for --wav")
	case f.file && f.jsonl != "":
		return usagef("--as-file is for --wav and --images")
	}
	return nil
}

// what names the source, for the session file.
func (f *streamFlags) what() string {
	switch {
	case f.wav != "":
		return fmt.Sprintf("--wav %s window %d hop %d rate %d", f.wav, f.window, f.hop, f.rate)
	case f.images != "":
		return "--images " + f.images
	}
	return "--jsonl " + f.jsonl
}

// live is whether the source cannot be read again.
func (f *streamFlags) live() bool { return f.wav == "-" || f.jsonl == "-" }

func (e *env) stream(ctx context.Context, model string, f streamFlags) error {
	address, err := e.streamAddress(ctx)
	if err != nil {
		return err
	}
	o, err := e.clientOptions()
	if err != nil {
		return err
	}
	c, err := inferd.New(e.secure.scheme(address), o)
	if err != nil {
		return usageError{err}
	}
	defer c.CloseIdle()
	session, err := f.resumed(e.err, model)
	if err != nil {
		return err
	}
	view, err := newStreamView(e, f.labels)
	if err != nil {
		return err
	}
	src, err := e.open(ctx, address, model, f)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()

	log := slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}}))
	began := time.Now()
	s := c.Stream(inferd.StreamOptions{Session: session, Log: log})
	defer func() { _ = s.Close() }()
	received := make(chan error, 1)
	rctx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	sctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	go func() {
		err := view.receive(rctx, s, f.session)
		if err != nil {
			giveUp() // nobody takes results any more
		}
		received <- err
	}()
	sendErr := f.send(sctx, s, src, model, session.Next, view)
	s.CloseSend()
	if sendErr != nil {
		defer time.AfterFunc(lastAnswers, func() { stop(errors.New("no more answers within " + lastAnswers.String())) }).Stop()
	}
	err = <-received
	left := len(s.Session().Waiting)
	view.summary(e.err, s.Stats(), time.Since(began), left, f)
	switch {
	case ctx.Err() != nil:
		return errSilent // interrupted; the summary has it
	case err != nil:
		return err
	case sendErr != nil:
		return sendErr
	case view.wrong > 0 || s.Stats().Refused+s.Stats().Lost > 0:
		return errSilent
	}
	return nil
}

// clientOptions show the token, if there is one, and say whom to trust.
func (e *env) clientOptions() (o inferd.Options, err error) {
	if o.Token, err = e.secure.token(); err != nil {
		return o, err
	}
	o.TLS, err = e.secure.trust()
	return o, err
}

// streamAddress is --address when it names a door, else the door of the inferd behind the control socket.
func (e *env) streamAddress(ctx context.Context) (string, error) {
	if strings.Contains(e.address, ":") {
		return e.address, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s, err := e.status(ctx)
	if err != nil {
		return "", fmt.Errorf("%w (--address host:port streams without a control socket)", err)
	}
	if s.HTTP == "" {
		return "", errors.New("REST is off in this inferd, and streams with it; set listen.http")
	}
	return s.HTTP, nil
}

// resumed reads the session file and holds it against what is to be streamed now.
func (f *streamFlags) resumed(w io.Writer, model string) (inferd.Session, error) {
	note := model + " " + f.what()
	if f.session == "" {
		return inferd.Session{}, nil
	}
	session, err := inferd.LoadSession(f.session)
	switch {
	case err != nil:
		return session, err
	case session.Note != "" && session.Note != note:
		return session, usagef("%s is the session of %q, and this is %q; give another file", f.session, session.Note, note)
	case session.Next > 0 && f.live():
		fmt.Fprintf(w, "going on with session %s: %d results to come; %d inputs that were not accepted cannot be read again\n", session.ID, len(session.Waiting), len(session.Open))
	case session.Next > 0:
		fmt.Fprintf(w, "going on with session %s: %d inputs were accepted, %d results to come\n", session.ID, session.Next-uint64(len(session.Open)), len(session.Waiting))
	}
	session.Note = note
	return session, nil
}

// send streams the source until it ends. An input that cannot be sent is shown and passed over.
func (f *streamFlags) send(ctx context.Context, s *inferd.Stream, src source, model string, first uint64, view *streamView) error {
	n := uint64(0)
	if f.live() {
		n = first
	}
	read := ahead(ctx, src)
	for ; ; n++ {
		var in input
		var err error
		select {
		case got := <-read:
			in, err = got.input, got.err
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		var bad badInput
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &bad):
			view.bad(in.name, bad)
			continue
		case err != nil:
			return err
		}
		r := inferd.Request{ID: strconv.FormatUint(n, 10), Model: model, Version: f.version, Label: f.label, Signature: f.signature, Media: in.media,
			Deadline: f.deadline, Durable: f.durable, Ordered: f.ordered, DropOldest: f.dropOldest}
		if in.signature != "" {
			r.Signature = in.signature
		}
		switch {
		case in.instances != nil:
			r.Instances = in.instances
		case in.inputs != nil:
			r.Inputs = in.inputs
		}
		view.sent(r.ID, in.name)
		if err := s.Send(ctx, r); err != nil {
			if ctx.Err() != nil || errors.Is(err, inferd.ErrClosed) || s.Err() != nil {
				return err
			}
			view.bad(in.name, err)
		}
	}
}

// read is what a source gave.
type read struct {
	input
	err error
}

// ahead reads the source one input ahead, in a goroutine of its own: a pipe that says nothing must not hold up the end. It ends with its source, or ctx,
// or the process.
func ahead(ctx context.Context, src source) <-chan read {
	c := make(chan read)
	go func() {
		for {
			in, err := src.next(ctx)
			var bad badInput
			select {
			case c <- read{in, err}:
			case <-ctx.Done():
				return
			}
			if err != nil && !errors.As(err, &bad) {
				return
			}
		}
	}()
	return c
}

// input is one to be sent: instances or inputs as JSON, or media.
type input struct {
	name              string
	signature         string
	instances, inputs json.RawMessage
	media             []byte
}

// badInput is an error of one input; those after it may be good.
type badInput struct{ err error }

func (e badInput) Error() string { return e.err.Error() }
func (e badInput) Unwrap() error { return e.err }

// source is where inputs come from. The end is io.EOF.
type source interface {
	next(ctx context.Context) (input, error)
	io.Closer
}
