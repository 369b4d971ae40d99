// update.go: what an update costs those who are served meanwhile: the latency of another model while versions load.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/tools/measure"
)

const (
	busyPath = "/v1/models/busy:predict"
	busyBody = `{"inputs": 0.5}`
	denseMB  = 105 // what a version of modeltest.Dense(denseSide) has on disk
)

const denseSide = 5120

// serveBusy finds the size of a model whose runs take at least 5 ms each while it has the machine to itself, and serves it.
func (b *bench) serveBusy(models string, args ...string) (*server, error) {
	for side := 512; ; side *= 2 {
		if err := os.RemoveAll(filepath.Join(models, "busy")); err != nil {
			return nil, err
		}
		if _, err := modeltest.Busy(side).Publish(filepath.Join(models, "busy"), 1); err != nil {
			return nil, err
		}
		s, err := b.serve(models, args...)
		if err != nil {
			return nil, err
		}
		if err := nearScalar(s, 0.5+1/float64(side)); err != nil {
			s.stop()
			return nil, err
		}
		rate, err := measure.Drive(1, time.Second, measure.HTTPCaller(s.http, busyPath, []byte(busyBody)))
		if err == nil && rate <= 200 {
			fmt.Printf("  the model that is watched: %.1f ms per run\n", 1000/rate)
			return s, nil
		}
		s.stop()
		if err != nil {
			return nil, err
		}
	}
}

func nearScalar(s *server, want float64) error {
	answer, err := post(s.http, busyPath, []byte(busyBody))
	if err != nil {
		return err
	}
	var got struct{ Outputs float64 }
	if err := json.Unmarshal(answer, &got); err != nil || math.Abs(got.Outputs-want) > 1e-3 {
		return fmt.Errorf("answered %.200q where %v is right", answer, want)
	}
	return nil
}

// churn keeps renaming versions of a model into place, each when the one before is live, until stop is closed; it returns how many went live.
// The folders are used again and again under new numbers.
type churn struct {
	s     *server
	model string
	base  string
	spare []string // folders that wait for a number
	live  int64    // the number that serves
}

// next brings a higher number into place and waits until it is live.
func (c *churn) next() error {
	n := c.live + 1
	dir := c.spare[0]
	if err := os.Rename(dir, filepath.Join(c.base, strconv.FormatInt(n, 10))); err != nil {
		return err
	}
	c.spare = c.spare[1:]
	if err := waitLatest(c.s, c.model, n); err != nil {
		return err
	}
	if c.live > 0 {
		if err := waitGone(c.s, c.model, c.live); err != nil { // until then its files may be read
			return err
		}
		back := filepath.Join(filepath.Dir(filepath.Dir(c.base)), "spare", c.model+"-"+strconv.FormatInt(c.live, 10))
		if err := os.Rename(filepath.Join(c.base, strconv.FormatInt(c.live, 10)), back); err != nil {
			return err
		}
		c.spare = append(c.spare, back)
	}
	c.live = n
	return nil
}

// newChurn writes the model three times, beside the models directory.
func newChurn(s *server, models string, m *modeltest.Model) (*churn, error) {
	c := &churn{s: s, model: m.Name, base: filepath.Join(models, m.Name)}
	spare := filepath.Join(filepath.Dir(models), "spare")
	for i := range 3 {
		dir := filepath.Join(spare, fmt.Sprintf("%s-new-%d", m.Name, i))
		if err := m.Save(dir); err != nil {
			return nil, err
		}
		c.spare = append(c.spare, dir)
	}
	return c, os.MkdirAll(c.base, 0o755)
}

// during runs f while versions come and go.
func (c *churn) during(f func() (float64, error)) (value float64, loads int64, err error) {
	var wg sync.WaitGroup
	stop := make(chan struct{})
	before := c.live
	var failed error
	wg.Go(func() {
		for failed == nil {
			select {
			case <-stop:
				return
			default:
				failed = c.next()
			}
		}
	})
	value, err = f()
	close(stop)
	wg.Wait()
	return value, c.live - before, errors.Join(err, failed)
}

// p99Load is the 99th percentile of a model's latency at half of its capacity, while versions of another one load and warm up, over the same
// without.
func (b *bench) p99Load() error {
	binaries := []string{b.inferd}
	if b.versus != "" {
		binaries = append(binaries, b.versus)
	}
	for i, binary := range binaries {
		b.inferd = binary
		if err := b.p99LoadOf(i > 0); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) p99LoadOf(versus bool) error {
	root, err := os.MkdirTemp(b.work, "p99-load-")
	if err != nil {
		return err
	}
	models := filepath.Join(root, "models")
	s, err := b.serveBusy(models, "--defaults.probation.time", "0s") // else a window would see one load, and then a minute of probation
	if err != nil {
		return err
	}
	defer s.stop()
	ask := measure.HTTPCaller(s.http, busyPath, []byte(busyBody))
	capacity, err := measure.Drive(2*b.callers, 3*time.Second, ask)
	if err != nil {
		return err
	}
	c, err := newChurn(s, models, modeltest.Dense(denseSide))
	if err != nil {
		return err
	}
	if err := c.next(); err != nil {
		return err
	}
	window := max(b.each, 8*time.Second)
	fmt.Printf("  capacity %.0f/s, so %.0f/s for %s per window; versions of %d MB load one after the other\n", capacity, capacity/2, window, denseMB)
	var all [2][]float64
	at := func(side int) (float64, error) {
		took, err := openLoop(capacity/2, window, ask)
		if err != nil {
			return 0, err
		}
		all[side] = append(all[side], took...)
		return quantile(took, 0.99), nil
	}
	loads := int64(0)
	r, err := measure.Pairs("p99 while 100 MB versions load / without", "ms", 1.25, b.n,
		func() (float64, error) {
			p99, n, err := c.during(func() (float64, error) { return at(0) })
			loads += n
			return p99, err
		},
		func() (float64, error) { return at(1) })
	if err != nil {
		return err
	}
	if r.Below = true; versus {
		r.Name, r.Bound = "p99 while versions load / without, the other binary", 0
	}
	fmt.Println(r.Report())
	fmt.Printf("  p99 %.2f ms over %.2f ms; of all windows: p50 %.2f over %.2f, p99 %.2f over %.2f, worst %.1f over %.1f ms; %d versions went live\n",
		measure.Median(r.A), measure.Median(r.B), quantile(all[0], 0.5), quantile(all[1], 0.5), quantile(all[0], 0.99), quantile(all[1], 0.99),
		quantile(all[0], 1), quantile(all[1], 1), loads)
	return nil
}

// loadTook is how long the worker took for the version's load and its warm-up, as inferd reports it.
func loadTook(s *server, model string, version int64) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := control.Dial(s.control)
	defer c.Close()
	st, err := c.Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, m := range st.Models {
		for _, v := range m.Versions {
			if m.Name == model && v.Number == version && v.Proof != nil {
				return time.Duration(v.Proof.LoadMicros) * time.Microsecond, nil
			}
		}
	}
	return 0, fmt.Errorf("the status has no load time of %s version %d", model, version)
}
