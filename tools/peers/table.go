// table.go: every server with every model over every protocol at 1, 8 and 64 connections.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/tools/measure"
)

// patience is how long a server may take to its first right answer.
const patience = 3 * time.Minute

var connections = []int{1, 8, 64}

// everybody serves these models in a quick run; with the others, it is the best-known peer beside inferd alone.
var everybody = []string{"mlp", "mobilenet"}

func (b *bench) table() error {
	for _, m := range b.models {
		for _, p := range b.peers() {
			if len(b.chosen) > 0 && !slices.Contains(b.chosen, p.name) {
				continue
			}
			if b.quick && p.at == "" && p.name != "inferd" && p.name != "Triton tuned" && !slices.Contains(everybody, m.Name) {
				continue
			}
			if err := b.measure(p, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// fit is the model as the peer sees it: Triton and MLServer have a dimension even where a row is one string.
func (p *peer) fit(m *model) *model {
	if len(m.Input.Shape) > 0 || p.env != "triton" && p.env != "mlserver" {
		return m
	}
	own := *m
	own.Input.Shape = []int{1}
	return &own
}

// open starts a peer with a model and waits for its first right answer; what it found is recorded.
func (b *bench) open(p peer, m *model) (*server, *start, error) {
	st := &start{Peer: p.name, Model: m.Name, Differs: map[string]float64{}, Failed: map[string]string{}}
	fitted := p.fit(m)
	if p.at != "" {
		s := &server{at: address{p.at, p.grpc}}
		b.check(s, p, fitted, st)
		return s, st, nil
	}
	work, err := os.MkdirTemp(b.home, "work-")
	if err != nil {
		return nil, nil, err
	}
	var ports [3]int
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return nil, nil, err
		}
	}
	env, argv, err := p.start(b, m, work, ports)
	if err != nil {
		return nil, nil, err
	}
	if p.env == "triton" {
		st.Settings = tritonAsItComes.String()
		if p.name == "Triton tuned" {
			st.Settings = b.tuned(m).String()
		}
	}
	began := time.Now()
	s, err := launch(filepath.Join(b.home, "log-"+strings.ReplaceAll(p.name, " ", "-")+"-"+m.Name+".txt"), env, argv...)
	if err != nil {
		return nil, nil, err
	}
	s.work = work
	s.at = address{"127.0.0.1:" + strconv.Itoa(ports[0]), "127.0.0.1:" + strconv.Itoa(ports[1])}
	for {
		_, err := b.ask(s, &p.wires[0], fitted, 0, 1)
		if err == nil {
			break
		}
		switch {
		case s.gone():
			st.Error = "it ended before it was ready" + s.said()
		case time.Since(began) > patience:
			st.Error = fmt.Sprintf("no right answer within %s: %v", patience, err)
		default:
			time.Sleep(20 * time.Millisecond)
			continue
		}
		s.stop()
		return nil, st, nil
	}
	st.ReadySecs = time.Since(began).Seconds()
	b.check(s, p, fitted, st)
	time.Sleep(500 * time.Millisecond)
	st.IdleMB = float64(s.memory()) / 1e6
	return s, st, nil
}

// check asks the server over each of its protocols for each row alone and for all together.
func (b *bench) check(s *server, p peer, m *model, st *start) {
	for i := range p.wires {
		w := &p.wires[i]
		if w.grpc && s.at.grpc == "" {
			continue
		}
		worst := 0.0
		var err error
		for row := 0; row < m.Rows && err == nil; row++ {
			var d float64
			d, err = b.ask(s, w, m, row, 1)
			worst = max(worst, d)
		}
		if err == nil {
			var d float64
			d, err = b.ask(s, w, m, 0, m.Rows)
			worst = max(worst, d)
		}
		if err != nil {
			st.Failed[w.name] = err.Error()
			continue
		}
		st.Differs[w.name] = worst
	}
}

var client = http.Client{Timeout: time.Minute}

// ask asks for some rows and holds the answer against TensorFlow's.
func (b *bench) ask(s *server, w *wire, m *model, from, n int) (float64, error) {
	r, err := w.make(m, from, n)
	if err != nil {
		return 0, err
	}
	var body []byte
	binary := 0
	if w.grpc {
		body, err = measure.Ask(s.at.grpc, r.path, r.body)
	} else {
		body, binary, err = post(s.at.http, r)
	}
	if err != nil {
		return 0, err
	}
	got, err := w.read(m, body, binary)
	if err != nil {
		return 0, err
	}
	return m.compare(got, from, n)
}

func post(at string, r request) (body []byte, binary int, err error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+at+r.path, strings.NewReader(string(r.body)))
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	for _, h := range r.headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err = io.ReadAll(resp.Body); err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.300s", resp.Status, body)
	}
	binary, _ = strconv.Atoi(resp.Header.Get("Inference-Header-Content-Length"))
	return body, binary, err
}

// wanted are the cells of a server with a model. Quick leaves out what would take long and tells little.
func (b *bench) wanted(p peer, m *model, st *start) (cells []cell) {
	for _, n := range connections {
		for i := range p.wires {
			w := &p.wires[i]
			if _, works := st.Differs[w.name]; !works || b.quick && m.big() && w.name == "OIP JSON" || b.quick && p.name == "inferd" && !slices.Contains(everybody, m.Name) && !strings.HasPrefix(w.name, "TFS") {
				continue
			}
			cells = append(cells, cell{Peer: p.name, Model: m.Name, Wire: w.name, Connections: n})
		}
	}
	return cells
}

func (c *cell) key() string {
	return fmt.Sprintf("cell %s, %s, %s, %d", c.Model, c.Peer, c.Wire, c.Connections)
}

// measure fills the cells of a server with a model.
func (b *bench) measure(p peer, m *model) error {
	key := "start " + m.Name + ", " + p.name
	if e, ok := b.store.get(key); ok {
		missing := slices.ContainsFunc(b.wanted(p, m, e.Start), func(c cell) bool {
			_, there := b.store.get(c.key())
			return !there
		})
		if e.Start.Error != "" || !missing {
			return nil
		}
	}
	if p.name == "Triton tuned" {
		if err := b.tune(m); err != nil {
			return err
		}
	}
	b.say("%s with %s ...", p.name, m.Name)
	first, err := b.meet(p, m)
	if err != nil {
		return err
	}
	s, st, err := b.open(p, m)
	if st != nil && first > 0 {
		st.Settings = fmt.Sprintf("its first start with the model took %.2f s, in which it measures how it runs it best; ready is the next", first)
	}
	if err != nil {
		return fmt.Errorf("%s with %s: %w", p.name, m.Name, err)
	}
	if s != nil {
		defer s.stop()
	}
	for name, why := range st.Failed {
		b.say("  %s: not measured: %s", name, strings.Join(strings.Fields(why), " "))
	}
	if st.Error != "" {
		b.say("  not measured: %s", st.Error)
	}
	if err := b.store.add(entry{Key: key, Start: st}); err != nil || s == nil {
		return err
	}
	fitted := p.fit(m)
	for _, c := range b.wanted(p, m, st) {
		if _, there := b.store.get(c.key()); there {
			continue
		}
		if err := b.cell(s, p, fitted, &c); err != nil {
			return fmt.Errorf("%s: %w%s", c.key(), err, s.said())
		}
		b.say("  %-10s %2d connections: %8.1f/s, p50 %8.2f ms, p99 %8.2f ms, %4.0f MB", c.Wire, c.Connections, c.Rate, c.P50, c.P99, c.PeakMB)
		if err := b.store.add(entry{Key: c.key(), Cell: &c}); err != nil {
			return err
		}
	}
	return nil
}

// meet starts inferd with a model that it has not met, and returns how long it took to the first answer: 0 for others and for what it knows.
func (b *bench) meet(p peer, m *model) (float64, error) {
	if p.name != "inferd" {
		return 0, nil
	}
	if _, err := os.Stat(b.state(m)); err == nil {
		return 0, nil
	}
	s, st, err := b.open(p, m)
	if err != nil || s == nil {
		return 0, err // open, when it is tried again, has the reason
	}
	s.stop()
	return st.ReadySecs, nil
}

// cell measures one cell.
func (b *bench) cell(s *server, p peer, m *model, c *cell) error {
	i := slices.IndexFunc(p.wires, func(w wire) bool { return w.name == c.Wire })
	open, err := p.wires[i].caller(s.at, m)
	if err != nil {
		return err
	}
	s.settle()
	stop, peak := s.watch()
	others := measure.WatchOthers()
	window := b.window
	if b.quick {
		window = window * 7 / 10
	}
	warm := window / 4
	if m.big() && c.Connections == connections[len(connections)-1] { // the first of so many waits long
		warm, window = window*3/2, window*3
	}
	cpu, began := measure.TreeCPU(s.pid()), time.Now()
	w, err := measure.Observe(c.Connections, warm, window, open)
	c.Others = others()
	stop()
	if err != nil {
		return err
	}
	c.Rate, c.P50, c.P99, c.PeakMB = w.Rate(), ms(w.P50), ms(w.P99), float64(peak.Load())/1e6
	if w.Calls > 0 && s.pid() != 0 {
		share := window.Seconds() / time.Since(began).Seconds() // the processor worked outside the window too
		c.Processor = (measure.TreeCPU(s.pid()) - cpu) / float64(w.Calls) * 1e3 * share
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// settle waits, not for ever, until the server has nothing left of the load before: a slow one works on after its clients are gone.
func (s *server) settle() {
	if s.guard == nil {
		return
	}
	for range 40 {
		before := measure.TreeCPU(s.pid())
		time.Sleep(150 * time.Millisecond)
		if measure.TreeCPU(s.pid())-before < 0.05 {
			return
		}
	}
}

// watch looks for the most memory that the server has, a few times per second: reading it costs the server's own time.
func (s *server) watch() (stop func(), peak *atomic.Int64) {
	peak = &atomic.Int64{}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				peak.Store(max(peak.Load(), s.memory()))
				return
			case <-time.After(700 * time.Millisecond):
				peak.Store(max(peak.Load(), s.memory()))
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}, peak
}

// tritonTuned is what -quick takes for Triton's best settings: for the heavy models those that were best in an earlier comparison on two cores, for
// the light ones a guess (large batches in one instance). Only tune, without -quick, searches.
var tritonTuned = map[string]tritonSettings{
	"mlp":         {Instances: 1, Intra: 1, Batch: 64, WaitMicros: 0, Session: true},
	"text":        {Instances: 1, Intra: 1, Batch: 64, WaitMicros: 0, Session: true},
	"mobilenet":   {Instances: 2, Intra: 1, Batch: 4, WaitMicros: 0},
	"resnet50":    {Instances: 2, Intra: 1, Batch: 4, WaitMicros: 0},
	"basic-pitch": {Instances: 2, Intra: 1, Batch: 4, WaitMicros: 0},
}

func (b *bench) tuned(m *model) tritonSettings {
	t := tritonTuned[m.Name]
	if e, ok := b.store.get("tuned " + m.Name); ok {
		_ = json.Unmarshal(e.Choice, &t) // it was written by tune
	}
	return t
}

// tune starts Triton with each of the settings that are worth a try and keeps the one with which most requests were answered over binary
// HTTP at 64 connections.
func (b *bench) tune(m *model) error {
	key := "tuned " + m.Name
	if _, ok := b.store.get(key); ok || b.quick {
		return nil
	}
	cores := runtime.NumCPU()
	var best tritonSettings
	highest := 0.0
	for _, t := range []tritonSettings{
		{Instances: cores, Intra: 1, Batch: 1, Session: true}, {Instances: cores, Intra: 1, Batch: 4, Session: true},
		{Instances: cores, Intra: 1, Batch: 32, Session: true}, {Instances: cores, Intra: 1, Batch: 4}, {Instances: cores, Intra: 1, Batch: 4, WaitMicros: 1000, Session: true},
		{Instances: 1, Intra: cores, Batch: 8, Session: true}, {Instances: 1, Intra: 1, Batch: 64, Session: true},
		{Instances: 1, Intra: 1, Batch: 64, WaitMicros: 1000, Session: true}, {Instances: 1, Intra: cores, Batch: 32, WaitMicros: 1000},
	} {
		p := peer{name: "Triton", env: "triton", wires: []wire{oipBinary}, start: startTriton(t)}
		s, st, err := b.open(p, m)
		if err != nil {
			return err
		}
		if s == nil || len(st.Failed) > 0 {
			b.say("  Triton with %s: %s%v", t, st.Error, st.Failed)
			continue
		}
		c := cell{Wire: oipBinary.name, Connections: 64}
		err = b.cell(s, p, p.fit(m), &c)
		s.stop()
		if err != nil {
			return err
		}
		b.say("  Triton with %s: %.1f/s", t, c.Rate)
		if c.Rate > highest {
			best, highest = t, c.Rate
		}
	}
	if highest == 0 {
		return nil // the settings that were chosen before
	}
	choice, err := json.Marshal(best)
	if err != nil {
		return err
	}
	return b.store.add(entry{Key: key, Choice: choice})
}
