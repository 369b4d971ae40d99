// report.go: what was measured, as tables.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/inferd/inferd/tools/measure"
)

// report writes benchmarks/peers.md (or growth.md) and its raw data, and the pictures, below b.out.
func (b *bench) report() error {
	tables, pictures := filepath.Join(b.out, "benchmarks"), filepath.Join(b.out, "pictures")
	for _, d := range []string{tables, pictures} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	var raw bytes.Buffer
	for _, e := range b.store.entries {
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		raw.Write(append(text, '\n'))
	}
	if err := os.WriteFile(filepath.Join(tables, b.name+".jsonl"), raw.Bytes(), 0o644); err != nil {
		return err
	}
	text := tablesOf(b.store.entries)
	fmt.Print("\n", text)
	if err := os.WriteFile(filepath.Join(tables, b.name+".md"), []byte(text), 0o644); err != nil {
		return err
	}
	for name, svg := range picturesOf(b.store.entries) {
		if err := os.WriteFile(filepath.Join(pictures, name), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	b.say("written to %s and %s", tables, pictures)
	return nil
}

// sorted takes the entries apart.
type sorted struct {
	machine machine
	date    string
	models  []string
	starts  map[string]*start // by model and peer
	peers   []string
	wires   []string
	cells   map[string]*cell // by key
	rows    []*measure.Ratios
	points  []*point
}

func once(list []string, v string) []string {
	for _, have := range list {
		if have == v {
			return list
		}
	}
	return append(list, v)
}

func sortOut(entries []entry) *sorted {
	s := &sorted{starts: map[string]*start{}, cells: map[string]*cell{}}
	for _, e := range entries {
		switch {
		case e.Machine != nil:
			s.machine, s.date = *e.Machine, e.Time.Format("2006-01-02")
		case e.Start != nil:
			s.models, s.peers = once(s.models, e.Start.Model), once(s.peers, e.Start.Peer)
			s.starts[e.Start.Model+"/"+e.Start.Peer] = e.Start
		case e.Cell != nil:
			s.wires = once(s.wires, e.Cell.Wire)
			s.cells[e.Cell.key()] = e.Cell
		case e.Row != nil:
			s.rows = append(s.rows, e.Row)
		case e.Point != nil:
			s.points = append(s.points, e.Point)
		}
	}
	return s
}

// short writes a number with about three digits.
func short(v float64) string {
	switch {
	case v == 0:
		return "-"
	case v >= 1000:
		s := fmt.Sprintf("%.0f", v)
		return s[:len(s)-3] + "," + s[len(s)-3:]
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func tablesOf(entries []entry) string {
	s := sortOut(entries)
	var w strings.Builder
	m := s.machine
	title, by := "inferd beside its peers", "bench-peers"
	if len(s.points) > 0 {
		title, by = "How inferd's cost grows", "bench-growth"
	}
	fmt.Fprintf(&w, "# %s\n\nMade by `make %s`; do not edit. %s on %s", title, by, s.date, m.CPU)
	if !m.AVX512 {
		w.WriteString(" (no AVX-512)")
	}
	fmt.Fprintf(&w, ", %d cores shared with the load generator, %d GB, Linux %s, TensorFlow %s, %s, %s. Each cell is one window of %g s; each ratio at least %d alternating pairs of %g s.\n",
		m.Cores, m.MemoryGB, m.Kernel, m.TensorFlow, m.Go, m.Inferd, m.Seconds, m.Pairs, m.Seconds)
	if m.Quick {
		w.WriteString("A quick run: differences between cells below 20 % are noise.\n")
	}
	if len(s.points) == 0 && (m.TFS == "" || m.OVMS == "") {
		w.WriteString("\nNot measured:\n\n")
		for _, line := range absent() {
			fmt.Fprintf(&w, "- %s\n", line)
		}
	}
	if len(s.rows) > 0 {
		w.WriteString("\n## Ratios\n\n| inferd / the other | asked | median | interval | pairs | holds | rates |\n|---|---|---|---|---|---|---|\n")
		for _, r := range s.rows {
			low, high := measure.Interval(r.Values)
			holds := "yes"
			if high < r.Bound {
				holds = "**no**"
			}
			note := fmt.Sprintf("%s over %s %s", short(measure.Median(r.A)), short(measure.Median(r.B)), strings.TrimSuffix(r.Unit, ":"))
			if r.Disturbed > 0 {
				note += fmt.Sprintf("; %d pairs were disturbed", r.Disturbed)
			}
			fmt.Fprintf(&w, "| %s | ≥ %.2g | %.2f | %.2f – %.2f | %d | %s | %s |\n", r.Name, r.Bound, measure.Median(r.Values), low, high, len(r.Values), holds, note)
		}
	}
	for _, model := range s.models {
		fmt.Fprintf(&w, "\n## %s\n\n| server | protocol | requests/s at 1 / 8 / 64 | p50 ms | p99 ms | processor ms/request at 64 | PSS MB idle / at 64 | ready s |\n|---|---|---|---|---|---|---|---|\n", model)
		for _, peer := range s.peers {
			st := s.starts[model+"/"+peer]
			if st == nil {
				continue
			}
			if st.Error != "" {
				first, _, _ := strings.Cut(st.Error, "\n")
				fmt.Fprintf(&w, "| %s | | not measured: %s | | | | | |\n", peer, first)
			}
			for _, wire := range s.wires {
				s.line(&w, model, peer, wire, st)
			}
		}
		for _, peer := range s.peers {
			if st := s.starts[model+"/"+peer]; st != nil && st.Settings != "" {
				fmt.Fprintf(&w, "\n%s: %s.", peer, st.Settings)
			}
		}
		w.WriteString("\n")
	}
	w.WriteString(growthTable(s.points))
	return w.String()
}

// line writes a server over a protocol.
func (s *sorted) line(w *strings.Builder, model, peer, wire string, st *start) {
	var rates, p50, p99 []string
	last := &cell{}
	any := false
	for _, n := range connections {
		c := s.cells[(&cell{Peer: peer, Model: model, Wire: wire, Connections: n}).key()]
		if c == nil {
			c = &cell{}
		} else {
			any = true
		}
		rates, p50, p99, last = append(rates, short(c.Rate)), append(p50, short(c.P50)), append(p99, short(c.P99)), c
	}
	if any {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s / %s | %s |\n", peer, wire, strings.Join(rates, " / "), strings.Join(p50, " / "), strings.Join(p99, " / "),
			short(last.Processor), short(st.IdleMB), short(last.PeakMB), short(st.ReadySecs))
	}
}
