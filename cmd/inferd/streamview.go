// streamview.go: what a stream shows: a line for each prediction, and the account at its end.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	inferd "github.com/inferd/inferd/clients/go"
)

// How much of a prediction fits a line.
const (
	fewNumbers   = 4 // shown as they are; more are class scores
	topClasses   = 3
	widestAnswer = 160
	ackEvery     = 64 // results, while more of them wait
)

type streamView struct {
	e       *env
	classes []string

	mu    sync.Mutex
	names map[string]string // of inputs in flight, by id
	wrong int               // inputs that could not be sent
}

func newStreamView(e *env, classes string) (*streamView, error) {
	v := &streamView{e: e, names: make(map[string]string)}
	if classes != "" {
		text, err := os.ReadFile(classes)
		if err != nil {
			return nil, err
		}
		v.classes = strings.Split(strings.TrimRight(string(text), "\r\n"), "\n")
	}
	return v, nil
}

func (v *streamView) sent(id, name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.names[id] = name
}

// bad shows an input that was not sent.
func (v *streamView) bad(name string, err error) {
	v.mu.Lock()
	v.wrong++
	v.mu.Unlock()
	v.show(inferd.Result{Err: err}, name)
}

// receive shows every result, and acknowledges it once it is shown and, with a session file, kept there.
func (v *streamView) receive(ctx context.Context, s *inferd.Stream, session string) error {
	results, ended := make(chan inferd.Result), make(chan error, 1)
	go func() {
		for {
			r, err := s.Recv(ctx)
			if err != nil {
				ended <- err
				close(results)
				return
			}
			results <- r
		}
	}()
	var last inferd.Result
	shown := 0
	keep := func() error {
		if shown == 0 {
			return nil
		}
		shown = 0
		if session == "" {
			s.Ack(last)
			return nil
		}
		return s.AckKept(last, func(kept inferd.Session) error { return kept.Save(session) })
	}
	for {
		var r inferd.Result
		var more bool
		select {
		case r, more = <-results:
		default: // nothing waits: now is the time
			if err := keep(); err != nil {
				return err
			}
			r, more = <-results
		}
		if !more {
			err := <-ended
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, v.last(s, session, keep))
		}
		v.mu.Lock()
		name := v.names[r.ID]
		delete(v.names, r.ID)
		v.mu.Unlock()
		v.show(r, name)
		if r.Seq > 0 {
			last = r
			if shown++; shown >= ackEvery {
				if err := keep(); err != nil {
					return err
				}
			}
		}
	}
}

// last keeps what no result came to keep: what was accepted, for the next start.
func (v *streamView) last(s *inferd.Stream, session string, keep func() error) error {
	err := keep()
	if session != "" {
		err = errors.Join(err, s.Session().Save(session))
	}
	return err
}

// show prints a line.
func (v *streamView) show(r inferd.Result, name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.e.output == formatJSON {
		line := struct {
			ID          string          `json:"id,omitempty"`
			Input       string          `json:"input,omitempty"`
			Version     int64           `json:"version,omitempty"`
			Seq         uint64          `json:"seq,omitempty"`
			Took        float64         `json:"took_ms,omitempty"`
			Predictions json.RawMessage `json:"predictions,omitempty"`
			Outputs     json.RawMessage `json:"outputs,omitempty"`
			Error       string          `json:"error,omitempty"`
		}{r.ID, name, r.Version, r.Seq, float64(r.Took.Microseconds()) / 1000, r.Predictions, r.Outputs, ""}
		if r.Err != nil {
			line.Error = r.Err.Error()
		}
		enc := json.NewEncoder(v.e.out)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(line) // standard output is gone when this fails
		return
	}
	took := ""
	if r.Took > 0 {
		took = r.Took.Round(100 * time.Microsecond).String()
	}
	what := ""
	switch {
	case errors.Is(r.Err, inferd.ErrDropped):
		what = "dropped for a newer input"
	case r.Err != nil:
		what = "no prediction: " + r.Err.Error()
	default:
		what = v.brief(slices.Concat(r.Predictions, r.Outputs), r.Predictions != nil)
	}
	fmt.Fprintf(v.e.out, "%-6s %-16s %9s  %s\n", r.ID, name, took, what)
}

// brief is a prediction in a line.
func (v *streamView) brief(text []byte, rows bool) string {
	var got any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if dec.Decode(&got) != nil {
		return shorten(string(text))
	}
	if list, ok := got.([]any); ok && rows && len(list) == 1 {
		got = list[0] // one instance was asked for
	}
	return shorten(v.value(got))
}

func (v *streamView) value(got any) string {
	switch got := got.(type) {
	case map[string]any:
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(got)) {
			parts = append(parts, name+": "+v.value(got[name]))
		}
		return strings.Join(parts, "  ")
	case json.Number:
		return plainNumber(got)
	case []any:
		for len(got) == 1 { // dimensions of one say nothing
			inner, ok := got[0].([]any)
			if !ok {
				break
			}
			got = inner
		}
		if scores, ok := numbers(got); ok && len(scores) > fewNumbers {
			return v.top(scores)
		}
		if shape, count, highest := extent(got); len(shape) > 1 && count > 4*fewNumbers {
			return fmt.Sprintf("%s numbers, highest %.4g", strings.Join(shape, "x"), highest)
		}
	}
	return cell(got)
}

func plainNumber(n json.Number) string {
	if f, err := n.Float64(); err == nil && strings.ContainsAny(n.String(), ".eE") {
		return strconv.FormatFloat(f, 'g', 5, 64)
	}
	return n.String()
}

func numbers(list []any) ([]float64, bool) {
	all := make([]float64, 0, len(list))
	for _, one := range list {
		n, ok := one.(json.Number)
		if !ok {
			return nil, false
		}
		f, err := n.Float64()
		if err != nil {
			return nil, false
		}
		all = append(all, f)
	}
	return all, true
}

// top is the classes with the highest scores.
func (v *streamView) top(scores []float64) string {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(scores[b], scores[a]) })
	var parts []string
	for _, class := range order[:min(topClasses, len(order))] {
		name := "class " + strconv.Itoa(class)
		if class < len(v.classes) {
			name = strings.TrimSpace(v.classes[class])
		}
		parts = append(parts, fmt.Sprintf("%s %.3g", name, scores[class]))
	}
	return strings.Join(parts, ", ")
}

// extent is the shape, the count and the highest of nested numbers; no shape when they are none, or ragged.
func extent(list []any) (shape []string, count int, highest float64) {
	shape = []string{strconv.Itoa(len(list))}
	for i, one := range list {
		switch one := one.(type) {
		case []any:
			inner, n, high := extent(one)
			if inner == nil || i > 0 && !slices.Equal(inner, shape[1:]) {
				return nil, 0, 0
			}
			shape = append(shape[:1], inner...)
			if count == 0 || high > highest {
				highest = high
			}
			count += n
		case json.Number:
			f, err := one.Float64()
			if err != nil || len(shape) > 1 {
				return nil, 0, 0
			}
			if count == 0 || f > highest {
				highest = f
			}
			count++
		default:
			return nil, 0, 0
		}
	}
	return shape, count, highest
}

func shorten(line string) string {
	line = strings.Join(strings.Fields(line), " ")
	if len(line) > widestAnswer {
		return strings.ToValidUTF8(line[:widestAnswer], "") + " ... (-o json has all)"
	}
	return line
}

// summary is the account at the end.
func (v *streamView) summary(w io.Writer, st inferd.Stats, took time.Duration, left int, f streamFlags) {
	line := fmt.Sprintf("sent %d, answered %d, refused %d", st.Sent, st.Answered, st.Refused+v.wrong)
	for _, n := range []struct {
		what  string
		count int
	}{{"dropped", st.Dropped}, {"lost with their connection", st.Lost}, {"resumed", st.Resumed}, {"sent again", st.Again}, {"connections", st.Connections}} {
		if n.count > 0 && (n.what != "connections" || n.count > 1) {
			line += fmt.Sprintf(", %s %d", n.what, n.count)
		}
	}
	fmt.Fprintf(w, "%s; %v\n", line, took.Round(time.Millisecond))
	if left > 0 {
		next := "start it with --session FILE to be able to go on"
		if f.session != "" {
			next = "the same command goes on with " + f.session
		}
		fmt.Fprintf(w, "%d accepted inputs have no result yet and stay with the appliance; %s\n", left, next)
	}
}
