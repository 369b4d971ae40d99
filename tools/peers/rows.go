// rows.go: the ratios that inferd is held to beside its peers and beside the engines below, each the median of alternating pairs.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
	"github.com/inferd/inferd/tools/measure"
)

// bound is what is asked of a row for a model; models that are not in it have no such row.
type bound map[string]float64

var (
	overSaved   = bound{"mobilenet": 1.2, "resnet50": 1.1, "basic-pitch": 1.2}
	overServing = bound{"mobilenet": 1.8, "resnet50": 1.4, "basic-pitch": 1.8}
	overORT     = bound{"mobilenet": 0.6, "resnet50": 0.6}
	overVINO    = bound{"mobilenet": 0.5, "resnet50": 0.5}
)

func (b *bench) rows() error {
	for _, m := range b.models {
		var err error
		switch m.Name {
		case "mlp":
			err = b.overBestJSON(m)
		case "mobilenet":
			err = b.overTriton(m)
		}
		if err == nil && overSaved[m.Name] != 0 {
			err = b.overEngines(m)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	return nil
}

// row measures a row that is not there yet, and prints it.
func (b *bench) row(name, unit string, bound float64, ours, theirs func() (float64, error)) error {
	key := "row " + name
	if _, there := b.store.get(key); there {
		return nil
	}
	r, err := measure.Pairs(name, unit, bound, b.pairs, ours, theirs)
	if err != nil {
		return err
	}
	b.say("%s", r.Report())
	return b.store.add(entry{Key: key, Row: r})
}

// missing says that a row is wanted.
func (b *bench) missing(name string) bool {
	_, there := b.store.get("row " + name)
	return !there
}

// fastest is the cell with the highest rate at 64 connections among those that fit, with its peer and protocol.
func (b *bench) fastest(m *model, fits func(p peer, w wire) bool) (best cell, of peer, over wire) {
	for _, p := range b.peers() {
		for _, w := range p.wires {
			c := cell{Peer: p.name, Model: m.Name, Wire: w.name, Connections: 64}
			if e, ok := b.store.get(c.key()); ok && e.Cell.Rate > best.Rate && fits(p, w) {
				best, of, over = *e.Cell, p, w
			}
		}
	}
	return best, of, over
}

// pair starts two servers and compares what they answer per second.
func (b *bench) pair(name string, bound float64, conns int, m *model, ours wire, p peer, theirs wire) error {
	if !b.missing(name) {
		return nil
	}
	var drive [2]func() (float64, error)
	for i, side := range []struct {
		p peer
		w wire
	}{{b.peers()[0], ours}, {p, theirs}} {
		s, st, err := b.open(side.p, m)
		if err != nil {
			return err
		}
		if s == nil {
			return fmt.Errorf("%s: %s", side.p.name, st.Error)
		}
		defer s.stop()
		if why := st.Failed[side.w.name]; why != "" {
			return fmt.Errorf("%s over %s: %s", side.p.name, side.w.name, why)
		}
		open, err := side.w.caller(s.at, side.p.fit(m))
		if err != nil {
			return err
		}
		drive[i] = func() (float64, error) {
			w, err := measure.Observe(conns, b.window/4, b.window, open)
			s.settle()
			return w.Rate(), err
		}
	}
	return b.row(name, "requests/s", bound, drive[0], drive[1])
}

func (b *bench) overBestJSON(m *model) error {
	_, p, w := b.fastest(m, func(p peer, w wire) bool { return p.name != "inferd" && w.json })
	if p.name == "" {
		b.say("the best peer over JSON: no server was measured with %s (-only table first)", m.Name)
		return nil
	}
	return b.pair("small model, REST JSON, 64 connections / "+p.name+", "+w.name, 5, 64, m, tfsJSON, p, w)
}

func (b *bench) overTriton(m *model) error {
	_, p, w := b.fastest(m, func(p peer, w wire) bool { return p.name == "Triton tuned" })
	if p.name == "" {
		b.say("Triton, tuned: not measured with %s (-only table first)", m.Name)
		return nil
	}
	return b.pair(fmt.Sprintf("%s saturated, gRPC, 8 connections / Triton tuned, %s", m.Name, w.name), 1.5, 8, m, tfsGRPC, p, w)
}

// order is how an engine is best asked: a process's threads, and in it batch and callers.
type order struct {
	Threads, Inter, Callers, Batch int
	Rate                           float64 // as it was found
}

func (o order) String() string {
	pool := ""
	if o.Inter > 0 {
		pool = ", its pool"
	}
	return fmt.Sprintf("%d callers, %d threads%s, batch %d", o.Callers, o.Threads, pool, o.Batch)
}

// found is what an order's rate is kept by: the same process is asked for more than one row.
func found(key string, o order) string {
	o.Rate = 0
	engine, model, _ := strings.Cut(key, ": ")
	if strings.HasPrefix(engine, "TensorFlow") {
		engine = "TensorFlow"
	}
	return fmt.Sprint(engine, model, o)
}

// search finds the best way to ask engines that start makes, among those given, and remembers it for the run.
func (b *bench) search(key string, each time.Duration, orders []order, start func(order) (*engine, error), rate func(*engine, order, time.Duration) (float64, error)) (order, error) {
	var best order
	if e, ok := b.store.get(key); ok {
		return best, json.Unmarshal(e.Choice, &best)
	}
	if b.found == nil {
		b.found = map[string]float64{}
	}
	var e *engine
	var of order
	defer func() {
		if e != nil {
			e.stop()
		}
	}()
	for _, o := range orders {
		if r := b.found[found(key, o)]; r > 0 {
			if o.Rate = r; r > best.Rate {
				best = o
			}
			continue
		}
		if e == nil || o.Threads != of.Threads || o.Inter != of.Inter || of.Callers != o.Callers {
			if e != nil {
				e.stop()
			}
			var err error
			if e, err = start(o); err != nil {
				return best, err
			}
			of = o
			if _, err := rate(e, o, each/4); err != nil { // kernels are compiled for each batch size when it is first met
				return best, err
			}
		}
		r, err := rate(e, o, each)
		if err != nil {
			return best, err
		}
		b.say("  %s, %s: %.1f/s", key, o, r)
		b.found[found(key, o)] = r
		if o.Rate = r; r > best.Rate {
			best = o
		}
	}
	choice, err := json.Marshal(best)
	if err != nil {
		return best, err
	}
	return best, b.store.add(entry{Key: key, Choice: choice})
}

func (b *bench) batches() []int {
	if b.quick {
		return []int{1, 4}
	}
	return []int{1, 2, 4, 8, 16, 32}
}

// startBare starts bare TensorFlow for an order.
func (b *bench) startBare(m *model) func(order) (*engine, error) {
	return func(o order) (*engine, error) {
		me, err := os.Executable()
		if err != nil {
			return nil, err
		}
		e, _, err := startEngine("bare TF_SessionRun", m, []string{"LIBTENSORFLOW=" + b.runtime}, me, "-child", "bare", m.home, m.Name, fmt.Sprint(o.Threads), fmt.Sprint(o.Inter))
		return e, err
	}
}

func askBare(e *engine, o order, d time.Duration) (float64, error) {
	return e.rate(d, o.Batch, o.Callers)
}

// computeOf starts ONNX Runtime or OpenVINO for an order.
func (b *bench) computeOf(name string, m *model) func(order) (*engine, error) {
	onnx := filepath.Join(m.home, "model.onnx")
	return func(o order) (*engine, error) {
		if _, err := os.Stat(onnx); err != nil && name == "onnxruntime" {
			b.say("converting %s to ONNX (once) ...", m.Name)
			if err := b.shell(b.venv("compute", "python"), "-m", "tf2onnx.convert", "--saved-model", m.dir(), "--output", onnx+".part", "--opset", "17", "--signature_def", "serving_default"); err != nil {
				return nil, err
			}
			if err := os.Rename(onnx+".part", onnx); err != nil {
				return nil, err
			}
		}
		e, worst, err := startEngine(name, m, nil, b.venv("compute", "python"), filepath.Join(b.python, "compute.py"), name, m.dir(),
			filepath.Join(m.home, "answers.json"), onnx, fmt.Sprint(o.Threads), fmt.Sprint(o.Callers))
		if err == nil {
			b.say("  %s's answers differ from TensorFlow's by at most %.1g of the largest", name, worst)
		}
		return e, err
	}
}

func askCompute(e *engine, o order, d time.Duration) (float64, error) { return e.rate(d, o.Batch) }

// overEngines compares inferd at the Servable, which is batcher, rings and worker without a wire, with bare TensorFlow and the other engines.
func (b *bench) overEngines(m *model) error {
	cores := runtime.NumCPU()
	label := m.Name + " at the Servable"
	names := []string{label + " / best bare TF_SessionRun, as saved", label + " / TensorFlow Serving's default session", label + " / ONNX Runtime", label + " / OpenVINO"}
	wanted := slices.DeleteFunc(names, func(n string) bool { return !b.missing(n) })
	if overORT[m.Name] == 0 {
		wanted = slices.DeleteFunc(wanted, func(n string) bool { return n == label+" / ONNX Runtime" || n == label+" / OpenVINO" })
	}
	if len(wanted) == 0 {
		return nil
	}
	ours, done, err := b.servable(m)
	if err != nil {
		return err
	}
	defer done()
	compare := func(name string, bound float64, key string, orders []order, start func(order) (*engine, error), rate func(*engine, order, time.Duration) (float64, error)) error {
		if bound == 0 || !slices.Contains(wanted, name) {
			return nil
		}
		best, err := b.search(key, b.window, orders, start, rate)
		if err != nil {
			return err
		}
		e, err := start(best)
		if err != nil {
			return err
		}
		defer e.stop()
		if _, err := rate(e, best, b.window/2); err != nil {
			return err
		}
		return b.row(name, "rows/s, "+best.String()+":", bound, ours, func() (float64, error) { return rate(e, best, b.window) })
	}
	var saved, serving, other []order
	for _, batch := range b.batches() {
		saved = append(saved, order{Threads: 1, Callers: cores, Batch: batch})
	}
	for _, batch := range b.batches() {
		saved = append(saved, order{Threads: cores, Callers: 1, Batch: batch})
	}
	for _, callers := range []int{1, cores} {
		for _, batch := range b.batches() {
			serving = append(serving, order{Threads: cores, Inter: cores, Callers: callers, Batch: batch})
		}
	}
	saved = append(saved, serving...)
	for _, o := range []order{{Threads: 1, Callers: cores}, {Threads: cores, Callers: 1}} {
		for _, batch := range b.batches() {
			if o.Batch = batch; batch <= 8 {
				other = append(other, o)
			}
		}
	}
	if err := compare(label+" / best bare TF_SessionRun, as saved", overSaved[m.Name], "TensorFlow as saved: "+m.Name, saved, b.startBare(m), askBare); err != nil {
		return err
	}
	if err := compare(label+" / TensorFlow Serving's default session", overServing[m.Name], "TensorFlow, default session: "+m.Name, serving, b.startBare(m), askBare); err != nil {
		return err
	}
	if err := compare(label+" / ONNX Runtime", overORT[m.Name], "ONNX Runtime: "+m.Name, other, b.computeOf("onnxruntime", m), askCompute); err != nil {
		return err
	}
	return compare(label+" / OpenVINO", overVINO[m.Name], "OpenVINO: "+m.Name, other, b.computeOf("openvino", m), askCompute)
}

// servableCallers keep the batcher's and the worker's places full.
const servableCallers = 16

// servable opens the model as the appliance does, and returns what drives it.
func (b *bench) servable(m *model) (rate func() (float64, error), done func(), err error) {
	cfg := config.Default()
	cfg.Runtime.Library = b.runtime
	t, err := appliance.NewTrial(context.Background(), cfg, nil)
	if err != nil {
		return nil, nil, err
	}
	t.Tune()
	s, v, _, err := t.Open(context.Background(), m.dir())
	if err != nil {
		t.Close()
		return nil, nil, err
	}
	done = func() {
		_ = s.Close() // the host ends the worker in any case
		t.Close()
	}
	sig := v.Signatures[inference.DefaultSignature]
	order := outputOrder(sig, m)
	ask := func(from int) error {
		x, err := m.tensor(from, 1)
		if err != nil {
			return err
		}
		resp, err := s.Predict(context.Background(), &inference.Request{Signature: sig, Inputs: []*tensor.Tensor{x}, Outputs: order})
		if err != nil {
			return err
		}
		defer resp.Release()
		var got []column
		for i, t := range resp.Outputs {
			got = append(got, column{Name: m.Outputs[i].Name, Floats: t.Data})
		}
		_, err = m.compare(got, from, 1)
		return err
	}
	for row := range m.Rows {
		if err := ask(row); err != nil {
			done()
			return nil, nil, fmt.Errorf("at the Servable: %w", err)
		}
	}
	x, err := m.tensor(0, 1)
	if err != nil {
		done()
		return nil, nil, err
	}
	return func() (float64, error) {
		return measure.Drive(servableCallers, b.window, func(int) (func() error, func(), error) {
			return func() error {
				resp, err := s.Predict(context.Background(), &inference.Request{Signature: sig, Inputs: []*tensor.Tensor{x}, Outputs: order})
				if err == nil {
					resp.Release()
				}
				return err
			}, func() {}, nil
		})
	}, done, nil
}
