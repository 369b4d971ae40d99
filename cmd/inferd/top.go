// top.go: a live view of memory, queues, latencies and refusals, from what admission tells.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/appliance/control"
)

// What moves a terminal: to the upper left corner, clear to the end of the line and of the screen, hide and show the cursor.
const (
	ansiHome     = "\x1b[H"
	ansiLineEnd  = "\x1b[K"
	ansiRest     = "\x1b[J"
	ansiHide     = "\x1b[?25l"
	ansiShow     = "\x1b[?25h"
	ansiBold     = "\x1b[1m"
	ansiRed      = "\x1b[31m"
	ansiYellow   = "\x1b[33m"
	ansiOff      = "\x1b[0m"
	snapshotWide = 160 // columns, where nothing says how wide it is
)

func topCommand(e *env) *cobra.Command {
	var (
		times int
		every time.Duration
	)
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch a running inferd: memory by owner, queues, batches, latencies and refusals",
		Long: "On a terminal the view is drawn anew every second until Ctrl-C; elsewhere it is printed once. -n N prints it N times, one below\n" +
			"the other. With -o json each is the document of GET /v1/admission.",
		Args: exactly(0, "flags only"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond || every > time.Hour {
				return usagef("--every %v: write 100ms to 1h", every)
			}
			if times < 0 {
				return usagef("-n %d: write how many times, or 0 for without end", times)
			}
			c, err := e.client()
			if err != nil {
				return err
			}
			defer c.Close()
			screen := terminal(e.out)
			live := screen.is && e.output == formatTable && !cmd.Flags().Changed("times")
			if !live && !cmd.Flags().Changed("times") {
				times = 1
			}
			return e.top(cmd.Context(), c, screen, live, times, every)
		},
	}
	cmd.Flags().IntVarP(&times, "times", "n", 0, "print so many views and end (0: without end)")
	cmd.Flags().DurationVar(&every, "every", time.Second, "time between two views")
	return cmd
}

func (e *env) top(ctx context.Context, c *control.Client, screen screen, live bool, times int, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	if live {
		fmt.Fprint(e.out, ansiHide)
		defer fmt.Fprint(e.out, ansiShow)
	}
	for n := 1; ; n++ {
		r, err := admissionOf(ctx, c)
		switch {
		case ctx.Err() != nil:
			return nil // Ctrl-C is how one leaves
		case err != nil:
			return err
		case live:
			screen = terminal(e.out) // it may have another size by now
			fmt.Fprint(e.out, frame(topView(r, screen.width, screen.colour), screen.height))
		default:
			if err := e.print(r, func(w io.Writer) { fmt.Fprint(w, topView(r, screen.width, screen.colour)) }); err != nil {
				return err
			}
		}
		if n == times {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// admissionOf asks for the report.
func admissionOf(ctx context.Context, c *control.Client) (*admission.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	status, body, err := c.Do(ctx, http.MethodGet, "/v1/admission", nil)
	if err != nil {
		return nil, err
	}
	r := new(admission.Report)
	switch {
	case status == http.StatusNotFound:
		return nil, fmt.Errorf("what answers there has no /v1/admission: it is an older inferd, or another server; use this version's inferd on both sides")
	case status != http.StatusOK:
		return nil, fmt.Errorf("GET /v1/admission: HTTP %d: %.200s", status, plain(string(body)))
	}
	if err := json.Unmarshal(body, r); err != nil {
		return nil, fmt.Errorf("GET /v1/admission: the answer cannot be read: %w", err)
	}
	return r, nil
}

// screen is what the output can show.
type screen struct {
	is, colour    bool
	width, height int
}

func terminal(out io.Writer) screen {
	s := screen{width: snapshotWide}
	file, ok := out.(*os.File)
	if !ok {
		return s
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return s
	}
	s.is, s.height = true, int(size.Row)
	if size.Col > 0 {
		s.width = int(size.Col)
	}
	s.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return s
}

// frame puts the view over the one before, cut to the screen's height.
func frame(view string, height int) string {
	lines := strings.Split(strings.TrimSuffix(view, "\n"), "\n")
	if height > 1 && len(lines) > height-1 {
		lines = append(lines[:height-2], "... (a higher terminal shows more)")
	}
	return ansiHome + strings.Join(lines, ansiLineEnd+"\n") + ansiLineEnd + "\n" + ansiRest
}

// plain takes out what would move the cursor, in names that come from elsewhere.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < ' ', r >= 0x7f && r < 0xa0, r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0xfeff:
			return '?'
		}
		return r
	}, text)
}
