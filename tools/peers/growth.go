// growth.go: what a request costs as more of something comes: connections, models, bytes, jobs.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/tools/measure"
)

// picture is one of the growth pictures.
type picture struct {
	name          string // of the file, and of what grows
	title, xLabel string
	series        []string // of points
	// knee says what runs out where the line bends. It was written before a whole run was made, as an expectation.
	knee string
}

var growths = []picture{
	{"connections", "Small model: the server's processor time per request against connections", "connections, each with one request in flight", []string{"REST JSON", "gRPC"},
		"One connection pays for waking core and worker for each request; with a few, batches share the wake-ups and the run. Beyond 8 the two processors are the limit: more connections wait longer, and cost the same."},
	{"models", "The server's processor time per request against models, 100 connections spread over them", "models, each in a worker of its own", []string{"REST JSON over all models"},
		"Requests for different models cannot share a run, and each worker is woken for its own: the cost climbs until every connection has a model for itself, and stays there. What runs out is memory: each worker's own."},
	{"bytes", "The server's processor time per request against the tensor's size, one tensor in and one out", "bytes of the tensor", []string{"gRPC tensor_content", "REST JSON of bytes"},
		"Up to some kilobytes a request costs what a request costs. Beyond, gRPC's cost is of copying (kernel, shared memory), JSON's of writing and reading numbers as text, from a hundred numbers on."},
	{"jobs", "A job's way through the durable queue against jobs waiting: submit, lease, finish, delete", "jobs waiting in the queue", []string{"submitted", "run through"},
		"The B+ tree grows by a level where the line bends, and the file past what a commit rewrites from memory; a million jobs wait at little more cost per job than ten thousand."},
}

// growth is `make bench-growth`.
func (b *bench) growth() error {
	for _, part := range []func() error{b.growConnections, b.growModels, b.growBytes, b.growJobs} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func pointKey(series string, x float64) string { return fmt.Sprintf("point %s %g", series, x) }

// unknown are the xs that a series has no point for yet.
func (b *bench) unknown(series string, xs []int) []int {
	return slices.DeleteFunc(slices.Clone(xs), func(x int) bool {
		_, there := b.store.get(pointKey(series, float64(x)))
		return there
	})
}

func (b *bench) addPoint(p point) error {
	b.say("%s, %s: %.1f us of processor time, p50 %.3f ms, %.0f/s, %.0f MB", p.Series, tick(p.X), p.Micros, p.P50, p.Rate, p.MB)
	return b.store.add(entry{Key: pointKey(p.Series, p.X), Point: &p})
}

// grown observes a server and makes a point of it.
func (b *bench) grown(s *server, name string, x, conns int, open measure.Caller) error {
	s.settle()
	cpu, began := measure.TreeCPU(s.pid()), time.Now()
	w, err := measure.Observe(conns, b.window/4, b.window, open)
	if err != nil {
		return fmt.Errorf("%s, %d: %w%s", name, x, err, s.said())
	}
	// What was begun or answered outside the window is in the processor time too; the time says by how much.
	share := b.window.Seconds() / time.Since(began).Seconds()
	p := point{Series: name, X: float64(x), Rate: w.Rate(), P50: ms(w.P50)}
	if w.Calls > 0 {
		p.Micros = (measure.TreeCPU(s.pid()) - cpu) * share / float64(w.Calls) * 1e6
	}
	p.MB = float64(s.memory()) / 1e6
	return b.addPoint(p)
}

// serve starts inferd on a folder of models and waits until it is ready.
func (b *bench) serve(models string, flags ...string) (*server, error) {
	work, err := os.MkdirTemp(b.home, "work-")
	if err != nil {
		return nil, err
	}
	var ports [3]int
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	env, argv, err := startInferd(b, &model{home: models}, work, ports)
	if err != nil {
		return nil, err
	}
	s, err := launch(filepath.Join(b.home, "log-growth.txt"), env, append(argv, flags...)...)
	if err != nil {
		return nil, err
	}
	s.work, s.at = work, address{"127.0.0.1:" + strconv.Itoa(ports[0]), "127.0.0.1:" + strconv.Itoa(ports[1])}
	return s, s.await("/readyz")
}

// await waits for a path to answer 200.
func (s *server) await(path string) error {
	for began := time.Now(); time.Since(began) < patience; time.Sleep(20 * time.Millisecond) {
		if resp, err := client.Get("http://" + s.at.http + path); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == 200 {
				return nil
			}
		}
		if s.gone() {
			return fmt.Errorf("the server ended%s", s.said())
		}
	}
	return fmt.Errorf("%s was not answered within %s%s", path, patience, s.said())
}

func (b *bench) growConnections() error {
	counts := []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000}
	if len(b.unknown("REST JSON", counts))+len(b.unknown("gRPC", counts)) == 0 {
		return nil
	}
	m, err := readModel(filepath.Join(b.home, "models", "mlp"))
	if err != nil {
		return err
	}
	s, err := b.serve(m.home)
	if err != nil {
		return err
	}
	defer s.stop()
	for _, way := range []struct {
		name string
		w    wire
	}{{"REST JSON", tfsJSON}, {"gRPC", tfsGRPC}} {
		if _, err := b.ask(s, &way.w, m, 0, m.Rows); err != nil {
			return err
		}
		open, err := way.w.caller(s.at, m)
		if err != nil {
			return err
		}
		for _, n := range b.unknown(way.name, counts) {
			if err := b.grown(s, way.name, n, n, open); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) growModels() error {
	const name = "REST JSON over all models"
	counts := []int{1, 2, 5, 10, 20, 50, 100}
	if b.quick {
		counts = counts[:5]
	}
	if len(b.unknown(name, counts)) == 0 {
		return nil
	}
	models, err := os.MkdirTemp(b.home, "models-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(models) }()
	m := modeltest.TwoLayer()
	if _, err := m.Publish(filepath.Join(models, "m0"), 1); err != nil {
		return err
	}
	s, err := b.serve(models, "--defaults.optimize", "off") // how each of a hundred is run best takes a hundred times as long to measure
	if err != nil {
		return err
	}
	defer s.stop()
	body := []byte(`{"instances": [[` + strings.TrimSuffix(strings.Repeat("0.25,", 32), ",") + `]]}`)
	for _, n := range b.unknown(name, counts) {
		for i := range n {
			if _, err := os.Stat(filepath.Join(models, fmt.Sprint("m", i))); err != nil {
				if _, err := m.Publish(filepath.Join(models, fmt.Sprint("m", i)), 1); err != nil {
					return err
				}
			}
		}
		for i := range n {
			if err := s.await(fmt.Sprintf("/v1/models/m%d/versions/1", i)); err != nil {
				return err
			}
		}
		callers := make([]measure.Caller, n)
		for i := range callers {
			callers[i] = measure.HTTPCaller(s.at.http, fmt.Sprintf("/v1/models/m%d:predict", i), body)
		}
		// The status may say AVAILABLE a moment before the last model can be asked.
		for i := range n {
			if err := s.answers(fmt.Sprintf("/v1/models/m%d:predict", i), body); err != nil {
				return err
			}
		}
		if err := b.grown(s, name, n, 100, func(i int) (func() error, func(), error) { return callers[i%n](i) }); err != nil {
			return err
		}
	}
	return nil
}

// answers waits until a request is answered.
func (s *server) answers(path string, body []byte) error {
	var err error
	for began := time.Now(); time.Since(began) < patience; time.Sleep(20 * time.Millisecond) {
		if _, _, err = post(s.at.http, request{path: path, body: body}); err == nil {
			return nil
		}
	}
	return err
}

func (b *bench) growBytes() error {
	sizes := []int{4, 32, 256, 2 << 10, 16 << 10, 128 << 10, 1 << 20, 8 << 20, 32 << 20}
	if len(b.unknown("gRPC tensor_content", sizes)) == 0 && len(b.unknown("REST JSON of bytes", sizes[:len(sizes)-1])) == 0 {
		return nil
	}
	models, err := os.MkdirTemp(b.home, "models-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(models) }()
	if _, err := modeltest.WideHalfPlusTwo().Publish(filepath.Join(models, "wide"), 1); err != nil {
		return err
	}
	s, err := b.serve(models, "--grpc.tensor_content", "--limits.max_request_bytes", "256MiB")
	if err != nil {
		return err
	}
	defer s.stop()
	for _, way := range []struct {
		name string
		w    wire
		most int
	}{{"gRPC tensor_content", tfsGRPC, 32 << 20}, {"REST JSON of bytes", tfsJSON, 8 << 20}} {
		series := way.name // "REST JSON" alone is of connections
		for _, size := range b.unknown(series, sizes) {
			if size > way.most {
				continue
			}
			m := &model{Name: "wide", Rows: 1, Input: column{Name: "x", Datatype: "FP32", Shape: []int{size / 4}}, Outputs: []column{{Name: "y", Datatype: "FP32", Shape: []int{size / 4}}}}
			for i := range size / 4 {
				v := float32(i%1000) / 1000
				m.Input.Floats = appendFloats(m.Input.Floats, v)
				m.Outputs[0].Floats = appendFloats(m.Outputs[0].Floats, v/2+2)
			}
			if size < 1<<20 { // measure.Ask reads messages of up to 4 MiB
				if _, err := b.ask(s, &way.w, m, 0, 1); err != nil {
					return fmt.Errorf("%s, %d bytes: %w", series, size, err)
				}
			}
			open, err := way.w.caller(s.at, m)
			if err != nil {
				return err
			}
			if size > 2<<10 && way.w.grpc {
				r, err := way.w.make(m, 0, 1)
				if err != nil {
					return err
				}
				open = measure.GRPCCaller(s.at.grpc, r.path, r.body) // the answer is past the light caller's window
			}
			window := b.window
			if size >= 1<<20 {
				b.window *= 4
			}
			err = b.grown(s, series, size, 4, open)
			b.window = window
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// ownCPU is the processor time of this process in seconds.
func ownCPU() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// growthTable is what the pictures show, as numbers.
func growthTable(points []*point) string {
	if len(points) == 0 {
		return ""
	}
	var w strings.Builder
	w.WriteString("\n## Growth\n\n| what | at | processor µs each | p50 ms | per second | PSS MB |\n|---|---|---|---|---|---|\n")
	for _, p := range points {
		fmt.Fprintf(&w, "| %s | %s | %s | %s | %s | %s |\n", p.Series, tick(p.X), short(p.Micros), short(p.P50), short(p.Rate), short(p.MB))
	}
	return w.String()
}

func growthPictures(points []*point) map[string]string {
	out := map[string]string{}
	for _, g := range growths {
		var all []series
		for _, name := range g.series {
			s := series{name: name}
			for _, p := range points {
				if p.Series == name {
					s.xs, s.ys = append(s.xs, p.X), append(s.ys, p.Micros)
				}
			}
			if len(s.xs) > 0 {
				all = append(all, s)
			}
		}
		if len(all) > 0 {
			out["growth-"+g.name+".svg"] = lines(g.title, g.xLabel, "microseconds of processor time each", "Expected before it was measured: "+g.knee, all)
		}
	}
	return out
}
