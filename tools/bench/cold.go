// cold.go: how soon a core that was just started answers, and a worker beside what libtensorflow itself takes.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/inferd/inferd/inference/tfrt"
	"github.com/inferd/inferd/tools/measure"
)

// cold measures with the page cache as it is, which is warm from the second start on: to empty it takes root and hits everybody.
func (b *bench) cold() error {
	var answered []float64
	for range max(10, b.n) {
		took, err := b.coreAnswers()
		if err != nil {
			return err
		}
		answered = append(answered, took)
	}
	verdict("from exec of `inferd serve` to the first answer of /healthz", measure.Median(answered), 50, "ms")
	fmt.Printf("  from %.1f to %.1f ms in %d starts, files in the page cache\n", quantile(answered, 0), quantile(answered, 1), len(answered))

	t, err := b.trial(true)
	if err != nil {
		return err
	}
	defer t.Close()
	if _, err := loadAndAsk(t, b.smallDir()); err != nil { // the zygote is up afterwards
		return err
	}
	r, err := measure.Pairs("forked worker to its first answer / bare open and load", "ms", 0.5, b.n,
		func() (float64, error) { return loadAndAsk(t, b.smallDir()) }, b.bareOpens)
	if err != nil {
		return err
	}
	r.Below = true
	fmt.Println(r.Report())
	return nil
}

// coreAnswers is the time in milliseconds from a start to its first answer, with the small model there to be loaded.
func (b *bench) coreAnswers() (float64, error) {
	began := time.Now()
	s, err := b.start(b.runtime, filepath.Join(b.work, "models"))
	if err != nil {
		return 0, err
	}
	defer s.stop()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for ; time.Since(began) < time.Minute; time.Sleep(500 * time.Microsecond) {
		resp, err := client.Get("http://" + s.http + "/healthz")
		if err != nil {
			continue // it does not listen yet
		}
		took := time.Since(began)
		if resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("/healthz answers %s", resp.Status)
		}
		return float64(took.Microseconds()) / 1000, errors.Join(err, resp.Body.Close())
	}
	return 0, errors.New("no answer within a minute")
}

// bareOpens is the time in milliseconds that a process of its own takes to open libtensorflow and load the small model, without its start and without a run.
func (b *bench) bareOpens() (took float64, err error) {
	s, fields, err := b.self(context.Background(), "bare-open", b.smallDir())
	if err != nil {
		return 0, err
	}
	s.stop()
	_, err = fmt.Sscan(fields[0], &took)
	return took, err
}

// bareOpen is that process.
func bareOpen(dir string) error {
	began := time.Now()
	m, _, err := measure.LoadBare(dir, tfrt.Options{})
	if err != nil {
		return err
	}
	fmt.Println(float64(time.Since(began).Microseconds()) / 1000)
	return m.Close()
}
